"""Trainings that are watched: whoever trains, the watch is told, and may end it."""

import pytest
import torch
from torch import nn

from fcnn.training import TrainSettings, cross_entropy, train, watched

SETTINGS = TrainSettings(epochs=4, batch_size=8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))


def run(model: nn.Module, **options: object):
    x = torch.linspace(0, 1, 96).reshape(32, 3)
    return train(model, cross_entropy, (x, (x[:, 0] > 0.5).float()), SETTINGS, seed=1, **options)


def test_every_step_is_told_and_nothing_else_changes():
    told = []
    with watched(lambda *step: told.append(step)):
        run(seen := network())
    run(unseen := network())
    assert [step for _, step, _ in told] == list(range(1, 17))
    assert told[-1] == (1.0, 16, 4)
    for one, other in zip(seen.parameters(), unseen.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_ends_at_the_step_the_watch_says_and_leaves_no_half_epoch_behind(tmp_path):
    checkpoint = tmp_path / "training.pt"
    with watched(lambda done, step, per_epoch: step == 6):
        history = run(cut := network(), checkpoint=checkpoint)
    assert len(history.loss) == 2
    assert not cut.training
    run(resumed := network(), checkpoint=checkpoint)
    run(whole := network())
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_the_watch_raises_passes_through_and_it_sees_no_later_training():
    class Enough(Exception):
        pass

    def watch(done: float, step: int, per_epoch: int) -> bool:
        raise Enough

    with pytest.raises(Enough), watched(watch):
        run(network())
    run(network())
