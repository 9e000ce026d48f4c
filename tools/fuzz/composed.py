"""Convex heads on learned maps, and unions of detectors, certified by the methods of the suite."""

import torch
from torch import Tensor

from baselines.lipschitz.features import LipschitzFeatures
from bench.contract import Curve
from bench.methods.fcnn_learned import DECLARED
from bench.methods.fcnn_union import FCNNUnion, FCNNUnionSettings, UnionScore
from fcnn import ConvexMLP, FeatureConvexClassifier, Identity
from fcnn.heads import MaxAffine
from fcnn.learned_maps import LipschitzMap, certify_through_map
from tools.fuzz.case import Case, Key
from tools.fuzz.opponents import NORMS, lipschitz_layers
from tools.fuzz.recipes import Recipe, arrays, inputs, tamed, threshold

CERTIFICATES = ("closed_form", "refined")


def learned(recipe: Recipe) -> Case:
    """A convex head of whole numbers on the layers of a Lipschitz network."""
    recipe = tamed(recipe)
    name, classifier = _on_learned_map(recipe)
    shape = classifier.feature_map.shape
    x = inputs(recipe, shape)
    with torch.no_grad():
        classifier.threshold.fill_(threshold(recipe, classifier.score(x)))
    case = Case(recipe, classifier.frozen().score, x, {}, cheap=len(shape) == 1)
    for certificate in CERTIFICATES:
        for norm, radii in certify_through_map(classifier, x, NORMS, certificate).items():
            case.radii[Key(f"learned {name}", certificate, norm, "free")] = radii
    return case


def union(recipe: Recipe) -> Case:
    """A convex score on the input, another one, and one on a learned map: sensitive where any says so."""
    recipe = tamed(recipe)
    rng = recipe.generator(8)
    _, on_map = _on_learned_map(recipe, dense=True)
    x = inputs(recipe, on_map.feature_map.shape)
    pixels = FeatureConvexClassifier(_head(recipe, x.shape[1]), Identity()).double().eval()
    members = {"pixels": {"method": "fcnn"}, "map": {"method": "fcnn_learned"}}
    method = FCNNUnion(FCNNUnionSettings(members, certificate=f"{CERTIFICATES[recipe.kind % 2]}:free"))
    for member, model in zip(method.members.values(), (pixels, on_map), strict=True):
        member.model = model
    method.model = UnionScore({name: member.model for name, member in method.members.items()})
    with torch.no_grad():
        for place, model in enumerate((pixels, on_map)):
            method.model.offsets[place] = threshold(recipe, model.score(x))
            method.model.scales[place] = float(rng.choice([1.0, 1 / 3, 100.0]))
        method.model.threshold.fill_(float(rng.choice([0.0, 0.1, -0.1])))

    def score(points: Tensor) -> Tensor:
        # Of the members at their thresholds, as predictions are.
        method._set_members(method.model.member_thresholds())
        return torch.stack([member.score(points) for member in method.members.values()]).amax(0)

    case = Case(recipe, score, x, {})
    curve = method.curves()[0]
    for norm, radii in method.certify(x, Curve(curve.certificate, curve.domain), NORMS, 0).items():
        case.radii[Key("union", curve.certificate, norm, "free")] = torch.as_tensor(radii.radius)
    return case


def _on_learned_map(recipe: Recipe, dense: bool = False) -> tuple[str, FeatureConvexClassifier]:
    if dense and recipe.kind % 12 == 11:
        recipe = Recipe(**{**recipe.record(), "kind": 0})
    name, network, shape = lipschitz_layers(recipe)
    layers = LipschitzFeatures(network, torch.Size(shape).numel())
    feature_map = LipschitzMap(layers, *DECLARED, shape)
    return name, FeatureConvexClassifier(_head(recipe, feature_map.features), feature_map).double().eval()


def _head(recipe: Recipe, features: int) -> torch.nn.Module:
    """A max-affine head, or a convex MLP, of whole numbers."""
    if recipe.seed % 2:
        head = MaxAffine(features, 1 + recipe.seed % 5).double()
        rng = recipe.generator(6)
        with torch.no_grad():
            for parameter in head.parameters():
                whole = rng.integers(-recipe.magnitude, recipe.magnitude + 1, tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(whole * recipe.scale))
        return head
    return ConvexMLP.from_arrays(
        *[
            [torch.tensor(part) for part in group]
            for group in arrays(recipe, features, recipe.widths, convex=True)
        ]
    )
