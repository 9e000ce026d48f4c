"""Lower bounds of a network's score over balls: interval arithmetic, CROWN and optimised CROWN.

IBP: Gowal et al., *On the Effectiveness of Interval Bound Propagation* (2018). CROWN: Zhang et al., *Efficient Neural
Network Robustness Certification with General Activation Functions* (NeurIPS 2018), linear bounds passed backwards.
CROWN-IBP: Zhang et al. (ICLR 2020), CROWN for the score with interval bounds inside. alpha-CROWN: Xu et al. (ICLR
2021), CROWN with the slopes under the ReLUs optimised for the score.

All in float64, on the network as ``baselines.layered`` reads it. Neurons that are linear in the input are bounded
exactly, and so is the last step of every backward pass; a network with several outputs is bounded by the least.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.bounds.geometry import Balls
from baselines.bounds.relaxation import Lines, crossing, lines, values_on
from baselines.bounds.unsupported import UnsupportedLayer
from baselines.layered import Layer, LayeredNetwork, UnreadableNetwork, read
from baselines.layered.network import back, dense, times

METHODS = ("ibp", "crown_ibp", "crown", "alpha_crown")
# Entries of one backward pass: inputs x neurons bounded x neurons passed; 128 MiB in float64.
PASS_ENTRIES = 1 << 24
# 4 GiB in float64; search tables take a few times as much.
LARGEST_COEFFICIENTS = 1 << 29

Bounds = dict[int, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SlopeSettings:
    """How alpha-CROWN optimises: number of Adam steps and their size."""

    steps: int = 20
    learning_rate: float = 0.3


class OutOfTimeError(Exception):
    """A bound was not finished by the moment that it was wanted for."""


class BoundedScore:
    """A network (N, *shape) -> (N,) or (N, M) whose score can be bounded over balls; build once, use for all inputs.

    The score of several outputs is the least of them. Raises UnsupportedLayer naming what cannot be bounded.
    """

    def __init__(
        self,
        model: nn.Module | LayeredNetwork,
        input_shape: tuple[int, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        self.input_shape = tuple(input_shape)
        self.dim = int(np.prod(self.input_shape))
        self.layered = model if isinstance(model, LayeredNetwork) else self._read(model)
        self._layers: dict[int, Layer] = dict(enumerate(self.layered.layers, start=1))
        self._output = len(self._layers)
        self._affine = self._affine_rows()
        self._sizes = {
            k: {j: matrix.abs() for j, matrix in layer.maps.items()}
            for k, layer in self._layers.items()
            if k not in self._affine
        }

    @property
    def widest_layer(self) -> int:
        """Largest number of neurons whose bounds need a backward pass of their own (0: none does)."""
        inner = [layer.width for k, layer in self._layers.items() if k not in self._affine]
        return max(inner[:-1], default=0)

    def score(self, x: Tensor) -> Tensor:
        """Score (N,) in float64."""
        with torch.no_grad():
            return self.layered.outputs(self.flatten(x)).amin(dim=1)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient (N, d) of the score at x (N, d)."""
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            least = self.layered.outputs(point).amin(dim=1)
            return torch.autograd.grad(least.sum(), point)[0]

    def rounding(self, x: Tensor) -> Tensor:
        """How far rounding in float64 takes the score at most (N,)."""
        with torch.no_grad():
            return self.layered.rounding(self.flatten(x))

    def flatten(self, x: Tensor) -> Tensor:
        """Inputs as (N, d) float64 on the right device. Raises ValueError for another shape."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"inputs have shape {tuple(x.shape[1:])}, the network was built for {self.input_shape}"
            )
        return x.detach().to(device=self.device, dtype=torch.float64).reshape(len(x), self.dim)

    def balls(self, x: Tensor, norm: str, domain: str, mutable: Tensor | None = None) -> Balls:
        """Balls of radius 0 around x (N, *shape), prepared for being asked about with many radii."""
        radius = torch.zeros(len(x), dtype=torch.float64, device=self.device)
        balls = Balls(self.flatten(x), radius, norm, domain, mutable=mutable)
        return balls.with_tables({str(k): rows for k, rows in self._affine.items()})

    def lower(
        self,
        balls: Balls,
        method: str,
        slopes: SlopeSettings | None = None,
        enough: Tensor | None = None,
        until: float | None = None,
    ) -> Tensor:
        """Lower bound (N,) of the score over each ball; a later method in METHODS is never below an earlier one.

        enough: (N,) alpha-CROWN stops improving an input's bound once it is above this value. until: moment of
        time.monotonic() after which OutOfTimeError is raised; large networks take minutes for one bound.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
        with torch.no_grad():
            inner = self._interval_bounds(balls, until)
            lower = inner.pop(self._output)[0]
            if self._output in self._affine or method == "ibp":
                return lower.amin(dim=1)
            lower = torch.maximum(lower, self._backward(balls, inner, until=until))
            if method != "crown_ibp" and self.widest_layer > 0:
                inner = self._crown_inner_bounds(balls, inner, until)
                lower = torch.maximum(lower, self._backward(balls, inner, until=until))
        if method == "alpha_crown":
            lower = self._optimise_slopes(balls, inner, lower, slopes or SlopeSettings(), enough, until)
        return lower.amin(dim=1)

    def _read(self, model: nn.Module) -> LayeredNetwork:
        try:
            return read(model, self.input_shape, self.device, most_input_entries=LARGEST_COEFFICIENTS)
        except UnreadableNetwork as error:
            raise UnsupportedLayer(error.what, error.why) from error

    def _affine_rows(self) -> dict[int, Tensor]:
        """Coefficients (n, d) of the layers that are linear in the input."""
        return {k: dense(layer.maps[0]) for k, layer in self._layers.items() if layer.follows_input_only}

    def _interval_bounds(self, balls: Balls, until: float | None = None) -> Bounds:
        """Bounds (N, n) on the z of every layer, by interval arithmetic."""
        values, found = [balls.enclosing_box()], {}
        for k, layer in self._layers.items():
            _require_time(until)
            if k in self._affine:
                value = layer.affine([balls.center])
                down, up = balls.range_of(str(k), self._affine[k])
                found[k] = (value - down, value + up)
            else:
                found[k] = self._interval_through(k, layer, values)
            if layer.activation is not None:
                values.append(values_on(layer.activation, *found[k]))
        return found

    def _interval_through(
        self, k: int, layer: Layer, values: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        center, reach = layer.bias, torch.zeros_like(layer.bias)
        for j, matrix in layer.maps.items():
            lower, upper = values[j]
            center = center + times((lower + upper) / 2, matrix)
            reach = reach + times((upper - lower) / 2, self._sizes[k][j])
        return center - reach, center + reach

    def _crown_inner_bounds(self, balls: Balls, interval: Bounds, until: float | None) -> Bounds:
        """Bounds on the z of every inner layer by CROWN, never looser than the interval ones.

        Of a layer of ReLUs only those are bounded anew that intervals leave open for some input of the batch: the
        bounds of the others do not matter.
        """
        found = dict(interval)
        for k, layer in self._layers.items():
            if k in self._affine or k == self._output:
                continue
            lower, upper = (part.clone() for part in interval[k])
            neurons = torch.arange(layer.width, device=self.device)
            if layer.is_relu:
                neurons = neurons[crossing(lower, upper).any(dim=0)]
            earlier = {j: found[j] for j in range(1, k)}
            size = max(1, PASS_ENTRIES // max(1, len(lower) * self._widest_before(k)))
            for part in neurons.split(size):
                # One row of a unit matrix each; the whole of it may take a gigabyte.
                rows = torch.zeros(len(part), layer.width, dtype=torch.float64, device=self.device)
                rows[torch.arange(len(part)), part] = 1.0
                least = self._bound(balls, k, rows, earlier, until=until)
                most = -self._bound(balls, k, -rows, earlier, until=until)
                lower[:, part] = torch.maximum(lower[:, part], least)
                upper[:, part] = torch.minimum(upper[:, part], most)
            found[k] = (lower, torch.maximum(lower, upper))
        return found

    def _widest_before(self, k: int) -> int:
        return max(self.dim, *(self._layers[j].width for j in range(1, k + 1)))

    def _backward(
        self,
        balls: Balls,
        inner: Bounds,
        slopes: dict[int, Tensor] | None = None,
        until: float | None = None,
    ) -> Tensor:
        """CROWN's bound (N, M) of the outputs, given bounds on the z of every inner layer."""
        outputs = torch.eye(self._layers[self._output].width, dtype=torch.float64, device=self.device)
        return self._bound(balls, self._output, outputs, inner, slopes, until)

    def _bound(
        self,
        balls: Balls,
        k: int,
        rows: Tensor,
        inner: Bounds,
        slopes: dict[int, Tensor] | None = None,
        until: float | None = None,
    ) -> Tensor:
        """Lower bounds (N, S) of rows . z_k, rows (S, n_k), by linear bounds passed back to the input."""
        constant = (rows @ self._layers[k].bias).expand(len(balls.center), -1)
        pending: dict[int, Tensor] = {}
        self._pass(k, rows.expand(len(balls.center), *rows.shape), pending)
        for j in range(k - 1, 0, -1):
            if j not in pending:
                continue
            _require_time(until)
            around = self._lines(j, inner[j], slopes)
            coefficients = pending.pop(j)
            up, down = coefficients.clamp(min=0), coefficients.clamp(max=0)
            constant = constant + (up @ around.lower[..., None] + down @ around.upper[..., None]).squeeze(-1)
            coefficients = up * around.lower_slope[:, None] + down * around.upper_slope[:, None]
            constant = constant + coefficients @ self._layers[j].bias
            self._pass(j, coefficients, pending)
        if 0 not in pending:
            return constant
        direction = pending[0]
        level = (direction @ balls.center[..., None]).squeeze(-1)
        # Single rows are bounded exactly in the box, many at once only closely.
        parts = direction.split(1, dim=1) if k == self._output else (direction,)
        return constant + level - torch.cat([balls.largest_decrease(part) for part in parts], dim=1)

    def _pass(self, k: int, coefficients: Tensor, pending: dict[int, Tensor]) -> None:
        """Add what coefficients (N, S, n_k) on z_k are on the values that it is made of."""
        for j, matrix in self._layers[k].maps.items():
            passed = back(coefficients, matrix)
            pending[j] = pending[j] + passed if j in pending else passed

    def _lines(self, j: int, bounds: tuple[Tensor, Tensor], slopes: dict[int, Tensor] | None) -> Lines:
        with torch.no_grad():
            activation = self._layers[j].activation
            assert activation is not None  # only the last layer has none
            around = lines(activation, *bounds)
        if slopes is None or j not in slopes:
            return around
        return around.with_lower_slope(slopes[j], crossing(*bounds))

    def _optimise_slopes(
        self,
        balls: Balls,
        inner: Bounds,
        best: Tensor,
        settings: SlopeSettings,
        enough: Tensor | None,
        until: float | None,
    ) -> Tensor:
        """Raise the bounds (N, M) by gradient steps on the lower slopes; every slope in [0, 1] gives a valid bound."""
        slopes = {
            k: (inner[k][1] > -inner[k][0]).to(torch.float64).requires_grad_()
            for k, layer in self._layers.items()
            if layer.is_relu
        }
        if not slopes:
            return best
        optimizer = torch.optim.Adam(slopes.values(), lr=settings.learning_rate)
        target = torch.full_like(best[:, 0], torch.inf) if enough is None else enough
        for _ in range(settings.steps):
            try:
                lower = self._backward(balls, inner, slopes, until)
            except OutOfTimeError:
                break  # the best so far holds
            # An input that has reached its target is frozen, so that its bound does not depend on the others'.
            done = (best.amin(dim=1) > target)[:, None]
            best = torch.where(done, best, torch.maximum(best, lower.detach()))
            if bool((best.amin(dim=1) > target).all()):
                break
            optimizer.zero_grad()
            (-lower.amin(dim=1).sum()).backward()
            optimizer.step()
            for slope in slopes.values():
                slope.data.clamp_(0.0, 1.0)
        return best


def _require_time(until: float | None) -> None:
    if until is not None and time.monotonic() > until:
        raise OutOfTimeError
