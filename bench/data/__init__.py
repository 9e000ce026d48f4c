"""Data sets: three splits in [0, 1], label 1 = sensitive, from anywhere, checked before use."""

from bench.data.dataset import Column, Dataset
from bench.data.loading import list_datasets, load_dataset
from bench.data.table_options import TableOptions

__all__ = ["Column", "Dataset", "TableOptions", "list_datasets", "load_dataset"]
