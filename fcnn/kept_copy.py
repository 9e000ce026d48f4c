"""A float64 copy of a module that is kept until the module changes."""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from fcnn.convex_network import float64_copy

# What a module holds besides its own attributes: compared in their own way, or without a say in what it computes.
APART = frozenset(
    {"_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set", "_version"}
)


class KeptCopy:
    """The copy, and the weights that it was made of, to be compared bit by bit at every use.

    It is stale as soon as a parameter, a buffer, their dtype, device or shape, a layer or its class, a hook or another
    attribute of a layer differs: versions of tensors are not relied on, because writes through ``.data`` or NumPy do
    not count there. It is not copied or pickled with the module it belongs to.
    """

    def __init__(self) -> None:
        self._copy: Any = None
        self._weights: list[Tensor | None] = []
        # What was found out about the copy; forgotten with it.
        self.notes: dict[Any, Any] = {}

    def of(self, module: nn.Module) -> nn.Module:
        """The copy of ``module`` as it is now."""
        if self._copy is None or not self._is_fresh(module):
            self._copy, self.notes = None, {}
            self._copy = float64_copy(module)
            self._weights = [None if one is None else one.detach().clone() for one in _weights(module)]
        return self._copy

    def _is_fresh(self, module: nn.Module) -> bool:
        weights = list(_weights(module))
        return (
            len(weights) == len(self._weights)
            and all(map(_same_tensor, weights, self._weights))
            and _same_structure(module, self._copy)
        )

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def _weights(module: nn.Module) -> Iterator[Tensor | None]:
    """Parameters and buffers of a module and its parts."""
    yield from module._parameters.values()
    yield from module._buffers.values()
    for part in module._modules.values():
        if part is not None:
            yield from _weights(part)


def _same_tensor(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are the same bit by bit."""
    if one is None or other is None:
        return one is other
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    one = one.detach()
    if one.device.type == "cpu" and one.is_contiguous() and other.is_contiguous():
        # NumPy compares long rows of bytes several times as fast as PyTorch.
        first, second = (flat.reshape(-1).view(torch.uint8).numpy() for flat in (one, other))
        if len(first) % 8 == 0:
            first, second = first.view("int64"), second.view("int64")
        return bool((first == second).all())
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _same_structure(module: nn.Module, copy: nn.Module) -> bool:
    """Whether layers, hooks and plain attributes are those that were copied."""
    mine, kept = vars(module), vars(copy)
    if type(module) is not type(copy) or mine.keys() != kept.keys():
        return False
    for name, value in mine.items():
        if name not in APART and value is not kept[name] and not _same_value(value, kept[name]):
            return False
    parts, copies = mine["_modules"], kept["_modules"]
    if parts.keys() != copies.keys() or any(
        mine[group].keys() != kept[group].keys() for group in ("_parameters", "_buffers")
    ):
        return False
    return all(
        part is copies[name] if part is None or copies[name] is None else _same_structure(part, copies[name])
        for name, part in parts.items()
    )


def _same_value(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, KeptCopy):
        return True
    if isinstance(one, Tensor):
        return _same_tensor(one, other)
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # such as arrays, which compare number by number
        return False
