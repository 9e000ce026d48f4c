"""Lipschitz networks whose layers were changed, or see shifted inputs: refused, or certified as they compute."""

import pytest
import torch
from torch import Tensor, nn

from baselines.lipschitz import (
    LipschitzNetwork,
    bro_mlp,
    cayley_convnet,
    cayley_mlp,
    certify,
    linf_distance_net,
    sll_mlp,
)


class Doubled(nn.Flatten):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Raised(LipschitzNetwork):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.3


def _altered(how: str) -> LipschitzNetwork:
    network = linf_distance_net((5,), (4,)).double().eval()
    if how == "hook":
        network.body[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    elif how == "forward of one layer":
        network.body[1].forward = lambda x: 2 * x[:, :4]
    elif how == "subclass of a layer":
        network.body[0] = Doubled().eval()
    elif how == "subclass of the network":
        network.__class__ = Raised
    elif how == "a part in training mode":
        network.body[2].train()
    return network


@pytest.mark.parametrize(
    "how",
    [
        "hook",
        "forward of one layer",
        "subclass of a layer",
        "subclass of the network",
        "a part in training mode",
    ],
)
def test_networks_that_compute_something_else_are_refused(how):
    x = torch.rand(3, 5)
    certify(_altered("not at all"), x, ("linf",))
    with pytest.raises(ValueError, match="evaluation mode" if "mode" in how else "another forward"):
        certify(_altered(how), x, ("linf",))


@pytest.mark.parametrize("build", [cayley_mlp, sll_mlp, bro_mlp, cayley_convnet])
def test_a_network_centred_on_the_inputs_mean_sees_what_is_left_of_them(build):
    torch.manual_seed(0)
    network = build((1, 4, 4)).double().eval()
    x, mean = torch.rand(20, 1, 4, 4, dtype=torch.float64), torch.rand(1, 4, 4, dtype=torch.float64)
    network.threshold.fill_(network(x).detach().median())
    before = certify(network, x, ["l1", "l2", "linf"])
    network.centre_on(mean)
    after = certify(network, x + mean, ["l1", "l2", "linf"])
    for norm in before:
        assert (after[norm] > 0).any()
        assert torch.allclose(after[norm], before[norm], rtol=1e-9, atol=1e-12)
