"""Settings and suites: every key and type checked, errors in one line that says how to mend it."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from bench.basics.errors import UsageError
from bench.basics.settings import from_table, merged
from bench.suites.suite import Suite, load_suite, suite_names


@dataclass(frozen=True)
class Inner:
    epochs: int = 1
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None
    on: bool = False


def test_a_table_becomes_nested_dataclasses():
    made = from_table(Outer, {"name": "x", "sizes": [1, 2], "inner": {"rate": 1}, "limit": 2}, "here")
    assert made == Outer("x", sizes=(1, 2), inner=Inner(rate=1.0), limit=2.0)
    assert isinstance(made.inner.rate, float)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"name": "x", "kidn": "a"}, ["unknown key 'kidn'", "did you mean 'kind'", "sizes"]),
        ({"name": "x", "kind": "c"}, ["kind = 'c'", "choose from a, b"]),
        ({"name": 3}, ["name = 3", "text"]),
        ({"name": "x", "sizes": [1, 2.5]}, ["sizes[1] = 2.5", "whole number"]),
        ({"name": "x", "sizes": 4}, ["sizes = 4", "list"]),
        ({"name": "x", "inner": {"epoch": 3}}, ["inner", "unknown key 'epoch'", "epochs"]),
        ({"name": "x", "inner": 3}, ["inner = 3", "table"]),
        ({"name": "x", "on": 1}, ["on = 1", "true or false"]),
        ({"name": "x", "limit": "no"}, ["limit = 'no'", "number"]),
        ({}, ["'name' is missing"]),
    ],
)
def test_what_is_wrong_is_named(table, words):
    with pytest.raises(UsageError) as caught:
        from_table(Outer, table, "here")
    message = str(caught.value)
    assert "\n" not in message
    for word in ["here", *words]:
        assert word in message


def test_unnamed_fields_of_a_nested_table_keep_the_recipes_own_defaults():
    @dataclass(frozen=True)
    class Recipe:
        inner: Inner = field(default_factory=lambda: Inner(epochs=40, rate=0.05))

    assert from_table(Recipe, {"inner": {"epochs": 12}}, "here").inner == Inner(epochs=12, rate=0.05)


def test_merging_goes_into_tables():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_the_package_is_valid(name):
    suite = load_suite(name)
    assert suite.pairs()
    assert suite.title != name


SUITE = """
title = "T"
datasets = ["digits_38"]
[[methods]]
method = "fcnn"
[methods.settings]
train.epochs = 7
[methods.for.digits_38]
train.epochs = 3
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_settings_of_a_data_set_lie_over_the_methods_own(tmp_path):
    suite = load_suite(write(tmp_path, SUITE))
    entry = suite.methods[0]
    assert entry.settings_for("digits_38").train.epochs == 3
    assert entry.settings_for("other").train.epochs == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("datasets", "dataset"), ["unknown key 'dataset'", "did you mean 'datasets'"]),
        (('"fcnn"', '"fcn"'), ["unknown method 'fcn'", "did you mean 'fcnn'"]),
        (("epochs = 7", 'epochs = "many"'), ["epochs = 'many'", "whole number"]),
        (("train.epochs = 3", "train.epoch = 3"), ["unknown key 'epoch'", "fcnn", "digits_38"]),
        (('title = "T"', 'title = "T'), ["cannot be read"]),
        (('title = "T"', 'norms = ["l3"]'), ["unknown norm 'l3'", "l1, l2, linf"]),
        (('["digits_38"]', "[]"), ["names no data set"]),
        (('title = "T"', "seeds = [0, -4]"), ["seeds[1] = -4", "from 0"]),
        (('title = "T"', f"seeds = [{10**30}]"), [f"seeds[0] = {10**30}", "from 0"]),
        (('title = "T"', "test_inputs = -5"), ["test_inputs = -5", "from 0"]),
    ],
)
def test_a_bad_suite_file_is_refused_in_one_line(tmp_path, change, words):
    with pytest.raises(UsageError) as caught:
        load_suite(write(tmp_path, SUITE.replace(*change)))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_methods_can_be_chosen_and_registered_ones_join(tmp_path):
    suite: Suite = load_suite(write(tmp_path, SUITE)).with_methods(["fcnn"])
    assert [entry.name for entry in suite.methods] == ["fcnn"]
    with pytest.raises(UsageError, match="unknown method 'nope'"):
        suite.with_methods(["nope"])


def test_two_entries_need_two_names(tmp_path):
    with pytest.raises(UsageError, match="two methods named 'fcnn'"):
        load_suite(write(tmp_path, SUITE + '[[methods]]\nmethod = "fcnn"\n'))
