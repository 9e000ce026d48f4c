"""What a nasty network is made of: a few small choices that fix it, so that a case can be told, shrunk and repeated."""

from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

TWISTS = ("none", "dead", "duplicate", "flat", "kink", "shifted", "nudged", "cancelling")
SCALES = (1.0, 1.0, 1.0, 0.1, 1 / 3, 1e5, 1e8, 1e-8, 1e30, 1e-30)
SCALED = ("all", "first", "hidden")
INPUTS = ("mixed", "corners", "eighths")
MARGINS = (0.0, 1e-9, 1e-3, 0.1, 0.5, 1.0, 3.0)
COUNT = 160


@dataclass(frozen=True)
class Recipe:
    """One case. family: of ``tools.fuzz.families``; kind: which of its networks; all numbers follow from ``seed``.

    dimension: of the input. widths: of the hidden layers. magnitude: weights are whole numbers of at most this size.
    twist: what is odd about them. scale, scaled: a factor, and on which layers. inputs: where they lie. margin: how
    many standard deviations of the scores the threshold lies below their median. feature_map: of convex networks.
    count: of inputs, at most.
    """

    family: str
    kind: int = 0
    seed: int = 0
    dimension: int = 2
    widths: tuple[int, ...] = (3,)
    magnitude: int = 1
    twist: str = "none"
    scale: float = 1.0
    scaled: str = "all"
    inputs: str = "mixed"
    margin: float = 0.5
    feature_map: str = "identity"
    count: int = COUNT

    def record(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)

    def generator(self, purpose: int = 0) -> np.random.Generator:
        """A generator of its own for each purpose."""
        return np.random.default_rng([self.seed, purpose])


def draw(rng: np.random.Generator, family: str, feature_maps: tuple[str, ...]) -> Recipe:
    """A random recipe of a family."""
    return Recipe(
        family=family,
        kind=int(rng.integers(100)),
        seed=int(rng.integers(2**31)),
        dimension=int(rng.choice([1, 2, 2, 3, 4, 5])),
        widths=tuple(int(width) for width in rng.integers(1, 6, rng.integers(0, 3))),
        magnitude=int(rng.choice([1, 1, 2, 9])),
        twist=str(rng.choice(TWISTS)),
        scale=float(rng.choice(SCALES)),
        scaled=str(rng.choice(SCALED)),
        inputs=str(rng.choice(INPUTS)),
        margin=float(rng.choice(MARGINS)),
        feature_map=str(rng.choice(feature_maps)),
    )


def tamed(recipe: Recipe) -> Recipe:
    """The recipe without scales at which the bounds of other people's formulas cannot be told from rounding."""
    return replace(recipe, scale=float(np.clip(recipe.scale, 1e-8, 1e8)))


def inputs(recipe: Recipe, shape: tuple[int, ...], most: int = COUNT) -> Tensor:
    """(N, *shape) float64 in [0, 1]: inside, on the box's edge, in its corners, on multiples of 1/8; N <= ``most``."""
    rng, count = recipe.generator(1), min(recipe.count, most)
    x = rng.random((count, int(np.prod(shape))))
    edge = rng.choice([0.0, 1.0, 0.5], x.shape)
    if recipe.inputs == "mixed":
        x = np.where(rng.random(x.shape) < 0.25, edge, x)
    elif recipe.inputs == "corners":
        x[::2] = edge[::2]
    else:
        x = np.round(x * 8) / 8
    return torch.tensor(x).reshape(count, *shape)


def arrays(
    recipe: Recipe, dimension: int, widths: tuple[int, ...], convex: bool
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Input weights, biases and hidden weights as ``ConvexMLP.from_arrays`` takes them, of whole numbers, twisted.

    convex: hidden weights are >= 0; otherwise of any sign. The kinks of "kink" pass through the first input.
    """
    rng, size = recipe.generator(2), recipe.magnitude
    layers = (*widths, 1)
    free = [rng.integers(-size, size + 1, (width, dimension)).astype(float) for width in layers]
    offsets = [rng.integers(-2 * size, size + 1, width).astype(float) for width in layers]
    lowest = 0 if convex else -size
    hidden = [
        rng.integers(lowest, size + 1, (after, before)).astype(float) for before, after in pairwise(layers)
    ]
    _twist(recipe, free, offsets, hidden)
    _scale(recipe, free, offsets, hidden)
    return free, offsets, hidden


def _twist(
    recipe: Recipe, free: list[np.ndarray], offsets: list[np.ndarray], hidden: list[np.ndarray]
) -> None:
    """Make the network odd in the recipe's way, in place."""
    rng = recipe.generator(3)
    first, offset = free[0], offsets[0]
    if recipe.twist == "dead":
        offset[0] = -1e3 * recipe.magnitude
    elif recipe.twist == "duplicate":
        first[-1], offset[-1] = first[0], offset[0]
    elif recipe.twist == "flat":
        free[-1][:] = 0
        first[0] = 0
    elif recipe.twist == "kink":
        offset[:] = -first @ inputs(recipe, (first.shape[1],))[0].numpy()
    elif recipe.twist == "shifted":
        offset += rng.choice([1e6, -1e6, 1e9, -1e9, 1e12])
    elif recipe.twist == "nudged":
        first += 1e-9 * rng.normal(size=first.shape) * np.abs(first).max(initial=1.0)
    elif recipe.twist == "cancelling" and hidden:
        free[-1][:] = -(hidden[-1] @ free[-2])


def _scale(
    recipe: Recipe, free: list[np.ndarray], offsets: list[np.ndarray], hidden: list[np.ndarray]
) -> None:
    """Multiply the layers that are to be scaled, in place."""
    if recipe.scaled == "hidden" and hidden:
        hidden[recipe.seed % len(hidden)][:] *= recipe.scale
        return
    last = 1 if recipe.scaled == "first" else len(free)
    for weight, offset in zip(free[:last], offsets[:last], strict=True):
        weight *= recipe.scale
        offset *= recipe.scale


def threshold(recipe: Recipe, scores: Tensor) -> float:
    """The threshold that leaves about half of the inputs sensitive, or all that are not too close to the median."""
    spread = float(scores.std()) if len(scores) > 1 else 1.0
    return float(scores.median()) - abs(spread) * recipe.margin
