"""What the options of bench.certify mean for the data at hand; UsageError for what makes no sense."""

import argparse

from bench.basics.errors import UsageError, unknown
from bench.data import Dataset


def check(options: argparse.Namespace) -> None:
    """Raise UsageError for numbers that make no sense."""
    for name in ("seconds", "minutes"):
        if not 0 < getattr(options, name) < float("inf"):
            raise UsageError(f"--{name} {getattr(options, name)}: give a number > 0")


def sensitive_logit(given: str | None, data: Dataset) -> int | None:
    """The logit that --sensitive-logit names, by number or by class; None if it is not given.

    What can be a number is one: class 8 of a data set of 3s and 8s is logit 1 of two, but logit 8 of ten.
    """
    if given is None:
        return None
    try:
        return int(given)
    except ValueError:
        pass
    if given not in data.labels:
        raise unknown("class in --sensitive-logit", given, data.labels)
    return data.labels.index(given)


def label_place(data: Dataset) -> tuple[int, int] | None:
    """Place of the sensitive class among the data's labels, and their number."""
    if data.classes[0] not in data.labels:
        return None
    return data.labels.index(data.classes[0]), len(data.labels)
