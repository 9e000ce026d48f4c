"""Bounds against those of auto-LiRPA, by the authors of CROWN; whichever release is installed, or none."""

import importlib.util
import logging
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from baselines.bounds import Balls, BoundedScore
from baselines.networks import Normalise

ORDER = {"l1": 1, "l2": 2, "linf": np.inf}


@pytest.fixture(scope="module")
def library() -> types.ModuleType:
    """auto-LiRPA. Release 0.3 needs four things that torch and NumPy no longer offer; newer ones are left alone."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        pytest.skip("auto-LiRPA is not installed")
    helper = importlib.import_module("torch.onnx.symbolic_helper")
    stub = types.ModuleType("numpy.lib.arraysetops")
    stub.isin = np.isin
    handlers = logging.root.handlers[:]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True):
        if stub.__name__ not in sys.modules:
            patch.setitem(sys.modules, stub.__name__, stub)
        if not hasattr(helper, "_set_opset_version"):
            patch.setattr(helper, "_set_opset_version", lambda version: None, raising=False)
        if not hasattr(torch._C.Node, "__getitem__") and hasattr(helper, "_node_get"):
            torch._C.Node.__getitem__ = helper._node_get
        package = importlib.import_module("auto_LiRPA")
    logging.root.handlers[:] = handlers
    members = package.BoundedModule._named_members
    if "remove_duplicate" not in members.__code__.co_varnames and not members.__code__.co_flags & 0x08:

        def named_members(self, get, prefix="", recurse=True, **newer):
            return members(self, get, prefix, recurse)

        package.BoundedModule._named_members = named_members
    return package


def lower_by(
    library: types.ModuleType, model: nn.Module, x: torch.Tensor, radius: float, norm: str, method: str
) -> torch.Tensor:
    """The library's own lower bounds (N,); in float64, as ours are."""
    helper = importlib.import_module("torch.onnx.symbolic_helper")
    settings = getattr(sys.modules[helper._node_get.__module__], "GLOBALS", None)
    before = getattr(settings, "export_onnx_opset_version", None)
    torch.set_default_dtype(torch.float64)
    try:
        if before is not None:
            settings.export_onnx_opset_version = 12
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = library.BoundedModule(
                model, torch.zeros(2, x.shape[1]), bound_opts={"conv_mode": "matrix"}
            )
        ball = library.PerturbationLpNorm(norm=ORDER[norm], eps=radius)
        lower, _ = graph.compute_bounds(x=(library.BoundedTensor(x, ball),), method=method)
    finally:
        torch.set_default_dtype(torch.float32)
        if before is not None:
            settings.export_onnx_opset_version = before
    return lower.detach().squeeze(1)


@pytest.mark.parametrize("norm", ORDER)
@pytest.mark.parametrize("widths", [(12,), (12, 9)])
def test_bounds_are_those_of_auto_lirpa(library, widths, norm):
    torch.manual_seed(0)
    layers, before = [], 10
    for width in widths:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    model = nn.Sequential(*layers, nn.Linear(before, 1)).double().eval()
    x = torch.rand(5, 10, dtype=torch.float64)
    bounded = BoundedScore(model, (10,))
    for share in (0.1, 0.5, 2.0):
        radius = share * {"l1": 1.0, "l2": 0.5, "linf": 0.1}[norm]
        balls = Balls(x, torch.full((5,), radius, dtype=torch.float64), norm)
        theirs = lower_by(library, model, x, radius, norm, "CROWN")
        ours = bounded.lower(balls, "crown")
        if len(widths) == 1:  # deeper inside, ours are cut with interval bounds
            interval = lower_by(library, model, x, radius, norm, "IBP")
            torch.testing.assert_close(ours, torch.maximum(theirs, interval), rtol=1e-9, atol=1e-9)
        assert (ours >= theirs - 1e-9).all()
        assert (ours <= theirs + 0.2 * theirs.abs() + 0.2).all()


@pytest.mark.parametrize("norm", ORDER)
def test_a_network_that_begins_with_a_normalisation_is_bounded_as_the_folded_one(norm):
    """(x - mean) / std before the first layer: auto-LiRPA 0.7 forgets the perturbation there in l1 and l2."""
    torch.manual_seed(0)
    mean, std = torch.rand(6, dtype=torch.float64), 0.1 + torch.rand(6, dtype=torch.float64)

    class Standardised(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body((x - mean) / std)

    body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double().requires_grad_(False)
    folded = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), body[2]).double().requires_grad_(False)
    folded[0].weight.copy_(body[0].weight / std)
    folded[0].bias.copy_(body[0].bias - body[0].weight @ (mean / std))
    scalar = nn.Sequential(Normalise(0.3, 0.2), body)
    x = torch.rand(4, 6, dtype=torch.float64)
    plain, first, by_one = (BoundedScore(model, (6,)) for model in (folded, Standardised(body), scalar))
    for domain in ("free", "box"):
        balls = Balls(x, torch.full((4,), 0.2, dtype=torch.float64), norm, domain)
        for method in ("ibp", "crown_ibp", "crown", "alpha_crown"):
            torch.testing.assert_close(first.lower(balls, method), plain.lower(balls, method))
            for bounded in (first, by_one):
                assert (bounded.lower(balls, method) < bounded.score(x)).all(), "the perturbation counts"


def test_no_release_of_auto_lirpa_is_imported_by_a_certificate(monkeypatch):
    """So that a release with other keywords, or none, changes nothing."""
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)  # an import would raise
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    balls = Balls(torch.rand(2, 4).double(), torch.full((2,), 0.1).double(), "l2")
    assert BoundedScore(model, (4,)).lower(balls, "alpha_crown").isfinite().all()
