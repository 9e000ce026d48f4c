"""What feature-convex networks are compared with: linear, Lipschitz and plain networks, splitting noise."""

import itertools

import torch
from torch import Tensor, nn

from baselines import lipschitz
from baselines.bounds import BoundedScore, UnsupportedLayer
from baselines.bounds.certify import RadiusSearch
from baselines.branch_and_bound import Budget, to_chain
from baselines.branch_and_bound import certify as branch
from baselines.smoothing import SplittingClassifier
from bench.contract import Curve
from bench.methods.linear import Linear
from tools.fuzz.case import Case, Key
from tools.fuzz.recipes import Recipe, arrays, inputs, tamed, threshold

NORMS = ("l1", "l2", "linf")
DOMAINS = ("free", "box")
FEW = 6


def linear(recipe: Recipe) -> Case:
    """A hyperplane of whole numbers, whose nearest point lies on the steepest ray."""
    free, offsets, _ = arrays(tamed(recipe), recipe.dimension, (), convex=True)
    weight = torch.tensor(free[0][0])
    method = Linear()
    method.use_linear(weight, float(offsets[0][0]))
    x = inputs(recipe, (recipe.dimension,))
    with torch.no_grad():
        method.set_threshold(threshold(recipe, method.score(x)))
    case = Case(recipe, method.score, x, {})
    for domain in DOMAINS:
        for norm, radii in method.certify(x, Curve("distance", domain), NORMS, 0).items():
            case.radii[Key("linear", "distance", norm, domain)] = torch.as_tensor(radii.radius)
    return case


def lipschitz_network(recipe: Recipe) -> Case:
    """A network with a known Lipschitz constant."""
    recipe = tamed(recipe)
    dense = ("cayley_mlp", "sll_mlp", "bro_mlp", "l1_mlp", "linf_distance_net")
    convolutional = ("cayley_convnet", "bro_convnet", "sll_convnet")
    image = recipe.kind % 12 == 11
    name = convolutional[recipe.seed % 3] if image else dense[recipe.kind % 5]
    shape = (1, 4, 4) if image else (recipe.dimension,)
    options = {"width": 2, "dense": 3} if image else {}
    widths = recipe.widths or (4,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        make = getattr(lipschitz, name)
        if name == "bro_mlp":
            network = make(shape, [min(width, recipe.dimension) for width in widths])
        else:
            network = make(shape, **options) if image else make(shape, [2 * width for width in widths])
        with torch.no_grad():
            for parameter in network.parameters():
                if recipe.twist in ("duplicate", "kink", "cancelling"):
                    parameter.copy_((2 * parameter).round() + 0.25)
                elif recipe.twist == "shifted" and parameter.ndim == 1:
                    parameter.add_(1e4)
                if name == "linf_distance_net" or parameter.ndim == 1:
                    parameter.mul_(min(recipe.scale, 1e8))
    network = network.double().eval()
    x = inputs(recipe, shape)
    with torch.no_grad():
        network.threshold.fill_(threshold(recipe, network(x)))
    case = Case(recipe, network, x, {}, cheap=not image)
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
    try:
        score = BoundedScore(network, shape)
    except UnsupportedLayer as error:
        case.refused[Key("bounds", "all", "all", "all")] = str(error)
        return case
    norm = NORMS[recipe.seed % 3]
    search = RadiusSearch(score, x, norm)
    for method, domain in itertools.product(("ibp", "crown_ibp", "crown", "alpha_crown"), DOMAINS):
        case.radii[Key("bounds", method, norm, domain)] = search.radii(method, domain).radius
    if recipe.kind % 3 == 0:
        for domain in DOMAINS:
            found = branch(to_chain(network, shape), x, norm, domain, Budget(max_domains=100))
            case.radii[Key("branch_and_bound", "alpha_beta_crown", norm, domain)] = found.radius
    return case


def splitting(recipe: Recipe) -> Case:
    """Splitting noise on a small network, whose smoothed score is p(x) - 1/2."""
    rng, dimension = recipe.generator(7), 1 + recipe.kind % 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = nn.Sequential(nn.Linear(dimension, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
        classifier = SplittingClassifier(net, (dimension,), int(rng.integers(1, 60))).eval()
    x = inputs(recipe, (dimension,), 4)
    with torch.no_grad():
        classifier.threshold.fill_(float(classifier.median_score(x, 50).median()))
    radius = torch.tensor(classifier.radius(x, classifier.share(x)))

    def score(points: Tensor) -> Tensor:
        return torch.tensor(classifier.share(points)) - 0.5

    return Case(recipe, score, x, {Key("splitting", "votes", "l1", "free"): radius}, cheap=False)
