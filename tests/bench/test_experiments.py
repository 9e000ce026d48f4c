"""The experiments: what they compute, that they resume, and that their command lines behave."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import linprog

from bench.basics.errors import UsageError
from bench.commands.publish import experiment_files
from bench.data import load_dataset
from bench.data.families import HARMLESS, read_families
from bench.experiments import approximation, digit_pairs, malware_families, separability_random
from bench.experiments.__main__ import main
from bench.experiments._options import EXPERIMENTS
from bench.experiments._shared import Experiment, Options, accuracy_line, finish, run_units
from bench.experiments._single import single
from bench.experiments.session import chosen
from bench.running.evaluate import Evaluation
from bench.running.provenance import RunClock

TRIAL = Experiment("separability_random", "Trial", "half of it")


def in_hull(point: np.ndarray, points: np.ndarray) -> bool:
    """Whether a point is a convex combination of points (N, d), by linear programming."""
    equations = np.vstack([points.T, np.ones(len(points))])
    return linprog(np.zeros(len(points)), A_eq=equations, b_eq=np.append(point, 1.0)).success


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_separable_agrees_with_linear_programming(dimension):
    rng = np.random.default_rng(dimension)
    answers = set()
    for _ in range(40):
        others, inside = rng.random((2, dimension)), rng.random((7, dimension))
        expected = not any(in_hull(point, inside) for point in others)
        answers.add(expected)
        assert separability_random.separable(others, inside) == expected
    assert answers == {True, False}


def test_monte_carlo_covers_what_is_known_exactly():
    """In one dimension bounds 2 and 3 are the probability itself."""
    counts = pd.DataFrame(separability_random.count_dimension(1, 400, 0))
    rows = separability_random.with_bounds(counts)
    assert ((rows["lower"] <= rows["interval"]) & (rows["interval"] <= rows["upper"])).all()
    assert not rows["below_a_bound"].any()


def unit(values: list[int], log: str) -> list[dict[str, int]]:
    """A unit of work that notes down that it was done."""
    with Path(log).open("a") as file:
        file.write("done\n")
    return [{"value": value} for value in values]


def test_finished_units_are_read_back_and_changed_ones_done_again(tmp_path):
    options, log = Options(tmp_path / "out", jobs=1, device="cpu"), tmp_path / "log"
    units = {"a": ([1, 2], str(log)), "b": ([3], str(log))}
    assert run_units(TRIAL, options, units, unit)["value"].tolist() == [1, 2, 3]
    assert run_units(TRIAL, options, units, unit)["value"].tolist() == [1, 2, 3]
    assert log.read_text().count("done") == 2
    changed = {**units, "b": ([4], str(log))}
    assert run_units(TRIAL, options, changed, unit)["value"].tolist() == [1, 2, 4]
    assert log.read_text().count("done") == 3
    (tmp_path / "out" / "units" / "a.json").write_text("{}")
    run_units(TRIAL, options, changed, unit)
    assert log.read_text().count("done") == 4


@pytest.fixture
def finished(tmp_path) -> Path:
    """The folder of a finished experiment that was reduced."""
    options = Options(tmp_path / "experiments" / "trial", reduced=True)
    options.out.mkdir(parents=True)
    counts = pd.DataFrame(separability_random.count_dimension(1, 20, 0))
    finish(TRIAL, options, separability_random.with_bounds(counts), {"size": 3}, RunClock())
    return options.out


def test_an_experiment_leaves_rows_and_a_record_of_its_reduction(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["reduced"] == "half of it" and record["settings"] == {"size": 3}
    counts = separability_random.count_dimension(1, 20, 0)
    kept = pd.read_csv(finished / "rows.csv")
    pd.testing.assert_frame_equal(kept, separability_random.with_bounds(pd.DataFrame(counts)))
    names = [path.name for path in experiment_files(finished.parents[1])]
    assert names[:2] == ["run.json", "rows.csv"] and set(names[2:]) == {
        "separability_random.pdf",
        "separability_random.png",
    }


def test_figures_are_drawn_again_from_the_rows_alone(finished, capsys):
    drawn = {path: path.read_bytes() for path in (finished / "figures").iterdir()}
    assert {path.suffix for path in drawn} == {".png", ".pdf"}
    shutil.rmtree(finished / "figures")
    before = (finished / "run.json").read_bytes()
    assert single("separability_random", "Trial.")(["--out", str(finished), "--redraw"]) == 0
    assert {path: path.read_bytes() for path in (finished / "figures").iterdir()} == drawn
    assert (finished / "run.json").read_bytes() == before
    assert set(capsys.readouterr().out.split()) == set(map(str, drawn))


@pytest.mark.parametrize(
    ("experiment", "spoil", "words"),
    [
        ("training_fit", None, "holds experiment separability_random, not training_fit"),
        ("separability_random", "rows.csv", "damaged"),
        ("separability_random", "run.json", "not the folder of a finished experiment"),
    ],
)
def test_what_cannot_be_drawn_again_is_one_line(experiment, spoil, words, finished, capsys):
    shutil.rmtree(finished / "figures")
    if spoil == "rows.csv":
        (finished / spoil).write_text("a\n1\n")
    elif spoil:
        (finished / spoil).unlink()
    assert single(experiment, "Trial.")(["--out", str(finished), "--redraw"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not (finished / "figures").exists()


@pytest.mark.slow
def test_a_convex_score_learns_the_disc_and_not_the_crescent():
    errors = {}
    for target in approximation.TARGETS:
        rows = approximation.train_and_measure(target, "convex", 16, 2000, 60, 0)
        errors[target] = np.median([row["error"] for row in rows])
    assert errors["disc (convex)"] < 0.03
    # The best convex set still gets a good part of the bite wrong.
    assert errors["crescent (not convex)"] > 0.04


def test_certified_accuracy_falls_at_each_radius():
    ax = Figure().subplots()
    accuracy_line(ax, pd.DataFrame({"radius": pd.array([2.0, None, 1.0, 3.0], dtype="Float64")}))
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2, 3, 3]
    assert ax.lines[0].get_ydata().tolist() == [0.75, 0.75, 0.5, 0.25, 0]
    accuracy_line(ax, pd.DataFrame({"radius": pd.array([None, None], dtype="Float64")}))
    assert ax.lines[1].get_ydata().tolist() == [0.0]


def test_digit_pairs_fill_the_map():
    assert len(set(digit_pairs.pairs())) == 90
    rows = pd.DataFrame({"dataset": ["mnist:3-8", "mnist:8-3"]})
    values = digit_pairs.grid(rows, pd.Series([1.0, 2.0]))
    assert values[3, 8] == 1.0 and values[8, 3] == 2.0 and np.isnan(values).sum() == 98


def test_a_pair_of_digits_is_trained_and_summarised():
    settings = {"train": {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}}
    rows = digit_pairs.train_and_certify("digits_38", settings, 40, 0, "", "cpu")
    assert [row["norm"] for row in rows] == ["l1", "l2", "linf"]
    assert all(0.5 < row["balanced_accuracy"] <= 1 and row["median_radius"] > 0 for row in rows)


def test_the_threshold_of_a_pair_of_digits_is_the_same_whatever_the_test_split_holds(monkeypatch):
    data, thresholds = load_dataset("digits_38"), []

    class Watched(Evaluation):
        def run(self):
            found = super().run()
            thresholds.append(found.calibrations[0].threshold)
            return found

    monkeypatch.setattr(digit_pairs, "Evaluation", Watched)
    settings = {"train": {"epochs": 1, "batch_size": 32, "learning_rate": 0.01}}
    for test in (data.x_test, 1 - data.x_test):
        monkeypatch.setattr(digit_pairs, "load_dataset", lambda *given, x=test: replace(data, x_test=x))
        digit_pairs.train_and_certify("digits_38", settings, 40, 0, "", "cpu")
    assert thresholds[0] == thresholds[1]


@pytest.fixture(scope="module")
def malimg(tmp_path_factory) -> Path:
    """A data folder with three striped families of many sizes, as Malimg is distributed."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for place, name in enumerate((HARMLESS, "Stripes.A", "Stripes.B")):
        (folder / "malimg" / name).mkdir(parents=True)
        for number in range(24 if place == 0 else 15):
            height = int(rng.integers(90, 160))
            pixels = rng.integers(0, 60, (height, 100)) + 90 * place * (np.arange(height)[:, None] // 4 % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "malimg" / name / f"{number}.png")
    return folder


def test_families_are_balanced_cropped_and_split(malimg):
    data = read_families(malimg / "malimg", side=128)
    assert data.names == (HARMLESS, "Stripes.A", "Stripes.B")
    family = np.concatenate([data.family_train, data.family_test])
    assert (family == 0).sum() == (family > 0).sum() == 24
    assert data.x_train.shape[1:] == (128, 128)
    # Pictures are 100 wide: the padding left and right is zero, the middle is not.
    assert not data.x_train[:, :, :14].any() and data.x_train[:, 60, 40:60].any(axis=1).all()
    assert set(data.family_test) == {0, 1, 2}


def test_malimg_is_found_by_its_name(malimg):
    data = load_dataset("malimg", malimg)
    assert data.classes == ("malware", HARMLESS) and data.input_shape == (1, 512, 512)


@pytest.mark.slow
def test_the_malware_pipeline_on_striped_families(malimg, tmp_path):
    options = Options(tmp_path / "out", data_dir=malimg, jobs=1, device="cpu", reduced=True)
    written = malware_families.run(options)
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert (rows["family"] == HARMLESS).any() and (rows["family"] != HARMLESS).any()
    certified = rows["radius_l2"] > 0
    assert (rows.loc[certified, "predicted"] != HARMLESS).all()
    assert (rows.loc[~certified, "predicted"] == HARMLESS).all()
    assert sum(path.suffix == ".png" for path in written) == 2


def test_without_its_data_an_experiment_is_left_out_with_the_reason(tmp_path, capsys):
    assert main(["--only", "malware_families", "runtime", "--out", str(tmp_path), "--device", "cpu"]) == 0
    printed = capsys.readouterr().err
    assert "malimg was not found" in printed and "give --run DIR" in printed
    assert single("malware_families", "About.")(["--out", str(tmp_path), "--device", "cpu"]) == 2


def test_unknown_names_and_options_are_bad_usage(capsys):
    assert main(["--only", "digit_pair"]) == 2
    assert "did you mean 'digit_pairs'" in capsys.readouterr().err
    assert single("digit_pairs", "About.")(["--jobs", "none"]) == 2
    with pytest.raises(UsageError, match="unknown experiment"):
        chosen(["everything"])
    assert chosen(None) == EXPERIMENTS
