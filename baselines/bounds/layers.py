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
    """Copy ``model`` in float64 and evaluation mode, as auto-LiRPA needs it: no dropout, constants as parameters.

    Raises UnsupportedLayer for a torch.nn layer that is used and not supported, ValueError for a wrong output shape.
    """
    network = copy.deepcopy(model).to(device=device, dtype=torch.float64).eval().requires_grad_(False)
    _check_layers(network, torch.zeros(2, *input_shape, dtype=torch.float64, device=device))
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            network.set_submodule(name, nn.Identity())
        elif not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _freeze_buffers(module)
    return FlatScore(network, input_shape).eval()


def _check_layers(network: nn.Module, example: Tensor) -> None:
    """Run ``network`` once and look at the type of each torch.nn layer without children that it uses."""
    unsupported: list[str] = []

    def look(module: nn.Module, _inputs: tuple, _output: Tensor, name: str) -> None:
        if not isinstance(module, SUPPORTED_LAYERS):
            unsupported.append(f"layer '{name}' ({type(module).__name__})")

    leaves = [(n, m) for n, m in network.named_modules() if not list(m.children())]
    hooks = [
        module.register_forward_hook(lambda m, i, o, name=name: look(m, i, o, name))
        for name, module in leaves
        if type(module).__module__.startswith("torch.nn")
    ]
    try:
        with torch.no_grad():
            score = network(example)
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


def _freeze_buffers(module: nn.Module) -> None:
    """Turn floating-point buffers into parameters: auto-LiRPA takes buffers for inputs with a batch dimension."""
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.is_floating_point():
            del module._buffers[name]
            module.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
