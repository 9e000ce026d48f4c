"""The published networks: their formulas, written out once more, and what they refuse."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fcnn import CenteredAbs, FeatureConvexClassifier, PublishedConvNet, PublishedMLP
from fcnn.checkpoints import load_classifier, save_classifier
from fcnn.training import TrainSettings, cross_entropy, train


def seen(network: nn.Module, x: torch.Tensor) -> nn.Module:
    """The network after a few steps of training, so that no norm is at its start."""
    y = (x.flatten(1).mean(dim=1) > x.mean()).float()
    train(network, cross_entropy, (x, y), TrainSettings(2, 8), seed=0, after_step=network.project)
    return network.double().requires_grad_(False)


def normed(z: torch.Tensor, norm: nn.BatchNorm2d, channel_axis: int | None) -> torch.Tensor:
    shape = [1] * z.ndim
    if channel_axis is not None:
        shape[channel_axis] = -1
    mean, variance, scale, shift = (
        part.reshape(shape) for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (z - mean) / (variance + norm.eps).sqrt() * scale + shift


def test_the_mlp_normalises_each_layer_by_one_number():
    torch.manual_seed(0)
    x = torch.rand(40, 1, 4, 5)
    network, flat = seen(PublishedMLP(20, (7, 5)), x), x.double().flatten(1)
    z = flat @ network.first.weight.T
    for k, passthrough in enumerate(network.passthroughs):
        z = z + flat @ passthrough.weight.T + passthrough.bias
        if k < 2:
            z = normed(z.clamp(min=0), network.norms[k], None) @ network.hidden_layers[k].weight.T
    torch.testing.assert_close(network(x.double()), z[:, 0])
    assert all(norm.num_features == 1 and norm.running_mean != 0 for norm in network.norms)


def test_the_conv_net_normalises_before_each_block_and_reads_every_position():
    torch.manual_seed(0)
    x = torch.rand(40, 2, 8, 9)
    network = seen(PublishedConvNet((2, 8, 9), 3, 2, first_kernel=5, first_stride=2, pool_size=2), x)
    z = normed(x.double(), network.first_norm, 1)
    z = functional.conv2d(z, network.first.weight, network.first.bias, 2, 2).clamp(min=0)
    for block in network.blocks:
        z = normed(z, block.norm, 1)
        z = (functional.conv2d(z, block.conv.weight, block.conv.bias, padding=1) + z).clamp(min=0)
    z = normed(functional.max_pool2d(z, 2), network.last_norm, 1).flatten(1)
    assert network.readout.in_features == 3 * 2 * 2
    torch.testing.assert_close(network(x.double()), z @ network.readout.weight[0] + network.readout.bias)


def test_parameters_of_the_papers_networks():
    """MNIST and CIFAR: weights and biases counted by hand."""
    mlp = 784 * 200 + (784 * 200 + 200) + 200 * 50 + (784 * 50 + 50) + 50 + (784 + 1) + 2 * 2
    assert sum(weight.numel() for weight in PublishedMLP(784).parameters()) == mlp
    conv = 2 * 6 + (16 * 6 * 121 + 16) + 4 * (2 * 16 + 16 * 16 * 9 + 16) + 2 * 16 + 16 * 32 * 32 + 1
    assert sum(weight.numel() for weight in PublishedConvNet((6, 32, 32)).parameters()) == conv


def test_a_checkpoint_brings_them_back(tmp_path):
    torch.manual_seed(0)
    feature_map = CenteredAbs(torch.rand(3, 8, 8))
    classifier = FeatureConvexClassifier(PublishedConvNet((6, 8, 8), 4, 2), feature_map).eval()
    save_classifier(classifier, tmp_path / "c.safetensors")
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(load_classifier(tmp_path / "c.safetensors").score(x), classifier.score(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PublishedMLP(4, ()), "at least one hidden layer"),
        (lambda: PublishedMLP(0, (3,)), "in_features = 0"),
        (lambda: PublishedConvNet((3, 8)), r"in_shape = \(3, 8\)"),
        (lambda: PublishedConvNet((3, 8, 8), kernel=2), "odd kernels"),
        (lambda: PublishedConvNet((3, 8, 8))(torch.rand(2, 3, 9, 9)), r"expected \(3, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
