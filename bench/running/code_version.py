"""A hash of the code that determines a method's numbers, so that changed code recomputes what it made."""

import ast
import hashlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

# Data, tables and figures do not change what a method computes; these packages and modules do.
FOLLOWED = (
    "fcnn",
    "baselines",
    "bench.methods",
    "bench.contract",
    "bench.calibration",
    "bench.running.evaluate",
)


@cache
def code_version(module_name: str) -> str:
    """Return a hash of a module's source and of everything it imports, directly or not, from this project."""
    sources: dict[str, bytes] = {}
    _collect(module_name, sources)
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    return digest.hexdigest()[:16]


def _collect(name: str, sources: dict[str, bytes]) -> None:
    if name in sources:
        return
    found = _read(name)
    if found is None:
        return
    sources[name], imported = found
    for other in imported:
        _collect(other, sources)


@cache
def _read(name: str) -> tuple[bytes, list[str]] | None:
    """Source of a module and what it imports that is followed; methods share most of it, and parsing is slow."""
    path = _source_path(name)
    if path is None:
        return None
    source = path.read_bytes()
    imported = _imports(ast.parse(source), name, path.name == "__init__.py")
    return source, [other for other in imported if other.startswith(FOLLOWED)]


def _source_path(name: str) -> Path | None:
    """File of a module without importing it; None for what is no Python file (a class, a built-in)."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _imports(tree: ast.AST, module: str, is_package: bool) -> set[str]:
    """Full names of what a module's import statements mention, wherever they stand."""
    package = module if is_package else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names
