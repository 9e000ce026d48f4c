"""A training loop that is seeded, resumable and projects after each step.

The loop knows nothing of the task: the loss, the projection and the validation measure are given to it. Feature-convex
networks pass ``after_step=network.project``, which is projected (sub)gradient descent on the convex parametrisation.
"""

import contextlib
import hashlib
import io
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

LOG = logging.getLogger(__name__)
DIGEST_BYTES = hashlib.sha256().digest_size
CHECKPOINT_VERSION = 1
Model = TypeVar("Model", bound=nn.Module)
# Of the model, x (N, *shape), y (N,) and the share of training done: a scalar.
Loss = Callable[[Model, Tensor, Tensor, float], Tensor]
# Told of every step: the share of the epochs done, the steps of this call, those of an epoch; True ends the training.
Watch = Callable[[float, int, int], bool]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@dataclass(frozen=True)
class TrainSettings:
    """How to train: optimiser, schedule, augmentation and early stopping.

    decay: factor per epoch of the ``exponential`` schedule. crop_padding: random shifts by up to that many pixels,
    zero-padded. flip: random horizontal flips. rotation: random turns by up to that many degrees; scaling: random
    zooms and shears by up to that share. patience: epochs without a better validation measure before training
    stops; 0 never stops early. epoch_rows: an epoch passes over at most so many rows, other ones each time, so that
    a long table costs no more than a short one, whoever trains on it (0: over all). rare_share: share of an epoch's
    rows that the rarer class gets, by repetition, where it has less of the data (0: the data's own shares).
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    decay: float = 0.99
    crop_padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    scaling: float = 0.0
    patience: int = 0
    epoch_rows: int = 16_000
    rare_share: float = 0.25


@dataclass
class History:
    """What training did: mean loss and validation measure per epoch, and the epoch whose weights were kept."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int | None = None


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within the block every ``train`` tells ``watch`` of its steps and ends where that says so.

    A budget thus holds for any method, whoever wrote it, and for all trainings of a method that trains several
    networks. What ``watch`` raises passes through ``train``.
    """
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextlib.contextmanager
def preliminary() -> Iterator[None]:
    """Within the block trainings count as time alone: the watch is told that the training proper has not begun.

    For what a method trains before its own network: nothing is to be judged yet, and its epochs are not the recipe's.
    """
    watch = _WATCH.get()
    if watch is None:
        yield
        return
    with watched(lambda done, steps, steps_per_epoch: watch(0.0, steps, steps_per_epoch)):
        yield


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, progress: float) -> Tensor:
    """Binary cross-entropy of the score; the plainest loss for ``train``."""
    return functional.binary_cross_entropy_with_logits(model(x), y)


def train(
    model: Model,
    loss: Loss[Model],
    data: tuple[Tensor, Tensor],
    settings: TrainSettings,
    *,
    seed: int,
    after_step: Callable[[], None] | None = None,
    validate: Callable[[Model], float] | None = None,
    checkpoint: Path | None = None,
    progress: bool | Callable[[str], None] | None = None,
) -> History:
    """Train ``model`` in place on ``data`` = (x (N, *shape), y (N,)) and leave it in evaluation mode.

    loss(model, x, y, done) returns a scalar, y as floats, done in [0, 1) the share of training done. ``validate``
    returns a number to maximise; with it the best epoch's weights are kept. With ``checkpoint`` the whole state is
    written there after each epoch and training goes on from it, with the same result as an uninterrupted run.
    progress: True draws a bar; a function is told the epoch in words.
    Raises FloatingPointError when the loss is no longer finite. Inside ``watched`` training may end at any step.
    """
    loop = _Loop(model, settings, seed)
    if checkpoint is not None and checkpoint.exists():
        loop.restore(checkpoint)
    bar = tqdm(
        range(loop.epoch, settings.epochs),
        desc="training",
        leave=False,
        disable=None if progress is True else True,
    )
    for _ in bar:
        if callable(progress):
            progress(f"epoch {loop.epoch + 1} of {settings.epochs}")
        stopped = loop.run_epoch(loss, *data, after_step)
        bar.set_postfix(loss=f"{loop.history.loss[-1]:.4f}")
        if validate is not None:
            model.eval()
            loop.keep_if_better(float(validate(model)))
        # Within an epoch there is nothing to go on from.
        if checkpoint is not None and not stopped:
            loop.save(checkpoint)
        if stopped or loop.out_of_patience():
            break
    if loop.best_state is not None:
        model.load_state_dict(loop.best_state)
    model.eval()
    return loop.history


class _Loop(Generic[Model]):
    """The state of a training run: everything that must survive a cut."""

    def __init__(self, model: Model, settings: TrainSettings, seed: int) -> None:
        self.model, self.settings = model, settings
        self.optimizer = _optimizer(model, settings)
        self.device = next(model.parameters()).device
        self.order = torch.Generator().manual_seed(
            seed
        )  # on the CPU, so that a device does not change the batches
        self.noise_seed = seed
        self.epoch = 0
        self.steps = 0
        self.watch = _WATCH.get()
        self.history = History()
        self.best_state: dict[str, Tensor] | None = None

    def run_epoch(
        self, loss: Loss[Model], x: Tensor, y: Tensor, after_step: Callable[[], None] | None
    ) -> bool:
        """Pass over an epoch's rows in a seeded order, and return whether the watch ended training on the way.

        Random numbers inside the loss are seeded per epoch too.
        """
        self.model.train()
        self._set_learning_rate()
        batches = rows_of_epoch(y, self.settings, self.order).split(self.settings.batch_size)
        total, seen, stopped = 0.0, 0, False
        with torch.random.fork_rng(devices=_cuda_devices(self.device)):
            torch.manual_seed(self.noise_seed + self.epoch)
            for step, batch in enumerate(batches):
                done = (self.epoch + step / len(batches)) / self.settings.epochs
                inputs = augment(x[batch].to(self.device), self.settings, self.order)
                value = loss(self.model, inputs, y[batch].to(self.device, inputs.dtype), done)
                self.optimizer.zero_grad(set_to_none=True)
                value.backward()
                self.optimizer.step()
                if after_step is not None:
                    after_step()
                total += float(value.detach()) * len(batch)
                seen += len(batch)
                self.steps += 1
                if self.watch is not None:
                    after = (self.epoch + (step + 1) / len(batches)) / self.settings.epochs
                    stopped = self.watch(after, self.steps, len(batches))
                    if stopped:
                        break
        mean = total / seen
        if not mean - mean == 0.0:
            raise FloatingPointError(
                f"training diverged: the loss is {mean} in epoch {self.epoch}; lower learning_rate"
            )
        self.history.loss.append(mean)
        self.epoch += 1
        return stopped

    def keep_if_better(self, value: float) -> None:
        """Keep a copy of the weights when the validation measure is the best so far."""
        best = max(self.history.validation, default=float("-inf"))
        self.history.validation.append(value)
        if value > best or self.best_state is None:
            self.history.best_epoch = self.epoch - 1
            self.best_state = {
                name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()
            }

    def out_of_patience(self) -> bool:
        """Whether the validation measure has not improved for ``patience`` epochs."""
        best = self.history.best_epoch
        return 0 < self.settings.patience <= (self.epoch - 1 - best if best is not None else 0)

    def save(self, path: Path) -> None:
        """Write the whole state atomically; a cut leaves the previous file, a disk that is full costs a warning."""
        state = {
            "version": CHECKPOINT_VERSION,
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "epoch": self.epoch,
            "history": asdict(self.history),
            "best_state": self.best_state,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        # torch does not notice a changed byte, so the file starts with the checksum of the rest.
        content = hashlib.sha256(buffer.getbuffer()).digest() + buffer.getbuffer()
        draft = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            LOG.warning("%s cannot be kept (%s): a cut would cost this epoch again", path, error.strerror)

    def restore(self, path: Path) -> None:
        """Continue from ``save``; a checkpoint of other settings is ignored, a damaged or foreign one set aside."""
        content = path.read_bytes()
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            _set_aside(path, "does not match its checksum")
            return
        state = torch.load(io.BytesIO(body), map_location=self.device, weights_only=True)
        if state.get("version") != CHECKPOINT_VERSION:
            _set_aside(path, f"has version {state.get('version')}, not {CHECKPOINT_VERSION}")
            return
        if state["settings"] != asdict(self.settings):
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"].cpu())
        self.epoch = state["epoch"]
        self.history = History(**state["history"])
        self.best_state = state["best_state"]

    def _set_learning_rate(self) -> None:
        rate = self.settings.learning_rate * _schedule(self.settings, self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def _set_aside(path: Path, why: str) -> None:
    """Rename a checkpoint that cannot be trusted, and say so; nothing that was set aside before is overwritten."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    LOG.warning("%s %s: set aside as %s, training starts again", path, why, aside.name)


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def _schedule(settings: TrainSettings, epoch: int) -> float:
    """Factor on the learning rate in an epoch."""
    if settings.schedule == "cosine":
        return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / settings.epochs)).item())
    return settings.decay**epoch if settings.schedule == "exponential" else 1.0


def rows_of_epoch(y: Tensor, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Draw which rows an epoch passes over, in order, of labels y (N,); other targets have no rarer class.

    However rare a class is, its rows make up ``rare_share``: from a class of 1 % alone a network learns to ignore it.
    """
    count = min(len(y), settings.epoch_rows or len(y))
    rows = torch.randperm(len(y), generator=generator)
    if y.ndim != 1 or not bool(((y == 0) | (y == 1)).all()):
        return rows[:count]
    label = y[rows.to(y.device)].cpu() == 1
    rare, common = sorted((rows[label], rows[~label]), key=len)
    wanted = math.ceil(settings.rare_share * count)
    if len(rare) == 0 or len(rare) * count >= wanted * len(y):
        return rows[:count]
    rounds = [
        rare[torch.randperm(len(rare), generator=generator)] for _ in range(math.ceil(wanted / len(rare)))
    ]
    drawn = torch.cat([torch.cat(rounds)[:wanted], common[: count - wanted]])
    return drawn[torch.randperm(count, generator=generator)]


def augment(x: Tensor, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    """Flip, warp and shift images (N, C, H, W) at random, each in its own way; tables pass unchanged."""
    if x.dim() != 4:
        return x
    if settings.flip:
        flipped = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    if settings.rotation or settings.scaling:
        x = _warp(x, settings.rotation, settings.scaling, generator)
    if settings.crop_padding:
        x = _shift(x, settings.crop_padding, generator)
    return x


def _warp(x: Tensor, rotation: float, scaling: float, generator: torch.Generator) -> Tensor:
    """Turn, zoom and shear each image about its centre, bilinearly; zeros come in from outside."""
    turn, zoom, shear = (2 * torch.rand(3, len(x), generator=generator) - 1).to(x)
    angle, zoom, shear = turn * math.radians(rotation), 1 + scaling * zoom, scaling * shear
    still = torch.zeros_like(angle)
    # The grid's coordinates run from -1 to 1 along both sides, however long these are.
    aspect = x.shape[2] / x.shape[3]
    across, down = (shear - angle.sin()) * aspect, angle.sin() / aspect
    rows = [zoom * angle.cos(), across, still, down, zoom * angle.cos(), still]
    grid = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def _shift(x: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Crop each image at random from its zero-padded copy."""
    count, _, height, width = x.shape
    padded = functional.pad(x, (padding,) * 4)
    corner = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(x.device)
    rows = corner[0][:, None] + torch.arange(height, device=x.device)
    columns = corner[1][:, None] + torch.arange(width, device=x.device)
    image = torch.arange(count, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
