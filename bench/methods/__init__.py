"""The methods of the suite, one file each, found without a central list: in this folder and by entry points."""

import importlib
import inspect
import pkgutil
import warnings
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from bench.basics.errors import unknown
from bench.contract import Method

ENTRY_POINT_GROUP = "certbench.methods"


@cache
def registered_methods() -> dict[str, type[Method]]:
    """Return name -> class of every method that can be found, sorted by name.

    A module of ``bench.methods`` whose name starts with an underscore is shared code, not a method. An outside
    package that fails to import is named in a warning and left out, so that it cannot take the others down.
    """
    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            _add(found, _methods_in(importlib.import_module(f"bench.methods.{module.name}")))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            _add(found, [point.load()])
        except Exception as error:  # whatever an outside package raises, the suite goes on without it
            warnings.warn(
                f"method {point.name!r} of {point.value} could not be loaded: {error}", stacklevel=2
            )
    return dict(sorted(found.items()))


def get_method(name: str) -> type[Method]:
    """Return the class of a method; raise UsageError with the nearest names when there is none."""
    methods = registered_methods()
    if name not in methods:
        raise unknown("method", name, methods)
    return methods[name]


def _methods_in(module: ModuleType) -> list[type[Method]]:
    return [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Method) and not inspect.isabstract(item) and item.__module__ == module.__name__
    ]


def _add(found: dict[str, type[Method]], classes: list[type[Method]]) -> None:
    for method in classes:
        if not (inspect.isclass(method) and issubclass(method, Method)):
            raise TypeError(f"{method!r} is not a subclass of bench.contract.Method")
        if found.setdefault(method.name, method) is not method:
            raise ValueError(f"two methods are named {method.name!r}: {found[method.name]} and {method}")
