"""Smoothing noise with a standard deviation sigma per coordinate, drawn on the device of the input."""

import math

import torch
from torch import Tensor, nn

from baselines.networks import Normalise
from baselines.smoothing.radii import noise_scale

# Layers an input passes before a network's first weights mix its coordinates; all are affine.
AFFINE_LAYERS = (Normalise, nn.Flatten, nn.Identity)


def add_noise(x: Tensor, noise: str, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Return x (N, *shape) plus independent noise in every coordinate; without generator the global one is used."""
    drawn = torch.empty_like(x, memory_format=torch.contiguous_format)
    return fill_noise(drawn, noise, sigma, generator).add_(x)


def fill_noise(drawn: Tensor, noise: str, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill a float tensor in place with gaussian, laplace or uniform noise of standard deviation sigma; return it."""
    scale = noise_scale(noise, sigma)
    if noise == "gaussian":
        return drawn.normal_(0.0, scale, generator=generator)
    drawn.uniform_(-1.0, 1.0, generator=generator)
    if noise == "uniform":
        return drawn.mul_(scale)
    # Inverse distribution function; the clamp keeps log1p finite and moves less than one draw in ten million.
    magnitude = drawn.abs().clamp_(max=1 - 2.0**-24).neg_().log1p_().mul_(-scale)
    return magnitude.copysign_(drawn)


class InputNoise:
    """Scores of a network under noise added to its input; works for every network and noise."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], noise: str, sigma: float) -> None:
        noise_scale(noise, sigma)
        self.model, self.noise, self.sigma = model, noise, sigma
        self.draw_shape = tuple(input_shape)

    def scores(self, x: Tensor, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n,) scores of x (1, *input_shape) under n fresh draws; ``drawn`` (n, *draw_shape) is overwritten."""
        return self.model(fill_noise(drawn, self.noise, self.sigma, generator).add_(x))


class FirstLayerNoise:
    """Gaussian noise drawn after a network's first linear layer, where there are fewer coordinates to draw.

    With first layer A x + b, A (x + sigma e) + b = (A x + b) + sigma L z, where L L^T = A A^T and z is standard normal
    with one entry per output of the layer: the same distribution of scores, hence the same votes, at less cost.
    """

    def __init__(self, first: nn.Sequential, rest: nn.Sequential, sigma: float) -> None:
        self.first, self.rest = first, rest
        rows = first[-1].weight.detach().double()
        for layer in first:
            if isinstance(layer, Normalise):
                rows = rows / layer.std.double()
        # A^T = Q R gives A A^T = R^T R without squaring the condition number.
        self.root = (sigma * torch.linalg.qr(rows.T, mode="r").R).float().contiguous()
        self.draw_shape = (len(self.root),)

    def scores(self, x: Tensor, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return (n,) scores of x (1, *input_shape) under n fresh draws; ``drawn`` (n, *draw_shape) is overwritten."""
        return self.rest(torch.addmm(self.first(x), drawn.normal_(generator=generator), self.root))


def noisy_network(
    model: nn.Module, input_shape: tuple[int, ...], noise: str, sigma: float
) -> InputNoise | FirstLayerNoise:
    """Return the cheapest exact way to draw scores of ``model`` under noise.

    That is :class:`FirstLayerNoise` for Gaussian noise before a Sequential whose first linear layer narrows the input.
    """
    layers = list(model) if isinstance(model, nn.Sequential) else []
    position = next((i for i, layer in enumerate(layers) if not isinstance(layer, AFFINE_LAYERS)), None)
    narrows = (
        position is not None
        and isinstance(layers[position], nn.Linear)
        and layers[position].in_features == math.prod(input_shape) > layers[position].out_features
    )
    if noise != "gaussian" or not narrows:
        return InputNoise(model, input_shape, noise, sigma)
    first, rest = nn.Sequential(*layers[: position + 1]), nn.Sequential(*layers[position + 1 :])
    return FirstLayerNoise(first, rest, sigma)
