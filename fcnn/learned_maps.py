"""Feature maps that are learned: the layers of any Lipschitz network, with the constants that it declares."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fcnn.certify import certify_batch
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import FeatureMap
from fcnn.score import check_inputs

LARGEST_REACH = 1e6
# (layers, norm) -> (L, q): ||layers(x) - layers(y)||_q <= L ||x - y||_p, p being the norm.
Constants = Callable[[Any, str], tuple[float, str]]
# (layers, x, norm, reach (N,)) -> (N,): how much of layers(x') is rounding in float64, wherever ||x' - x||_p <= reach.
Rounding = Callable[[Any, Tensor, str, Tensor], Tensor]


class LipschitzMap(FeatureMap):
    """phi = ``layers``, (N, *shape) -> (N, k), whose Lipschitz constants are known and which may be trained on.

    constants: (layers, norm p) -> (L, q) with ||phi(x) - phi(y)||_q <= L ||x - y||_p; it is asked of the layers in use,
    in float64, whenever something is certified, and raises ValueError for a norm without a constant. rounding: how far
    computed features can lie from the layers' in real numbers. shape: that of one input.
    """

    # ``certify`` of a classifier relies on this; ``certify_through_map`` on ``rounding``, which is a bound.
    precision = 1e-9

    def __init__(
        self, layers: nn.Module, constants: Constants, rounding: Rounding, shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.rounding = rounding
        self.layers = layers
        self.constants = constants
        self.shape = tuple(shape)
        with torch.no_grad():
            was_training = layers.training
            layers.eval()
            some = next(layers.parameters(), torch.zeros(()))
            self.features = layers(torch.zeros(1, *shape, dtype=some.dtype, device=some.device)).shape[1]
            layers.train(was_training)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)

    def lands_in(self, norm: str) -> str:
        return self.constants(self.layers, norm)[1]

    def lipschitz(self, norm: str, to: str | None = None) -> float:
        constant, landing = self.constants(self.layers, norm)
        if (to or norm) != landing:
            raise ValueError(
                f"{type(self).__name__} has no Lipschitz constant from {norm} to {to or norm}: choose to={landing!r}"
            )
        return constant

    def step_error(self, x: Tensor, norm: str, reach: Tensor) -> Tensor:
        return 2 * self.rounding(self.layers, x, norm, reach)

    def settings(self) -> dict[str, Any]:
        raise ValueError(
            "a learned map consists of layers that a checkpoint of settings and weights cannot name: keep the run "
            "that trained it, or write it as ONNX (python -m bench.export)"
        )

    def feature_shape(self, input_shape: Sequence[int]) -> tuple[int, ...]:
        if tuple(input_shape) != self.shape:
            raise ValueError(f"one input has shape {tuple(input_shape)}: the map was built for {self.shape}")
        return (self.features,)


@torch.no_grad()
def certify_through_map(
    classifier: FeatureConvexClassifier, x: Tensor, norms: Sequence[str], certificate: str = "closed_form"
) -> dict[str, Tensor]:
    """Certified radii, norm -> (N,) float64, of a classifier behind a LipschitzMap, in the free domain; x (N, *shape).

    A radius rho of the head at phi(x), in the norm q that the map lands in, is one of rho / Lip_{p->q}(phi) at x:
    inside it phi(x') stays closer than rho to phi(x). certificate: "closed_form" or "refined", the latter close to the
    distance of phi(x) from where the head is not positive. Raises ValueError for a network that is not convex, and for
    a map that is not what its constants and its rounding are of.
    """
    check_inputs(x)
    kind = type(classifier.feature_map)
    if getattr(kind, "forward", None) is not LipschitzMap.forward:
        raise ValueError(
            f"{kind.__name__} is no LipschitzMap, or changes its forward: use classifier.certify"
        )
    certified = classifier.certified(x)
    frozen, feature_map = certified.frozen, cast(LipschitzMap, certified.frozen.feature_map)
    head = FeatureConvexClassifier(frozen.network, threshold=float(frozen.threshold))
    features = torch.cat([feature_map(batch) for batch in frozen.batches(x)])
    radii: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for norm in norms:
        landing = feature_map.lands_in(norm)
        if landing not in found:
            found[landing] = certify_batch(head, features, (landing,), certificate, domain="free")[landing]
        constant = certified.constant(norm)
        radius = found[landing] / constant
        # An infinite radius is one of a score that is positive whatever the features are.
        error = feature_map.rounding(feature_map.layers, x.double(), norm, radius.clamp(max=LARGEST_REACH))
        radii[norm] = (radius - 2 * error / constant).clamp(min=0)
    return radii
