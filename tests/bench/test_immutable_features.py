"""Features that nobody can change: methods that respect them gain radii, and no counterexample moves them."""

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from synthetic import blobs, plan

from baselines.branch_and_bound import Budget, verify
from bench.methods.alpha_beta_crown import AlphaBetaCROWN
from bench.methods.crown import CROWN
from bench.methods.fcnn import FCNN
from bench.running.evaluate import Evaluation
from fcnn.training import TrainSettings


def test_methods_that_respect_mutable_features_have_larger_radii_for_fewer_changes():
    data = blobs()
    fewer = dataclasses.replace(data, mutable=np.array([True, False, True, False]))
    for kind, recipe in ((FCNN, {"hidden": (8,)}), (CROWN, {"hidden": (8,)})):
        assert kind.respects_mutable
        settings = dataclasses.replace(
            kind.Settings(), train=TrainSettings(epochs=20, batch_size=32, learning_rate=0.02), **recipe
        )
        some, every = (
            Evaluation(kind(settings), part, plan(kind.name)).run().radii for part in (fewer, data)
        )
        both = some.merge(every, on=["certificate", "domain", "norm", "index"], suffixes=("", "_every"))
        assert len(both) == len(every) and (both["outcome"] == "certified").any()
        certified = both[both["outcome"] == "certified"]
        assert (certified["radius"] >= certified["radius_every"] * (1 - 2e-3)).all()
        linf = certified[certified["norm"] == "linf"]
        assert (linf["radius"] > 1.2 * linf["radius_every"]).mean() > 0.9


@pytest.mark.parametrize(
    ("module", "name", "options"),
    [
        ("linear", "Linear", {}),
        ("crown", "CROWN", {}),
        ("alpha_beta_crown", "AlphaBetaCROWN", {"domains": ("free",), "max_domains": 2}),
        ("cayley", "Cayley", {}),
        ("smoothing_gaussian", "SmoothingGaussian", {"draws": 3000}),
        ("smoothing_laplace", "SmoothingLaplace", {"draws": 3000}),
        ("smoothing_uniform", "SmoothingUniform", {"draws": 3000}),
        ("smoothing_splitting", "SmoothingSplitting", {}),
    ],
)
def test_on_a_linear_score_radii_lie_between_those_of_all_features_and_the_distance_in_the_mutable_ones(
    module, name, options
):
    kind = getattr(importlib.import_module(f"bench.methods.{module}"), name)
    weight, bias = torch.tensor([3.0, 0.4, -2.0, 0.3, 0.2, 1.0]), 0.1
    mutable = torch.tensor([False, True, False, True, True, False])
    x = torch.tensor([[0.6, 0.4, 0.7, 0.5, 0.4, 0.3], [0.4, 0.2, 0.5, 0.1, 0.8, 0.4]])
    margin = x.double() @ weight.double() + bias + 1e-6
    norms = ["l1", "l2", "linf"]
    radii = {}
    for mask in (None, mutable):
        method = kind(kind.Settings(**options))
        method.build((6,), seed=0)
        method.use_linear(weight, bias)
        method.mutable = mask
        curve = next(curve for curve in method.curves() if curve.domain == "free")
        asked = [norm for norm in norms if norm in curve.norms]
        found = method.certify(x, curve, asked, seed=0)
        radii[mask is None] = {norm: torch.as_tensor(found[norm].radius) for norm in asked}
    dual = {"l1": float("inf"), "l2": 2, "linf": 1}
    for norm, radius in radii[False].items():
        exact = margin / torch.linalg.vector_norm((weight * mutable).double(), ord=dual[norm])
        assert (radius > 0).all() and (radius <= exact).all()
        assert (radius >= radii[True][norm] * 0.9).all()
    if kind.respects_mutable:
        assert (radii[False]["l2"] > 1.3 * radii[True]["l2"]).all()


def test_adversarial_points_of_a_method_that_moves_everything_are_forgotten():
    class Blind(AlphaBetaCROWN):
        respects_mutable = False

    settings = Blind.Settings(
        hidden=(8,),
        max_domains=2,
        domains=("free",),
        train=TrainSettings(epochs=10, batch_size=16, learning_rate=0.02),
    )
    fewer = dataclasses.replace(blobs(), mutable=np.array([True, False, True, False]))
    some, seeing = (
        Evaluation(kind(settings), fewer, plan(norms=("linf",), test_inputs=9)).run().radii
        for kind in (Blind, AlphaBetaCROWN)
    )
    assert some["radius_upper"].isna().all() and seeing["radius_upper"].notna().any()


def test_counterexamples_of_branch_and_bound_leave_immutable_features_alone():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 1)).double()
    x = torch.rand(12, 6, dtype=torch.float64)
    with torch.no_grad():
        model[-1].bias.add_(0.05 - model(x).min())
    mutable = torch.tensor([True, False, True, False, True, False])
    for norm, radius in (("l1", 1.2), ("l2", 0.7), ("linf", 0.4)):
        for domain in ("free", "box"):
            found = verify(model, x, radius, norm, domain, Budget(200), mutable=mutable)
            wrong = torch.as_tensor(found.not_robust)
            assert wrong.any() and found.robust.any()
            points = found.counterexample[wrong]
            assert (points == x[wrong])[:, ~mutable].all() and (points != x[wrong]).any()
            corner = x + radius * 0.999 * torch.eye(6)[0] * (1 if norm == "l1" else 0.5)
            moved = corner.clamp(0, 1)[torch.as_tensor(found.robust)]
            assert (model(moved) > 0).all()
