"""A cell is computed again if and only if what determines its numbers changed: held to edits of a copy of the code."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from synthetic import MeanThreshold, blobs, plan

from baselines.smoothing import count_votes, lower_bound
from bench.basics.seeds import derive_seed
from bench.calibration import OperatingPoint
from bench.contract import Method
from bench.data.downloads import __name__ as downloads
from bench.experiments.digit_pairs import figure, train_and_certify
from bench.kept.batches import packed
from bench.kept.roc import roc_rows
from bench.kept.store import Store
from bench.methods.fcnn import FCNN
from bench.methods.linear import Linear
from bench.methods.smoothing_gaussian import SmoothingGaussian
from bench.report.tables.summary import summarise
from bench.running import code_version as module
from bench.running.batch_runner import BatchRunner, in_halves
from bench.running.cell_rows import RowMaker
from bench.running.certifying import Certifier
from bench.running.code_version import code_version, package_versions
from bench.running.evaluate import Evaluation, chosen_test_inputs, evaluate
from bench.running.parts import Parts
from bench.running.runner import Resources, cell_key
from bench.suites.suite import MethodEntry
from fcnn import FCNNClassifier, FeatureConvexClassifier, certificates, training

ROOT = Path(inspect.getfile(Method)).parents[1]


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Iterator[Path]:
    """A copy of the project's code, which is what is read instead of it."""
    for package in module.PROJECT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc", "*.toml"))
    real = module._source_path

    def in_the_copy(name: str) -> Path | None:
        path = real(name)
        return tmp_path / path.relative_to(ROOT) if path and path.is_relative_to(ROOT) else path

    monkeypatch.setattr(module, "_source_path", in_the_copy)
    module.forget()
    yield tmp_path
    module.forget()


def edit(tree: Path, thing: Callable, line: str) -> None:
    """Write a line in front of the last statement of a function."""
    path = tree / Path(inspect.getsourcefile(thing)).relative_to(ROOT)
    source, first = inspect.getsourcelines(thing)
    last = ast.parse(textwrap.dedent("".join(source))).body[0].body[-1]
    lines = path.read_text().splitlines(keepends=True)
    place = first + last.lineno - 2
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    path.write_text("".join([*lines[:place], f"{indent}{line}\n", *lines[place:]]))
    module.forget()


def key(method: type[Method]) -> str:
    entry = MethodEntry(method.name, method, {})
    return cell_key(entry, plan(method.name), blobs(), Resources())


EVERY_METHODS = (
    evaluate,
    Evaluation._fit,
    Evaluation._predict,
    chosen_test_inputs,
    RowMaker.radii,
    BatchRunner.run,
    in_halves,
    packed,
    Certifier._batch,
    Parts.load,
    derive_seed,
    roc_rows,
    Method.set_threshold,
    OperatingPoint.parse,
)


@pytest.mark.parametrize("thing", EVERY_METHODS, ids=lambda thing: thing.__qualname__)
def test_an_edit_of_what_all_methods_go_through_changes_every_key(thing, tree):
    before = [key(method) for method in (FCNN, Linear, SmoothingGaussian)]
    edit(tree, thing, "edited = 1")
    after = [key(method) for method in (FCNN, Linear, SmoothingGaussian)]
    assert not set(before) & set(after)


ONE_METHODS = {
    SmoothingGaussian.decision_range: [SmoothingGaussian],
    count_votes: [SmoothingGaussian],
    lower_bound: [SmoothingGaussian],
    FeatureConvexClassifier.certify: [FCNN],
    certificates.in_domain: [FCNN, Linear],
    training.train: [FCNN, Linear, SmoothingGaussian],
    Linear.certify: [FCNN, Linear],  # the network may start as a linear classifier
    FCNN.certify: [FCNN],
}


@pytest.mark.parametrize("thing", ONE_METHODS, ids=lambda thing: thing.__qualname__)
def test_an_edit_of_a_methods_code_changes_its_key_and_no_others(thing, tree):
    methods = (FCNN, Linear, SmoothingGaussian)
    before = [key(method) for method in methods]
    edit(tree, thing, "edited = 1")
    changed = [method for method, old in zip(methods, before, strict=True) if key(method) != old]
    assert changed == ONE_METHODS[thing]


@pytest.mark.parametrize("thing", [summarise, Store.merge, figure], ids=lambda thing: thing.__qualname__)
def test_an_edit_of_tables_files_and_figures_changes_no_key(thing, tree):
    before = key(FCNN)
    edit(tree, thing, "edited = 1")
    assert key(FCNN) == before


def test_data_count_by_their_arrays_and_not_by_who_fetched_them(tree):
    before = key(FCNN)
    path = tree / (downloads.replace(".", "/") + ".py")
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    module.forget()
    assert key(FCNN) == before
    other = cell_key(MethodEntry("fcnn", FCNN, {}), plan("fcnn"), blobs(count=90), Resources())
    assert other != before


def test_what_a_cell_is_computed_on_changes_its_key_and_how_many_at_once_does_not(monkeypatch):
    for name in ("code_version", "package_versions"):
        monkeypatch.setattr(f"bench.running.runner.{name}", lambda *roots: "the same")
    entry = MethodEntry("fcnn", FCNN, {})

    def key_on(*devices: str, **rest: int) -> str:
        return cell_key(entry, plan("fcnn"), blobs(), Resources(devices, **rest))

    assert len({key_on("cpu"), key_on("cuda:0"), key_on("cpu", threads=2)}) == 3
    assert key_on("cuda:0") == key_on("cuda:1", "cuda:2")


def test_comments_and_docstrings_change_no_key(tree):
    before = key(FCNN)
    edit(tree, RowMaker.radii, "# Edited.")
    path = tree / "fcnn" / "certificates.py"
    text = path.read_text().replace('"""', '"""Edited. ', 1)
    path.write_text(text.replace("    return ", "    # Edited.\n    return ", 1))
    module.forget()
    assert key(FCNN) == before


def test_a_constant_and_what_a_module_does_count(tree):
    before = key(FCNN)
    path = tree / "fcnn" / "training.py"
    text = path.read_text()
    path.write_text(text + "\ntorch.set_flush_denormal(True)\n")
    module.forget()
    assert key(FCNN) != before


def test_versions_are_those_of_the_packages_that_the_code_uses(monkeypatch):
    assert {"torch", "numpy", "pandas"} <= package_versions(evaluate, Linear).keys()
    assert "scipy" in package_versions(evaluate, SmoothingGaussian)
    assert not {"scipy", "auto-LiRPA", "tqdm"} & package_versions(evaluate, FCNN).keys()
    before = [key(method) for method in (FCNN, SmoothingGaussian)]
    real = module.version
    monkeypatch.setattr(module, "version", lambda name: "9.9" if name == "scipy" else real(name))
    after = [key(method) for method in (FCNN, SmoothingGaussian)]
    assert after[0] == before[0] and after[1] != before[1]


FACTOR = 0.5


class Outside(MeanThreshold):
    """A method of another package, which counts with it."""

    def score(self, x):
        return FACTOR * super().score(x)


def test_a_method_from_elsewhere_is_followed_into_its_own_modules():
    mine = module._used_by((Outside,)).found
    assert {(Outside.__module__, "Outside"), (Outside.__module__, "FACTOR")} <= mine.keys()
    assert code_version(evaluate, Outside) != code_version(evaluate, MeanThreshold)


class Lazy(MeanThreshold):
    def score(self, x):
        return FCNNClassifier().fit(x).decision_function(x)


def test_what_a_package_imports_when_it_is_asked_is_followed_too():
    found = module._used_by((Lazy,)).found
    assert ("fcnn.estimator", "FCNNClassifier") in found
    assert ("fcnn.losses", "WeightedLoss") in found, "which the estimator trains with"


def test_an_experiments_units_know_their_work_and_not_its_figure(tree):
    before = code_version(train_and_certify)
    edit(tree, figure, "edited = 1")
    assert code_version(train_and_certify) == before
    edit(tree, FeatureConvexClassifier.certify, "edited = 1")
    assert code_version(train_and_certify) != before
