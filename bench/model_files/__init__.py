"""Trained networks from files, as score networks that every certificate can work on."""

from bench.model_files.opening import LAYOUTS, ModelFile, open_model

__all__ = ["LAYOUTS", "ModelFile", "open_model"]
