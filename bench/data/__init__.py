"""Data sets: three splits in [0, 1], label 1 = sensitive, from anywhere, checked before use."""

from bench.data.dataset import Dataset
from bench.data.loading import list_datasets, load_dataset

__all__ = ["Dataset", "list_datasets", "load_dataset"]
