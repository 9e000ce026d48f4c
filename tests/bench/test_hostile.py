"""Five hundred generated bad inputs: each gives exit code 2 and one clear line, and leaves nothing behind."""

import contextlib
import copy
import io
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import compare, falsify

Arguments = list[str]
# Writes what it needs into a folder and returns the command line.
Make = Callable[[Path], Arguments]

TEXT = st.text(max_size=20).filter(lambda text: text.strip() and not text.startswith("-"))
# What may stand where a name, a number or a table belongs.
JUNK = st.one_of(
    st.none().map(lambda _: []),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
NO_NAME = st.one_of(
    TEXT, st.sampled_from(["../x", "..", "/etc/passwd", "a\0b", "a/b", "~", "CON", "x" * 500, "\u202e"])
)
SUITE = {
    "datasets": ["circles"],
    "norms": ["l2"],
    "seeds": [0],
    "methods": [{"method": "fcnn", "settings": {"train": {"epochs": 1}}}],
}


def toml(value: object) -> str:
    """Write a value as TOML: JSON's texts, numbers and lists are, tables need another sign."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def suite_of(table: dict[str, object]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items())


def changed(where: tuple, value: object) -> dict[str, object]:
    """Return the good suite with one entry replaced."""
    table = copy.deepcopy(SUITE)
    spot = table
    for key in where[:-1]:
        spot = spot[key]
    spot[where[-1]] = value
    return table


METHOD = ("methods", 0)
WRONG_TYPE = [
    (("datasets",), JUNK),
    (("methods",), JUNK),
    (("norms",), JUNK.filter(lambda value: value != [])),
    (("seeds",), JUNK.filter(lambda value: not isinstance(value, list) or not value)),
    (("title",), JUNK.filter(lambda value: not isinstance(value, str))),
    (("suite_seed",), JUNK.filter(lambda value: type(value) is not int)),
    (("calibrate",), JUNK.filter(lambda value: value not in ("validation", "test", "none"))),
    (("cell_minutes",), st.sampled_from(["soon", -1, [], True])),
    ((*METHOD, "method"), NO_NAME | JUNK),
    ((*METHOD, "id"), JUNK.filter(lambda value: not isinstance(value, str)) | st.just("x" * 400)),
    ((*METHOD, "settings"), JUNK.filter(lambda value: value != {})),
    ((*METHOD, "settings", "train"), JUNK.filter(lambda value: value != {})),
    ((*METHOD, "settings", "train", "epochs"), JUNK.filter(lambda value: type(value) is not int)),
    ((*METHOD, "settings", "hidden"), JUNK.filter(lambda value: not isinstance(value, list))),
]
KNOWN = {"name", "title", "datasets", "methods", "reduced", "norms", "seeds", "suite_seed", "test_inputs"}
KNOWN |= {"calibrate", "radii", "cell_minutes", "cell_memory_gb"}


@st.composite
def bad_suites(draw: st.DrawFn) -> Make:
    """Suite files: no TOML at all, an unknown key somewhere, or a value that is not what it should be."""
    kind = draw(st.sampled_from(["text", "bytes", "key", "value", "value", "missing"]))
    if kind == "text":
        content = draw(st.text(max_size=60)).encode("utf-8", "replace")
    elif kind == "bytes":
        content = draw(st.binary(max_size=60))
    elif kind == "missing":
        content = suite_of(
            {key: SUITE[key] for key in draw(st.sampled_from([["datasets"], ["methods"], []]))}
        ).encode()
    elif kind == "key":
        where = draw(st.sampled_from([(), METHOD, (*METHOD, "settings"), (*METHOD, "settings", "train")]))
        key = draw(TEXT.filter(lambda text: text not in KNOWN))
        content = suite_of(changed((*where, f"{key}?"), draw(JUNK))).encode()
    else:
        where, values = draw(st.sampled_from(WRONG_TYPE))
        content = suite_of(changed(where, draw(values))).encode("utf-8", "replace")

    def make(folder: Path) -> Arguments:
        (folder / "mine.toml").write_bytes(content)
        return ["--suite", str(folder / "mine.toml")]

    return make


def good_arrays() -> dict[str, np.ndarray]:
    x, y = np.linspace(0, 1, 60, dtype=np.float32).reshape(20, 3), np.arange(20) % 2
    return {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]}


@st.composite
def bad_archives(draw: st.DrawFn) -> Make:
    """.npz files: headers that lie, objects, wrong shapes and types, damaged and cut files."""
    kind = draw(st.sampled_from(["header", "header", "array", "cut", "garbage", "member"]))
    name = draw(st.sampled_from(["x_train", "y_train", "x_test", "y_test"]))
    if kind == "header":
        shape = draw(st.lists(st.integers(-2, 2**62), max_size=4).map(tuple))
        descr = draw(st.sampled_from(["<f4", "|O", "<U9", "<c16", "|V8", "no", "<f4,<f4", "<M8[s]", "<i8"]))
        header = draw(
            st.sampled_from([repr({"descr": descr, "fortran_order": False, "shape": shape}), "(" * 500, "{}"])
        )
        body = (
            b"\x93NUMPY\x01\x00"
            + len(header).to_bytes(2, "little")
            + header.encode()
            + draw(st.binary(max_size=40))
        )
    elif kind == "array":
        shape = draw(st.sampled_from([(0,), (20,), (3, 20), (20, 3, 1, 1, 1), (7, 3), ()]))
        value = draw(st.sampled_from([np.nan, np.inf, -1.0, 300.0, 1e30]))
        buffer = io.BytesIO()
        np.save(buffer, np.full(shape, value))
        body = buffer.getvalue()
    else:
        body = draw(st.binary(max_size=60))
    share = draw(st.floats(0, 0.95))

    def make(folder: Path) -> Arguments:
        path = folder / "data" / "mine.npz"
        path.parent.mkdir()
        np.savez(path, **{key: array for key, array in good_arrays().items() if key != name})
        if kind == "garbage":
            path.write_bytes(body)
        elif kind == "cut":
            path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        elif kind != "member":
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr(f"{name}.npy", body)
        return ["--datasets", "mine", "--data-dir", str(path.parent), "--sensitive", "1"]

    return make


@st.composite
def bad_folders(draw: st.DrawFn) -> Make:
    """Image folders: splits and classes missing, garbage for pictures, links that lead elsewhere."""
    splits = draw(st.sampled_from([["train"], ["test"], [], ["train", "test"]]))
    classes = draw(st.lists(st.sampled_from(["cat", "dog", "cow"]), max_size=3, unique=True))
    content = draw(st.binary(max_size=80))
    kind = draw(st.sampled_from(["file", "link", "empty", "folder"]))

    def make(folder: Path) -> Arguments:
        root = folder / "data" / "pets"
        root.mkdir(parents=True)
        for split in splits:
            for name in classes:
                place = root / split / name
                place.mkdir(parents=True)
                if kind == "file":
                    (place / "one.png").write_bytes(content)
                elif kind == "link":
                    (place / "one.png").symlink_to("/etc/hostname")
                elif kind == "folder":
                    (place / "one.png").mkdir()
        return ["--datasets", "pets", "--data-dir", str(root.parent), "--sensitive", "cat"]

    return make


NO_NUMBER = st.sampled_from(["", "x", "1.5.", "0x", "-3", "0", "1e9999", "nan", "-inf", "9" * 30, "1;2"])
CHOICES = {
    "--datasets": NO_NAME,
    "--methods": NO_NAME,
    "--norms": NO_NAME,
    "--suite": NO_NAME,
    "--device": NO_NAME.filter(lambda text: text not in ("cpu", "auto")),
    "--backend": NO_NAME,
    "--scheduler": TEXT,
    "--sensitive": TEXT.filter(lambda text: text.strip() not in ("0", "1", "outer", "inner")),
    "--data-dir": st.sampled_from(["/nowhere", "/dev/null", "a\0b", "\ud800", "x" * 5000]),
    "--seeds": st.sampled_from(["", "x", "1.5", "1e3", "one"]),
    "--jobs": NO_NUMBER,
    "--threads": NO_NUMBER,
    "--cell-minutes": NO_NUMBER.filter(lambda text: text not in ("0", "9" * 30)),
    "--cell-memory": NO_NUMBER.filter(lambda text: text not in ("0", "9" * 30)),
    "--no-such-option": TEXT,
}


@st.composite
def bad_arguments(draw: st.DrawFn) -> Make:
    """Command lines: options with values they do not take, options that are none, values that belong to none."""
    option = draw(st.sampled_from(sorted(CHOICES)))
    value = draw(CHOICES[option])
    rest = draw(st.sampled_from([[], ["--fresh"], ["--seeds", "1"], ["--norms", "l1"]]))
    usual = [] if option in ("--suite", "--datasets") else ["--datasets", "circles"]
    return lambda folder: [*usual, *(rest if option not in rest else []), f"{option}={value}"]


def files_in(folder: Path) -> Counter[Path]:
    return Counter(folder.rglob("*"))


def refused(main: Callable[[Arguments], int], arguments: Arguments, name: str) -> None:
    """Check exit code 2 and one line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(arguments)
    text = said.getvalue()
    assert code == 2, text
    assert text.startswith(f"{name}: ") and text.count("\n") == 1 and text.endswith("\n"), text
    assert len(text) > 20 and "Traceback" not in text


BAD = st.one_of(bad_suites(), bad_archives(), bad_folders(), bad_arguments())


@pytest.mark.slow
def test_five_hundred_bad_inputs_are_refused_in_one_line_and_leave_nothing_behind(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("a run was started")

    monkeypatch.setattr("bench.running.runner.run_in_processes", never)
    monkeypatch.setenv("BENCH_CACHE_DIR", os.devnull)  # so that nothing is downloaded
    seen = []

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(BAD)
    def check(make: Make) -> None:
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            arguments = make(Path(place))
            before = files_in(Path(place))
            refused(compare.main, arguments, "bench.compare")
            assert files_in(Path(place)) == before
        seen.append(arguments)

    check()
    assert len(seen) >= 500


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["."],
        [],
        [".", "--limit", "x"],
        [".", "--nosuch"],
        ["/dev/null"],
        [".", "--steps", "0"],
    ],
)
def test_the_falsifier_refuses_what_is_no_run(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(falsify.main, arguments, "bench.falsify")
    assert not list(tmp_path.iterdir())
