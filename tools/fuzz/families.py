"""The families of networks, how much of the time each gets, and how a case of each is drawn."""

from collections.abc import Callable

from tools.fuzz import convex, opponents
from tools.fuzz.case import Case
from tools.fuzz.recipes import Recipe

FAMILIES: dict[str, Callable[[Recipe], Case]] = {
    "convex": convex.build,
    "linear": opponents.linear,
    "lipschitz": opponents.lipschitz_network,
    "bounds": opponents.bounded,
    "splitting": opponents.splitting,
}
SHARES = {"convex": 0.5, "linear": 0.1, "lipschitz": 0.15, "bounds": 0.2, "splitting": 0.05}


def build(recipe: Recipe) -> Case:
    """Build and certify the recipe's case."""
    return FAMILIES[recipe.family](recipe)
