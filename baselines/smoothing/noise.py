"""Smoothing noise with a standard deviation sigma per coordinate, drawn on the device of the input.

Let e have the noise's law over the real numbers. The network is shown x + e with every coordinate rounded to the
nearest multiple of a step that depends on sigma alone (a power of two between sigma / 64 and sigma / 32; after a first
layer, on the deviation of its outputs). Rounding is part of the base classifier, which may be any function, so *with e*
every certificate holds as stated, whatever the network makes of the rounded numbers. That much is proved.

What is drawn is not e, and for that no bound on p is proved. A computer's noise takes finitely many values, and a
network that recognises those it can take around x would be certified falsely (Jin, Ohrimenko, Rubinstein, "Getting
a-Round Guarantees: Floating-Point Attacks on Certified Robustness", 2022). The grid leaves little to recognise. Some
2^17 float32 values of the noise round to each of its points, of whose probability that leaves about 2^-15 uncertain;
an adversary who knows everything can add that up over d coordinates to about 2^-15 sqrt(d) in p. Laplace tails are as
fine, for they come from 63 random bits; Gaussian ones (torch's sampler, 24 bits) are coarser than the grid beyond about
5 sigma, one coordinate in two million. The generator's bits are taken for independent coin tosses.
"""

import math

import torch
from torch import Tensor, nn

from baselines.networks import Normalise
from baselines.smoothing.radii import noise_scale

# The grid's step is sigma's power of two, divided by this power of two.
GRID_BITS = 5
# Layers an input passes before a network's first weights mix its coordinates; all are affine.
AFFINE_LAYERS = (Normalise, nn.Flatten, nn.Identity)


def add_noise(
    x: Tensor,
    noise: str,
    sigma: float,
    generator: torch.Generator | None = None,
    mutable: Tensor | None = None,
) -> Tensor:
    """Return x (N, *shape) plus independent noise in every coordinate, on the grid of this module's docstring.

    Without generator the global one is used. mutable: (*shape) bool, the only coordinates that get noise; None: all.
    """
    drawn = torch.empty_like(x, memory_format=torch.contiguous_format)
    noisy = fill_noise(drawn, noise, sigma, generator, around=x)
    return noisy if mutable is None else torch.where(mutable, noisy, x)


def fill_noise(
    drawn: Tensor,
    noise: str,
    sigma: float,
    generator: torch.Generator | None = None,
    around: Tensor | float = 0.0,
) -> Tensor:
    """Fill a float tensor in place with gaussian, laplace or uniform noise of standard deviation sigma; return it.

    The noise is added to ``around`` (anything that broadcasts) and the sums are rounded to the grid.
    """
    scale, step = noise_scale(noise, sigma), grid_step(sigma)
    if noise == "gaussian":
        return _round_to(step, drawn.normal_(0.0, scale, generator=generator).add_(around))
    if noise == "uniform":
        return _round_to(step, drawn.uniform_(-scale, scale, generator=generator).add_(around))
    # Sign and size of a whole number of 64 bits: in float32 small ones, which make the tail, keep all their digits.
    bits = torch.empty(drawn.shape, dtype=torch.int64, device=drawn.device)
    drawn.copy_(bits.random_(-(2**63), None, generator=generator))
    size = drawn.abs().mul_(2.0**-63).log_().mul_(-scale)
    return _round_to(step, drawn.copy_(size.copysign_(drawn)).add_(around))


def grid_step(sigma: float) -> float:
    """Return the step of the grid that noisy inputs are rounded to: a power of two from sigma / 64 to sigma / 32."""
    return 2.0 ** (math.floor(math.log2(sigma)) - GRID_BITS)


def _round_to(step: float | Tensor, values: Tensor) -> Tensor:
    """Round in place to multiples of a power of two; scaling by it is exact."""
    return values.mul_(1 / step).round_().mul_(step)


class InputNoise:
    """Scores of a network under noise added to its input; works for every network and noise."""

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        noise: str,
        sigma: float,
        mutable: Tensor | None = None,
    ) -> None:
        noise_scale(noise, sigma)
        self.model, self.noise, self.sigma, self.mutable = model, noise, sigma, mutable
        self.draw_shape = tuple(input_shape)

    def scores(self, x: Tensor, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n,) scores of x (1, *input_shape) under n fresh draws; ``drawn`` (n, *draw_shape) is overwritten."""
        noisy = fill_noise(drawn, self.noise, self.sigma, generator, around=x)
        return self.model(noisy if self.mutable is None else torch.where(self.mutable, noisy, x))


class FirstLayerNoise:
    """Gaussian noise drawn after a network's first linear layer, where there are fewer coordinates to draw.

    With first layer A x + b, A (x + sigma e) + b = (A x + b) + sigma L z, where L L^T = A A^T and z is standard normal
    with one entry per output of the layer: the same distribution of scores, hence the same votes, at less cost. The
    grid is one of the layer's outputs, with a step of its own for each.
    """

    def __init__(
        self, first: nn.Sequential, rest: nn.Sequential, sigma: float, mutable: Tensor | None = None
    ) -> None:
        self.first, self.rest = first, rest
        last = first[-1]
        assert isinstance(last, nn.Linear)
        rows = last.weight.detach().double()
        for layer in first:
            if isinstance(layer, Normalise):
                rows = rows / layer.std.double()
        if mutable is not None:
            rows = rows * mutable.flatten().to(rows)
        # A^T = Q R gives A A^T = R^T R without squaring the condition number.
        self.root = (sigma * torch.linalg.qr(rows.T, mode="r").R).float().contiguous()
        deviations = self.root.double().norm(dim=0)
        # An output without noise keeps its digits.
        self.step = torch.tensor(
            [grid_step(size) if size > 0 else 2.0**-30 for size in deviations.tolist()], device=rows.device
        )
        self.draw_shape = (len(self.root),)

    def scores(self, x: Tensor, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n,) scores of x (1, *input_shape) under n fresh draws; ``drawn`` (n, *draw_shape) is overwritten."""
        noisy = torch.addmm(self.first(x), drawn.normal_(generator=generator), self.root)
        return self.rest(_round_to(self.step, noisy))


def noisy_network(
    model: nn.Module,
    input_shape: tuple[int, ...],
    noise: str,
    sigma: float,
    mutable: Tensor | None = None,
) -> InputNoise | FirstLayerNoise:
    """Return the cheapest exact way to draw scores of ``model`` under noise in the ``mutable`` coordinates (None: all).

    That is :class:`FirstLayerNoise` for Gaussian noise before a Sequential whose first linear layer narrows the input.
    """
    layers = list(model) if isinstance(model, nn.Sequential) else []
    position = next(
        (i for i, layer in enumerate(layers) if not isinstance(layer, AFFINE_LAYERS)), len(layers)
    )
    layer = layers[position] if position < len(layers) else None
    narrows = (
        isinstance(layer, nn.Linear) and layer.in_features == math.prod(input_shape) > layer.out_features
    )
    if noise != "gaussian" or not narrows:
        return InputNoise(model, input_shape, noise, sigma, mutable)
    first, rest = nn.Sequential(*layers[: position + 1]), nn.Sequential(*layers[position + 1 :])
    return FirstLayerNoise(first, rest, sigma, mutable)
