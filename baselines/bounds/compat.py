"""The one place that imports auto-LiRPA, with what release 0.3 needs to run on today's torch and NumPy.

auto-LiRPA (Xu et al., *Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond*, NeurIPS 2020)
is imported on first use, because its import is slow and it edits logging and warning settings, which are put back.
A release newer than 0.3 is used as it is.
"""

import functools
import importlib
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import numpy as np
import torch

LAST_PATCHED_VERSION = (0, 3)
ONNX_OPSET = 12
INSTALL_HINT = "auto-LiRPA is not installed: run ./run_all.sh once, or pip install --no-deps auto-LiRPA==0.3"


@functools.cache
def load_auto_lirpa() -> types.ModuleType:
    """Import auto-LiRPA and return the package. Raises ImportError saying how to install it."""
    try:
        version = metadata.version("auto-LiRPA")
    except metadata.PackageNotFoundError as error:
        raise ImportError(INSTALL_HINT) from error
    with _quiet_import():
        if not needs_patches(version):
            return importlib.import_module("auto_LiRPA")
        with _old_interfaces():
            package = importlib.import_module("auto_LiRPA")
        _accept_new_arguments(package.BoundedModule)
    return package


def needs_patches(version: str) -> bool:
    """Whether a release ("0.3", "0.4.0", ...) is as old as the one that the adaptations were written for."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return tuple(numbers) <= LAST_PATCHED_VERSION


@contextmanager
def tracing() -> Iterator[None]:
    """Trace networks with the operator set that auto-LiRPA understands; 0.3 asks for it through a removed function."""
    helper = importlib.import_module("torch.onnx.symbolic_helper")
    settings = getattr(sys.modules[helper._node_get.__module__], "GLOBALS", None)
    before = getattr(settings, "export_onnx_opset_version", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if before is not None:
                settings.export_onnx_opset_version = ONNX_OPSET
            yield
        finally:
            if before is not None:
                settings.export_onnx_opset_version = before


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Let auto-LiRPA, which does not always say which type it wants, make its tensors in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Undo the logging handlers and warning filters that the import installs for the whole process."""
    handlers = logging.root.handlers[:]
    # Recorded and dropped: a filter would not do, because the import sets filters of its own.
    with warnings.catch_warnings(record=True):
        yield
    logging.root.handlers[:] = handlers


@contextmanager
def _old_interfaces() -> Iterator[None]:
    """Offer what 0.3 looks for by its former name; only ``Node.__getitem__`` is needed after the import."""
    helper = importlib.import_module("torch.onnx.symbolic_helper")
    if not hasattr(torch._C.Node, "__getitem__"):
        torch._C.Node.__getitem__ = helper._node_get
    stub = types.ModuleType("numpy.lib.arraysetops")
    stub.isin = np.isin
    added_module = sys.modules.setdefault(stub.__name__, stub) is stub
    added_function = not hasattr(helper, "_set_opset_version")
    if added_function:
        helper._set_opset_version = lambda version: None
    try:
        yield
    finally:
        if added_module:
            del sys.modules[stub.__name__]
        if added_function:
            del helper._set_opset_version


def _accept_new_arguments(bounded_module: type) -> None:
    """Let ``_named_members`` take, and drop, the keyword arguments that torch now passes."""
    original = bounded_module._named_members

    def named_members(self, get_members_fn, prefix="", recurse=True, **newer):
        return original(self, get_members_fn, prefix, recurse)

    bounded_module._named_members = named_members
