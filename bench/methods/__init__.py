"""The methods of the suite, one file each, found without a central list: in this folder and by entry points.

A file may hold two classes: the method, and what it is for networks that others trained (:mod:`bench.methods.given`).
"""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from bench.basics.errors import unknown
from bench.contract import Method
from bench.methods.given import Given

ENTRY_POINT_GROUP = "certbench.methods"
Kind = TypeVar("Kind", bound=type[Method])


@cache
def registered_methods() -> dict[str, type[Method]]:
    """Return name -> class of every method that can be found, sorted by name.

    A module of ``bench.methods`` whose name starts with an underscore is shared code, not a method. An outside
    package that fails to import is named in a warning and left out, so that it cannot take the others down.
    """
    found: dict[str, type[Method]] = {}
    for method in _classes():
        if not issubclass(method, Given):
            _add(found, method)
    return dict(sorted(found.items()))


@cache
def given_methods() -> dict[str, type[Given]]:
    """Return name -> class of every method that certifies networks that others trained, in the order of their turns."""
    found: dict[str, type[Given]] = {}
    for method in _classes():
        if issubclass(method, Given):
            _add(found, method)
    return dict(sorted(found.items(), key=lambda entry: (entry[1].turn, entry[0])))


def get_method(name: str) -> type[Method]:
    """Return the class of a method; raise UsageError with the nearest names when there is none."""
    methods = registered_methods()
    if name not in methods:
        raise unknown("method", name, methods)
    return methods[name]


def _classes() -> Iterator[type[Method]]:
    """All that is in this folder, then what outside packages name."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            yield from _methods_in(importlib.import_module(f"bench.methods.{module.name}"))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            yield _method(point.load())
        except Exception as error:  # whatever an outside package raises, the suite goes on without it
            warnings.warn(
                f"method {point.name!r} of {point.value} could not be loaded: {error}", stacklevel=3
            )


def _methods_in(module: ModuleType) -> list[type[Method]]:
    return [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Method) and not inspect.isabstract(item) and item.__module__ == module.__name__
    ]


def _method(loaded: object) -> type[Method]:
    if not (inspect.isclass(loaded) and issubclass(loaded, Method)):
        raise TypeError(f"{loaded!r} is not a subclass of bench.contract.Method")
    return loaded


def _add(found: dict[str, Kind], method: Kind) -> None:
    if found.setdefault(method.name, method) is not method:
        raise ValueError(f"two methods are named {method.name!r}: {found[method.name]} and {method}")
