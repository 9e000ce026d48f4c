"""Feature-convex classifiers, certified in every way they can be."""

import torch
from torch import Tensor

from fcnn import (
    CenteredAbs,
    ConvexConvNet,
    ConvexMLP,
    FeatureConvexClassifier,
    FeatureMap,
    Identity,
    PublishedConvNet,
    PublishedMLP,
    UnsoundCertificate,
    certify_with_bounds,
)
from fcnn.exact import exact_radius
from tools.fuzz.case import Case, Key
from tools.fuzz.rational import rational_score, rational_tangent
from tools.fuzz.recipes import Recipe, arrays, inputs, threshold

CERTIFICATES = (
    ("closed_form", "free"),
    ("separable", "free"),
    ("in_domain", "box"),
    ("refined", "free"),
    ("refined", "box"),
)
FEATURE_MAPS = ("identity", "identity", "centred", "centered_abs", "stretched", "standardised", "mixing")
EXACT_INPUTS = 6


class Stretched(FeatureMap):
    """x -> 2.5 x by the documented recipe, without weights of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.5 * x

    def lipschitz(self, norm: str) -> float:
        return 2.5

    def feature_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class Standardised(Identity):
    """(x - mean) / 0.1: a subclass that keeps the weights of the class it comes from."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.1

    def lipschitz(self, norm: str, to: str | None = None) -> float:
        return 10.0


class Mixing(FeatureMap):
    """A linear map with a constant in l2 only."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.to(x.dtype)).reshape(x.shape)

    def lipschitz(self, norm: str) -> float:
        if norm != "l2":
            raise ValueError(f"no Lipschitz constant in {norm!r}: choose l2")
        return float(torch.linalg.matrix_norm(self.matrix, ord=2)) * (1 + 1e-9)

    def feature_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


def build(recipe: Recipe) -> Case:
    """Build and certify the recipe's classifier."""
    shape = (1, 3, 3) if recipe.kind % 10 in (1, 2) else (recipe.dimension,)
    feature_map = _feature_map(recipe, shape)
    network = _network(recipe, feature_map.feature_shape(shape)).double().eval()
    classifier = FeatureConvexClassifier(network, feature_map).double()
    x = inputs(recipe, shape)
    with torch.no_grad():
        classifier.threshold.fill_(threshold(recipe, classifier.score(x)))
    frozen = classifier.frozen()
    case = Case(recipe, frozen.score, x, {})
    norms = ("l2",) if recipe.feature_map == "mixing" else ("l1", "l2", "linf")
    for certificate, domain in CERTIFICATES:
        for norm in norms:
            _certify(case, classifier, certificate, norm, domain)
    if type(network) is ConvexMLP and feature_map.is_exactly(Identity):
        case.exact = lambda norm, domain, rows, found: exact_radius(
            classifier, x[rows[:EXACT_INPUTS]], norm, domain
        )
        case.rational = lambda point: rational_score(frozen, point)
        case.tangent = lambda point, x: rational_tangent(frozen, point, x)
    return case


def _certify(
    case: Case, classifier: FeatureConvexClassifier, certificate: str, norm: str, domain: str
) -> None:
    key = Key("fcnn", certificate, norm, domain)
    refined = certificate == "refined"
    try:
        bounds = certify_with_bounds(classifier, case.x, (norm,), certificate, domain=domain, points=refined)[
            norm
        ]
    except UnsoundCertificate as error:
        case.faults[key] = str(error)
        return
    except ValueError as error:
        case.refused[key] = str(error)
        return
    case.radii[key] = bounds.radius
    if refined:
        case.hints.setdefault((norm, domain), []).append(bounds.point)


def _network(recipe: Recipe, shape: tuple[int, ...]) -> torch.nn.Module:
    kind = recipe.kind % 10
    if kind > 3:
        free, offsets, hidden = arrays(recipe, shape[0], recipe.widths, convex=True)
        if recipe.kind % 2 and len(free) > 1:
            free[1:] = [0 * weight for weight in free[1:]]
        return ConvexMLP.from_arrays(
            *[[torch.tensor(part) for part in group] for group in (free, offsets, hidden)]
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if kind == 1:
            network = ConvexConvNet(
                shape[0],
                2,
                2,
                first_kernel=3,
                passthrough=bool(recipe.seed % 2),
                batch_norm=bool(recipe.seed % 3),
                linear_grid=recipe.seed % 2,
            )
        elif kind == 2:
            network = PublishedConvNet(shape, 2, 1, first_kernel=3)
        elif kind == 3:
            network = PublishedMLP(shape[0], recipe.widths or (3,))
        else:
            network = ConvexMLP(shape[0], recipe.widths, passthrough=False)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randint(-recipe.magnitude, recipe.magnitude + 1, parameter.shape))
    network.project()
    return network


def _feature_map(recipe: Recipe, shape: tuple[int, ...]) -> FeatureMap:
    mean = torch.full(shape, 0.5 if recipe.seed % 2 else 1 / 3, dtype=torch.float64)
    size = mean.numel()
    if recipe.feature_map == "mixing":
        return Mixing(torch.tensor(recipe.generator(5).integers(-2, 3, (size, size)), dtype=torch.float64))
    return {
        "identity": lambda: Identity(),
        "centred": lambda: Identity(mean),
        "centered_abs": lambda: CenteredAbs(mean),
        "stretched": lambda: Stretched(),
        "standardised": lambda: Standardised(mean),
    }[recipe.feature_map]()
