"""Layers whose weight is computed from parameters: computed at each step in training, once in evaluation."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class _Kept:
    """A computed weight between calls. It is no part of what its layer is: all compare equal, and a copy is empty."""

    def __init__(self) -> None:
        self.weight: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept)

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: object) -> "_Kept":
        return _Kept()


class CachedWeight(nn.Module, ABC):
    """A layer with a computed weight, kept between calls in evaluation mode.

    The cache is dropped by ``train()``, ``eval()``, by moving or casting the module and by loading a state;
    a change of parameters by hand in evaluation mode must be followed by ``eval()``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cached = _Kept()
        self.register_load_state_dict_post_hook(_forget_weight)

    @abstractmethod
    def compute_weight(self) -> Tensor:
        """Return the weight from the current parameters, differentiably."""

    def weight(self) -> Tensor:
        """Return the weight; in evaluation mode a constant without gradient."""
        if self.training:
            return self.compute_weight()
        if self._cached.weight is None:
            with torch.no_grad():
                self._cached.weight = self.compute_weight()
        return self._cached.weight

    def train(self, mode: bool = True) -> "CachedWeight":
        self._forget()
        return super().train(mode)

    def _apply(self, function, recurse: bool = True) -> "CachedWeight":
        self._forget()
        return super()._apply(function, recurse)

    def _forget(self) -> None:
        self._cached.weight = None


def _forget_weight(layer: CachedWeight, incompatible_keys: object) -> None:
    """A named function, not a lambda, so that networks can be pickled."""
    layer._forget()


def spectral_norm(matrices: Tensor) -> float:
    """Return the largest singular value in a batch (..., m, n), computed in double precision.

    As the root of the largest eigenvalue of the smaller Gram matrix: as exact as an SVD for the *largest* one, faster.
    """
    wide = matrices.detach().to(torch.complex128 if matrices.is_complex() else torch.float64)
    rows, columns = wide.shape[-2:]
    gram = wide @ wide.mH if rows < columns else wide.mH @ wide
    return torch.linalg.eigvalsh(gram).max().clamp_min(0).sqrt().item()
