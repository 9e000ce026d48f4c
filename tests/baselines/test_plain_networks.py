"""The shared networks: shapes, normalisation inside, refusals."""

import pytest
import torch

from baselines.networks import NETWORKS, build_network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 70, 61)])
def test_score_shape(name, shape):
    torch.manual_seed(0)
    network = build_network(name, shape).eval()
    with torch.no_grad():
        assert network(torch.rand(2, *shape)).shape == (2,)


def test_mlp_on_tables_with_and_without_hidden_layers():
    assert build_network("mlp", (30,), hidden=())(torch.rand(4, 30)).shape == (4,)
    assert build_network("mlp", (30,))(torch.rand(4, 30)).shape == (4,)


def test_known_sizes():
    """Parameter counts of the published architectures with one output (ResNet-18: 11.17 million, WRN-40-2: 2.24)."""
    count = {
        name: sum(p.numel() for p in build_network(name, (3, 32, 32)).parameters())
        for name in ("resnet18", "wrn40_2")
    }
    assert count["resnet18"] == pytest.approx(11.17e6, rel=0.005)
    assert count["wrn40_2"] == pytest.approx(2.24e6, rel=0.005)


def test_normalisation_is_part_of_the_network():
    network = build_network("mlp", (3,), mean=0.25, std=2.0)
    x = torch.rand(5, 3)
    torch.testing.assert_close(network(x), network[1:]((x - 0.25) / 2.0))
    assert network.state_dict()["0.std"] == 2.0


@pytest.mark.parametrize(
    ("name", "shape", "message"), [("vgg", (3,), "mlp, convnet"), ("convnet", (3,), "use 'mlp'")]
)
def test_refusals(name, shape, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, shape)
