"""Spies on what rows claim: the draws that count, seeds of their own for every batch, parts of the right network."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import MeanThreshold, blobs, plan
from torch import nn

from baselines.smoothing import (
    SmoothedClassifier,
    TwoStage,
    count_votes,
    lower_bound,
    radii,
    stage_seed,
    votes_needed,
)
from baselines.smoothing.classifier import COUNT
from bench.contract import Outcome
from bench.methods._smoothing import SmoothingSettings
from bench.methods.smoothing_gaussian import SmoothingGaussian
from bench.methods.smoothing_splitting import SmoothingSplitting
from bench.running.evaluate import Evaluation
from bench.running.parts import Parts
from bench.running.plan import Scratch
from fcnn.training import TrainSettings

SIGMA, DRAWS, PILOT, ALPHA = 0.3, 600, 90, 0.001


@dataclass(frozen=True)
class Count:
    """One call of ``count_votes``: what it was asked, what it returned, and how many inputs the network saw."""

    seed: int
    draws: np.ndarray
    votes: np.ndarray
    seen: int


@pytest.fixture
def counts(monkeypatch) -> list[Count]:
    """Every count of votes that a smoothed classifier makes; the counts themselves are real."""
    found: list[Count] = []

    def spied(model, x, noise, sigma, draws, **rest):
        seen = []
        hook = model.register_forward_hook(lambda _model, inputs, _output: seen.append(len(inputs[0])))
        try:
            votes = count_votes(model, x, noise, sigma, draws, **rest)
        finally:
            hook.remove()
        # One more input shows how much memory a draw takes.
        asked = np.broadcast_to(np.asarray(draws), (len(x),)).copy()
        found.append(Count(rest["seed"], asked, votes.copy(), sum(seen) - 1))
        return votes

    monkeypatch.setattr("baselines.smoothing.classifier.count_votes", spied)
    return found


def step_model() -> nn.Sequential:
    """Sensitive iff x + noise > 0; it does not narrow its input, so every draw passes the whole network."""
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, nn.Flatten(0)).eval()


def two_stage() -> TwoStage:
    return TwoStage(PILOT, lambda p: radii("gaussian", SIGMA, p, 1, "l2"), loss=0.2)


def test_a_bound_counts_the_votes_of_the_counting_stage_and_no_others(counts):
    x = torch.linspace(-0.2, 0.8, 30)[:, None]
    smoothed = SmoothedClassifier(step_model(), "gaussian", SIGMA, ALPHA)
    bound, draws = smoothed.p_lower(x, draws=DRAWS, seed=5, two_stage=two_stage())
    pilot, counted = counts
    assert (pilot.draws == PILOT).all() and len(set(draws)) > 3
    assert pilot.seed != counted.seed
    np.testing.assert_array_equal(counted.draws, draws)
    np.testing.assert_array_equal(bound, lower_bound(counted.votes, draws, ALPHA))
    assert [pilot.seen, counted.seen] == [PILOT * len(x), draws.sum()]


def test_the_looks_of_a_prediction_have_draws_of_their_own_and_are_not_added_up(counts):
    x = torch.tensor([[0.9], [0.03], [0.0], [-0.9]])
    smoothed = SmoothedClassifier(step_model(), "gaussian", SIGMA, ALPHA)
    found = smoothed.predict(x, draws=DRAWS, draws_first=50, seed=5)
    smoothed.p_lower(x, draws=DRAWS, seed=5)
    assert len({count.seed for count in counts}) == len(counts) == 3
    first, second, _ = counts
    assert found[[0, 3]].tolist() == [1, 0] and (first.draws == 50).all()
    assert second.draws.tolist() == [0, DRAWS, DRAWS, 0]
    sure = lower_bound(second.votes.reshape(-1)[1:3], DRAWS, ALPHA / 2) > 0.5
    assert (found[1:3].numpy() == 1).tolist() == sure.tolist()


def test_each_of_two_looks_decides_at_half_of_alpha(monkeypatch):
    needed = votes_needed(DRAWS, ALPHA / 2)
    assert votes_needed(DRAWS, ALPHA) < needed
    votes = np.array([[needed, needed - 1, DRAWS - needed, DRAWS - needed + 1]])
    monkeypatch.setattr("baselines.smoothing.classifier.count_votes", lambda *_, **__: votes)
    smoothed = SmoothedClassifier(step_model(), "gaussian", SIGMA, ALPHA)
    found = smoothed.predict(torch.zeros(4, 1), draws=DRAWS, draws_first=DRAWS, seed=5)
    assert found.tolist() == [1, -1, 0, -1]


def test_a_threshold_decides_a_prediction_from_just_as_many_votes_as_it_was_chosen_for(monkeypatch):
    """Calibration reads off the scores where a look at alpha / 2 turns; at alpha it would be too few votes."""
    scores = torch.arange(float(DRAWS))[None]
    monkeypatch.setattr("bench.methods._smoothing.noisy_scores", lambda *_, **__: scores)
    method = SmoothingGaussian(
        SmoothingSettings(sigma=SIGMA, draws=DRAWS, draws_calibrate=DRAWS, alpha=ALPHA)
    )
    method.model = SimpleNamespace(network=None)
    low, high = (end.item() for end in method.decision_range(torch.zeros(1, 1), seed=0))
    smoothed = SmoothedClassifier(step_model(), "gaussian", SIGMA, ALPHA)
    for threshold, decided in ((low - 0.5, 1), (low, -1), (high - 0.5, -1), (high, 0)):
        assert smoothed._decide((scores > threshold).sum(dim=1).numpy(), DRAWS).tolist() == [decided]


def test_a_tied_vote_of_splitting_noise_is_not_sensitive():
    method = SmoothingSplitting()
    method.model = SimpleNamespace(share_at=lambda x, thresholds: np.array([[0.5, 0.5 + 1e-9, 0.4]]))
    assert method.predict_at(torch.zeros(3, 1), [0.0], seed=0)[0].tolist() == [0, 1, 0]


class Spied(SmoothingGaussian):
    """Certified a few inputs at a time."""

    batch_size = 4


@pytest.mark.parametrize("pilot", [0, PILOT])
def test_rows_show_the_draws_that_were_made_and_the_radius_that_they_give(counts, pilot):
    train = TrainSettings(epochs=20, batch_size=32, learning_rate=0.02)
    settings = SmoothingSettings(
        network="mlp", hidden=(4,), sigma=SIGMA, draws=DRAWS, draws_predict=70, pilot=pilot, train=train
    )
    here = plan(norms=("l2", "linf"))
    rows = Evaluation(Spied(settings), blobs(), here).run().radii
    rows = rows[rows["norm"] == "l2"].sort_values("index")
    assert len({count.seed for count in counts}) == len(counts)
    if not pilot:
        _one_set_of_draws_for_every_threshold(rows, counts, here)
        return
    made, held = {count.seed: count for count in counts}, 0
    for start in range(0, len(rows), Spied.batch_size):
        batch = rows.iloc[start : start + Spied.batch_size]
        batch = batch[batch["draws"].notna()]
        if not len(batch):
            continue
        counted = made[stage_seed(here.seed_for("certify", "smoothing", "free", start), COUNT)]
        draws = batch["draws"].to_numpy(dtype=int)
        np.testing.assert_array_equal(draws, counted.draws)
        assert counted.seen == draws.sum() and (draws <= DRAWS).all()
        expected = radii("gaussian", SIGMA, lower_bound(counted.votes, draws, ALPHA), 4, "l2")
        certified = batch["outcome"] == Outcome.CERTIFIED
        np.testing.assert_array_equal(batch["radius"].fillna(0.0), np.where(certified, expected, 0.0))
        np.testing.assert_array_equal(certified, expected > 0)
        held += len(batch)
    assert held > 8


def _one_set_of_draws_for_every_threshold(rows, counts, here):
    """Every row shows the draws of its batch's one counting stage, and a radius that its votes give."""
    seeds = {
        stage_seed(here.seed_for("certify", "smoothing", "free", start), COUNT)
        for start in range(0, len(rows), Spied.batch_size)
    }
    counted = [count for count in counts if count.seed in seeds]
    # None for an input that no threshold calls sensitive.
    assert counted and all(np.isin(count.draws, [0, DRAWS]).all() for count in counted)
    assert all(count.seen == count.draws.sum() for count in counted)
    votes = np.unique(np.concatenate([count.votes.reshape(-1) for count in counted]))
    possible = radii("gaussian", SIGMA, lower_bound(votes, np.full(len(votes), DRAWS), ALPHA), 4, "l2")
    certified = rows[rows["outcome"] == Outcome.CERTIFIED]
    assert len(certified) > 8 and (rows["draws"].dropna() == DRAWS).all()
    assert set(certified["radius"].astype(float)) <= set(possible.tolist())


class Seeds(MeanThreshold):
    """Notes the seed of every call."""

    batch_size = 7

    def predict(self, x, seed):
        self.noted.append(seed)
        return super().predict(x, seed)

    def certify(self, x, curve, norms, seed):
        self.noted.append(seed)
        return super().certify(x, curve, norms, seed)


def test_every_batch_has_a_seed_of_its_own():
    method = Seeds()
    method.noted = []
    Evaluation(method, blobs(), plan()).run()
    assert len(method.noted) > 6
    assert len(set(method.noted)) == len(method.noted)


class Weighted(MeanThreshold):
    """Has a state: what its radii are multiplied by."""

    weight = 1.0

    def network(self, input_shape):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, self.weight)
        return model

    def certify(self, x, curve, norms, seed):
        found = super().certify(x, curve, norms, seed)
        for part in found.values():
            part.radius = part.radius * self.model.weight.item()
        return found


def test_parts_of_another_network_are_not_taken_up(tmp_path):
    class Other(Weighted):
        weight = 0.5

    scratch = Scratch(parts=Parts(tmp_path / "parts"))
    first = Evaluation(Weighted(), blobs(), plan(), scratch).run().radii["radius"]
    again = Evaluation(Weighted(), blobs(), plan(), scratch).run().radii["radius"]
    other = Evaluation(Other(), blobs(), plan(), scratch).run().radii["radius"]
    assert first.equals(again)
    np.testing.assert_array_equal(other.dropna(), 0.5 * first.dropna())


STATE = {"weight": torch.tensor([1.0, 2.0, 3.0]), "threshold": torch.tensor(0.5)}
OTHERS = {
    "a last bit": {"weight": torch.nextafter(STATE["weight"], torch.tensor(9.0))},
    "another threshold": {"threshold": torch.tensor(0.25)},
    "another shape": {"weight": STATE["weight"][:, None]},
    "another order": {"weight": STATE["weight"].flip(0)},
    "another type": {"weight": STATE["weight"].double()},
    "another name": {"bias": torch.tensor(0.0)},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_part_belongs_to_one_state(tmp_path, what):
    parts = Parts(tmp_path).owned_by(STATE)
    parts.save("certify-0", {"radius": np.ones(3)})
    assert (Parts(tmp_path).owned_by(STATE).load("certify-0")["radius"] == 1).all()
    assert Parts(tmp_path).owned_by({**STATE, **OTHERS[what]}).load("certify-0") is None


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a bit of the arrays": lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
    "a bit of the owner": lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_part_is_set_aside_as_it_is(tmp_path, what, caplog):
    parts = Parts(tmp_path).owned_by(STATE)
    parts.save("certify-0", {"radius": np.ones(3)})
    (path,) = tmp_path.iterdir()
    damaged = DAMAGE[what](path.read_bytes())
    path.write_bytes(damaged)
    assert parts.load("certify-0") is None
    (aside,) = tmp_path.iterdir()
    assert aside != path and aside.read_bytes() == damaged
    assert str(path) in caplog.text and "checksum" in caplog.text
