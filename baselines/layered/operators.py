"""The operators that are known: affine ones, activations, and what is rewritten exactly with ReLUs.

Whatever stands on none of these lists is refused. An affine operator is affine in the arguments listed *together*;
reading checks that by evaluation too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
ALL, FIRST = "all", "first"

# How many of the arguments may depend on the input: all at once, only the first, or one of the two factors.
_JOINTLY = (
    aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar, aten.rsub.Tensor,
    aten.neg.default, aten.cat.default, aten.stack.default, aten.slice_scatter.default, aten.select_scatter.default,
    aten.copy.default,
)  # fmt: skip
_FIRST = (
    aten.mul.Scalar, aten.div.Scalar, aten.div.Tensor, aten.avg_pool1d.default, aten.avg_pool2d.default,
    aten.avg_pool3d.default, aten.adaptive_avg_pool1d.default, aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.mean.dim, aten.mean.default, aten.sum.dim_IntList, aten.sum.default,
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten._reshape_copy.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default, aten.t.default, aten.transpose.int, aten.permute.default, aten.movedim.int,
    aten.slice.Tensor, aten.select.int, aten.index_select.default, aten.index.Tensor, aten.gather.default,
    aten.narrow.default, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int,
    aten.constant_pad_nd.default, aten.reflection_pad1d.default, aten.reflection_pad2d.default,
    aten.replication_pad1d.default, aten.replication_pad2d.default, aten.expand.default, aten.repeat.default,
    aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default, aten._to_copy.default,
    aten.lift_fresh_copy.default, aten.flip.default, aten.roll.default, aten.cumsum.default,
    aten.upsample_nearest1d.default, aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec,
    aten._upsample_nearest_exact2d.default, aten.upsample_bilinear2d.default, aten.upsample_bilinear2d.vec,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.unfold.default, aten.im2col.default,
    aten.as_strided.default, aten.diagonal.default,
)  # fmt: skip
FACTORS: dict[Callable, tuple[int, int]] = {
    aten.mul.Tensor: (0, 1),
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.dot.default: (0, 1),
    aten.matmul.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.addmv.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.linear.default: (0, 1),
    aten.convolution.default: (0, 1),
    aten._convolution.default: (0, 1),
}
# Their value does not depend on that of their argument, only its shape does.
_SHAPED_LIKE = (
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
    aten.sym_size.int,
)  # fmt: skip
_BATCH_NORMS = {
    aten.native_batch_norm.default: 5,
    aten.batch_norm.default: 5,
    aten.cudnn_batch_norm.default: 5,
    aten._native_batch_norm_legit.default: 5,
    aten._native_batch_norm_legit_no_training.default: None,
}


def is_affine(node: fx.Node, depends: Mapping[fx.Node, bool]) -> bool:
    """Whether a node is a known operator that is affine in those of its arguments that depend on the input."""
    target = node.target
    live = [place for place, value in enumerate(node.args) if _depends(value, depends)]
    if any(_depends(value, depends) for value in node.kwargs.values()):
        return False
    if target in _JOINTLY or target in _SHAPED_LIKE:
        return True
    if target in _FIRST or getattr(target, "__name__", "") == "getitem":
        return live == [0] and _keeps_float(node)
    if target in FACTORS:
        return not set(FACTORS[target]) <= set(live)
    if target in _BATCH_NORMS:
        place = _BATCH_NORMS[target]
        return live == [0] and (place is None or node.args[place] is False)
    return False


def _depends(value: object, depends: Mapping[fx.Node, bool]) -> bool:
    if isinstance(value, fx.Node):
        return depends[value]
    return isinstance(value, list | tuple) and any(_depends(part, depends) for part in value)


def _keeps_float(node: fx.Node) -> bool:
    """A cast to another type than float64 would round."""
    return node.target is not aten._to_copy.default or node.kwargs.get("dtype") in (None, torch.float64)


@dataclass(frozen=True)
class Activation:
    """An activation that acts on each value alone: its function and bounds on how fast its slope changes.

    curvature: Lipschitz constant of the derivative, where there is one (None: the ReLU, whose bounds are exact lines).
    jump: by how much the derivative jumps at all its kinks together, and step: the value. valley: two points around the
    only place where the function turns from falling to rising, and a value below its minimum; None where it rises
    everywhere. steepest: Lipschitz constant of the function, at least; times |z| on [-|z|, |z|] if ``quadratic``.
    """

    function: Callable[[Tensor], Tensor]
    curvature: float | None = None
    valley: tuple[float, float, float] | None = None
    jump: float = 0.0
    step: float = 0.0
    steepest: float = 1.2
    quadratic: bool = False

    def passed_on(self, z: Tensor, error: Tensor) -> Tensor:
        """How far an error in z takes the value at most."""
        slope = self.steepest * (z.abs() + error) if self.quadratic else self.steepest
        return slope * error


RELU = Activation(torch.relu)
SQUARE = Activation(torch.square, 2.0, (-1e-9, 1e-9, 0.0), steepest=2.0, quadratic=True)
MISH = Activation(torch.nn.functional.mish, 0.645, (-1.20, -1.18, -0.309))


def _smooth(
    function: Callable, curvature: float, valley: tuple[float, float, float] | None = None
) -> Callable:
    return lambda *settings, **named: Activation(lambda z: function(z, *settings, **named), curvature, valley)


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Activation | None:
    """Its branches meet with slopes ``scale`` and ``scale * alpha * input_scale``."""
    if min(alpha, scale, input_scale) <= 0:
        return None
    below = scale * alpha * input_scale
    return Activation(
        lambda z: torch.where(
            z > 0, scale * z, scale * alpha * torch.expm1((z * input_scale).clamp(max=0.0))
        ),
        below * input_scale,
        jump=abs(scale - below),
        steepest=max(scale, below),
    )


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation | None:
    """Beyond the threshold torch replaces it by z, a step of exp(-threshold) / beta."""
    if beta <= 0 or threshold < 20.0:
        return None
    return Activation(
        lambda z: torch.nn.functional.softplus(z, beta, threshold),
        beta / 4 * (1 + 1e-6),
        step=math.exp(-threshold) / beta,
    )


def _hardswish() -> Activation:
    """z clamp(z + 3, 0, 6) / 6: slopes jump by 1/2 at -3 and at 3."""
    return Activation(
        torch.nn.functional.hardswish, 0.3334, (-1.501, -1.499, -0.37501), jump=1.0, steepest=1.5
    )


# Each takes what follows its first argument; None says that these settings are not known.
ACTIVATIONS: dict[Callable, Callable[..., Activation | None]] = {
    aten.relu.default: lambda: RELU,
    aten.sigmoid.default: _smooth(torch.sigmoid, 0.0963),
    aten.tanh.default: _smooth(torch.tanh, 0.7699),
    aten.erf.default: _smooth(torch.erf, 0.9679),
    aten.atan.default: _smooth(torch.atan, 0.6496),
    aten.elu.default: _elu,
    aten.celu.default: lambda alpha=1.0: _elu(alpha, 1.0, 1 / alpha),
    aten.selu.default: lambda: _elu(1.6732632423543772, 1.0507009873554805),
    aten.gelu.default: _smooth(torch.nn.functional.gelu, 0.85, (-0.78, -0.72, -0.1702)),
    aten.silu.default: _smooth(torch.nn.functional.silu, 0.5001, (-1.29, -1.26, -0.2786)),
    aten.mish.default: lambda: MISH,
    aten.hardswish.default: _hardswish,
    aten.softplus.default: _softplus,
    aten.pow.Tensor_Scalar: lambda exponent: SQUARE if exponent == 2 else None,
}


def _leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    return slope * x + (1 - slope) * torch.relu(x)


def _clamp(x: Tensor, least: float | None = None, most: float | None = None) -> Tensor:
    x = x if least is None else least + torch.relu(x - least)
    return x if most is None else most - torch.relu(most - x)


def _hardtanh(x: Tensor, least: float = -1.0, most: float = 1.0) -> Tensor:
    return _clamp(x, least, most)


def _maximum(x: Tensor, other: Tensor) -> Tensor:
    return x + torch.relu(other - x)


def _minimum(x: Tensor, other: Tensor) -> Tensor:
    return x - torch.relu(x - other)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x + (1 - weight) * torch.relu(x)


def _max_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, None]:
    """The greatest of each window by pairs; places outside the image repeat one inside, so they change nothing."""
    shape = x.shape if x.dim() == 4 else (x.shape[0], 1, *x.shape[1:])
    places, size = _windows((shape[-2], shape[-1]), kernel, stride or kernel, padding, dilation, ceil_mode)
    chosen = torch.tensor(places, device=x.device)
    values = x.flatten(-2).index_select(-1, chosen.flatten()).unflatten(-1, chosen.shape)
    while values.shape[-1] > 1:  # all pairs of a round at once, so that they are one layer
        paired = values.shape[-1] // 2
        first, second, rest = values.split([paired, paired, values.shape[-1] - 2 * paired], dim=-1)
        values = torch.cat([_maximum(first, second), rest], dim=-1)
    return values.reshape(*x.shape[:-2], *size), None


def _windows(
    image: tuple[int, int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[list[list[int]], tuple[int, int]]:
    """Flat places of each window, equally many, and the numbers of windows down and across."""
    pairs = [list(size) * 2 if len(size) == 1 else list(size) for size in (kernel, stride, padding, dilation)]
    kernel, stride, padding, dilation = pairs
    counts = []
    for axis in (0, 1):
        reach = image[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        count = (-(-reach // stride[axis]) if ceil_mode else reach // stride[axis]) + 1
        # A window must begin inside the image or the padding before it.
        if ceil_mode and (count - 1) * stride[axis] >= image[axis] + padding[axis]:
            count -= 1
        counts.append(count)
    places = []
    for row in range(counts[0]):
        for column in range(counts[1]):
            top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
            inside = [
                y * image[1] + x
                for y in range(top, top + dilation[0] * kernel[0], dilation[0])
                for x in range(left, left + dilation[1] * kernel[1], dilation[1])
                if 0 <= y < image[0] and 0 <= x < image[1]
            ]
            places.append(inside + inside[:1] * (kernel[0] * kernel[1] - len(inside)))
    return places, (counts[0], counts[1])


PIECEWISE: dict[Any, Callable] = {
    aten.leaky_relu.default: _leaky_relu,
    aten.hardtanh.default: _hardtanh,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: lambda x, least: _clamp(x, least, None),
    aten.clamp_max.default: lambda x, most: _clamp(x, None, most),
    aten.abs.default: lambda x: torch.relu(x) + torch.relu(-x),
    aten.maximum.default: _maximum,
    aten.minimum.default: _minimum,
    aten._prelu_kernel.default: _prelu,
    aten.max_pool2d_with_indices.default: _max_pool2d,
    aten.hardsigmoid.default: lambda x: _clamp(x / 6 + 0.5, 0.0, 1.0),
}
