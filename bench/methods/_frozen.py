"""A network as it is certified: in float64 and evaluation mode, copied anew only when its weights have changed."""

import copy
import hashlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class FrozenNetwork:
    """The float64 copy of a network, and whatever was made of that copy; all of it goes when a weight changes.

    Weights are compared by their bytes, so that no way of writing to them goes unseen.
    """

    def __init__(self) -> None:
        self._state = ""
        self._network: nn.Module | None = None
        self._made: dict[Hashable, Any] = {}

    def network(self, model: nn.Module) -> nn.Module:
        """The copy of ``model`` as it is now."""
        state = fingerprint([*model.parameters(), *model.buffers()])
        if self._network is None or state != self._state:
            self._network = copy.deepcopy(model).to(torch.float64).eval().requires_grad_(False)
            self._state, self._made = state, {}
        return self._network

    def kept(self, name: Hashable, make: Callable[[nn.Module], Any]) -> Any:
        """What ``make`` made of the last copy, made once per name."""
        if self._network is None:
            raise RuntimeError("there is no copy yet: ask for network(model) first")
        if name not in self._made:
            self._made[name] = make(self._network)
        return self._made[name]


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """A hash of the tensors' values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
