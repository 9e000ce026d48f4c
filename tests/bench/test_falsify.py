"""The falsifier breaks what is wrong, leaves alone what is right, and its bracket holds the truth."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from misbehaving import write_plugin
from report_runs import write_run
from synthetic import MeanThreshold, blobs, plan
from undrawn import run_suite

from bench import methods as registry
from bench.attacking.attacks import Attacked, AttackSettings
from bench.attacking.bracket import bracket_rows, smallest_adversarial
from bench.attacking.targets import Target, sample
from bench.contract import Outcome, Radii
from bench.falsify import main as falsify
from bench.kept.store import Store
from bench.plots import main as plots
from bench.report.figures.bracket_figure import bracket_figure, shares
from bench.running.evaluate import Evaluation

SUITE = """
datasets = ["circles"]
norms = ["l1", "l2", "linf"]
[[methods]]
method = "too_large"
[[methods]]
method = "out_of_memory"
[[methods]]
method = "smoothing_gaussian"
settings = {network = "mlp", sigma = 0.3, draws = 500, draws_predict = 200, train.epochs = 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of a method whose radii are 5 % too large, an honest one and a probabilistic one."""
    folder = tmp_path_factory.mktemp("falsify")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(write_plugin(folder / "plugin"))
        registry.registered_methods.cache_clear()
        run_suite(folder, SUITE)
        yield folder / "out"
    registry.registered_methods.cache_clear()


@pytest.mark.slow
def test_radii_that_are_too_large_are_broken_and_kept_as_examples(run, capsys):
    assert falsify([str(run), "--limit", "20", "--points", "700", "--bracket", "12"]) == 1
    said = capsys.readouterr().out
    table = pd.read_csv(run / "falsify.csv").set_index(["method", "norm"])
    assert (table.loc["too_large", "broken"] == 20).all()
    assert (table.loc["out_of_memory", "broken"] == 0).all()
    assert (table.loc["smoothing_gaussian", "broken"] <= table.loc["smoothing_gaussian", "allowed"]).all()
    # Two methods in three norms at two operating points, 20 certificates each.
    deterministic = table[table["guarantee"] == "deterministic"]
    assert deterministic["attacked"].sum() == 240 and deterministic["points"].sum() >= 700
    assert "counterexamples" in said and "120 broken" in said
    attacked = pd.read_parquet(run / "attacks.parquet")
    assert attacked.groupby("method")["broken"].sum().to_dict()["too_large"] == 120
    examples = sorted((run / "counterexamples").iterdir())
    assert len(examples) == 6 and all("too_large" in path.name for path in examples)
    with np.load(examples[1]) as example:
        inputs = torch.from_numpy(example["adversarial"])
        assert (MeanThreshold().score(inputs) <= 0).all() and len(example["index"]) == 20


@pytest.mark.slow
def test_the_bracket_is_drawn_and_holds_what_was_found(run):
    falsify([str(run), "--limit", "5", "--restarts", "1", "--bracket", "12"])
    rows = pd.read_csv(run / "bracket.csv")
    honest = rows[rows["method"] == "out_of_memory"]
    sensitive = honest["certified"] > 0
    assert len(honest) == 2 * 3 * 12 and sensitive.any()  # operating points, norms, inputs
    assert (honest["adversarial"] >= honest["certified"])[sensitive].all()
    assert (honest["adversarial"] <= 1.05 * honest["certified"])[sensitive].all()
    assert (honest["adversarial"][~sensitive] == 0).all()
    figures = {path.name for path in (run / "figures").glob("*_bracket.*")}
    assert figures == {
        f"circles{point}_bracket.{kind}" for point in ("", "_other_recall_0.99") for kind in ("png", "pdf")
    }
    drawn = {path: path.read_bytes() for path in (run / "figures").glob("*_bracket.*")}
    for path in drawn:
        path.unlink()
    assert plots([str(run)]) == 0
    assert {path: path.read_bytes() for path in drawn} == drawn


class KnowsBetter(MeanThreshold):
    """Certifies one input above an adversarial perturbation that it reports itself; honest in the other norms."""

    def certify(self, x, curve, norms, seed):
        found = super().certify(x, curve, norms, seed)
        for norm, radii in found.items():
            radii.radius_upper = 1.5 * radii.radius
            if norm == "l2":
                radii.radius_upper[len(x) // 2] = 0.99 * radii.radius[len(x) // 2]
        return found


class Idle(MeanThreshold):
    """Certifies nothing."""

    def certify(self, x, curve, norms, seed):
        return {norm: Radii.without(len(x), Outcome.UNKNOWN, "idle") for norm in norms}


@dataclass(frozen=True)
class PretendRun:
    """A run whose methods need no rebuilding."""

    store: Store
    configuration: dict
    data_dir: Path | None

    def target(self, rows, curve):
        x = torch.from_numpy(blobs().x_test[rows["index"].to_numpy()])
        radius = torch.from_numpy(rows["radius"].to_numpy(dtype=float))
        method = MeanThreshold()
        method.build((4,), seed=0)
        return Target(method, x, radius, curve["norm"], curve["domain"], 0)


def test_every_curve_is_looked_at_and_every_row_held_against_its_own_upper_end(tmp_path, monkeypatch, capsys):
    """Two certificates of each curve are attacked: the row that contradicts itself is found all the same."""
    results = [
        Evaluation(kind(), blobs(), plan(name)).run()
        for name, kind in (("knows_better", KnowsBetter), ("honest", MeanThreshold), ("idle", Idle))
    ]
    radii = [result.radii for result in results]
    out = write_run(tmp_path / "out", radii, [result.predictions for result in results])
    monkeypatch.setattr("bench.commands.falsify.FinishedRun", PretendRun)
    arguments = [str(out), "--limit", "2", "--restarts", "1", "--steps", "2", "--bracket", "0"]
    assert falsify(arguments) == 1
    said = capsys.readouterr().out
    assert "1 radii lie above their own radius_upper" in said and "method knows_better" in said
    assert said.count("radius_upper") == 1 and "norm l2" in said
    table = pd.read_csv(out / "falsify.csv").set_index(["method", "norm"])
    assert len(table) == 9 and (table["broken"] == 0).all()
    assert (table.loc["idle", "attacked"] == 0).all() and (table.loc["honest", "attacked"] == 2).all()
    assert table["above_upper"].sum() == table.loc[("knows_better", "l2"), "above_upper"] == 1
    write_run(tmp_path / "fine", radii[1:], [result.predictions for result in results[1:]])
    assert falsify([str(tmp_path / "fine"), *arguments[1:]]) == 0


def test_what_is_broken_is_counted_kept_and_held_against_what_the_guarantee_allows(
    tmp_path, monkeypatch, capsys
):
    """Every second radius is 20 % too large, once promised always and once with probability 0.8."""
    result = Evaluation(MeanThreshold(), blobs(), plan("overstated", norms=("l2",))).run()
    wrong = np.arange(len(result.radii)) % 2 == 1
    radii = result.radii.assign(radius=result.radii["radius"].astype(float) * np.where(wrong, 1.2, 1.0))
    count, index = len(radii), radii["index"].to_numpy()
    assert (radii["outcome"] == Outcome.CERTIFIED).all() and count > 10
    vote = {"method": "voted", "guarantee": "probabilistic", "alpha": 0.2, "draws": 100}
    predictions = [result.predictions, result.predictions.assign(method="voted")]
    out = write_run(tmp_path / "out", [radii, radii.assign(**vote)], predictions)
    monkeypatch.setattr("bench.commands.falsify.FinishedRun", PretendRun)
    effort = ["--limit", "0", "--restarts", "2", "--steps", "20", "--bracket", "0", "--points", "100"]
    assert falsify([str(out), *effort]) == 1
    said = capsys.readouterr().out
    # The vote's failures may be chance: one run in a thousand has more than are allowed.
    assert "overstated" in said and "voted" not in said
    table = pd.read_csv(out / "falsify.csv").set_index("method")
    assert table["broken"].tolist() == [wrong.sum()] * 2 and table["attacked"].tolist() == [count] * 2
    assert table["rounding"].tolist() == [0, 0] and table.loc["overstated", "allowed"] == 0
    tails = [
        sum(math.comb(count, k) * 0.2**k * 0.8 ** (count - k) for k in range(more + 1, count + 1))
        for more in range(count + 1)
    ]
    assert table.loc["voted", "allowed"] == next(k for k, tail in enumerate(tails) if tail <= 0.001)
    # As many more starts as bring the deterministic ones to 100 points.
    assert table["points"].to_dict() == {"overstated": -(-100 // count) * count, "voted": 2 * count}
    attacked = pd.read_parquet(out / "attacks.parquet")
    assert attacked.groupby("method")["broken"].apply(list).to_dict() == dict.fromkeys(
        ("overstated", "voted"), wrong.tolist()
    )
    (path,) = (path for path in (out / "counterexamples").iterdir() if "overstated" in path.name)
    with np.load(path) as example:
        assert example["index"].tolist() == index[wrong].tolist()
        assert example["radius"] == pytest.approx(radii["radius"].to_numpy()[wrong])
        points = example["adversarial"].astype(float)
    moved = np.linalg.norm(points - blobs().x_test[index[wrong]], axis=1)
    assert (points.mean(axis=1) <= 0.5 + 1e-6).all()
    assert (moved <= radii["radius"].to_numpy()[wrong]).all()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_smallest_adversarial_norm_moves_only_what_may_change(norm):
    """With one coordinate of three to move, the mean falls by a third of what it moves, in every norm."""
    data = blobs(dimension=3)
    x = torch.from_numpy(data.x_test[data.y_test == 1])
    exact = 3 * MeanThreshold().score(x).double()
    mutable = torch.tensor([False, True, False])
    target = Target(MeanThreshold(), x, 0.7 * exact, norm, "free", 0, mutable)
    found = torch.from_numpy(smallest_adversarial(target, AttackSettings(20, 1)))
    assert (found >= exact * (1 - 1e-5)).all()
    assert (found <= 1.1 * exact).all()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_smallest_adversarial_norm_lies_just_above_the_exact_radius(norm):
    data = blobs(dimension=3)
    x = torch.from_numpy(data.x_test[data.y_test == 1])
    exact = torch.from_numpy(MeanThreshold().certify(x, None, [norm], 0)[norm].radius)
    # From some inputs nothing is certified: the search goes outwards from further in.
    for known in (exact, torch.where(torch.arange(len(exact)) % 2 == 0, exact, 0.0)):
        target = Target(MeanThreshold(), x, known, norm, "free", 0)
        found = torch.from_numpy(smallest_adversarial(target, AttackSettings(20, 1)))
        assert (found >= exact * (1 - 1e-5)).all()
        assert (found <= 1.1 * exact).all()


def test_a_bracket_is_between_the_best_certificate_of_an_input_and_what_attacks_find():
    """Two curves in one norm and domain: an input's bracket begins at the larger of its two radii."""
    exact = Evaluation(MeanThreshold(), blobs(), plan("mean")).run().radii
    exact = exact[(exact["norm"] == "l2") & (exact["outcome"] == Outcome.CERTIFIED)]
    loose = exact.assign(certificate="loose", radius=exact["radius"] / 2)
    run = PretendRun(Store(Path()), {}, None)
    for both in ([exact, loose], [loose, exact]):
        rows = bracket_rows(run, pd.concat(both, ignore_index=True), 0, AttackSettings(20, 1))
        assert rows["index"].tolist() == exact["index"].tolist()
        assert rows["certified"].to_numpy() == pytest.approx(exact["radius"].to_numpy(dtype=float))
        assert (rows["adversarial"] >= rows["certified"] * (1 - 1e-5)).all()
        assert (rows["adversarial"] <= 1.1 * rows["certified"]).all()


def test_what_cannot_be_broken_has_no_adversarial_point():
    class Always(MeanThreshold):
        def score(self, x):
            return 1 + 0 * x.flatten(1).sum(dim=1)

    x = torch.rand((4, 3), generator=torch.Generator().manual_seed(0))
    target = Target(Always(), x, torch.full((4,), torch.inf, dtype=torch.float64), "l2", "box", 0)
    assert np.isinf(smallest_adversarial(target, AttackSettings(5, 1))).all()
    finite = Target(Always(), x, torch.ones(4, dtype=torch.float64), "l2", "box", 0)
    assert np.isinf(smallest_adversarial(finite, AttackSettings(5, 1))).all()


def test_a_point_outside_the_ball_is_no_counterexample():
    x = torch.full((2, 3), 0.6)
    target = Target(MeanThreshold(), x, torch.tensor([0.1, 0.3], dtype=torch.float64), "linf", "free", 0)
    points = torch.full((2, 3), 0.4)
    assert target.not_sensitive(points).tolist() == [True, True]
    assert target.failures(points).tolist() == [False, True]


@pytest.mark.parametrize(("norm", "attacks"), [("l1", 0), ("l2", 3), ("linf", 3)])
def test_torchattacks_join_on_images_in_the_norms_they_know(norm, attacks):
    x = torch.full((4, 1, 5, 5), 0.7)
    radius = torch.full((4,), 0.19 * {"l1": 25, "l2": 5, "linf": 1}[norm], dtype=torch.float64)
    target = Target(MeanThreshold(), x, radius, norm, "free", 0)
    points, tried = target.attack(AttackSettings(10, 2), library=3)
    assert tried == 2 * 4 + attacks * 3
    assert not target.failures(points).any()
    wide = Target(MeanThreshold(), x, 1.1 * radius, norm, "free", 0)
    assert wide.failures(wide.attack(AttackSettings(10, 1), library=3)[0]).all()
    assert (wide.distances(points) <= radius * (1 + 1e-9)).all()


def test_what_the_library_breaks_is_kept_for_its_own_input(monkeypatch):
    """Of three images the first has no radius that the library could attack within; it breaks the third."""
    x = torch.full((3, 1, 5, 5), 0.7)
    radius = torch.tensor([torch.inf, 5.0, 5.0], dtype=torch.float64)
    adversarial = torch.full((1, 1, 5, 5), 0.4)
    monkeypatch.setattr(
        "bench.attacking.targets.norm_exact", lambda score, x, *rest: Attacked(x.clone(), score(x))
    )
    monkeypatch.setattr(
        "bench.attacking.targets.library_attacks",
        lambda score, x, *rest: [torch.cat([x[:1], adversarial])],
    )
    target = Target(MeanThreshold(), x, radius, "l2", "box", 0)
    points, _ = target.attack(AttackSettings(1, 1), library=3)
    assert torch.equal(points, torch.cat([x[:2], adversarial]))
    assert target.failures(points).tolist() == [False, False, True]


@pytest.mark.parametrize(("guarantee", "excused"), [("deterministic", True), ("probabilistic", False)])
def test_only_deterministic_certificates_are_ones_of_the_network_in_float64(guarantee, excused):
    """The score is what attacks differentiate: of a vote it says nothing, so no broken certificate is excused by it."""

    method = type("Guaranteed", (MeanThreshold,), {"guarantee": guarantee})()
    method.build((3,), seed=0)
    x = torch.full((2, 3), 0.6)
    target = Target(method, x, torch.ones(2, dtype=torch.float64), "l2", "free", 0)
    assert target.only_rounding(torch.tensor([[0.7] * 3, [0.4] * 3])).tolist() == [excused, False]


def test_a_sample_is_the_same_for_the_same_names_only():
    rows = pd.DataFrame({"index": range(200)})
    once, again, other = (sample(rows, 9, *names)["index"].tolist() for names in (("a",), ("a",), ("b",)))
    assert once == again == sorted(set(once)) and len(once) == 9 and once != other
    assert sample(rows, 0, "a") is rows and sample(rows, 200, "a") is rows


def test_shares_count_an_uncertified_input_as_lost():
    values = np.array([0.0, 1.0, 2.0, np.inf])
    assert shares(values, np.array([0.0, 1.0, 1.5, 3.0])).tolist() == [0.75, 0.75, 0.5, 0.25]


def test_a_bracket_without_adversarial_points_can_be_drawn():
    row = {"dataset": "d", "method": "m", "domain": "free", "norm": "l2", "seed": 0, "index": 0}
    table = pd.DataFrame([{**row, "certified": np.inf, "adversarial": np.inf}])
    assert bracket_figure(table, {"m": "M $1"}, "d").axes


def test_one_far_point_does_not_squeeze_the_others_in_a_bracket():
    row = {"dataset": "d", "method": "m", "domain": "free", "norm": "l2", "seed": 0}
    table = pd.DataFrame([{**row, "index": i, "certified": 1.0, "adversarial": 2.0} for i in range(100)])
    table.loc[99, "adversarial"] = 500.0
    ax = bracket_figure(table, {"m": "M"}, "d").axes[0]
    assert ax.get_xlim() == pytest.approx((0, 2.1)) and ax.get_ylim() == pytest.approx((0, 1.02))
    curves = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in ax.lines}
    assert curves["certified"][1.0] == 1.0 and curves["certified"][2.0] == 0.0
    robust = curves["not broken by attack"]
    assert robust[1.0] == 1.0 and robust[2.0] == pytest.approx(0.01), "lost from the adversarial point on"
