"""The families of networks, how much of the time each gets, and how a case of each is drawn."""

from collections.abc import Callable

from tools.fuzz import composed, convex, noise, opponents
from tools.fuzz.case import Case
from tools.fuzz.recipes import Recipe

FAMILIES: dict[str, Callable[[Recipe], Case]] = {
    "convex": convex.build,
    "learned": composed.learned,
    "union": composed.union,
    "linear": opponents.linear,
    "lipschitz": opponents.lipschitz_network,
    "bounds": opponents.bounded,
    "splitting": noise.splitting,
    "smoothing": noise.halfspaces,
}
# Of the time; none is drawn out of turn.
SHARES = {
    "convex": 0.35,
    "learned": 0.12,
    "union": 0.1,
    "linear": 0.05,
    "lipschitz": 0.08,
    "bounds": 0.2,
    "splitting": 0.05,
    "smoothing": 0.05,
}


def build(recipe: Recipe) -> Case:
    """Build and certify the recipe's case."""
    return FAMILIES[recipe.family](recipe)
