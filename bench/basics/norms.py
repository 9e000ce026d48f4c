"""The norms in which perturbations are measured."""

from collections.abc import Sequence

from bench.basics.errors import UsageError, unknown

NORMS = ("l1", "l2", "linf")
DUAL_NORM_ORDER = {"l1": float("inf"), "l2": 2.0, "linf": 1.0}


def check_norms(norms: Sequence[str]) -> tuple[str, ...]:
    """Return the norms as a tuple without repeats; raise UsageError for an unknown one."""
    for norm in norms:
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
    if not norms:
        raise UsageError(f"no norm given: choose at least one of {', '.join(NORMS)}")
    return tuple(dict.fromkeys(norms))
