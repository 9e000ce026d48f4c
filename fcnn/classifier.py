"""Feature-convex classifier: score(x) = g(phi(x)) - threshold with g convex; sensitive iff the score is positive."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from fcnn.certificates import NORMS
from fcnn.feature_maps import FeatureMap, Identity
from fcnn.networks import ConvexNetwork, float64_copy

MEMORY_BUDGET = 2**27
BYTES_PER_FLOAT64 = 8
# A network's pass over more numbers than this falls out of a processor's caches.
PASSED_FLOATS = 2**21


class FeatureConvexClassifier(nn.Module):
    """Binary classifier whose sensitive class has closed-form certified radii, (N, *shape) -> (N,).

    ``score`` follows the network's dtype and mode and can be trained through. ``predict``, ``tangent`` and
    ``certify`` work on one and the same function, the network in evaluation mode and float64, so that no input gets
    a radius that ``predict`` does not call sensitive.
    Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), the definition of feature-convex classifiers.
    """

    def __init__(
        self, network: ConvexNetwork, feature_map: FeatureMap | None = None, threshold: float = 0.0
    ) -> None:
        super().__init__()
        if not math.isfinite(threshold):
            raise ValueError(f"threshold = {threshold}: must be a finite number")
        self.network = network
        self.feature_map = Identity() if feature_map is None else feature_map
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float64))

    def score(self, x: Tensor) -> Tensor:
        """Return the scores (N,) of x (N, *shape): positive is sensitive."""
        dtype = next(self.network.parameters()).dtype
        return self.network(self.feature_map(x.to(dtype))) - self.threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)

    def project(self) -> None:
        """Clamp the network's hidden weights at 0, in place."""
        self.network.project()

    def frozen(self) -> Self:
        """Return the function that is certified: a float64 copy in evaluation mode without parameter gradients.

        Raises ValueError naming the layer when a weight that must be non-negative is not.
        """
        self.network.require_convex()
        return float64_copy(self)

    def batches(self, x: Tensor, memory: int = MEMORY_BUDGET) -> Iterator[Tensor]:
        """Split x (N, *shape) into float64 batches to pass through the network, each within about ``memory`` bytes."""
        for batch in x.split(self.pass_size(x, memory)):
            yield batch.double()

    def pass_size(self, x: Tensor, memory: int = MEMORY_BUDGET) -> int:
        """Return how many inputs (N, *shape) to pass through the network at once, within about ``memory`` bytes."""
        floats = self.network.floats_per_input(self.feature_map.feature_shape(x.shape[1:]))
        fitting = memory // (BYTES_PER_FLOAT64 * floats)
        if x.device.type == "cpu":
            fitting = min(fitting, PASSED_FLOATS // floats)
        return max(1, fitting)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return bool (N,): which of x (N, *shape) have a positive score, in float64.

        Raises ValueError for inputs that are not finite or of the wrong shape.
        """
        check_inputs(x)
        exact = float64_copy(self)
        return torch.cat([exact.score(batch) > 0 for batch in self.batches(x)])

    def tangent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margins (N,) and the gradients of g at phi(x), (N, *feature shape), in float64.

        By convexity score(y) >= margin + gradient . (phi(y) - phi(x)) for every y. Raises ValueError for inputs
        that are not finite or of the wrong shape, and for a network that is not convex.
        """
        check_inputs(x)
        return self.frozen().tangent_in_batches(x)

    def tangent_in_batches(self, x: Tensor, memory: int = MEMORY_BUDGET) -> tuple[Tensor, Tensor]:
        """As ``tangent``, without checks; certificates call it on ``frozen()``."""
        pieces = [self.feature_tangent(self.feature_map(batch)) for batch in self.batches(x, memory)]
        if len(pieces) == 1:
            return pieces[0]
        margins, gradients = zip(*pieces, strict=True)
        return torch.cat(margins), torch.cat(gradients)

    def feature_tangent(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return score (N,) and gradient of g at given features (N, *feature shape): one forward, one backward pass.

        No checks and no splitting; certificates call it on ``frozen()``.
        """
        features = features.detach().requires_grad_()
        with torch.enable_grad():
            score = self.network(features) - self.threshold
            (gradient,) = torch.autograd.grad(score.sum(), features)
        return score.detach(), gradient

    def certify(
        self, x: Tensor, norms: Sequence[str] = NORMS, certificate: str = "refined", **options: Any
    ) -> dict[str, Tensor]:
        """Return certified radii, norm -> (N,) float64; 0 where x (N, *shape) is not predicted sensitive.

        certificate: "closed_form", "separable", "in_domain" or "refined"; ``options`` as in ``fcnn.certify``.
        """
        # Imported here because the certificates are written in terms of this class.
        from fcnn.certify import certify_batch

        return certify_batch(self, x, norms, certificate, **options)


def check_inputs(x: Tensor) -> None:
    """Raise ValueError unless x is a batch (N, *shape) of finite floating-point numbers."""
    if x.ndim < 2:
        raise ValueError(
            f"expected a batch of shape (N, *shape), got {tuple(x.shape)}: add the batch dimension"
        )
    if not x.is_floating_point():
        raise ValueError(f"inputs are {x.dtype}: scale them to [0, 1] in float32 or float64")
    # A sum is finite unless a term is not (or it overflows): much cheaper than looking at every number.
    if not bool(x.sum().isfinite()) and not bool(x.isfinite().all()):
        index = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"input {index} holds NaN or infinity: only finite inputs have a score")
