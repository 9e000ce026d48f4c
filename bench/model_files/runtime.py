"""What an ONNX file itself computes, by onnxruntime: the judge of every reading, and all that smoothing needs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.basics.errors import UsageError

INSTALL_HINT = "reading networks needs the packages onnx and onnxruntime: pip install 'certbench[onnx]'"
QUIET = 4
TOLERANCE = 1e-3
CHECKED = 3
# Directions whose differences estimate a gradient, where there is no other.
DIRECTIONS = 32
STEP = 1e-2


class Session:
    """The network of an ONNX file: (N, *shape) -> (N, M), as the file's own precision has it.

    model: the file's bytes, for one output; batch: how many inputs it takes at once (0: any number, None: it has no
    batch axis). Raises UsageError if onnxruntime refuses the file, or its output for an input is not
    always the same.
    """

    def __init__(
        self, model: bytes, source: str, shape: tuple[int, ...], batch: int | None, double: bool
    ) -> None:
        self.model, self.source, self.shape, self.batch = model, source, shape, batch
        self.dtype = np.float64 if double else np.float32
        self._open()
        self._check()

    def run(self, x: np.ndarray) -> np.ndarray:
        """Outputs (N, M) in float64 at x (N, *shape)."""
        x = x.astype(self.dtype)
        if self.batch is None:
            return np.stack([self._call(one).ravel() for one in x]).astype(np.float64)
        if self.batch == 0:
            return self._call(x).reshape(len(x), -1).astype(np.float64)
        found = []
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            missing = self.batch - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            found.append(self._call(padded).reshape(self.batch, -1)[: len(part)])
        return np.concatenate(found).astype(np.float64)

    @property
    def outputs(self) -> int:
        """How many numbers M it gives per input."""
        return self.run(np.zeros((1, *self.shape))).shape[1]

    def _open(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(INSTALL_HINT) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                self.model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own types share no base but this
            raise UsageError(f"onnxruntime cannot run it ({_line(error)}): export it again") from error

    def _call(self, x: np.ndarray) -> np.ndarray:
        try:
            return self._session.run(None, {self.source: x})[0]
        except Exception as error:  # as above
            raise UsageError(
                f"it cannot be run on inputs of shape {x.shape} ({_line(error)}): is this the network's input size?"
            ) from error

    def _check(self) -> None:
        """Refuse a file whose output for an input is not always the same; find out whether it takes many at once."""
        x = np.random.default_rng(0).random((CHECKED, *self.shape)).astype(self.dtype)
        size = self.batch or 1
        alone, again = self._each(x), self._each(x)
        if not all(agree(_rows(a, size), _rows(b, size)) for a, b in zip(alone, again, strict=True)):
            raise UsageError(
                "it gives other values each time that it is run (dropout in training mode?): export the network in "
                "evaluation mode"
            )
        if self.batch == 0 and not self._takes_many(x, alone):
            self.batch = 1
        if self.batch is not None and self.batch > 1:
            mixed = self._call(np.stack([x[0], *[x[1]] * (size - 1)]))
            self._require_apart(agree(_rows(mixed, size)[:1], _rows(alone[0], size)[:1]))

    def _each(self, x: np.ndarray) -> list[np.ndarray]:
        """Each input by itself, or in a batch of its copies where the file wants one."""
        size = self.batch or 1
        return [self._call(one if self.batch is None else np.stack([one] * size)) for one in x]

    def _takes_many(self, x: np.ndarray, alone: list[np.ndarray]) -> bool:
        try:
            together = self._call(x)
        except UsageError:
            return False
        if together.shape[:1] != (len(x),) or together[:1].size != alone[0].size:
            return False
        self._require_apart(agree(_rows(together, len(x)), np.stack([one.ravel() for one in alone])))
        return True

    def _require_apart(self, condition: bool) -> None:
        if not condition:
            raise UsageError(
                "its output for one input depends on the others of the batch (batch normalisation without running "
                "statistics?): export the network in evaluation mode"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class RuntimeOutputs(nn.Module):
    """A session as a layer: (N, *shape) -> (N, M) float64; its gradient is estimated from differences."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> Tensor:
        return _Outputs.apply(x, self.session)


class _Outputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, session: Session) -> Tensor:
        ctx.save_for_backward(x)
        ctx.session = session
        return _run(session, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The mean over random directions of each times the difference along it: an attack's way uphill."""
        (x,) = ctx.saved_tensors
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros_like(x)
        for _ in range(DIRECTIONS):
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
            change = _run(ctx.session, x + STEP * direction) - _run(ctx.session, x - STEP * direction)
            slope = (gradient * change.to(gradient)).flatten(1).sum(1) / (2 * STEP)
            total += slope.reshape(-1, *[1] * (x.dim() - 1)).to(x) * direction
        return total / DIRECTIONS, None


def agree(expected: np.ndarray, found: np.ndarray) -> bool:
    """Whether two evaluations of one network (N, M) differ by no more than single precision explains."""
    if expected.shape != found.shape:
        return False
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return np.allclose(
        expected, found, rtol=TOLERANCE, atol=TOLERANCE * min(1.0, scale) + 1e-6, equal_nan=True
    )


def _rows(outputs: np.ndarray, count: int) -> np.ndarray:
    return outputs.reshape(count, -1) if outputs.size % count == 0 else outputs.reshape(1, -1)


def _run(session: Session, x: Tensor) -> Tensor:
    return torch.from_numpy(session.run(x.detach().cpu().numpy())).to(x.device)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
