"""Feature maps phi with known Lipschitz constants; a classifier's score is a convex network of phi(x)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fcnn.certificates import NORMS, check_norm

# What a map's values come from.
COMPUTES = ("forward", "__call__")


class FeatureMap(nn.Module, ABC):
    """Base class of feature maps: x (N, *shape) -> phi(x) (N, *feature shape).

    A new map needs ``forward``, ``lipschitz`` and ``feature_shape``. It may hold parameters of its own and be trained
    with the network; any 1-Lipschitz network is a feature map, in its own norm. A linear one::

        class Mixing(FeatureMap):
            def __init__(self, dimension):
                super().__init__()
                self.layer = torch.nn.Linear(dimension, dimension)

            def forward(self, x):
                return self.layer(x)

            def lipschitz(self, norm):
                if norm != "l2":
                    raise ValueError(f"Mixing has no Lipschitz constant in {norm!r}; choose l2")
                weight = self.layer.weight.detach().double()
                return float(torch.linalg.matrix_norm(weight, ord=2)) * (1 + 1e-9)

            def feature_shape(self, input_shape):
                return tuple(input_shape)

    A constant that is too small makes certificates false, and they are taken in float64: a layer made orthogonal in
    float32 is 1-Lipschitz only up to 1e-7, and must say so. A map that acts on each coordinate alone can also offer
    ``tangent_decrease_weights``, for larger radii. A subclass that changes ``forward`` keeps no promise of the class it
    comes from: without a ``lipschitz`` of its own it is refused, without weights of its own it has none.
    """

    # Largest relative error of ``forward`` in float64, taken of the largest feature.
    precision: float = 1e-12

    @abstractmethod
    def lipschitz(self, norm: str, to: str | None = None) -> float:
        """Return L with |phi(x) - phi(y)|_q <= L |x - y|_p, p being ``norm`` and q being ``to``, or p as well.

        Raises ValueError when there is none. A map whose features are measured in its inputs' norm (``lands_in``) is
        only ever asked for that and may leave ``to`` out.
        """

    def lands_in(self, norm: str) -> str:
        """Return the q in which certificates measure the features' change when radii are asked for in ``norm``."""
        return norm

    def step_error(self, x: Tensor, norm: str, reach: Tensor) -> Tensor:
        """How much of phi(x') - phi(x) may be rounding, (N,), wherever ||x' - x||_p <= reach (N,).

        0, beside the features' own, unless a map knows better: layers may pass numbers far larger than its features.
        """
        return torch.zeros_like(reach)

    @abstractmethod
    def feature_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of phi(x) for one input of shape ``input_shape``, both without the batch dimension."""

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, for checkpoints; tensors among them must be in the state dict."""
        return {}

    def tangent_decrease_weights(self, gradient: Tensor) -> Tensor | None:
        """Return w (N, d) >= 0 such that gradient . (phi(x + delta) - phi(x)) >= -sum_i w_i |delta_i| for all x, delta.

        gradient: (N, *feature shape); d counts the input's coordinates, flattened. None: the map does not act on
        each coordinate alone.
        """
        return None

    def constant(self, norm: str) -> float:
        """Return the constant from ``norm`` to where it lands; raise ValueError where it is not of this ``forward``."""
        if not self._written_for_forward("lipschitz"):
            raise ValueError(
                f"{type(self).__name__} changes forward but takes lipschitz from another class, so nothing can be "
                "certified: define lipschitz for it"
            )
        landing = self.lands_in(norm)
        return float(self.lipschitz(norm) if landing == norm else self.lipschitz(norm, to=landing))

    def coordinate_weights(self, gradient: Tensor) -> Tensor | None:
        """Return ``tangent_decrease_weights`` where they speak of this map's ``forward``, else None."""
        return (
            self.tangent_decrease_weights(gradient)
            if self._written_for_forward("tangent_decrease_weights")
            else None
        )

    def relative_error(self) -> float:
        """Return ``precision`` where it speaks of this map's ``forward``, else the precision of maps in general."""
        return self.precision if self._written_for_forward("precision") else FeatureMap.precision

    def is_exactly(self, kind: type) -> bool:
        """Whether this is a map of just that class, not of one derived from it, with nothing put in its way."""
        return type(self) is kind and not self._altered()

    def _written_for_forward(self, promise: str) -> bool:
        """Whether a method is of the class that defines ``forward``, or of one derived from that class."""
        kinds = type(self).__mro__
        promised, *computed = (
            next(i for i, kind in enumerate(kinds) if name in vars(kind)) for name in (promise, *COMPUTES)
        )
        return promise in vars(self) or (promised <= min(computed) and not self._altered())

    def _altered(self) -> bool:
        """Whether this one object has a ``forward`` of its own, or hooks that change what comes out."""
        own = any(name in vars(self) for name in COMPUTES)
        return bool(own or self._forward_hooks or self._forward_pre_hooks)


class Identity(FeatureMap):
    """phi(x) = x - mean (or x): an isometry, with Lipschitz constant 1 in every norm.

    mean: array that broadcasts to one input, or None.
    """

    mean: Tensor

    precision = 0.0  # the one rounding of a feature is counted with the network's

    def __init__(self, mean: Any | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", None if mean is None else _as_float(mean))

    def settings(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def forward(self, x: Tensor) -> Tensor:
        return x if self.mean is None else _centred(x, self.mean)

    def lipschitz(self, norm: str, to: str | None = None) -> float:
        _check_rising(norm, to)
        return 1.0

    def feature_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(input_shape)

    def tangent_decrease_weights(self, gradient: Tensor) -> Tensor:
        return gradient.abs().flatten(1)


class CenteredAbs(FeatureMap):
    """phi(x) = (x - mean, |x - mean|), joined along dimension 1: channels of images, columns of tables.

    mean: array that broadcasts to one input. Both halves change by at most |delta_i| in coordinate i, so the change
    of phi is at most |(delta, delta)|_p: Lipschitz constants 2, sqrt(2), 1 in l1, l2, linf.
    Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), section 4.
    """

    mean: Tensor

    precision = 0.0

    def __init__(self, mean: Any) -> None:
        super().__init__()
        self.register_buffer("mean", _as_float(mean))

    def settings(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def forward(self, x: Tensor) -> Tensor:
        centred = _centred(x, self.mean)
        return torch.cat([centred, centred.abs()], dim=1)

    def lipschitz(self, norm: str, to: str | None = None) -> float:
        _check_rising(norm, to)
        # The double nearest to sqrt(2) lies above it, so the constant is not rounded down.
        return {"l1": 2.0, "l2": math.sqrt(2.0), "linf": 1.0}[to or norm]

    def feature_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        return (2 * input_shape[0], *input_shape[1:])

    def tangent_decrease_weights(self, gradient: Tensor) -> Tensor:
        on_centred, on_absolute = gradient.chunk(2, dim=1)
        return (on_centred.abs() + on_absolute.abs()).flatten(1)


def _check_rising(norm: str, to: str | None) -> None:
    """Refuse unknown norms, and a way from ``norm`` to a longer one, whose constant grows with the dimension."""
    check_norm(norm)
    if to is not None:
        check_norm(to)
        if NORMS.index(to) < NORMS.index(norm):
            raise ValueError(
                f"no Lipschitz constant from {norm} to {to} without the dimension: choose to={norm!r}"
            )


def _as_float(values: Any) -> Tensor:
    """Return a copy as a tensor in the given floating dtype, or in the default one for integers."""
    tensor = torch.as_tensor(values).detach().clone()
    tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
    if not bool(tensor.isfinite().all()):
        raise ValueError("the mean holds a value that is not finite: compute it from finite inputs")
    return tensor


def _centred(x: Tensor, mean: Tensor) -> Tensor:
    """Return x - mean in the dtype of x; raise ValueError when the mean does not broadcast to one input."""
    shape = x.shape[1:]
    fits = (
        x.ndim >= 2
        and mean.ndim <= len(shape)
        and all(size in (1, wanted) for size, wanted in zip(mean.shape[::-1], shape[::-1], strict=False))
    )
    if not fits:
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} do not fit a feature map with a mean of shape {tuple(mean.shape)}: "
            "the mean must broadcast to one input (N left out)"
        )
    return x - mean.to(x.dtype)
