"""What an export asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.basics.errors import UsageError

NORM = "linf"
# Of VNN-LIB.
VERSIONS = ("1.0", "2.0")


@dataclass(frozen=True)
class Wanted:
    """What to ask: which data sets and methods (none named: all), radii (none: the summary's), how many inputs each.

    domain: ``box`` or ``free``; version: of VNN-LIB; timeout: seconds a verifier may take for one question.
    """

    datasets: Sequence[str] = ()
    methods: Sequence[str] = ()
    radii: Sequence[float] = ()
    inputs: int = 10
    domain: str = "box"
    version: str = "1.0"
    timeout: int = 100

    def __post_init__(self) -> None:
        for radius in self.radii:
            if not 0 < radius < float("inf"):
                raise UsageError(f"radius {radius}: give numbers > 0")
