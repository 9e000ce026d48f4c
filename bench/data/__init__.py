"""Data sets: three splits in [0, 1], label 1 = sensitive, from anywhere, checked before use."""

from typing import TYPE_CHECKING

from bench.basics.later import later
from bench.data.table_options import TableOptions

if TYPE_CHECKING:
    from bench.data.dataset import Column, Dataset
    from bench.data.loading import list_datasets, load_dataset

__all__ = ["Column", "Dataset", "TableOptions", "list_datasets", "load_dataset"]
__getattr__, __dir__ = later(
    __name__,
    {
        "Column": "bench.data.dataset",
        "Dataset": "bench.data.dataset",
        "list_datasets": "bench.data.loading",
        "load_dataset": "bench.data.loading",
    },
)
