"""From suite files that inherit to one plain table: ``extends``, ``use`` and sweeps, each setting written once.

::

    extends = "paper"                # another suite, by name or as a file beside this one; this file is laid over it
    remove = ["sll"]                 # entries of it that do not take part

    [[methods]]                      # laid over the inherited entry of the same id, else joins at the end
    use = "gaussian"                 # a recipe of bench/suites/recipes, or several, the later ones on top
    drop = ["for.malimg"]            # what not to take from the recipe or the inherited entry
    settings.map_settings.use = "l1_by_hand.settings"    # further in: a table that a recipe holds
    [methods.sweep]                  # one entry per value; {} in id and title is where the value goes
    sigma = [0.25, 0.5]              # values, or { times = [1, 2, 4] }: multiples of the setting on every data set

Tables are merged key by key; anything else is replaced.
"""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench.basics.errors import UsageError, unknown
from bench.basics.settings import merged

SUITE_FOLDER = Path(__file__).parent
RECIPE_FOLDER = SUITE_FOLDER / "recipes"
MAX_SUITE_BYTES = 1_000_000
Table = dict[str, Any]


def suite_names() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(path.stem for path in SUITE_FOLDER.glob("*.toml"))


def suite_path(name_or_file: str, beside: Path = Path()) -> Path:
    """Return the file of a suite given by name or path; raise UsageError when there is none."""
    if name_or_file in suite_names():
        return SUITE_FOLDER / f"{name_or_file}.toml"
    path = beside / name_or_file
    if path.suffix != ".toml" or not path.is_file():
        raise unknown("suite", name_or_file, suite_names(), "or give the path of a .toml file")
    return path


def resolved_table(path: Path, inside: tuple[Path, ...] = ()) -> Table:
    """Return a suite file as one plain table, everything inherited and swept; raise UsageError for what is wrong."""
    where = f"suite file {path.name}"
    if path.resolve() in inside:
        chain = " -> ".join(file.stem for file in (*inside, path))
        raise UsageError(f"{where}: extends goes round in a circle: {chain}")
    table = read_toml(path)
    base = table.pop("extends", "")
    removed = _names(table.pop("remove", []), f"{where}: remove")
    inherited: Table = {}
    if base:
        if not isinstance(base, str):
            raise UsageError(f"{where}: extends = {base!r}: give the name of one suite in quotes")
        try:
            file = suite_path(base, path.parent)
        except UsageError as error:
            raise UsageError(f"{where}: extends: {error}") from error
        inherited = resolved_table(file, (*inside, path.resolve()))
    own = table.pop("methods", [])
    result = merged(inherited, table)
    entries = inherited.get("methods", [])
    if isinstance(own, list) and all(isinstance(entry, dict) for entry in own):
        result["methods"] = _laid_over(_without(entries, removed, where), own, where)
    else:  # the check of types names it
        result["methods"] = own
    return result


def read_toml(path: Path) -> Table:
    """Return the content of a TOML file; raise UsageError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_SUITE_BYTES:
            raise UsageError(f"suite file {path} is larger than {MAX_SUITE_BYTES:,} bytes: that is no suite")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"suite file {path} cannot be read: {error}".replace("\n", " ")) from error


@cache
def _recipes(folder: Path) -> Table:
    """Every recipe of a folder by name."""
    found: Table = {}
    for path in sorted(folder.glob("*.toml")):
        for name, recipe in read_toml(path).items():
            if name in found:
                raise UsageError(f"recipe file {path.name}: there are two recipes named {name!r}")
            found[name] = recipe
    return found


def _without(entries: Sequence[Table], removed: Sequence[str], where: str) -> list[Table]:
    names = [_name(entry) for entry in entries]
    for name in removed:
        if name not in names:
            raise UsageError(f"{where}: remove: {unknown('inherited entry', name, names)}")
    return [entry for entry in entries if _name(entry) not in removed]


def _laid_over(inherited: Sequence[Table], own: Sequence[Table], where: str) -> list[Table]:
    """Return the inherited entries with a file's own laid over those of the same id, the new ones behind."""
    entries = {_name(entry): entry for entry in inherited}
    joined: list[Table] = []
    for written in own:
        entry = copy.deepcopy(written)
        name = _name(entry) or _name(_used(copy.deepcopy(entry), {}, where))
        if name in entries:
            entries[name] = _used(entry, entries[name], where)
        else:
            joined += _swept(_used(entry, {}, where), where)
    return [*entries.values(), *joined]


def _name(entry: Table) -> str:
    """What an entry is matched by: its id, else its method."""
    return str(entry.get("id") or entry.get("method") or "")


def _used(entry: Table, base: Table, where: str, inside: tuple[str, ...] = ()) -> Table:
    """Return ``base``, then the recipes that an entry uses, then the entry, each laid over the one before."""
    names = _names(entry.pop("use", []), f"{where}: use")
    drops = _names(entry.pop("drop", []), f"{where}: drop")
    recipes = _recipes(RECIPE_FOLDER)
    for name in names:
        if name not in recipes:
            raise UsageError(f"{where}: use: {unknown('recipe', name, sorted(recipes))}")
        if name in inside:
            raise UsageError(f"{where}: use goes round in a circle: {' -> '.join((*inside, name))}")
        base = _used(copy.deepcopy(recipes[name]), base, where, (*inside, name))
    for key in drops:
        base = _dropped(base, key.split("."), f"{where}: drop: {key!r}")
    return merged(base, _filled(entry, where, inside))


def _filled(table: Table, where: str, inside: tuple[str, ...]) -> Table:
    """Return the table, its own tables laid over those of recipes that they name by ``use``, at any depth."""
    found: Table = {}
    for key, value in table.items():
        if not isinstance(value, dict):
            found[key] = value
            continue
        base: Table = {}
        for name in _names(value.get("use", []), f"{where}: {key}.use"):
            if name in inside:
                raise UsageError(f"{where}: use goes round in a circle: {' -> '.join((*inside, name))}")
            part = {key: _part_of_recipe(name, where)}
            base = merged(base, _filled(part, where, (*inside, name))[key])
        own = {inner: content for inner, content in value.items() if inner != "use"}
        found[key] = merged(base, _filled(own, where, inside))
    return found


def _part_of_recipe(name: str, where: str) -> Table:
    """Return the table at a path such as ``fcnn.settings`` as its recipe file has it."""
    table: Any = _recipes(RECIPE_FOLDER)
    for key in name.split("."):
        if not isinstance(table, dict) or key not in table:
            choices = sorted(table) if isinstance(table, dict) else []
            raise UsageError(f"{where}: use: {unknown('part of a recipe', name, choices)}")
        table = table[key]
    if not isinstance(table, dict):
        raise UsageError(f"{where}: use = {name!r} names {table!r}: give a table of a recipe")
    return copy.deepcopy(table)


def _dropped(table: Table, keys: Sequence[str], where: str) -> Table:
    first, *rest = keys
    if first not in table or (rest and not isinstance(table[first], dict)):
        raise UsageError(f"{where} names nothing that is inherited: choose from {', '.join(table)}")
    kept = {key: value for key, value in table.items() if key != first}
    return {**kept, first: _dropped(table[first], rest, where)} if rest else kept


def _swept(entry: Table, where: str) -> list[Table]:
    """Return one entry per value of its sweep, of one family; the entry itself if it has none."""
    sweep = entry.pop("sweep", None)
    if sweep is None:
        return [entry]
    where = f"{where}: sweep of {_name(entry)!r}"
    if not isinstance(sweep, dict) or len(sweep) != 1:
        raise UsageError(f"{where}: give one setting and its values, such as sigma = [0.25, 0.5]")
    ((key, values),) = sweep.items()
    times = isinstance(values, dict)
    values = values.get("times") if times else values
    if not isinstance(values, list) or not values or not all(type(value) in (int, float) for value in values):
        raise UsageError(f"{where}: {key}: give a list of numbers, or {{ times = [1, 2, 4] }}")
    return [_one_of_sweep(entry, key.split("."), value, times, where) for value in values]


def _one_of_sweep(entry: Table, keys: Sequence[str], value: float, times: bool, where: str) -> Table:
    settings, on_data = entry.get("settings", {}), entry.get("for", {})
    for name, table in {"settings": settings, "for": on_data}.items():
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {name} = {table!r} has the wrong type: give a table")
    if times:
        if _looked_up(settings, keys) is None:
            raise UsageError(
                f"{where}: {'.'.join(keys)}: multiples need the setting itself among the settings"
            )
        settings = _placed(settings, keys, value * _looked_up(settings, keys))
        on_data = {
            dataset: table if (own := _looked_up(table, keys)) is None else _placed(table, keys, value * own)
            for dataset, table in on_data.items()
        }
    else:
        settings = _placed(settings, keys, value)
    title = str(entry.get("title") or entry.get("method"))
    name = _name(entry)
    shown = f"{value:g} x base" if times else f"{value:g}"
    return {
        **entry,
        "id": name.replace("{}", f"{value:g}") if "{}" in name else f"{name}_{value:g}",
        "title": title.replace("{}", f"{value:g}") if "{}" in title else f"{title}, {shown}",
        "family": entry.get("family") or title.partition("{}")[0].rstrip(" ,"),
        "settings": settings,
        **({"for": on_data} if on_data else {}),
    }


def _looked_up(table: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def _placed(table: Table, keys: Sequence[str], value: Any) -> Table:
    first, *rest = keys
    return {**table, first: _placed(table.get(first, {}), rest, value) if rest else value}


def _names(value: Any, where: str) -> list[str]:
    """Return a text, or a list of texts, as a list."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{where} = {value!r}: give a name in quotes, or a list of them")
    return names
