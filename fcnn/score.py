"""The score of a feature-convex classifier, its tangents, and the float64 copy of it that is certified."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from fcnn.convex_network import ConvexNetwork, float64_copy
from fcnn.dense_tangents import DenseTangents
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.kept_copy import KeptCopy
from fcnn.rounding import Rounding
from fcnn.sampled_checks import check_lipschitz, check_weights

MEMORY_BUDGET = 2**27
BYTES_PER_FLOAT64 = 8
# A network's pass over more numbers than this falls out of a processor's caches.
PASSED_FLOATS = 2**21
SAMPLED = 8
# What a certificate is about: a class that changes one of these would be certified for another function.
FUNCTIONS = ("score", "predict", "feature_tangent", "tangent", "batches")


class FeatureConvexScore(nn.Module):
    """score(x) = g(phi(x)) - threshold with g convex, (N, *shape) -> (N,); it follows the network's dtype and mode."""

    threshold: Tensor

    def __init__(
        self, network: ConvexNetwork, feature_map: FeatureMap | None = None, threshold: float = 0.0
    ) -> None:
        super().__init__()
        if not math.isfinite(threshold):
            raise ValueError(f"threshold = {threshold}: must be a finite number")
        self.network = network
        self.feature_map = Identity() if feature_map is None else feature_map
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float64))
        self._kept = KeptCopy()

    def score(self, x: Tensor) -> Tensor:
        """Return the scores (N,) of x (N, *shape): positive is sensitive."""
        dtype = next(self.network.parameters()).dtype
        return self.network(self.feature_map(x.to(dtype))) - self.threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)

    def frozen(self) -> Self:
        """Return the function that is certified: a float64 copy in evaluation mode without parameter gradients.

        A new copy for each call, the caller's own. Raises ValueError naming the layer when a weight that must be
        non-negative is not, and for a class that changes the score.
        """
        self.require_own_functions()
        self.network.require_nonnegative()
        return float64_copy(self)

    def require_own_functions(self) -> None:
        """Raise ValueError where what predicts or what is certified comes from outside this package."""
        for name in FUNCTIONS:
            kind = next((kind for kind in type(self).__mro__ if name in vars(kind)), FeatureConvexScore)
            if name in vars(self) or not kind.__module__.startswith("fcnn."):
                raise ValueError(
                    f"{type(self).__name__} changes {name}, so nothing can be certified: change the network"
                )

    def kept(self) -> Self:
        """Return a float64 copy in evaluation mode that is made anew only when something has changed; do not alter it.

        Weights, buffers, the threshold, layers, hooks and attributes of layers are compared with what was copied,
        exactly and at every call. A class that is patched at run time goes unnoticed.
        """
        return self._kept.of(self)

    def certified(self, x: Tensor) -> "CertifiedScore":
        """Return ``kept()`` with what was proved of it for inputs like x (N, *shape), N >= 0.

        Raises ValueError naming the layer when the network is not proved to be convex.
        """
        kept, shape = self.kept(), tuple(x.shape[1:])
        if shape not in self._kept.notes:
            self._kept.notes[shape] = CertifiedScore.prove(kept, x)
        return self._kept.notes[shape]

    def batches(self, x: Tensor, memory: int = MEMORY_BUDGET) -> Iterator[Tensor]:
        """Split x (N, *shape) into float64 batches to pass through the network, each within about ``memory`` bytes."""
        size = self.pass_size(x, memory)
        for batch in (x,) if len(x) <= size else x.split(size):
            yield batch.double()

    def pass_size(self, x: Tensor, memory: int = MEMORY_BUDGET) -> int:
        """Return how many inputs (N, *shape) to pass through the network at once, within about ``memory`` bytes."""
        floats = self.network.floats_per_input(self.feature_map.feature_shape(x.shape[1:]))
        fitting = memory // (BYTES_PER_FLOAT64 * floats)
        if x.device.type == "cpu":
            fitting = min(fitting, PASSED_FLOATS // floats)
        return max(1, fitting)

    def tangent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margins (N,) and the gradients of g at phi(x), (N, *feature shape), in float64.

        By convexity score(y) >= margin + gradient . (phi(y) - phi(x)) for every y, up to rounding. Raises ValueError
        for inputs that are not finite or of the wrong shape, and for a network that is not convex.
        """
        check_inputs(x)
        certified = self.certified(x)
        pieces = [certified.tangent(certified.features(batch)) for batch in certified.frozen.batches(x)]
        margins, gradients = zip(*pieces, strict=True)
        return torch.cat(margins), torch.cat(gradients)

    def feature_tangent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return score (N,) and gradient of g at given features (N, *feature shape): one forward, one backward pass.

        No checks and no splitting; certificates call it on a frozen score.
        """
        features = features.detach().requires_grad_()
        with torch.enable_grad():
            score = self.network(features) - self.threshold
            (gradient,) = torch.autograd.grad(score.sum(), features)
        return score.detach(), gradient


@dataclass(frozen=True)
class CertifiedScore:
    """The function that is certified, and what is known of it for inputs of one shape.

    frozen: in float64 and evaluation mode. The network's tangents hold up to ``rounding``, the feature map's values up
    to ``map_error`` times the largest of them. dense: what makes tangents quicker, where the network is a plain
    ConvexMLP. constants: norm -> Lip(phi).
    """

    frozen: FeatureConvexScore
    rounding: Rounding
    feature_shape: tuple[int, ...]
    map_error: float
    sample: Tensor
    dense: DenseTangents | None
    constants: dict[str, float] = field(default_factory=dict)
    slope_errors: dict[str, float] = field(default_factory=dict)
    maps: dict[tuple[str, ...], tuple[dict, dict, dict]] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def prove(cls, frozen: FeatureConvexScore, x: Tensor) -> Self:
        """Prove what a certificate needs, see ``ConvexNetwork.proof``; x (N, *shape) says where it is to be used."""
        frozen.require_own_functions()
        frozen.network.require_nonnegative()
        frozen.pass_size(x)  # refuses inputs of a wrong shape, in the words of the network
        given = x[:SAMPLED].detach().double()
        middle = torch.full((2, *x.shape[1:]), 0.5, dtype=torch.float64, device=x.device)
        sample = torch.cat([given, middle])
        features = torch.cat([frozen.feature_map(given), frozen.feature_map(middle)])
        rounding = Rounding.of(frozen.network.proof(features), float(frozen.threshold))
        feature_map = frozen.feature_map
        weights = feature_map.coordinate_weights
        if not _is_known(feature_map) and weights(features) is not None:
            check_weights(feature_map, weights, sample)
        error, dense = feature_map.relative_error(), DenseTangents.of(frozen.network)
        return cls(frozen, rounding, tuple(features.shape[1:]), error, sample, dense)

    def features(self, x: Tensor) -> Tensor:
        """phi(x) of x (N, *shape)."""
        return self.frozen.feature_map(x)

    def tangent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score (N,) and gradient of g at features (N, *feature shape), as ``feature_tangent`` but for rounding."""
        if self.dense is None:
            return self.frozen.feature_tangent(features)
        score, gradient = self.dense(features)
        return score - self.frozen.threshold, gradient

    def error(self, features: Tensor) -> Tensor:
        """Largest error (N,) of the scores that are computed at features (N, *feature shape)."""
        return self.rounding.of_score(features)

    def error_at_input(self, features: Tensor) -> Tensor:
        """Largest error (N,) of the scores of inputs with these features: the feature map's own error besides."""
        error = self.rounding.of_score(features)
        if self.map_error:
            largest = features.flatten(1).abs().amax(1)
            error = error + self.map_error * largest * self.rounding.slope.sum()
        return error

    def is_flat(self, x: Tensor) -> Tensor:
        """Whether nothing gets through the units that are active at x (N, *shape), (N,)."""
        return self.frozen.network.is_flat(self.features(x))

    def constant(self, norm: str) -> float:
        """Lipschitz constant of the feature map, held against the map itself where the map is not of this package."""
        if norm not in self.constants:
            feature_map = self.frozen.feature_map
            constant = feature_map.constant(norm)
            if not _is_known(feature_map):
                landing = feature_map.lands_in(norm)
                check_lipschitz(feature_map, self.sample, constant, norm, landing, feature_map.step_error)
            self.constants[norm] = constant
        return self.constants[norm]

    def of_map(self, norms: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
        """What closed forms in some norms need of the map: constants, slope errors, and the norms it lands in."""
        if norms not in self.maps:
            self.maps[norms] = (
                {norm: self.constant(norm) for norm in norms},
                {norm: self.slope_error(norm) for norm in norms},
                {norm: self.frozen.feature_map.lands_in(norm) for norm in norms},
            )
        return self.maps[norms]

    def slope_error(self, norm: str) -> float:
        """What rounding of tangents' slopes can take from them for each unit of ‖δ‖_p."""
        if norm not in self.slope_errors:
            landing = self.frozen.feature_map.lands_in(norm)
            self.slope_errors[norm] = self.rounding.of_steps(landing) * self.constant(norm)
        return self.slope_errors[norm]


def _is_known(feature_map: FeatureMap) -> bool:
    return feature_map.is_exactly(Identity) or feature_map.is_exactly(CenteredAbs)


def check_inputs(x: Tensor) -> None:
    """Raise ValueError unless x is a batch (N, *shape) of finite floating-point numbers."""
    if x.ndim < 2:
        raise ValueError(
            f"expected a batch of shape (N, *shape), got {tuple(x.shape)}: add the batch dimension"
        )
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}: scale them to [0, 1] in float32 or float64")
    # A sum is finite unless a term is not (or it overflows): much cheaper than looking at every number.
    if not math.isfinite(x.sum().item()) and not bool(x.isfinite().all()):
        index = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"input {index} holds NaN or infinity: only finite inputs have a score")
