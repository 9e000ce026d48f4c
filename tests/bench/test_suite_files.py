"""Suites that inherit: what extends, use, drop, remove and sweeps resolve to, and how mistakes are named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.basics.errors import UsageError
from bench.suites.files import RECIPE_FOLDER, SUITE_FOLDER, read_toml
from bench.suites.suite import Suite, load_suite

BASE = """
title = "Base"
datasets = ["digits_38", "breast_cancer"]
radii.digits_38 = { l1 = [1.0], l2 = [0.5] }
[[methods]]
method = "fcnn"
settings = { radius_weight = 2.0, train = { epochs = 7, batch_size = 32 } }
for.breast_cancer.train.epochs = 3
[[methods]]
method = "cayley"
[[methods]]
method = "sll"
"""


def load(folder: Path, text: str, base: str = BASE) -> Suite:
    (folder / "base.toml").write_text(base)
    (folder / "mine.toml").write_text(text)
    return load_suite(str(folder / "mine.toml"))


def only(suite: Suite, name: str):
    return next(entry for entry in suite.methods if entry.name == name)


def test_a_suite_is_laid_over_the_one_it_extends(tmp_path):
    text = """
extends = "base.toml"
remove = ["cayley"]
datasets = ["digits_38"]
radii.digits_38.l2 = [0.75]
[[methods]]
method = "fcnn"
settings.train.epochs = 9
[[methods]]
method = "linf_distance"
"""
    suite = load(tmp_path, text)
    assert (suite.name, suite.title, suite.datasets) == ("mine", "Base", ("digits_38",))
    assert suite.radii == {"digits_38": {"l1": [1.0], "l2": [0.75]}}
    assert [entry.name for entry in suite.methods] == ["fcnn", "sll", "linf_distance"]
    settings = only(suite, "fcnn").settings_for(None)
    assert (settings.radius_weight, settings.train.epochs, settings.train.batch_size) == (2.0, 9, 32)
    assert only(suite, "fcnn").settings_for("breast_cancer").train.epochs == 3


def test_what_is_inherited_can_be_dropped(tmp_path):
    text = 'extends = "base.toml"\n[[methods]]\nmethod = "fcnn"\ndrop = ["for", "settings.train.epochs"]\n'
    entry = only(load(tmp_path, text), "fcnn")
    assert entry.settings == {"radius_weight": 2.0, "train": {"batch_size": 32}}
    assert entry.for_ == {}


def test_suites_of_the_package_can_be_extended_by_name(tmp_path):
    suite = load(tmp_path, 'extends = "quick"\nremove = ["fcnn"]\ntitle = "Less"\n')
    assert {entry.name for entry in load_suite("quick").methods} - {e.name for e in suite.methods} == {"fcnn"}


def test_recipes_are_laid_over_one_another_and_under_the_entry(tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "some.toml").write_text(
        """
[first]
method = "fcnn"
settings = { radius_weight = 2.0, other_share = 0.1, train = { epochs = 5, batch_size = 16 } }
[second]
settings = { other_share = 0.2, train.epochs = 6 }
[third]
use = "first"
settings.radius_weight = 3.0
[round]
use = "about"
[about]
use = "round"
"""
    )
    monkeypatch.setattr("bench.suites.files.RECIPE_FOLDER", recipes)
    head = 'datasets = ["digits_38"]\n[[methods]]\n'
    entry = load(tmp_path, f'{head}use = ["third", "second"]\nsettings.train.epochs = 8\n').methods[0]
    assert entry.method == "fcnn"
    assert entry.settings == {
        "radius_weight": 3.0,
        "other_share": 0.2,
        "train": {"epochs": 8, "batch_size": 16},
    }
    with pytest.raises(UsageError, match="use goes round in a circle: round -> about -> round"):
        load(tmp_path, f'{head}use = "round"\n')


SWEPT = """
datasets = ["digits_38"]
[[methods]]
method = "smoothing_gaussian"
id = "gaussian"
title = "Gaussian"
settings = { sigma = 0.5, draws = 1000 }
for.breast_cancer.sigma = 0.2
"""


def test_a_sweep_of_multiples_scales_the_setting_on_every_data_set(tmp_path):
    suite = load(tmp_path, SWEPT + "sweep.sigma.times = [1, 2]\n")
    assert [(e.name, e.title, e.family) for e in suite.methods] == [
        ("gaussian_1", "Gaussian, 1 x base", "Gaussian"),
        ("gaussian_2", "Gaussian, 2 x base", "Gaussian"),
    ]
    second = suite.methods[1]
    assert (second.settings_for("digits_38").sigma, second.settings_for("breast_cancer").sigma) == (1.0, 0.4)
    assert second.settings_for("digits_38").draws == 1000


def test_a_sweep_of_values_sets_them_and_places_them_in_names(tmp_path):
    text = SWEPT.replace('"Gaussian"', '"Noise {} here"').replace('"gaussian"', '"g{}"')
    suite = load(tmp_path, text + "sweep.sigma = [0.25, 1]\n")
    assert [(e.name, e.title) for e in suite.methods] == [
        ("g0.25", "Noise 0.25 here"),
        ("g1", "Noise 1 here"),
    ]
    assert [e.settings_for("digits_38").sigma for e in suite.methods] == [0.25, 1.0]
    assert {e.family for e in suite.methods} == {"Noise"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "qick"', ["mine.toml", "unknown suite 'qick'", "did you mean 'quick'"]),
        ('extends = "mine.toml"', ["mine.toml", "circle", "mine -> mine"]),
        ("extends = 3", ["extends = 3", "in quotes"]),
        ('extends = "base.toml"\nremove = ["sl"]', ["remove", "unknown inherited entry 'sl'", "'sll'"]),
        (
            'extends = "base.toml"\n[[methods]]\nmethod = "fcnn"\ndrop = ["fro"]',
            ["drop", "'fro'", "settings"],
        ),
        ('[[methods]]\nuse = "fccn"', ["use", "unknown recipe 'fccn'", "did you mean 'fcnn'"]),
        ("[[methods]]\nuse = 4", ["use = 4", "in quotes"]),
        (SWEPT + "sweep.sigma = []", ["sweep of 'gaussian'", "list of numbers"]),
        (SWEPT + 'sweep.sigma = ["a"]', ["sweep of 'gaussian'", "list of numbers"]),
        (SWEPT + "sweep = 3", ["sweep of 'gaussian'", "one setting"]),
        (SWEPT + "sweep.alpha.times = [1]", ["alpha", "multiples need the setting"]),
        (SWEPT + "sweep.sigam = [1, 2]", ["unknown key 'sigam'", "did you mean 'sigma'"]),
        ('methods = [3]\ndatasets = ["digits_38"]', ["methods[0] = 3", "table"]),
        ('datasets = ["digits_38"]\n[[methods]]\nmethod = "fcnn"\nfor = 3', ["for_ = 3", "table"]),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_two_files_that_extend_each_other_are_a_circle(tmp_path):
    with pytest.raises(UsageError, match="circle: mine -> base -> mine"):
        load(tmp_path, 'extends = "base.toml"\n', base='extends = "mine.toml"\n')


NESTED = """
[whole]
settings = { radius_weight = 2.0, train = { epochs = 5, batch_size = 16 } }
[other.settings.train]
use = "whole.settings.train"
learning_rate = 0.5
[first.settings.train]
use = "second.settings.train"
[second.settings.train]
use = "first.settings.train"
"""


def test_a_table_further_in_is_laid_over_part_of_a_recipe(tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "some.toml").write_text(NESTED)
    monkeypatch.setattr("bench.suites.files.RECIPE_FOLDER", recipes)
    head = 'datasets = ["digits_38"]\n[[methods]]\nmethod = "fcnn"\n'
    text = 'settings.train = { use = "other.settings.train", epochs = 7 }\nfor.digits_38.use = "whole.settings"\n'
    entry = load(tmp_path, head + text).methods[0]
    assert entry.settings == {"train": {"epochs": 7, "batch_size": 16, "learning_rate": 0.5}}
    assert entry.for_ == {"digits_38": {"radius_weight": 2.0, "train": {"epochs": 5, "batch_size": 16}}}
    for wrong, words in {
        "whole.setings": "unknown part of a recipe 'whole.setings'.*settings",
        "whole.settings.radius_weight": "give a table of a recipe",
        "first.settings.train": "use goes round in a circle",
    }.items():
        with pytest.raises(UsageError, match=words):
            load(tmp_path, f'{head}settings.train.use = "{wrong}"\n')


def tables(value: object, place: str) -> Iterator[tuple[str, str]]:
    """(what it says, where) of every table that holds three settings or more."""
    if isinstance(value, dict):
        if settings(value) >= 3:
            yield json.dumps(value, sort_keys=True), place
        for key, inner in value.items():
            yield from tables(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from tables(inner, f"{place}[{number}]")


def settings(value: object) -> int:
    return sum(map(settings, value.values())) if isinstance(value, dict) else 1


def written_twice(files: dict[str, object]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, content in files.items():
        for said, place in tables(content, name):
            found.setdefault(said, []).append(place)
    return {said: places for said, places in found.items() if len(places) > 1}


def test_each_setting_of_the_suites_stands_once():
    paths = [*SUITE_FOLDER.glob("*.toml"), *RECIPE_FOLDER.glob("*.toml")]
    files = {path.name: read_toml(path) for path in paths}
    # What searches found is one file that says all of it.
    files = {name: content for name, content in files.items() if "tuned_minutes" not in content}
    assert len(files) >= 9
    assert written_twice(files) == {}


def test_a_table_written_twice_is_found():
    train = {"epochs": 1, "crop_padding": 2, "learning_rate": 3.0}
    files = {
        "a": {"methods": [{"settings": {"train": train, "margin": 1.0}}]},
        "b": {"some": {"for": {"x": train}}},
    }
    assert list(written_twice(files).values()) == [["a.methods[0].settings.train", "b.some.for.x"]]
