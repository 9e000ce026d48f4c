"""l_inf-distance networks (Zhang, Cai, Lu, He and Wang, ICML 2021): 1-Lipschitz in linf."""

import math

import torch
from torch import Tensor, nn

# Elements (inputs x units x features) handled at a time: what stays in a core's cache, or what fills a GPU.
CHUNK_ELEMENTS = {"cpu": 2**17, "cuda": 2**26}
# Relative differences whose power would fall below this are dropped: they do not move a float32 sum.
SMALLEST_POWER = 1e-30


class _PowerDistance(torch.autograd.Function):
    """||x_n - w_o||_p for p finite: (N, d), (O, d) -> (N, O), without keeping an (N, O, d) tensor."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, p: float) -> Tensor:
        largest = torch.cdist(x, w, p=math.inf).clamp_min(1e-12)
        distance = torch.empty_like(largest)
        for units in _chunks(x, w):
            ratio = (x[:, None, :] - w[units]).abs_().div_(largest[:, units, None])
            powered = _power(ratio, p)
            distance[:, units] = largest[:, units] * powered.sum(dim=2).pow_(1 / p)
        ctx.save_for_backward(x, w, distance)
        ctx.p = p
        return distance

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """d||v||_p / dv_i = sign(v_i) (|v_i| / ||v||_p)^(p-1)."""
        x, w, distance = ctx.saved_tensors
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        for units in _chunks(x, w):
            difference = x[:, None, :] - w[units]
            slope = _power(difference.abs().div_(distance[:, units, None]), ctx.p - 1)
            slope.copysign_(difference).mul_(grad[:, units, None])
            grad_x += slope.sum(dim=1)
            grad_w[units] = -slope.sum(dim=0)
        return grad_x, grad_w, None


def _chunks(x: Tensor, w: Tensor) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS.get(x.device.type, 2**20) // x.numel())
    return [slice(start, start + step) for start in range(0, len(w), step)]


def _power(ratio: Tensor, exponent: float) -> Tensor:
    """ratio^exponent, 0 for what would underflow (subnormal numbers are slow)."""
    kept = nn.functional.hardshrink(ratio, SMALLEST_POWER ** (1 / exponent))
    return kept.log2_().mul_(exponent).exp2_()  # half the time of pow


class LinfDistance(nn.Module):
    """x (N, d) -> ||x - w_o||_p for each of the units o, (N, units).

    Trained with a growing ``p`` (finite p gives gradients to all weights) and 1-Lipschitz in linf only at p = inf.
    """

    p: Tensor

    norm = "linf"

    def __init__(self, in_features: int, units: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(units, in_features))
        # A buffer: a state saved in mid-schedule must not come back as an exact network.
        self.register_buffer("p", torch.tensor(math.inf, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        p = self.p.item()
        if math.isinf(p):
            return torch.cdist(x, self.centre, p=math.inf)
        return _PowerDistance.apply(x, self.centre, p)

    def lipschitz_bound(self) -> float:
        """Return 1 for the exact linf distance; raise ValueError for a finite p, whose constant is larger."""
        if not math.isinf(self.p.item()):
            raise ValueError(
                f"the distance layer still uses p = {self.p.item():g}; certificates need p = inf: call set_exponent"
            )
        return 1.0


class MeanShift(nn.Module):
    """Subtracts each feature's mean: the batch's in training, the running one in evaluation (a translation)."""

    mean: Tensor

    def __init__(self, features: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x - self.mean
        mean = x.mean(dim=0)
        self.mean.lerp_(mean.detach(), self.momentum)
        return x - mean


class HalfDifference(nn.Module):
    """z (N, 2) -> (z_1 - z_0) / 2, (N, 1): 1-Lipschitz in linf as each z_k moves by at most ||dz||_inf."""

    norm = "linf"

    def forward(self, z: Tensor) -> Tensor:
        return (z[:, 1:] - z[:, :1]) / 2

    def lipschitz_bound(self) -> float:
        """Return 1."""
        return 1.0


def set_exponent(network: nn.Module, p: float) -> None:
    """Set the p of every distance layer in the network."""
    for layer in network.modules():
        if isinstance(layer, LinfDistance):
            layer.p.fill_(p)


def scheduled_exponent(
    progress: float, start: float = 8.0, end: float = 1000.0, relaxed: float = 0.8
) -> float:
    """p at a training progress in [0, 1]: grows exponentially from start to end, then inf.

    The first ``relaxed`` share of the training uses finite p (Zhang et al., 2021, section 5.1: 8 to 1000).
    """
    if progress >= relaxed:
        return math.inf
    return start * (end / start) ** (progress / relaxed)
