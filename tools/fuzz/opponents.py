"""What feature-convex networks are compared with: linear, Lipschitz and plain networks, splitting noise."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from baselines import lipschitz
from baselines.bounds import BoundedScore, UnsupportedLayer
from baselines.bounds.certify import RadiusSearch
from baselines.branch_and_bound import Budget, to_chain
from baselines.branch_and_bound import certify as branch
from bench.contract import Curve
from bench.methods.linear import Linear
from tools.fuzz.case import Case, Key
from tools.fuzz.oracles import hyperplane_oracle, mixed_integer_distance
from tools.fuzz.rational import rational_chain
from tools.fuzz.recipes import Recipe, arrays, inputs, tamed, threshold

NORMS = ("l1", "l2", "linf")
DOMAINS = ("free", "box")
FEW = 48
MIXED = 3
SEARCHED = 2
DENSE = ("cayley_mlp", "sll_mlp", "bro_mlp", "l1_mlp", "linf_distance_net")


def linear(recipe: Recipe) -> Case:
    """A hyperplane of whole numbers, whose nearest point lies on the steepest ray."""
    free, offsets, _ = arrays(tamed(recipe), recipe.dimension, (), convex=True)
    weight = torch.tensor(free[0][0])
    method = Linear()
    method.use_linear(weight, float(offsets[0][0]))
    x = inputs(recipe, (recipe.dimension,))
    with torch.no_grad():
        method.set_threshold(threshold(recipe, method.score(x)))
    with torch.no_grad():
        margin = method.score(x)
    case = Case(recipe, method.score, x, {})
    case.exact = hyperplane_oracle(weight, margin, x)
    for domain in DOMAINS:
        for norm, radii in method.certify(x, Curve("distance", domain), NORMS, 0).items():
            case.radii[Key("linear", "distance", norm, domain)] = torch.as_tensor(radii.radius)
    return case


def lipschitz_layers(recipe: Recipe) -> tuple[str, nn.Module, tuple[int, ...]]:
    """A network with a known Lipschitz constant in float64: the name of its kind, itself, and its inputs' shape."""
    convolutional = ("cayley_convnet", "bro_convnet", "sll_convnet")
    image = recipe.kind % 12 == 11
    name = convolutional[recipe.seed % 3] if image else DENSE[recipe.kind % 5]
    shape = (1, 4, 4) if image else (recipe.dimension,)
    widths = recipe.widths or (4,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        make = getattr(lipschitz, name)
        if image:
            network = make(shape, width=2, dense=3)
        elif name == "bro_mlp":
            network = make(shape, [min(width, recipe.dimension) for width in widths])
        else:
            network = make(shape, [2 * width for width in widths])
        with torch.no_grad():
            for parameter in network.parameters():
                if recipe.twist in ("duplicate", "kink", "cancelling"):
                    parameter.copy_((2 * parameter).round() + 0.25)
                elif recipe.twist == "shifted" and parameter.ndim == 1:
                    parameter.add_(1e4)
                if name == "linf_distance_net" or parameter.ndim == 1:
                    parameter.mul_(min(recipe.scale, 1e8))
    return name, network.double().eval(), shape


def lipschitz_network(recipe: Recipe) -> Case:
    """A network with a known Lipschitz constant, certified by it."""
    recipe = tamed(recipe)
    name, network, shape = lipschitz_layers(recipe)
    x = inputs(recipe, shape)
    with torch.no_grad():
        network.threshold.fill_(threshold(recipe, network(x)))
    case = Case(recipe, network, x, {}, cheap=len(shape) == 1)
    for norm, radii in lipschitz.certify(network, x, NORMS).items():
        case.radii[Key(name, "lipschitz", norm, "free")] = radii
    return case


def plain_network(recipe: Recipe) -> nn.Sequential:
    """A ReLU MLP, or a ConvNet with a padded average pool, of whole numbers."""
    if recipe.kind % 4 == 3:
        network = nn.Sequential(
            nn.Conv2d(1, 2, 2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2, 2, 1, count_include_pad=bool(recipe.seed % 2), ceil_mode=bool(recipe.seed % 3)),
            nn.Flatten(),
            nn.LazyLinear(2),
            nn.ReLU(),
            nn.Linear(2, 1),
        )
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(recipe.seed)
            network(torch.zeros(1, 1, 3, 3))
            for parameter in network.parameters():
                parameter.copy_(torch.randint(-recipe.magnitude, recipe.magnitude + 1, parameter.shape))
    else:
        widths = recipe.widths or (3,)
        free, offsets, hidden = arrays(recipe, recipe.dimension, widths, convex=False)
        layers: list[nn.Module] = []
        for weight, offset in zip([free[0], *hidden], offsets, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
            layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(offset)})
            layers += [layer, nn.ReLU()]
        network = nn.Sequential(*layers[:-1])
    return network.double().eval().requires_grad_(False)


def bounded(recipe: Recipe) -> Case:
    """Interval and linear bounds, and branch and bound, of a plain network."""
    recipe = tamed(recipe)
    network = plain_network(recipe)
    shape = (1, 3, 3) if recipe.kind % 4 == 3 else (recipe.dimension,)
    x = inputs(recipe, shape, FEW)
    with torch.no_grad():
        network[-1].bias.sub_(threshold(recipe, network(x)[:, 0]))
    case = Case(recipe, lambda points: network(points)[:, 0], x, {})
    if len(shape) == 1:
        layers = [(layer.weight.numpy(), layer.bias.numpy()) for layer in network[::2]]
        case.exact = lambda norm, domain, rows, found: _mixed_integer(
            layers, x[rows[:MIXED]], norm, domain, found
        )
        case.rational = lambda point: rational_chain(layers, point)
    try:
        score = BoundedScore(network, shape)
    except UnsupportedLayer as error:
        case.refused[Key("bounds", "all", "all", "all")] = str(error)
        return case
    norm = NORMS[recipe.seed % 3]
    search = RadiusSearch(score, x, norm)
    for method, domain in itertools.product(("ibp", "crown_ibp", "crown", "alpha_crown"), DOMAINS):
        case.radii[Key("bounds", method, norm, domain)] = search.radii(method, domain).radius
    if recipe.kind % 10 == 0:
        for domain in DOMAINS:
            found = branch(to_chain(network, shape), x[:SEARCHED], norm, domain, Budget(max_domains=20))
            radii = torch.zeros(len(x), dtype=torch.float64)
            radii[:SEARCHED] = found.radius
            case.radii[Key("branch_and_bound", "alpha_beta_crown", norm, domain)] = radii
    return case


def _mixed_integer(
    layers: list[tuple[np.ndarray, np.ndarray]], x: Tensor, norm: str, domain: str, found: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances and points of the first inputs, by mixed-integer programs within the adversarial points found."""
    answers = [
        mixed_integer_distance(layers, one.numpy(), norm, domain, reach)
        for one, reach in zip(x, found.tolist(), strict=False)
    ]
    distances, points = zip(*answers, strict=True)
    return torch.tensor(distances), torch.from_numpy(np.stack(points))
