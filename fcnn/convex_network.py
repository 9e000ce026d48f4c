"""The base of all input-convex networks: the layers that must stay non-negative, and what is proved of a network."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fcnn.convexity import Proof, prove
from fcnn.convexity_bounds import NotProved
from fcnn.sampled_checks import check_convex

LIKELY_SIDES = (8, 16, 28, 32, 64, 128, 224)

Module = TypeVar("Module", bound=nn.Module)


def float64_copy(module: Module) -> Module:
    """Return a copy of ``module`` in float64 and evaluation mode, without parameter gradients.

    Raises ValueError for a module with tensors that PyTorch does not copy.
    """
    try:
        copied = copy.deepcopy(module)
    except RuntimeError as error:
        raise ValueError(
            f"{type(module).__name__} holds a tensor computed from others, which cannot be copied: make weight norm or "
            "pruning permanent (remove_weight_norm, prune.remove), or use torch.nn.utils.parametrizations"
        ) from error
    return copied.double().eval().requires_grad_(False)


class NonNegativeLinear(nn.Linear):
    """Linear layer whose weight starts uniform in [0, ``init``] and must stay non-negative."""

    def __init__(self, in_features: int, out_features: int, init: float) -> None:
        super().__init__(in_features, out_features)
        nn.init.uniform_(self.weight, 0.0, init)


class NonNegativeConv2d(nn.Conv2d):
    """Size-preserving convolution whose weight starts uniform in [0, ``init``] and must stay non-negative."""

    def __init__(self, channels: int, kernel: int, init: float, bias: bool) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, bias=bias)
        nn.init.uniform_(self.weight, 0.0, init)


class NonNegativeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose scale must stay non-negative: non-decreasing and affine in evaluation mode."""


class ConvexNetwork(nn.Module, ABC):
    """Base class: a score (N, *feature shape) -> (N,) that is convex when its hidden weights are non-negative.

    A subclass builds its hidden part from the ``NonNegative...`` layers of this module, which is how the methods below
    find the weights that matter, and names its constructor's arguments in ``settings()``. Convexity is a statement
    about the network in evaluation mode: in training mode batch statistics couple the examples.
    """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this architecture."""

    @abstractmethod
    def floats_per_input(self, feature_shape: Sequence[int]) -> int:
        """Estimate how many numbers one input occupies during a forward and backward pass."""

    def nonnegative_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, weight) of every weight that must be non-negative for the score to be convex.

        A weight that is computed from parameters, by a parametrization, is no parameter itself.
        """
        for name, module in self.named_modules():
            if isinstance(module, NonNegativeLinear | NonNegativeConv2d | NonNegativeBatchNorm2d):
                yield f"{name}.weight", module.weight

    @torch.no_grad()
    def project(self) -> None:
        """Clamp the hidden weights at 0, in place: the nearest convex network. Call it after every update.

        Raises ValueError for a computed weight that is negative, which no clamping keeps at 0.
        """
        for name, weight in self.nonnegative_parameters():
            if isinstance(weight, nn.Parameter):
                weight.clamp_(min=0.0)
            elif not bool((weight >= 0).all()):
                raise ValueError(
                    f"layer {name} is computed and holds {smallest(weight)}, so the score is not convex: let its "
                    "parametrization end in values >= 0"
                )

    def require_convex(self, feature_shape: Sequence[int] | None = None) -> None:
        """Raise ValueError naming the layer with which the score is not proved to be convex.

        Weights of ``NonNegative...`` layers are looked at one by one; then every operation of a pass must be known to
        keep the score convex (``proof``), so a plain ``nn.Linear`` with a negative weight on hidden units is refused.
        feature_shape: of one input's features, without N; None tries shapes that the first layer suggests.
        """
        self.require_nonnegative()
        network = float64_copy(self)
        if feature_shape is not None:
            network.proof(_origin(network, feature_shape))
            return
        for shape in _likely_shapes(network):
            try:
                network(_origin(network, shape))
            except Exception:  # a shape that the network does not take may fail in any way
                continue
            network.proof(_origin(network, shape))
            return
        raise ValueError(
            f"{type(self).__name__}: no shape of its features suggests itself: give feature_shape"
        )

    def require_nonnegative(self) -> None:
        """Raise ValueError naming the first ``NonNegative...`` layer whose weights are not all non-negative."""
        for name, weight in self.nonnegative_parameters():
            # Written so that a NaN is refused too.
            if not bool((weight >= 0).all()):
                raise ValueError(
                    f"layer {name} holds the weight {smallest(weight)}, so the score is not convex and nothing can "
                    "be certified; weights there must be >= 0: call project() after every training step"
                )

    def proof(self, features: Tensor) -> Proof:
        """Return what certificates need to know: that the score is convex, and how large its terms can be.

        Called in float64 and evaluation mode, with features (N, *feature shape), N >= 2. The default follows a pass of
        the network operation by operation and refuses, with ValueError, what it does not know; networks that are not
        of this package are held against it at random points besides. A network with other operations may override it:
        for any signs of its units, |terms| of a score must add up to at most slope . |features| + offset, and the
        network must be convex.
        """
        try:
            proof = prove(self, features)
        except NotProved as error:
            raise NotProved(f"{type(self).__name__}, {error}") from None
        if not type(self).__module__.startswith("fcnn."):
            check_convex(self, features, proof)
        return proof

    def is_flat(self, features: Tensor) -> Tensor:
        """Return bool (N,): where the units that are active at these features let nothing of them through.

        A gradient of 0 may also come from terms that cancel but for their rounding; this one does not. Override it
        where ``proof`` is overridden; False is always right.
        """
        try:
            return (prove(self, features, own_pattern=True).slope == 0).flatten(1).all(1)
        except NotProved:
            return torch.zeros(len(features), dtype=torch.bool, device=features.device)

    @torch.no_grad()
    def convexity_gap(self, x: Tensor, y: Tensor, steps: int = 9) -> float:
        """Return the largest violation of convexity on the segments from x[i] to y[i].

        x, y: (N, *feature shape). The value is the maximum over i and ``steps`` interior points t of
        g(t x + (1-t) y) - (t g(x) + (1-t) g(y)), in float64 and evaluation mode: <= 0 up to rounding when convex.
        """
        if x.shape != y.shape:
            raise ValueError(
                f"segments need end points of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        network, x, y = float64_copy(self), x.double(), y.double()
        score_x, score_y = network(x), network(y)
        gaps = [
            network(t * x + (1 - t) * y) - (t * score_x + (1 - t) * score_y)
            for t in torch.linspace(0, 1, steps + 2, dtype=torch.float64).tolist()[1:-1]
        ]
        return float(torch.stack(gaps).max())


def _origin(network: nn.Module, shape: Sequence[int]) -> Tensor:
    """Two inputs' features, all 0, where the network's weights are."""
    device = next((tensor.device for tensor in network.state_dict().values()), None)
    return torch.zeros(2, *shape, dtype=torch.float64, device=device)


def _likely_shapes(network: nn.Module) -> Iterator[tuple[int, ...]]:
    """Shapes of one input's features that would fit the first layer."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            yield (module.in_features,)
            return
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            channels = module.in_channels if isinstance(module, nn.Conv2d) else module.num_features
            yield from ((channels, side, side) for side in LIKELY_SIDES)
            return


def smallest(weight: Tensor) -> float:
    """Return the smallest entry, or NaN when there is one."""
    return float(weight.detach().min())
