"""torchattacks as a second opinion on certificates: whole batches at once, each input within a ball of its own.

The library knows one radius for all inputs, takes an input out of the batch once it is misread, and hands back only
what its own loss prefers. It is therefore shown a scaled copy of the problem, in which every ball has the same radius
and no input is ever misread, and every point it looks at is judged here.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.attacking.attacks import Attacked, Score, better, inside
from bench.basics.errors import unknown

STEPS = 20
SQUARE_QUERIES = 200
# Square in l2 divides the side of an image by five.
SQUARE_SIDE = 5
BATCH = 100


def library_attacks(score: Score, x: Tensor, radius: Tensor, norm: str, seed: int = 0) -> list[Tensor]:
    """Return the points (N, *shape) of lowest score that torchattacks' PGD, APGD and Square (5 pixels or more) meet.

    x: (N, *shape) images in the unit box; the points lie in it and in each input's ball of ``radius`` (N,), finite and
    > 0. Of AutoAttack these are the parts that apply: its others compare the score with that of a third class. Raises
    UsageError for l1, which the library does not know.
    """
    if norm not in ("l2", "linf"):
        raise unknown("norm for torchattacks", norm, ("l2", "linf"))
    found: list[list[Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch, radii in zip(x.split(BATCH), radius.to(x).split(BATCH), strict=True):
            found.append([_attack(make, score, batch, radii, norm) for make in _makers(x, norm, seed)])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _makers(x: Tensor, norm: str, seed: int) -> list[Callable[[nn.Module, float], Callable]]:
    """The attacks, to be made for a model and a radius."""
    import torchattacks

    name = {"l2": "L2", "linf": "Linf"}[norm]
    pgd = {"l2": torchattacks.PGDL2, "linf": torchattacks.PGD}[norm]
    makers = [
        lambda model, eps: pgd(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS),
        lambda model, eps: torchattacks.APGD(model, norm=name, eps=eps, steps=STEPS, seed=seed),
        lambda model, eps: torchattacks.Square(
            model, norm=name, eps=eps, n_queries=SQUARE_QUERIES, seed=seed
        ),
    ]
    return makers if x.shape[-1] >= SQUARE_SIDE else makers[:2]


def _attack(
    make: Callable[[nn.Module, float], Callable], score: Score, x: Tensor, radius: Tensor, norm: str
) -> Tensor:
    """The points of lowest score that one attack meets."""
    # Smaller balls than an input's own are scaled up: its box, then, binds the library too late, never too early.
    scaled = _Scaled(score, x, radius, norm)
    # In double precision, or the smallest ball would be lost beside the largest one.
    make(scaled, scaled.unit)(x.double(), torch.ones(len(x), dtype=torch.long, device=x.device))
    return scaled.best.points


class _Scaled(nn.Module):
    """Two logits for the library: 0, and something positive that falls with the score of the point in its own ball."""

    def __init__(self, score: Score, x: Tensor, radius: Tensor, norm: str) -> None:
        super().__init__()
        self.score, self.x, self.radius, self.norm = score, x, radius, norm
        self.unit = float(radius.min())
        with torch.no_grad():
            self.best = Attacked(x, score(x))
        # Cross-entropy is flat where scores are large: they are measured by the input's own.
        self.size = self.best.scores.abs().clamp(min=torch.finfo(x.dtype).tiny)
        # Says on which device the model lives.
        self.anchor = nn.Parameter(torch.zeros((), device=x.device), requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        moved = ((z - self.x).flatten(1) * (self.radius / self.unit)[:, None]).to(self.x.dtype)
        with torch.no_grad():
            pulled = inside(self.x, moved, self.radius, self.norm, "box")
        # The slope is taken as if nothing were pulled, or a coordinate beyond the box would never come back.
        free = self.x + moved.view_as(self.x)
        points = free + (pulled - free).detach()
        value = self.score(points)
        self.best = better(self.best, Attacked(pulled, value.detach()))
        # Where the input's own score is tiny beside this one, softplus is 0, and the library would drop the input.
        sensitive = nn.functional.softplus(value / self.size).clamp(min=torch.finfo(value.dtype).tiny)
        return torch.stack([torch.zeros_like(sensitive), sensitive], dim=1)
