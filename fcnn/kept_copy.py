"""A float64 copy of a module that is kept until the module changes."""

import ctypes
import operator
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from fcnn.convex_network import float64_copy

STANDARD = frozenset(vars(nn.Module()))
Kind = TypeVar("Kind", bound=nn.Module)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _memcmp() -> Callable[[int, int, int], int] | None:
    """C's own comparison of memory, which needs a third of PyTorch's time; None where it cannot be had."""
    if sys.platform not in ("linux", "darwin"):
        return None
    function = ctypes.CDLL(None).memcmp
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    return function


same_bytes = _memcmp()


class KeptCopy:
    """The copy, and the weights that it was made of, to be compared bit by bit at every use.

    It is stale as soon as a parameter, a buffer, their dtype, device or shape, a layer or its class, a hook or another
    attribute of a layer differs: versions of tensors are not relied on, because writes through ``.data`` or NumPy do
    not count there. It is not copied or pickled with the module it belongs to.
    """

    def __init__(self) -> None:
        self._copy: Any = None
        self._parts: list[_Part] = []
        self._weights: list[_Weight | None] = []
        # What was found out about the copy; forgotten with it.
        self.notes: dict[Any, Any] = {}

    def of(self, module: Kind) -> Kind:
        """The copy of ``module`` as it is now."""
        if self._copy is None or not self._is_fresh(module):
            self._copy, self.notes = None, {}
            self._copy = float64_copy(module)
            pairs = zip(module.modules(), self._copy.modules(), strict=True)
            self._parts = [_Part(one, other) for one, other in pairs]
            self._weights = [None if one is None else _Weight(one) for one in _weights(module.modules())]
        return cast(Kind, self._copy)

    def _is_fresh(self, module: nn.Module) -> bool:
        # The structure first: with the same layers there are as many weights.
        if self._parts[0].module is not module or not all(part.is_still() for part in self._parts):
            return False
        weights = _weights([part.module for part in self._parts])
        return all(
            one is None if kept is None else one is not None and kept.is_still(one)
            for one, kept in zip(weights, self._weights, strict=True)
        )

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class _Weight:
    """One weight as it was."""

    def __init__(self, tensor: Tensor) -> None:
        self.kept = tensor.detach().clone(memory_format=torch.contiguous_format)
        self.place = self.kept.data_ptr(), self.kept.nbytes

    def is_still(self, tensor: Tensor) -> bool:
        """Whether the weight is the same bit by bit."""
        kept = self.kept
        if tensor.shape != kept.shape or tensor.dtype != kept.dtype or tensor.device != kept.device:
            return False
        if same_bytes is not None and tensor.device.type == "cpu" and tensor.is_contiguous():
            return same_bytes(tensor.data_ptr(), *self.place) == 0
        one = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        return torch.equal(one, kept.reshape(-1).view(torch.uint8))


def _weights(modules: Iterable[nn.Module]) -> list[Tensor | None]:
    """Parameters and buffers of modules, their parts' left out."""
    weights: list[Tensor | None] = []
    for module in modules:
        weights += module._parameters.values()
        weights += module._buffers.values()
    return weights


class _Part:
    """One layer as it was: its class, its attributes as the copy has them, and the names of what it holds."""

    def __init__(self, module: nn.Module, copy: nn.Module) -> None:
        self.module, self.kind, self.count = module, type(module), len(vars(module))
        self.plain = [(name, value) for name, value in vars(copy).items() if name not in STANDARD]
        self.hooks = [(name, vars(copy)[name]) for name in HOOKS]
        self.names = _names(vars(module))
        self.children = tuple(module._modules.values())

    def is_still(self) -> bool:
        """Whether the layer is the same but for its weights."""
        own = vars(self.module)
        if type(self.module) is not self.kind or len(own) != self.count or _names(own) != self.names:
            return False
        for name, value in self.plain:
            mine = own.get(name)
            if mine is not value and not _same_value(mine, value):
                return False
        for name, value in self.hooks:
            if (own[name] or value) and own[name] != value:
                return False
        return all(map(operator.is_, own["_modules"].values(), self.children))


def _names(own: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(own["_parameters"]), tuple(own["_buffers"]), tuple(own["_modules"])


def _same_value(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, KeptCopy):
        return True
    try:
        return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # such as arrays, which compare number by number
        return False
