"""The harness: data, methods, evaluation, tables, figures and the command line."""

from typing import TYPE_CHECKING

from bench.basics.later import later

if TYPE_CHECKING:
    from bench.data import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
__getattr__, __dir__ = later(__name__, dict.fromkeys(__all__, "bench.data"))
