"""The search space of a method: what ``python -m bench.tune`` may change, declared beside the method's settings.

A method says it once, for every data set, as a class attribute::

    class Cayley(LipschitzMethod):
        Settings = CayleySettings
        space = SearchSpace(
            {
                "margin": Range(0.3, 3.0, log=True, of="l2"),          # multiples of a radius, see below
                "hidden": Choice([200, 50], [400, 100]),
                **training(learning_rate=(5e-4, 5e-3)),
                **augmentation(),
            },
            starts=({"margin": 1.5},),                                 # guesses to try early, in the same units
            judging={"certificates": ["closed_form:free"]},            # settings while validation data judges
        )

Keys are settings, dotted into nested ones (``train.learning_rate``); ``{norm}`` in a key, in ``of`` or as an option is
the norm that is searched for (``"radius_targets.{norm}": Range(1.0, 2.5, of="{norm}")``). Lengths that depend on the
data are given as multiples: ``of="l2"`` of the median certified l2 radius that the default recipe reaches on validation
data (the first candidate of every search), ``of="side"`` of an image's shorter side. Epochs are no part of a space: the
search makes them fill the budget, up to ``max_epochs``. A method that declares nothing is tried with its default recipe
and more epochs only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.basics.errors import UsageError

SIDE = "side"
UNITS = ("", "l1", "l2", "linf", "{norm}", SIDE)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole numbers if ``whole``, evenly spread in the logarithm if ``log``.

    of: what the numbers are multiples of, see the module; images: only offered where inputs are images; guess: what a
    start that leaves the setting out takes (default: the default recipe's value, or the middle).
    """

    low: float
    high: float
    log: bool = False
    of: str = ""
    whole: bool = False
    images: bool = False
    guess: float | None = None

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise UsageError(f"range {self.low} to {self.high}: give low <= high, and low > 0 with log")
        if self.of not in UNITS:
            raise UsageError(f"range of {self.of!r}: choose from {', '.join(map(repr, UNITS))}")


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values of any type that a suite file can hold; images: only offered where inputs are images."""

    options: tuple[Any, ...]
    images: bool

    def __init__(self, *options: Any, images: bool = False) -> None:
        if not options:
            raise UsageError("a choice needs at least one option")
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "images", images)


@dataclass(frozen=True)
class SearchSpace:
    """What a search may change and how it judges; the keys and units are explained in the module.

    settings: setting -> Range or Choice. starts: guesses that are tried right after the default recipe; what one leaves
    out takes the range's guess, else the default's value where it lies in the space, else the middle.
    judging: settings laid over a candidate's while validation data judges it, to make its certificate cheap; never
    written to a suite. max_epochs: the most epochs a candidate gets, however much time there is.
    judged_inputs: how many validation inputs judge a candidate (0: all), for certificates that take long.
    """

    settings: Mapping[str, Range | Choice] = field(default_factory=dict)
    starts: Sequence[Mapping[str, Any]] = ()
    judging: Mapping[str, Any] = field(default_factory=dict)
    max_epochs: int = 200
    judged_inputs: int = 0

    def __post_init__(self) -> None:
        for start in self.starts:
            unknown = set(start) - set(self.settings)
            if unknown:
                raise UsageError(f"start of a search names {sorted(unknown)}, which the space does not hold")

    def for_norm(self, norm: str) -> "SearchSpace":
        """Return the space with ``{norm}`` filled in."""

        def filled(table: Mapping[str, Any]) -> dict[str, Any]:
            return {key.replace("{norm}", norm): value for key, value in table.items()}

        settings = {
            key: Range(**{**vars(values), "of": values.of.replace("{norm}", norm)})
            if isinstance(values, Range)
            else Choice(
                *(norm if option == "{norm}" else option for option in values.options), images=values.images
            )
            for key, values in filled(self.settings).items()
        }
        starts = tuple(filled(start) for start in self.starts)
        return SearchSpace(settings, starts, self.judging, self.max_epochs, self.judged_inputs)


def training(learning_rate: tuple[float, float] = (5e-4, 5e-3)) -> dict[str, Range | Choice]:
    """The part of a space that every trained network shares: learning rate and batch size."""
    return {
        "train.learning_rate": Range(*learning_rate, log=True),
        "train.batch_size": Choice(128, 64),
    }


def radius_loss(target: str = "radius_target", of: str = "{norm}") -> dict[str, Range | Choice]:
    """The part of a space that every loss of the radius shares, the same for all: its target and its weight.

    Targets go from what is reached easily to where no input has reached its own and the loss is of the mean radius; the
    weight says how much recall that may cost. target: its key; of: its norm.
    """
    return {
        target: Range(1.0, 24.0, log=True, of=of),
        "radius_weight": Range(0.25, 4.0, log=True, guess=1.0),
    }


def augmentation() -> dict[str, Range | Choice]:
    """The part of a space that every method on images shares, the same for all: shifts, turns and zooms.

    Mirror images are left to whoever knows whether they mean the same: ``train.flip`` in the settings.
    """
    return {
        "train.crop_padding": Range(0.0, 0.08, of=SIDE, whole=True, images=True, guess=0.04),
        "train.rotation": Range(0.0, 10.0, images=True, guess=2.0),
        "train.scaling": Range(0.0, 0.1, images=True, guess=0.02),
    }
