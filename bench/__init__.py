"""The harness: data, methods, evaluation, tables, figures and the command line."""

from bench.data import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
