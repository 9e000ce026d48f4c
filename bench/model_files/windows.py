"""The ONNX operators that look through windows: convolutions and pooling, of any padding, as torch layers.

One-dimensional ones work on images of height 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.model_files.layers import Affine, LargestOf, Pad, Reshape, convolution, entries
from bench.model_files.program import Call


def conv(call: Call) -> nn.Module:
    """Conv."""
    weight, bias = _weights(call)
    windows = Windows(call, list(weight.shape[2:]))
    image = weight[:, :, None] if weight.dim() == 3 else weight
    even = windows.before == windows.after
    layer = convolution(
        image,
        bias,
        windows.stride,
        windows.before if even else 0,
        windows.dilation,
        call.options.get("group", 1),
    )
    return windows.wrapped(*([] if even else [Pad(windows.widths())]), layer)


def conv_transpose(call: Call) -> nn.Module:
    """ConvTranspose."""
    weight, bias = _weights(call)
    options = call.options
    if weight.dim() != 4 or options.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise call.refuse("only two-dimensional ones with padding given in numbers are")
    pads, groups = options.get("pads", [0] * 4), options.get("group", 1)
    if "output_shape" in options or pads[:2] != pads[2:]:
        raise call.refuse("its padding differs from side to side, or its output_shape is given")
    layer = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * groups,
        (weight.shape[2], weight.shape[3]),
        tuple(options.get("strides", [1, 1])),
        tuple(pads[:2]),
        tuple(options.get("output_padding", [0, 0])),
        groups,
        dilation=tuple(options.get("dilations", [1, 1])),
        dtype=torch.float64,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.state_dict()["bias"].copy_(torch.zeros(()) if bias is None else bias)
    return layer


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def average_pool(call: Call) -> nn.Module:
    """AveragePool: sums over windows, divided by how many entries count in each."""
    windows = Windows(call, call.options["kernel_shape"])
    if windows.dilation != [1, 1]:
        raise call.refuse("its windows are dilated")
    widths = windows.widths(windows.extra)
    if not any(widths):
        return windows.wrapped(nn.AvgPool2d(_pair(windows.kernel), _pair(windows.stride)))
    channels = windows.shape[0]
    ones = torch.ones(channels, 1, *windows.kernel, dtype=torch.float64)
    sums = convolution(ones, None, windows.stride, 0, 1, channels)
    counted = torch.ones(1, *windows.shape, dtype=torch.float64)
    if call.options.get("count_include_pad"):
        counted = F.pad(
            F.pad(counted, windows.widths(), value=1.0), [0, windows.extra[1], 0, windows.extra[0]]
        )
    else:
        counted = F.pad(counted, widths)
    with torch.no_grad():
        count = sums(counted)[0]
    return windows.wrapped(Pad(widths), sums, Affine(scale=1 / count))


def max_pool(call: Call) -> nn.Module:
    """MaxPool; nothing outside the image counts."""
    if call.outputs > 1:
        raise call.refuse("its indices are used")
    windows = Windows(call, call.options["kernel_shape"])
    half = all(2 * pad <= kernel for pad, kernel in zip(windows.before, windows.kernel, strict=True))
    if windows.before == windows.after and windows.extra == [0, 0] and half:
        return windows.wrapped(
            nn.MaxPool2d(
                tuple(windows.kernel),
                tuple(windows.stride),
                tuple(windows.before),
                tuple(windows.dilation),
            )
        )
    return windows.wrapped(LargestOf(windows.candidates()))


def global_pool(call: Call) -> nn.Module:
    """GlobalAveragePool and GlobalMaxPool."""
    shape = call.get(0).shape
    if call.operator == "GlobalAveragePool" and len(shape) == 3:
        return nn.AdaptiveAvgPool2d(1)
    if call.operator == "GlobalMaxPool":
        index = entries(shape).long().reshape(shape[0], -1)
        return LargestOf(index.T.reshape(-1, shape[0], *[1] * (len(shape) - 1)))
    raise call.refuse("only that of images is")


class Windows:
    """The geometry of a call, all of two axes: kernel, stride, dilation, padding before and after, size of the output.

    shape: of the input as an image (C, H, W). extra: rows and columns that ceil_mode adds after the padding.
    """

    def __init__(self, call: Call, kernel: list[int]) -> None:
        self.call, shape = call, call.get(0).shape
        self.flat = len(kernel) == 1
        if len(kernel) not in (1, 2) or len(shape) != len(kernel) + 1:
            raise call.refuse("only windows of one or two axes are")
        options, one = call.options, [1] * len(kernel)
        self.kernel = self._two(kernel, 1)
        self.stride = self._two(options.get("strides", one), 1)
        self.dilation = self._two(options.get("dilations", one), 1)
        self.shape = (shape[0], *self._two(shape[1:], 1))
        self.before, self.after = self._padding()
        self.out, self.extra = self._sizes()

    def widths(self, extra: Sequence[int] = (0, 0)) -> list[int]:
        """The padding as torch has it, from the last axis on, with more after it."""
        return [self.before[1], self.after[1] + extra[1], self.before[0], self.after[0] + extra[0]]

    def wrapped(self, *layers: nn.Module) -> nn.Module:
        """The layers on images, brought back to one axis where the call has one."""
        if not self.flat:
            return layers[0] if len(layers) == 1 else nn.Sequential(*layers)
        with torch.no_grad():
            after = nn.Sequential(*layers)(torch.zeros(1, *self.shape, dtype=torch.float64)).shape
        return nn.Sequential(Reshape(self.shape), *layers, Reshape((after[1], after[3])))

    def candidates(self) -> Tensor:
        """Which entry each place of each window sees, (kernel, C, *out); one inside again where it is outside."""
        lower = max(0, (self.out[0] - 1) * self.stride[0] + self._reach(0) - self.shape[1] - self.before[0])
        right = max(0, (self.out[1] - 1) * self.stride[1] + self._reach(1) - self.shape[2] - self.before[1])
        padded = F.pad(entries(self.shape) + 1, [self.before[1], right, self.before[0], lower])[0].long() - 1
        views = []
        for row in range(self.kernel[0]):
            for column in range(self.kernel[1]):
                part = padded[:, row * self.dilation[0] :, column * self.dilation[1] :]
                views.append(part[:, :: self.stride[0], :: self.stride[1]][:, : self.out[0], : self.out[1]])
        index = torch.stack(views)
        return torch.where(index < 0, index.amax(dim=0), index)

    def _two(self, sizes: list[int] | tuple[int, ...], one: int) -> list[int]:
        return [one, *sizes] if self.flat else list(sizes)

    def _reach(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def _padding(self) -> tuple[list[int], list[int]]:
        word = self.call.options.get("auto_pad", b"NOTSET")
        if word in (b"SAME_UPPER", b"SAME_LOWER"):
            total = []
            for axis, size in enumerate(self.shape[1:]):
                steps = math.ceil(size / self.stride[axis]) - 1
                total.append(max(0, steps * self.stride[axis] + self._reach(axis) - size))
            small = [number // 2 for number in total]
            large = [number - half for number, half in zip(total, small, strict=True)]
            return (small, large) if word == b"SAME_UPPER" else (large, small)
        axes = 1 if self.flat else 2
        pads = self.call.options.get("pads", [0] * 2 * axes) if word == b"NOTSET" else [0] * 2 * axes
        return self._two(pads[:axes], 0), self._two(pads[axes:], 0)

    def _sizes(self) -> tuple[tuple[int, int], list[int]]:
        out, extra = [], []
        ceil = bool(self.call.options.get("ceil_mode", 0))
        for axis in range(2):
            padded = self.shape[axis + 1] + self.before[axis] + self.after[axis]
            room = padded - self._reach(axis)
            size = (math.ceil(room / self.stride[axis]) if ceil else room // self.stride[axis]) + 1
            if ceil and (size - 1) * self.stride[axis] >= self.shape[axis + 1] + self.before[axis]:
                size -= 1  # a window that starts outside the image is left out
            out.append(size)
            extra.append(max(0, (size - 1) * self.stride[axis] + self._reach(axis) - padded))
        return (out[0], out[1]), extra


def _weights(call: Call) -> tuple[Tensor, Tensor | None]:
    weight, bias = call.get(1), call.get(2)
    if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
        raise call.refuse("its weights depend on the input")
    return weight, bias
