"""A hash of the code that determines a cell's numbers, so that changed code recomputes what it made.

Followed are definitions, not modules: from a function or class to every function, class and constant of the project
that it names, wherever that is defined. Comments, docstrings and whatever else stands in the same files are no part of
it; of other packages it is the version that counts.
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

PROJECT = frozenset({"bench", "baselines", "fcnn"})
# What only shows how far a computation has come.
SHOWS = frozenset({"tqdm"})
BLOCKS = (ast.If, ast.Try, ast.With)


def code_version(*roots: Callable[..., Any]) -> str:
    """Return a hash of the definitions of ``roots``, functions or classes, and of all that they use."""
    code = _used_by(roots)
    digest = hashlib.sha256()
    for place in sorted(code.found):
        digest.update("\0".join([*place, *code.found[place], ""]).encode())
    return digest.hexdigest()[:16]


def package_versions(*roots: Callable[..., Any]) -> dict[str, str]:
    """Return the versions of the packages that the code of ``roots``, functions or classes, uses."""
    known = _distributions()
    used = {name for top in _used_by(roots).packages - SHOWS for name in known.get(top, ())}
    return {name: version(name) for name in sorted(used)}


@dataclass(frozen=True, eq=False)
class _Module:
    """What a module defines, what it imports (``module, name``; None: a module itself), what else it does.

    text: statements of a definition as they are compared, without comments; uses: places that they name.
    """

    name: str
    package: str
    defines: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]
    does: list[ast.stmt]

    @cache  # noqa: B019 - modules are kept as long as the process runs
    def text(self, name: str) -> list[str]:
        return [ast.dump(statement) for statement in self.statements(name)]

    @cache  # noqa: B019
    def uses(self, name: str) -> list[tuple[str, str | None]]:
        return sorted({place for each in self.statements(name) for place in _uses(each, self)}, key=str)

    def statements(self, name: str) -> list[ast.stmt]:
        """Of a definition; what else the module does for the empty name, nothing for ``*``, the module itself."""
        return self.defines.get(name, []) if name else self.does


@dataclass
class _Code:
    """Definitions by place (module, name), each as what it says without comments; other packages by name."""

    project: frozenset[str]
    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)

    def follow(self, module_name: str, name: str | None) -> None:
        """Add a definition of a module, or the whole module for None, and what it uses."""
        top = module_name.partition(".")[0]
        if top not in self.project:
            if top not in sys.stdlib_module_names:
                self.packages.add(top)
            return
        if name is not None and _source_path(f"{module_name}.{name}"):
            module_name, name = f"{module_name}.{name}", None
        module = _read(module_name)
        if module is None or (module_name, name or "*") in self.found:
            return
        if name is None:
            self._add(module, "*")
            for each in (*module.defines, *module.imports):
                self.follow(module_name, each)
        elif name in module.defines:
            self._add(module, name)
        elif name in module.imports:
            self.follow(*module.imports[name])
        else:
            self._follow_late(module_name, name)
        if (module_name, "") not in self.found:
            self._add(module, "")

    def _follow_late(self, module_name: str, name: str) -> None:
        """Follow what a module imports only when it is asked for it."""
        there = getattr(importlib.import_module(module_name), name, None)
        home = getattr(there, "__module__", None)
        if home is not None and home != module_name:
            self.follow(home, name)

    def _add(self, module: _Module, name: str) -> None:
        self.found[module.name, name] = module.text(name)
        for place in module.uses(name):
            self.follow(*place)


@cache
def _used_by(roots: tuple[Callable[..., Any], ...]) -> _Code:
    """Follow all of ``roots``; the packages that they are from belong to the project."""
    code = _Code(PROJECT | {root.__module__.partition(".")[0] for root in roots})
    for root in roots:
        code.follow(root.__module__, root.__qualname__.partition(".")[0])
    return code


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Names under which packages are installed, by the name that they are imported by; finding them is slow."""
    return packages_distributions()


def forget() -> None:
    """Read all code anew the next time."""
    _used_by.cache_clear()
    _read.cache_clear()


def _uses(statement: ast.AST, module: _Module) -> Iterator[tuple[str, str | None]]:
    """Places, as module and name, that a statement names."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imported(node, module.package).values()
        elif isinstance(node, ast.Name) and node.id in module.imports:
            yield module.imports[node.id]
        elif isinstance(node, ast.Name) and node.id in module.defines:
            yield module.name, node.id


@cache
def _read(name: str) -> _Module | None:
    """A module as it is written; None for one that has no Python file."""
    path = _source_path(name)
    return None if path is None else _parsed(name, path.name == "__init__.py", path.read_bytes())


@cache
def _parsed(name: str, is_package: bool, source: bytes) -> _Module:
    tree = ast.parse(source)
    _drop_docstrings(tree)
    package = name if is_package else name.rpartition(".")[0]
    module = _Module(name, package, {}, {}, [])
    for statement in _flat(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module.imports.update(_imported(statement, package))
        elif names := _defined(statement):
            for each in names:
                module.defines.setdefault(each, []).append(statement)
        else:
            module.does.append(statement)
    return module


def _flat(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those of its blocks one by one after the block; not what only a command does."""
    for statement in statements:
        if isinstance(statement, ast.If) and "__main__" in ast.dump(statement.test):
            continue
        yield statement
        if isinstance(statement, BLOCKS):
            for block in ("body", "orelse", "finalbody"):
                yield from _flat(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _flat(handler.body)


def _defined(statement: ast.stmt) -> list[str]:
    """Names that a statement defines; nothing for one that does something else."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    parts = [part for target in targets for part in getattr(target, "elts", [target])]
    return [part.id for part in parts] if all(isinstance(part, ast.Name) for part in parts) else []


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, tuple[str, str | None]]:
    """Names that an import statement of a package binds, and where each is from."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: (alias.name, None) for alias in node.names}
    base = node.module or ""
    if node.level:
        base = importlib.util.resolve_name("." * node.level + base, package)
    names = {alias.asname or alias.name: (base, alias.name) for alias in node.names}
    return {name: (base, None) if name == "*" else place for name, place in names.items()}


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()


@cache
def _source_path(name: str) -> Path | None:
    """File of a module, found without importing it; None for what is no Python file (a class, a built-in)."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None
