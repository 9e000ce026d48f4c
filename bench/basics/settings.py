"""Settings from plain tables (TOML) into dataclasses, every key and type checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bench.basics.errors import UsageError, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def from_table(cls: type[T], table: Mapping[str, Any], where: str, base: T | None = None) -> T:
    """Build the dataclass ``cls`` from a table; unnamed fields keep their values in ``base``, or their defaults.

    A field that is itself a dataclass keeps its unnamed fields in the same way, so that a recipe's own defaults
    survive when a suite changes one of them. Raises UsageError naming the key, what is allowed and ``where`` it was
    written.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    types_of = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, fields)}: choose from {', '.join(fields)}"
            )
    values = {
        key: _convert(types_of[key], value, f"{where}: {key}", _default(fields[key], base))
        for key, value in table.items()
    }
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing and base is None:
        raise UsageError(f"{where}: key {missing[0]!r} is missing")
    try:
        return cls(**values) if base is None else dataclasses.replace(base, **values)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the entries of ``over`` laid on top, table by table."""
    result = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_tables else value
    return result


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: dataclasses.Field, base: Any) -> Any:
    """The value a field has in ``base``, else its default, else None."""
    if base is not None:
        return getattr(base, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _convert(kind: Any, value: Any, where: str, default: Any = None) -> Any:
    """Check ``value`` against a type hint and return it in that type; ``default`` completes a nested table."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _wrong(value, "a table", where)
        return from_table(kind, value, where, default)
    if origin is typing.Literal:
        return _choice(typing.get_args(kind), value, where)
    if origin in (types.UnionType, typing.Union):
        return _any_of(typing.get_args(kind), value, where)
    if origin in (tuple, list):
        return _sequence(origin, typing.get_args(kind), value, where)
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise _wrong(value, "a table", where)
        return dict(value)
    return _scalar(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(value, "a whole number", where)
    if not isinstance(value, kind):
        names = {float: "a number", bool: "true or false", str: "a text in quotes"}
        raise _wrong(value, names.get(kind, f"a {kind.__name__}"), where)
    return value


def _choice(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise UsageError(f"{where} = {value!r}{nearest(value, map(str, choices))}: choose from {listed}")
    return value


def _any_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _convert(kind, value, where)
            except UsageError as error:
                errors.append(error)
    raise errors[0]


def _sequence(origin: type, kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list", where)
    kind = kinds[0] if kinds else Any
    return origin(_convert(kind, item, f"{where}[{index}]") for index, item in enumerate(value))


def _wrong(value: Any, allowed: str, where: str) -> UsageError:
    return UsageError(f"{where} = {value!r} has the wrong type: give {allowed}")
