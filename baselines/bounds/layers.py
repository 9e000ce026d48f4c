"""Which layers bounds can be propagated through, and a copy of a network made ready for it."""

import copy
import math

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


LARGEST_MATRIX = 1 << 22


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
    takes every window for disjoint), convolutions become matrices where the network allows. Raises UnsupportedLayer
    for a torch.nn layer that is used and not supported, ValueError for a wrong output shape.
    """
    network = copy.deepcopy(model).to(device=device, dtype=torch.float64).eval().requires_grad_(False)
    wrapped = FlatScore(network, input_shape).eval()
    shapes = _check_layers(wrapped, torch.zeros(2, *input_shape, dtype=torch.float64, device=device))
    for name, module in list(wrapped.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            wrapped.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.AvgPool2d) and name in shapes:
            wrapped.set_submodule(name, _as_convolution(module, shapes[name][0]).to(device))
        elif isinstance(module, nn.Linear) and module.bias is None:
            # auto-LiRPA reads a product without a bias as one of two variables.
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_features), requires_grad=False)
        elif not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _freeze_buffers(module)
    return _with_matrices(wrapped, shapes, device)


def _check_layers(wrapped: FlatScore, example: Tensor) -> dict[str, torch.Size]:
    """Run the network once, look at the type of each torch.nn layer that it uses, return their input shapes."""
    shapes: dict[str, torch.Size] = {}
    unsupported: list[str] = []

    def look(name: str, module: nn.Module, x: Tensor) -> None:
        shapes[name] = x.shape[1:]
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
    return shapes


def _with_matrices(wrapped: FlatScore, shapes: dict[str, torch.Size], device: torch.device) -> FlatScore:
    """The network with small convolutions as matrix products, several times faster in float64 on a CPU.

    Their outputs stay flat, so a network that uses them as images elsewhere is returned as it was.
    """
    flat = copy.deepcopy(wrapped)
    for name, module in list(flat.named_modules()):
        if isinstance(module, nn.Conv2d) and name in shapes:
            width = module(torch.zeros(1, *shapes[name], dtype=torch.float64, device=device)).numel()
            if width * shapes[name].numel() > LARGEST_MATRIX:
                return wrapped
            flat.set_submodule(name, nn.Sequential(nn.Flatten(), _as_matrix(module, shapes[name], device)))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, math.prod(wrapped.input_shape), generator=generator, dtype=torch.float64).to(device)
    try:
        return flat.eval() if torch.allclose(flat(x), wrapped(x), rtol=1e-9, atol=1e-9) else wrapped
    except (RuntimeError, ValueError, IndexError):  # a layer that wants an image was given a vector
        return wrapped


def _as_matrix(convolution: nn.Conv2d, shape: torch.Size, device: torch.device) -> nn.Linear:
    """The convolution on flattened inputs of a shape (C, H, W)."""
    bias = convolution(torch.zeros(1, *shape, dtype=torch.float64, device=device)).flatten()
    unit = torch.eye(shape.numel(), dtype=torch.float64, device=device).reshape(-1, *shape)
    columns = convolution(unit).flatten(1) - bias
    matrix = nn.Linear(*columns.shape, dtype=torch.float64, device=device).requires_grad_(False)
    matrix.weight.copy_(columns.T)
    matrix.bias.copy_(bias)
    return matrix


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
