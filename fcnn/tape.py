"""A pass of a network as PyTorch's elementary operations (ATen): what a proof about the network starts from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Call:
    """One operation: what was called with what, what came out, and the layer that called it."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    layer: str

    @property
    def name(self) -> str:
        """The operation's name, as PyTorch calls it."""
        return str(self.function.overloadpacket).removeprefix("aten.")

    def tensors(self) -> Iterator[Tensor]:
        """All tensors among the arguments."""
        return tensors_in((*self.args, *self.kwargs.values()))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)


@torch.no_grad()
def record(network: nn.Module, features: Tensor) -> tuple[list[Call], Tensor]:
    """The operations of ``network(features)`` in order, and the result."""
    layers = [""]
    recorder = _Recorder(layers)
    hooks = []
    for name, module in network.named_modules():
        entered = f"{name} ({type(module).__name__})" if name else type(module).__name__
        hooks.append(module.register_forward_pre_hook(lambda *_, entered=entered: layers.append(entered)))
        hooks.append(module.register_forward_hook(lambda *_: layers.pop() and None, always_call=True))
    try:
        with recorder:
            result = network(features)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.calls, result


class _Recorder(TorchDispatchMode):
    """Keeps every call, and with it every tensor, so that a tensor's identity names it."""

    def __init__(self, layers: list[str]) -> None:
        super().__init__()
        self.layers = layers
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.calls.append(Call(func, tuple(args), kwargs, result, self.layers[-1]))
        return result
