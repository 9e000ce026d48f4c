"""Trained networks of a run as ONNX files, which any verifier can read."""

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from baselines.lipschitz.layers import CachedWeight
from baselines.lipschitz.linf import LinfDistance
from bench.basics.errors import UsageError
from bench.contract import Method
from bench.export.plain import NotPlain, write_plain
from bench.model_files.runtime import INSTALL_HINT

# Before 14 batch normalisation does not say whether it trains, and the reference implementation takes it to.
OPSET = 14
TOLERANCE = 1e-4
CHECKED_INPUTS = 3


class OneOutput(nn.Module):
    """A score network as (1, *shape) -> (1, 1), the form verifiers expect: sensitive iff the output is positive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).reshape(-1, 1)


class Distances(nn.Module):
    """x (N, d) -> ||x - w_o||_inf for each of the units o, (N, units), in operations that ONNX has."""

    def __init__(self, centre: Tensor) -> None:
        super().__init__()
        self.centre = nn.Parameter(centre)

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None, :] - self.centre).abs().amax(dim=2)


def with_fixed_weights(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of that precision whose layers hold the weights they would compute, so that ONNX can have them.

    Raises UsageError for circular convolutions, which work on Fourier transforms.
    """
    model = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, CachedWeight):
            weight = layer.weight()
            if weight.is_complex():
                raise UsageError(
                    "its circular convolutions use Fourier transforms, which verifiers do not read"
                )
            fixed = weight.detach().to(dtype).clone
            layer.compute_weight = fixed  # type: ignore[method-assign]  # of this copy alone
        for name, child in layer.named_children():
            if isinstance(child, LinfDistance):
                setattr(layer, name, Distances(child.centre.detach()))
    return model


def write_onnx(method: Method, input_shape: tuple[int, ...], path: Path) -> None:
    """Write a trained method's score network to ``path``, in float32 for one input at a time.

    As plainly as it can be, see ``plain``; else as torch exports it. The file is checked against the method with ONNX's
    reference implementation. Raises UsageError saying why a method has no such network: a smoothed classifier's vote,
    or an operation that ONNX lacks.
    """
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise UsageError(INSTALL_HINT) from error
    if method.guarantee != "deterministic":
        raise UsageError("its classifier is a vote over noise, not a network")
    x = torch.rand(CHECKED_INPUTS, *input_shape, generator=torch.Generator().manual_seed(0))
    try:
        _write(method, input_shape, path)
        reference = ReferenceEvaluator(onnx.load(path))
        found = np.concatenate([next(iter(reference.run(None, {"X": row[None].numpy()}))) for row in x])
    except Exception as error:  # exporter and reference raise many types for what they do not know
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"its network cannot be written as ONNX ({type(error).__name__}: {reason})"
        ) from error
    judge = copy.copy(method)
    judge.model = copy.deepcopy(method.model).eval()
    with torch.no_grad():
        expected = judge.score(x).reshape(-1, 1).numpy()
    if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
        path.unlink()
        raise UsageError("its network as ONNX computes other scores")


def _write(method: Method, input_shape: tuple[int, ...], path: Path) -> None:
    try:
        write_plain(with_fixed_weights(method.model, torch.float64), input_shape, path)
        return
    except NotPlain:
        network = OneOutput(with_fixed_weights(method.model, torch.float32))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter that needs no further package
        torch.onnx.export(
            network,
            (torch.zeros(1, *input_shape),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["X"],
            output_names=["Y"],
        )
