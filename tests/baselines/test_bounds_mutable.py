"""Bounds over mutable coordinates: those of the network in which the others have become constants."""

import pytest
import torch
from torch import nn

from baselines.bounds import BoundedScore, RadiusSearch

MUTABLE = torch.tensor([True, True, False, True, False, True])


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
    return made


def without_fixed(whole: nn.Sequential, x: torch.Tensor) -> nn.Sequential:
    """The network of the mutable coordinates, the fixed ones of one input x (6,) folded into its first biases."""
    first = nn.Linear(int(MUTABLE.sum()), 10).double()
    with torch.no_grad():
        first.weight.copy_(whole[0].weight[:, MUTABLE])
        first.bias.copy_(whole[0].bias + whole[0].weight[:, ~MUTABLE] @ x[~MUTABLE])
    return nn.Sequential(first, *whole[1:])


@pytest.mark.parametrize("domain", ["free", "box"])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_radii_are_those_of_the_network_of_the_mutable_coordinates(norm, domain):
    whole = network(0)
    x = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole[-1].bias += 0.15 - whole(x).min()
    search = RadiusSearch(BoundedScore(whole, (6,)), x, norm, mutable=MUTABLE, max_radius=8.0)
    every = RadiusSearch(BoundedScore(whole, (6,)), x, norm, max_radius=8.0)
    for method in ("ibp", "crown"):
        radius = search.radii(method, domain).radius
        assert (radius >= every.radii(method, domain).radius * (1 - 1e-3)).all()
        assert norm == "l1" or (radius > 1.01 * every.radii(method, domain).radius).any()
        for row in range(len(x)):
            alone = BoundedScore(without_fixed(whole, x[row]), (int(MUTABLE.sum()),))
            expected = RadiusSearch(alone, x[row : row + 1, MUTABLE], norm, max_radius=8.0)
            assert radius[row].item() == pytest.approx(expected.radii(method, domain).radius.item(), rel=2e-3)
