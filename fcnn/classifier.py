"""Feature-convex classifier: score(x) = g(phi(x)) - threshold with g convex; sensitive iff the score is positive."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fcnn.certificates import NORMS
from fcnn.certify import certify_batch
from fcnn.score import FeatureConvexScore, check_inputs


class FeatureConvexClassifier(FeatureConvexScore):
    """Binary classifier whose sensitive class has closed-form certified radii, (N, *shape) -> (N,).

    ``score`` follows the network's dtype and mode and can be trained through. ``predict``, ``tangent`` and
    ``certify`` work on one and the same function, the network in evaluation mode and float64, so that no input gets
    a radius that ``predict`` does not call sensitive.
    Source: Pfrommer, Anderson, Piet, Sojoudi (NeurIPS 2023), the definition of feature-convex classifiers.
    """

    def project(self) -> None:
        """Clamp the network's hidden weights at 0, in place."""
        self.network.project()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return bool (N,): which of x (N, *shape) have a positive score, in float64.

        Raises ValueError for inputs that are not finite or of the wrong shape.
        """
        check_inputs(x)
        exact = self.kept()
        return torch.cat([exact.score(batch) > 0 for batch in exact.batches(x)])

    def certify(
        self, x: Tensor, norms: Sequence[str] = NORMS, certificate: str = "refined", **options: Any
    ) -> dict[str, Tensor]:
        """Return certified radii, norm -> (N,) float64; 0 where x (N, *shape) is not predicted sensitive.

        certificate: "closed_form", "separable", "in_domain" or "refined"; ``options`` as in ``fcnn.certify``.
        """
        return certify_batch(self, x, norms, certificate, **options)
