"""Squeeze-excite gates and Einsum in ONNX files: certified radii hold at points attacked through onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import Tensor

from baselines.bounds import BoundedScore, RadiusSearch
from bench.methods.given import GivenNetwork
from bench.model_files import open_model

SHAPE, LOGITS, POINTS = (1, 8, 8), 10, 30
ORDER = {"l1": 1, "l2": 2, "linf": float("inf")}


def nodes_of(kind: str) -> list:
    """conv, ReLU, a squeeze-excite gate, conv, ReLU, and a product with a constant, to ten logits."""
    node = helper.make_node
    gate = (
        node("HardSigmoid", ["e"], ["gate"], alpha=1 / 6)
        if kind == "hard"
        else node("Sigmoid", ["e"], ["gate"])
    )
    product = ["gate", "h"] if kind == "hard" else ["h", "gate"]
    return [
        node("Conv", ["x", "w1", "b1"], ["z"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["z"], ["h"]),
        node("GlobalAveragePool", ["h"], ["mean"]),
        node("Conv", ["mean", "w2"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("Conv", ["r", "w3", "b3"], ["e"]),
        gate,
        node("Mul", product, ["gated"]),
        node("Conv", ["gated", "w4"], ["y2"], strides=[2, 2]),
        node("Relu", ["y2"], ["h2"]),
        node("Flatten", ["h2"], ["flat"]),
        node("Einsum", ["flat", "w5"], ["y"], equation="bi,ij->bj"),
    ]


def write(kind: str, path: Path) -> Path:
    rng = np.random.default_rng(3)
    sizes = {
        "w1": (6, 1, 3, 3),
        "b1": (6,),
        "w2": (3, 6, 1, 1),
        "w3": (6, 3, 1, 1),
        "b3": (6,),
        "w4": (8, 6, 2, 2),
    }
    sizes["w5"] = (8 * 4, LOGITS)
    weights = [
        numpy_helper.from_array((rng.normal(size=size) / np.sqrt(np.prod(size[1:]))).astype(np.float32), name)
        for name, size in sizes.items()
        if name != "w5"
    ]
    weights.append(numpy_helper.from_array(rng.normal(size=sizes["w5"]).astype(np.float32), "w5"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", LOGITS])
    graph = helper.make_graph(nodes_of(kind), "g", [x], [y], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def attacked(score: torch.nn.Module, x: Tensor, radius: Tensor, norm: str) -> Tensor:
    """Points (POINTS, *SHAPE) of the ball around one input: random starts, moved down the score."""
    generator = torch.Generator().manual_seed(0)
    step = radius * torch.randn(POINTS, *SHAPE, generator=generator, dtype=torch.float64)
    for _ in range(15):
        step = inside(step, radius, norm).requires_grad_()
        (gradient,) = torch.autograd.grad(score(x + step).sum(), step)
        flat = gradient.flatten(1)
        if norm == "linf":
            move = flat.sign()
        elif norm == "l1":
            move = torch.where(flat.abs() >= flat.abs().amax(dim=1, keepdim=True), flat.sign(), 0.0)
        else:
            move = torch.nn.functional.normalize(flat, dim=1)
        step = step.detach() - 0.5 * radius * move.reshape(step.shape)
    return x + inside(step, radius, norm)


def inside(step: Tensor, radius: Tensor, norm: str) -> Tensor:
    size = torch.linalg.vector_norm(step.flatten(1), ord=ORDER[norm], dim=1).reshape(-1, 1, 1, 1)
    return step * (radius / size.clamp(min=1e-300)).clamp(max=1.0)


@pytest.mark.parametrize("kind", ["sigmoid", "hard"])
def test_radii_of_a_squeeze_excite_network_hold_in_onnxruntime(kind, tmp_path):
    path = write(kind, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path)
    x = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = session.run(None, {"x": x.float().numpy()})[0]
    wanted = int(np.bincount(logits.argmax(axis=1)).argmax())
    x = x[logits.argmax(axis=1) == wanted][:3]
    model = open_model(path, SHAPE, logit=wanted)
    network = GivenNetwork(model.score, SHAPE)
    assert model.unread == network.unreadable == "" and len(x) == 3
    search = BoundedScore(network.layered, SHAPE)
    for norm in ORDER:
        radii = RadiusSearch(search, x, norm).radii("crown").radius
        assert (radii > 0).all() and torch.isfinite(radii).all()
        for scale, holds in ((1.0, True), (30.0, False)):
            found = [
                attacked(model.score, point, scale * radius, norm)
                for point, radius in zip(x, radii, strict=True)
            ]
            y = session.run(None, {"x": torch.cat(found).float().numpy()})[0]
            kept = y[:, wanted] > np.delete(y, wanted, axis=1).max(axis=1)
            assert kept.all() == holds, (norm, scale)
