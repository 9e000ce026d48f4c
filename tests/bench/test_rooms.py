"""The house: what imports what, at module level or inside a function, and that no arrow ever comes back."""

import ast
from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fcnn", "baselines", "bench")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file of every module of the three packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Set[str]) -> set[str]:
    """The known modules that a file's import statements name, wherever they stand."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are written out in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
        elif isinstance(node, ast.Constant) and ":" in str(node.value):
            found.add(str(node.value).partition(":")[0])  # the work of a command, "module:function"
    return found & known


def arrows(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the other modules it imports."""
    return {name: imported(path, files.keys()) - {name} for name, path in files.items()}


def between_rooms(files: Mapping[str, set[str]], depth: int) -> dict[str, set[str]]:
    """Room -> the rooms it needs; a room is what the first ``depth`` names of a module say."""
    rooms: dict[str, set[str]] = {}
    for name, others in files.items():
        room = ".".join(name.split(".")[:depth])
        needed = {".".join(other.split(".")[:depth]) for other in others}
        rooms.setdefault(room, set()).update(needed - {room})
    return rooms


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """The modules or rooms of one circle; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def graph():
    return arrows(modules())


def test_no_module_needs_itself_by_way_of_others(graph):
    assert len(graph) > 200 and "bench.contract" in graph["bench.methods.fcnn"]
    assert circle(graph) == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_room_needs_itself_by_way_of_others(graph, depth):
    # A package's face (bench/__init__.py) shows what its rooms hold, so it stands above them.
    inside = {name: others for name, others in graph.items() if len(name.split(".")) >= depth}
    assert circle(between_rooms(inside, depth)) == []


@pytest.mark.parametrize("package, allowed", [("fcnn", {"fcnn"}), ("baselines", {"baselines"})])
def test_the_method_and_what_it_is_compared_with_know_nothing_of_each_other(graph, package, allowed):
    own = between_rooms({name: others for name, others in graph.items() if name.split(".")[0] == package}, 1)
    assert own[package] <= allowed


def test_an_import_inside_a_function_closes_a_circle_too(tmp_path):
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for room, other in (("one", "two"), ("two", "one")):
        (tmp_path / "bench" / room).mkdir()
        (tmp_path / "bench" / room / "above.py").write_text(
            f"def late():\n    from bench.{other} import below\n    return below\n"
        )
        (tmp_path / "bench" / room / "below.py").write_text("")
    found = arrows(modules(tmp_path))
    assert circle(found) == []
    assert set(circle(between_rooms(found, 2))) == {"bench.one", "bench.two"}
    (tmp_path / "bench" / "one" / "below.py").write_text("from bench.two.above import late")
    assert circle(arrows(modules(tmp_path)))


def test_programs_outside_find_errors_and_methods_where_they_always_were():
    import bench.errors
    import bench.registry
    from bench.basics.errors import UsageError
    from bench.methods import get_method

    assert bench.errors.UsageError is UsageError
    assert bench.registry.get_method is get_method
