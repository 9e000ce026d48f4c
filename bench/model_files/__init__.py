"""Trained networks from files, as score networks that every certificate can work on."""

from typing import TYPE_CHECKING

from bench.basics.later import later
from bench.model_files.layouts import LAYOUTS

if TYPE_CHECKING:
    from bench.model_files.opening import ModelFile, open_model

__all__ = ["LAYOUTS", "ModelFile", "open_model"]
__getattr__, __dir__ = later(
    __name__, dict.fromkeys(("ModelFile", "open_model"), "bench.model_files.opening")
)
