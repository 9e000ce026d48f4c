"""Smoothed classifiers whose probabilities are known exactly: splitting noise, and noise on halfspaces."""

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from baselines.smoothing import SplittingClassifier, radii
from baselines.smoothing.exact_sums import exact_sums
from tools.fuzz.case import Case, Key
from tools.fuzz.opponents import NORMS
from tools.fuzz.oracles import hyperplane_oracle
from tools.fuzz.recipes import Recipe, inputs

LEVELS = 255
SPLIT_INPUTS = 24
# Off the grid by less than this is taken to be on it.
GRID = 2e-5
# A float64 probability below the exact one.
PROBABILITY_SLACK = 4e-16


def splitting(recipe: Recipe) -> Case:
    """Splitting noise on a small network, whose smoothed score is p(x) - 1/2."""
    rng, dimension = recipe.generator(7), 1 + recipe.kind % 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = nn.Sequential(nn.Linear(dimension, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
        classifier = SplittingClassifier(net, (dimension,), int(rng.integers(1, 120))).eval()
    x = inputs(recipe, (dimension,), SPLIT_INPUTS)
    x[::2] = (x[::2] * LEVELS).round() / LEVELS
    with torch.no_grad():
        classifier.threshold.fill_(float(classifier.median_score(x, 50).median()))
    radius = torch.tensor(classifier.radius(x, classifier.share(x)))
    table = VoteTable(classifier, net)

    def score(points: Tensor) -> Tensor:
        # Few points are looked at closely, many by the table.
        return (torch.tensor(classifier.share(points)) if len(points) <= 2 else table.shares(points)) - 0.5

    return Case(recipe, score, x, {Key("splitting", "votes", "l1", "free"): radius}, cheap=False)


class VoteTable:
    """All votes of a small classifier on split inputs, and p(x) by the definition: sums over j, intervals of u."""

    def __init__(self, classifier: SplittingClassifier, net: nn.Module) -> None:
        self.period, (self.dimension,) = classifier.period, classifier.input_shape
        self.cuts = (torch.arange(self.period)[:, None] + classifier.offset) % self.period
        self.places = LEVELS // self.period + 4
        low = self.cuts[:, None] + self.period * (torch.arange(self.places)[:, None] - 2) + 0.5
        # The network is shown the middles (J, K, d) in float32.
        middle = (low.clamp(0, LEVELS) + (low + self.period).clamp(0, LEVELS)).float() / (2 * LEVELS)
        grids = torch.cartesian_prod(*[torch.arange(self.places)] * self.dimension)
        grids = grids.reshape(-1, self.dimension)
        shown = torch.stack([middle[:, grids[:, i], i] for i in range(self.dimension)], 2)
        with torch.inference_mode():
            scores = exact_sums(net)(shown.double().reshape(-1, self.dimension))
        self.sensitive = (scores > classifier.threshold.double()).double()

    def shares(self, points: Tensor) -> Tensor:
        """p(x) (N,) of points (N, d)."""
        scaled = LEVELS * points
        nearest = scaled.round()
        scaled = torch.where((scaled - nearest).abs() <= GRID, nearest, scaled)
        starts = torch.cat([torch.zeros(len(points), 1, dtype=torch.float64), scaled - scaled.floor()], 1)
        starts = starts.sort(1).values
        lengths = torch.cat([starts[:, 1:], torch.ones_like(starts[:, :1])], 1) - starts
        # A cut at s = ((j + v) mod J) + u lies below x iff s + J k <= x; u is taken just above the interval's start.
        gap = (scaled[:, None, None] - self.cuts - starts[:, :, None, None]) / self.period
        whole = gap.round()
        below = torch.where((gap - whole).abs() < 1e-12, whole - 1, gap.floor())
        place = torch.arange(self.period).expand(gap.shape[:3])
        for one in (below + 2).clamp(0, self.places - 1).long().unbind(3):
            place = place * self.places + one
        return (self.sensitive[place].mean(2) * lengths).sum(1)


def halfspaces(recipe: Recipe) -> Case:
    """Noise on a halfspace: p(x) is a distribution function, and the smoothed classifier is the halfspace itself.

    Gaussian noise: any halfspace. Laplace and uniform noise: one that a single coordinate decides, where p is known.
    """
    rng, dimension = recipe.generator(7), recipe.dimension * (1 + 9 * (recipe.kind % 3))
    noise = ("gaussian", "laplace", "uniform")[recipe.seed % 3]
    sigma = float(rng.choice([0.05, 0.25, 1.0, 3.0, 100.0]))
    weight = rng.normal(size=dimension)
    if noise == "laplace" or noise == "uniform":
        weight = np.eye(dimension)[rng.integers(dimension)] * rng.choice([-1, 1]) * rng.exponential()
    x = inputs(recipe, (dimension,))
    slope = torch.from_numpy(weight)
    size = float(np.linalg.norm(weight))
    offset = float((x @ slope).median()) - size * sigma * float(rng.exponential())

    def score(points: Tensor) -> Tensor:
        return points @ slope - offset

    depth = score(x).numpy() / size
    with np.errstate(over="ignore"):
        p = {
            "gaussian": lambda: ndtr(depth / sigma),
            "laplace": lambda: 1 - 0.5 * np.exp(-depth * np.sqrt(2) / sigma),
            "uniform": lambda: 0.5 + depth / (2 * np.sqrt(3) * sigma),
        }[noise]()
    lower = np.where(depth > 0, np.clip(p - PROBABILITY_SLACK, 0, 1 - PROBABILITY_SLACK), 0.0)
    case = Case(recipe, score, x, {})
    margin = score(x)
    case.exact = hyperplane_oracle(slope, margin, x)
    for norm in NORMS:
        found = radii(noise, sigma, lower, dimension, norm)
        case.radii[Key(f"smoothing {noise}", "radius", norm, "free")] = torch.from_numpy(found)
    return case
