"""The training loop: seeded, resumable with the same result, augmentation, early stopping."""

import errno
import itertools
import os

import pytest
import torch
from torch import nn

from fcnn.training import TrainSettings, augment, cross_entropy, rows_of_epoch, train


class Score(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand((64, 3), generator=torch.Generator().manual_seed(0))
    return x, (x.sum(dim=1) > 1.5).long()


def fresh() -> Score:
    torch.manual_seed(7)
    return Score()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


SETTINGS = TrainSettings(epochs=6, batch_size=16, learning_rate=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_training_lowers_the_loss(optimizer, schedule):
    settings = TrainSettings(15, 16, optimizer=optimizer, schedule=schedule, learning_rate=0.02)
    history = train(fresh(), cross_entropy, data(), settings, seed=1)
    assert history.loss[-1] < history.loss[0]


def test_the_seed_determines_the_result_whatever_was_drawn_before():
    first, second, third = fresh(), fresh(), fresh()
    train(first, cross_entropy, data(), SETTINGS, seed=1)
    torch.rand(100)
    train(second, cross_entropy, data(), SETTINGS, seed=1)
    train(third, cross_entropy, data(), SETTINGS, seed=2)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(third))


def test_random_numbers_in_the_loss_are_others_in_every_step_and_epoch_and_the_seed_s_own():
    def drawn(seed):
        seen = []

        def loss(model, x, y, done):
            seen.append(torch.rand(4))
            return cross_entropy(model, x, y, done)

        train(fresh(), loss, data(), SETTINGS, seed=seed)
        return torch.stack(seen)

    first = drawn(1)
    assert len(first.unique(dim=0)) == len(first) == 6 * 64 // 16
    assert torch.equal(drawn(1), first) and not torch.equal(drawn(2), first)


@pytest.mark.parametrize("limit", [24, 0])
def test_an_epoch_passes_over_a_limited_number_of_rows_and_over_others_the_next_time(limit):
    x = torch.arange(40.0)[:, None].expand(-1, 2)
    seen = []

    def watched_loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor, done: float) -> torch.Tensor:
        seen.append(x[:, 0].tolist())
        return model(x).square().mean()

    settings = TrainSettings(epochs=3, batch_size=8, learning_rate=1e-4, epoch_rows=limit)
    train(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), watched_loss, (x, torch.zeros(40)), settings, seed=0)
    per_epoch = limit // 8 or 5
    epochs = [
        list(itertools.chain(*seen[start : start + per_epoch])) for start in range(0, len(seen), per_epoch)
    ]
    assert len(epochs) == 3
    assert all(len(set(rows)) == len(rows) == (limit or 40) for rows in epochs)
    assert len(set().union(*epochs)) > (limit or 39)


@pytest.mark.parametrize("rare", [0, 1])
def test_a_rare_class_makes_up_its_share_of_an_epoch_whichever_it_is(rare):
    y = torch.full((1000,), 1.0 - rare)
    y[17:37] = rare
    order = torch.Generator().manual_seed(0)
    rows = rows_of_epoch(y, TrainSettings(rare_share=0.25, epoch_rows=400), order)
    counts = rows.bincount(minlength=1000)
    assert len(rows) == 400
    assert counts[y == rare].tolist() == [5] * 20  # a quarter of 400, each as often as the others
    assert counts[y != rare].max() == 1
    assert set(y[rows[:100]].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("y", "share"),
    [
        ((torch.arange(100) % 3 == 0).float(), 0.25),
        ((torch.arange(100) < 2).float(), 0.0),
        (torch.ones(100), 0.25),
        (torch.linspace(0, 1, 100), 0.25),
        (torch.tensor([[1.0, 0.5]]).repeat(100, 1), 0.25),
    ],
    ids=["no rare class", "own shares", "one class", "no labels", "labels and weights"],
)
def test_without_a_rare_class_an_epoch_passes_once_over_every_row(y, share):
    settings = TrainSettings(rare_share=share)
    rows = rows_of_epoch(y, settings, torch.Generator().manual_seed(3))
    assert torch.equal(rows, torch.randperm(100, generator=torch.Generator().manual_seed(3)))


class Cut(Exception):
    pass


def test_training_that_was_cut_goes_on_to_the_same_weights(tmp_path):
    whole, cut = fresh(), fresh()

    def measure(model: nn.Module) -> float:
        return -model(data()[0]).abs().mean().item()

    expected = train(whole, cross_entropy, data(), SETTINGS, seed=1, validate=measure)
    steps = iter(range(10))

    def cut_after_two_and_a_half_epochs():
        if next(steps) == 9:
            raise Cut

    path = tmp_path / "training.pt"
    with pytest.raises(Cut):
        train(
            cut,
            cross_entropy,
            data(),
            SETTINGS,
            seed=1,
            validate=measure,
            after_step=cut_after_two_and_a_half_epochs,
            checkpoint=path,
        )
    resumed = fresh()
    history = train(resumed, cross_entropy, data(), SETTINGS, seed=1, validate=measure, checkpoint=path)
    assert torch.equal(weights(whole), weights(resumed))
    assert history == expected


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "version"])
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_afresh(tmp_path, damage, caplog, monkeypatch):
    path = tmp_path / "training.pt"
    for count in (1, 2):  # twice, and both are kept
        path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            if damage == "version":
                patch.setattr("fcnn.training.CHECKPOINT_VERSION", 999)
            train(fresh(), cross_entropy, data(), SETTINGS, seed=1, checkpoint=path)
        content = path.read_bytes()
        content = {"empty": b"", "garbage": b"not a checkpoint", "cut": content[:-200], "version": content}[
            damage
        ]
        path.write_bytes(content)
        model, expected = fresh(), fresh()
        train(model, cross_entropy, data(), SETTINGS, seed=1, checkpoint=path)
        train(expected, cross_entropy, data(), SETTINGS, seed=1)
        assert torch.equal(weights(model), weights(expected))
        assert (tmp_path / f"training.pt.damaged-{count}").read_bytes() == content
        assert f"{path} " in caplog.text and f"training.pt.damaged-{count}" in caplog.text
    assert ("version 999" in caplog.text) == (damage == "version")


def test_a_full_disk_costs_the_checkpoint_but_not_the_training(tmp_path, caplog, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model, expected = fresh(), fresh()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        train(model, cross_entropy, data(), SETTINGS, seed=1, checkpoint=tmp_path / "training.pt")
    train(expected, cross_entropy, data(), SETTINGS, seed=1)
    assert torch.equal(weights(model), weights(expected))
    assert not list(tmp_path.iterdir()) and "No space left on device" in caplog.text


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path):
    path = tmp_path / "training.pt"
    train(fresh(), cross_entropy, data(), TrainSettings(epochs=1), seed=1, checkpoint=path)
    model, expected = fresh(), fresh()
    train(model, cross_entropy, data(), SETTINGS, seed=1, checkpoint=path)
    train(expected, cross_entropy, data(), SETTINGS, seed=1)
    assert torch.equal(weights(model), weights(expected))


def test_the_best_epoch_is_kept_and_patience_ends_training():
    values = iter([1.0, 3.0, 2.0, 2.5, 9.0, 9.5])
    seen = []

    def validate(model):
        seen.append(weights(model).clone())
        return next(values)

    model = fresh()
    settings = TrainSettings(epochs=6, batch_size=16, patience=2)
    history = train(model, cross_entropy, data(), settings, seed=1, validate=validate)
    assert history.validation == [1.0, 3.0, 2.0, 2.5]
    assert history.best_epoch == 1
    assert torch.equal(weights(model), seen[1])


def test_a_loss_that_is_no_number_stops_training():
    with pytest.raises(FloatingPointError, match="diverged"):
        train(fresh(), lambda *_: weights_nan(), data(), SETTINGS, seed=1)


def weights_nan() -> torch.Tensor:
    return torch.tensor(float("nan"), requires_grad=True)


def test_shifts_move_whole_images_by_at_most_the_padding():
    x = torch.zeros(200, 2, 7, 9)
    x[:, :, 3, 4] = 1.0
    settings = TrainSettings(crop_padding=2)
    moved = augment(x, settings, torch.Generator().manual_seed(0))
    positions = moved.nonzero()
    assert moved.sum() == x.sum()
    assert (positions[:, 2] - 3).abs().max() == 2
    assert (positions[:, 3] - 4).abs().max() == 2
    assert len(torch.unique(positions[:, 2:], dim=0)) == 25
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_flips_turn_about_half_of_the_images_and_tables_pass():
    x = torch.arange(6.0).repeat(100, 1, 2, 1)
    flipped = augment(x, TrainSettings(flip=True), torch.Generator().manual_seed(0))
    turned = (flipped[:, 0, 0, 0] == 5).float().mean()
    assert 0.3 < turned < 0.7
    table = torch.rand(5, 3)
    settings = TrainSettings(flip=True, crop_padding=2, rotation=10, scaling=0.1)
    assert augment(table, settings, torch.Generator()) is table


def test_warps_turn_and_zoom_within_their_limits():
    # A bright bar through the centre: its angle and length tell the turn and the zoom.
    x = torch.zeros(200, 1, 41, 41)
    x[:, :, 20, 8:33] = 1.0
    turned = augment(x, TrainSettings(rotation=20.0), torch.Generator().manual_seed(0))
    place = torch.arange(41.0) - 20
    weight = turned[:, 0]
    along = (weight * place.square()).sum(dim=(1, 2))
    across = (weight * place[:, None] * place).sum(dim=(1, 2))
    degrees = torch.rad2deg(torch.atan(across / along))
    assert degrees.abs().max() <= 20.5
    assert degrees.max() > 15
    assert degrees.min() < -15
    zoomed = augment(x, TrainSettings(scaling=0.2), torch.Generator().manual_seed(0))
    length = zoomed[:, 0, 20].sum(dim=1)
    assert 25 / 1.2 - 1 <= length.min() < 22.5
    assert 27.5 < length.max() <= 25 / 0.8 + 1
    assert turned.min() >= 0
    assert turned.max() <= 1 + 1e-6


def test_a_turn_of_a_wide_image_moves_nothing_nearer_to_its_centre_or_away():
    """In an image twice as wide as high, a spot stays as far from the centre as it was."""
    down, along = (torch.arange(41.0) - 20)[:, None], torch.arange(81.0) - 40
    x = torch.exp(-((along - 12).square() + down.square()) / 8).expand(100, 1, 41, 81)
    turned = augment(x, TrainSettings(rotation=40.0), torch.Generator().manual_seed(0))[:, 0]
    total = turned.sum(dim=(1, 2))
    place = torch.stack([(turned * axis).sum(dim=(1, 2)) / total for axis in (along, down)])
    assert (place.norm(dim=0) - 12).abs().max() < 0.2
    assert place[1].max() > 6 and place[1].min() < -6
