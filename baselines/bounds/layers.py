"""Which layers bounds can be propagated through, and a copy of a network made ready for it."""

import copy

import torch
from torch import Tensor, nn

SUPPORTED_LAYERS = (
    nn.Linear,
    nn.Conv2d,
    nn.ReLU,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)
SUPPORTED_OPERATIONS = frozenset(
    {
        "Input",
        "Linear",
        "Conv",
        "Relu",
        "AveragePool",
        "GlobalAveragePool",
        "BatchNormalization",
        "Flatten",
        "Reshape",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Transpose",
        "Shape",
    }
)


class UnsupportedLayer(ValueError):
    """A network has a layer that bounds cannot be propagated through; ``layer`` names it."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        super().__init__(
            f"bounds cannot be propagated through {layer}; supported are Linear, Conv2d, ReLU, average pooling, "
            "BatchNorm, Flatten and sums of these: replace the layer or use another method"
        )


class FlatScore(nn.Module):
    """The network on flattened inputs: (N, d) -> (N, 1), since balls in l1 and l2 couple all pixels."""

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.input_shape = tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.reshape(-1, *self.input_shape)).reshape(-1, 1)


def prepare(model: nn.Module, input_shape: tuple[int, ...], device: torch.device) -> FlatScore:
    """Copy ``model`` in float64 and evaluation mode, in a form that auto-LiRPA reads rightly.

    Dropout goes, constants become parameters, pooling with overlapping or padded windows becomes a convolution (0.3
    takes every window for disjoint). Raises UnsupportedLayer for a torch.nn layer that is used and not supported,
    ValueError for a wrong output shape.
    """
    network = copy.deepcopy(model).to(device=device, dtype=torch.float64).eval().requires_grad_(False)
    wrapped = FlatScore(network, input_shape).eval()
    channels = _check_layers(wrapped, torch.zeros(2, *input_shape, dtype=torch.float64, device=device))
    for name, module in list(wrapped.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            wrapped.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.AvgPool2d) and name in channels:
            wrapped.set_submodule(name, _as_convolution(module, channels[name]).to(device))
        elif not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _freeze_buffers(module)
    return wrapped


def _check_layers(wrapped: FlatScore, example: Tensor) -> dict[str, int]:
    """Run the network once, look at the type of each torch.nn layer that it uses, return their input channels."""
    channels: dict[str, int] = {}
    unsupported: list[str] = []

    def look(name: str, module: nn.Module, x: Tensor) -> None:
        channels[name] = x.shape[1]
        if not isinstance(module, SUPPORTED_LAYERS):
            unsupported.append(f"layer '{name.removeprefix('network.')}' ({type(module).__name__})")

    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: look(name, module, inputs[0]))
        for name, module in wrapped.named_modules()
        if type(module).__module__.startswith("torch.nn") and not list(module.children())
    ]
    try:
        with torch.no_grad():
            score = wrapped.network(example)
    finally:
        for hook in hooks:
            hook.remove()
    if unsupported:
        raise UnsupportedLayer(unsupported[0])
    if score.shape not in {(2,), (2, 1)}:
        raise ValueError(
            f"the network must map (N, *shape) to a score (N,) or (N, 1), but two inputs gave shape "
            f"{tuple(score.shape)}: subtract the two outputs to get one score"
        )
    return channels


def _as_convolution(pool: nn.AvgPool2d, channels: int) -> nn.Module:
    """The pooling as a convolution of each channel; unchanged where its windows are disjoint or of varying size."""
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    disjoint = kernel == stride and _pair(pool.padding) == (0, 0)
    uniform = pool.count_include_pad and pool.divisor_override is None and not pool.ceil_mode
    if disjoint or not uniform:
        return pool
    convolution = nn.Conv2d(channels, channels, kernel, stride, pool.padding, groups=channels, bias=False)
    nn.init.constant_(convolution.weight, 1.0 / (kernel[0] * kernel[1]))
    return convolution.double().requires_grad_(False)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _freeze_buffers(module: nn.Module) -> None:
    """Turn floating-point buffers into parameters: auto-LiRPA takes buffers for inputs with a batch dimension."""
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.is_floating_point():
            del module._buffers[name]
            module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
