"""Convexity after real training steps, agreement with a NumPy forward pass, and what the networks refuse."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from fcnn import ConvexConvNet, ConvexMLP, PublishedConvNet, PublishedMLP

ROUNDING = 1e-10
CONV_VARIANTS = {
    "plain": {},
    "without_norm": {"batch_norm": False, "hidden_init": 0.05},
    "max_pool": {"pool": "max", "pool_size": 2, "readout_grid": 2},
    "average_pool": {"pool_size": 2, "readout_grid": 2},
    "passthrough": {"passthrough": True, "linear_grid": 8},
    "stride": {"first_stride": 2, "passthrough": True, "first_kernel": 4},
    "one_layer": {"depth": 1},
}
NETWORKS = {
    "mlp": lambda: ConvexMLP(64, (30, 20, 10)),
    "mlp_without_passthrough": lambda: ConvexMLP(64, (30, 10), passthrough=False),
    "published_mlp": lambda: PublishedMLP(64, (30, 10)),
    "published_convnet": lambda: PublishedConvNet((1, 8, 8), 6, 2, first_kernel=5),
    "published_convnet_pooled": lambda: PublishedConvNet((1, 8, 8), 6, 2, first_kernel=3, pool_size=2),
    **{
        name: lambda options=options: ConvexConvNet(
            1, **{"features": 6, "depth": 3, "first_kernel": 5, **options}
        )
        for name, options in CONV_VARIANTS.items()
    },
}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    chosen = (y == 3) | (y == 8)
    images = torch.tensor(x[chosen] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return images, torch.tensor(y[chosen] == 3, dtype=torch.float32)


def train(network, digits, project, steps=25):
    """A few large steps: without projection they push hidden weights below zero."""
    images, labels = digits
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    network.train()
    for step in range(steps):
        batch = slice(32 * (step % 10), 32 * (step % 10) + 32)
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(network(images[batch]), labels[batch]).backward()
        optimizer.step()
        if project:
            network.project()
    return network.eval()


def random_segments(digits, count=100):
    """Centres at digits, half-lengths from 0.01 to 10 pixels' range in random directions; float64."""
    centre = digits[0][:count].double()
    lengths = torch.logspace(-2, 1, count, dtype=torch.float64).reshape(-1, 1, 1, 1)
    direction = torch.randn(centre.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return centre, lengths * direction


def hardest_segments(network, digits, steps=20):
    """Gradient ascent on the violation at the middle of the segment: a chance sample seldom meets one."""
    centre, half = (points.clone().requires_grad_() for points in random_segments(digits))
    optimizer = torch.optim.Adam([centre, half], lr=0.05)
    for _ in range(steps):
        gap = network(centre) - (network(centre + half) + network(centre - half)) / 2
        optimizer.zero_grad()
        (-gap.sum()).backward()
        optimizer.step()
    return (centre + half).detach(), (centre - half).detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_network_is_convex(name, digits):
    torch.manual_seed(0)
    network = train(NETWORKS[name](), digits, project=True).double().requires_grad_(False)
    network.require_convex()
    centre, half = random_segments(digits)
    for x, y in ((centre + half, centre - half), hardest_segments(network, digits)):
        scale = float(torch.maximum(network(x), network(y)).abs().max())
        for t in (0.1, 0.37, 0.5, 0.9):
            chord = t * network(x) + (1 - t) * network(y)
            assert (network(t * x + (1 - t) * y) <= chord + ROUNDING * (1 + scale)).all()
        assert network.convexity_gap(x, y) <= ROUNDING * (1 + scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_projection_convexity_is_lost_and_noticed(name, digits):
    torch.manual_seed(0)
    network = train(NETWORKS[name](), digits, project=False).double().requires_grad_(False)
    segments = hardest_segments(network, digits)
    assert network.convexity_gap(*segments) > 0.1
    negative = [layer for layer, weight in network.nonnegative_parameters() if weight.min() < 0]
    with pytest.raises(ValueError, match=f"layer {negative[0]} .*project"):
        network.require_convex()
    network.project()
    network.require_convex()
    assert network.convexity_gap(*segments) <= ROUNDING * 1e3


@pytest.mark.parametrize("name", NETWORKS)
def test_projection_clamps_hidden_weights_and_nothing_else(name):
    torch.manual_seed(1)
    network = NETWORKS[name]()
    hidden = dict(network.nonnegative_parameters())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    before = {layer: value.clone() for layer, value in network.state_dict().items()}
    network.project()
    assert hidden
    for layer, value in network.state_dict().items():
        expected = before[layer].clamp(min=0) if layer in hidden else before[layer]
        assert torch.equal(value, expected), layer


def test_every_hidden_weight_is_guarded():
    """All weights but those that act on the input alone are in the list of non-negative ones."""
    mlp = dict(ConvexMLP(4, (3, 2)).nonnegative_parameters())
    assert set(mlp) == {"hidden_layers.0.weight", "hidden_layers.1.weight"}
    conv = dict(ConvexConvNet(2, depth=2, passthrough=True, linear_grid=4).nonnegative_parameters())
    assert set(conv) == {"blocks.0.conv.weight", "blocks.0.norm.weight", "readout.weight"}


def test_nan_weight_is_refused():
    network = ConvexMLP(4, (3,))
    with torch.no_grad():
        network.hidden_layers[0].weight[0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"hidden_layers\.0\.weight"):
        network.require_convex()


def test_hidden_weights_start_in_the_stated_range():
    mlp, conv = ConvexMLP(20, (200, 50)), ConvexConvNet(3)
    for network, limit in ((mlp, 0.003), (conv, 0.005)):
        network.require_convex()
        weights = [
            weight
            for name, weight in network.nonnegative_parameters()
            if name.startswith(("hidden_layers", "blocks")) and "norm" not in name
        ]
        largest = max(float(weight.detach().max()) for weight in weights)
        assert 0.9 * limit < largest <= limit


def test_convexity_gap_of_known_functions():
    """g(x) = x^2 has its gap at the middle of the segment, -(x - y)^2 / 4; -g has the opposite sign."""

    class Square(ConvexMLP):
        sign = 1.0

        def forward(self, x):
            return self.sign * x.square().sum(1)

    network, zero, two = Square(1, ()), torch.zeros(1, 1), 2 * torch.ones(1, 1)
    t = np.arange(1, 10) / 10
    assert network.convexity_gap(zero, two) == pytest.approx((-4 * t * (1 - t)).max(), rel=1e-12)
    network.sign = -1.0
    assert network.convexity_gap(zero, two) == pytest.approx(1.0, rel=1e-12)
    with pytest.raises(ValueError, match="one shape"):
        network.convexity_gap(zero, torch.zeros(2, 1))


def numpy_forward(x, input_weights, biases, hidden_weights):
    z = x @ input_weights[0].T + biases[0]
    for hidden, weight, bias in zip(hidden_weights, input_weights[1:], biases[1:], strict=True):
        z = np.maximum(z, 0) @ hidden.T + x @ weight.T + bias
    return z[:, 0]


def random_arrays(widths=(7, 5, 1), d=6):
    rng = np.random.default_rng(0)
    return (
        [rng.normal(size=(width, d)) for width in widths],
        [rng.normal(size=width) for width in widths],
        [rng.uniform(size=(after, width)) for width, after in itertools.pairwise(widths)],
    )


@pytest.mark.parametrize("widths", [(7, 5, 1), (4, 1), (1,)])
def test_from_arrays_equals_a_numpy_forward_pass(widths):
    arrays = random_arrays(widths)
    network = ConvexMLP.from_arrays(*arrays)
    x = np.random.default_rng(1).normal(size=(50, 6))
    score = network(torch.tensor(x))
    assert score.shape == (50,) and score.dtype == torch.float64
    np.testing.assert_allclose(score.detach().numpy(), numpy_forward(x, *arrays), rtol=1e-12)


def test_from_arrays_keeps_the_dtype():
    for dtype in (np.float32, np.float64):
        groups = [[array.astype(dtype) for array in group] for group in random_arrays()]
        assert ConvexMLP.from_arrays(*groups).first.weight.dtype == torch.tensor(groups[0][0]).dtype
    assert ConvexMLP.from_arrays([[[1, 2]]], [[0]], []).first.weight.dtype == torch.float32


@pytest.mark.parametrize("wide", range(3))
def test_from_arrays_keeps_every_digit_of_arrays_of_different_dtypes(wide):
    groups = [
        [array.astype(np.float64 if group == wide else np.float32) for array in arrays]
        for group, arrays in enumerate(random_arrays())
    ]
    network = ConvexMLP.from_arrays(*groups)
    assert network.first.weight.dtype == torch.float64
    kept = [network.first.weight, network.first.bias, network.hidden_layers[0].weight]
    for tensor, arrays in zip(kept, groups, strict=True):
        assert torch.equal(tensor, torch.as_tensor(arrays[0]).double())


@pytest.mark.parametrize("passthrough", [True, False])
def test_arrays_of_a_network_rebuild_it(passthrough):
    network = ConvexMLP(6, (5, 4), passthrough=passthrough).double()
    x = torch.randn(20, 6, dtype=torch.float64)
    torch.testing.assert_close(
        ConvexMLP.from_arrays(*network.to_arrays())(x), network(x), rtol=1e-13, atol=1e-14
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a, b, h: h[1].__setitem__((0, 2), -0.5), r"hidden_weights\[1\] holds -0\.5"),
        (lambda a, b, h: h[0].__setitem__((0, 2), np.nan), r"hidden_weights\[0\] holds nan"),
        (lambda a, b, h: h.pop(), "3 input weights, 3 biases and 1 hidden"),
        (
            lambda a, b, h: h.__setitem__(0, h[0].T),
            r"hidden_weights\[0\] has shape \(7, 5\), expected \(5, 7\)",
        ),
        (lambda a, b, h: a.__setitem__(1, a[1][:, :3]), r"input_weights\[1\] has shape \(5, 3\)"),
        (lambda a, b, h: b.__setitem__(2, np.zeros(2)), "expected .* and \\(1,\\)"),
        (lambda a, b, h: (a.clear(), b.clear(), h.clear()), "0 input weights"),
    ],
)
def test_from_arrays_refuses(spoil, message):
    arrays = random_arrays()
    spoil(*arrays)
    with pytest.raises(ValueError, match=message):
        ConvexMLP.from_arrays(*arrays)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (6, 32, 32), (2, 17, 40)])
@pytest.mark.parametrize(
    "options", [{}, {"first_stride": 2, "pool_size": 2, "passthrough": True, "linear_grid": 5}]
)
def test_conv_net_takes_any_image_size(channels, height, width, options):
    network = ConvexConvNet(channels, 4, 3, **options)
    assert network(torch.rand(3, channels, height, width)).shape == (3,)


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (lambda: ConvexMLP(64), (2, 1, 9, 9), "expected 64 values"),
        (lambda: ConvexMLP(1), (2,), "expected 1 values"),
        (lambda: ConvexConvNet(3), (2, 1, 8, 8), r"expected \(3, H, W\)"),
        (lambda: ConvexConvNet(3), (2, 64), r"expected \(3, H, W\)"),
        (lambda: ConvexConvNet(1, first_stride=2, pool_size=4), (2, 1, 7, 9), "H, W >= 8"),
    ],
)
def test_wrong_input_shapes_are_refused(build, shape, message):
    network = build()
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        network.floats_per_input(shape[1:])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvexMLP(0), "in_features = 0"),
        (lambda: ConvexMLP(4, (3, 0)), r"hidden\[1\] = 0"),
        (lambda: ConvexConvNet(1, pool="median"), "'median': choose one of average, max"),
        (lambda: ConvexConvNet(1, kernel=4), "kernel = 4: must be odd"),
        (lambda: ConvexConvNet(1, depth=0), "depth = 0"),
        (lambda: ConvexConvNet(1, linear_grid=-1), "linear_grid = -1"),
    ],
)
def test_impossible_architectures_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", NETWORKS)
def test_settings_rebuild_the_architecture(name):
    network = NETWORKS[name]()
    rebuilt = type(network)(**network.settings())
    rebuilt.load_state_dict(network.state_dict())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(rebuilt.eval()(x), network.eval()(x))


def test_floats_per_input_is_near_the_memory_of_a_pass():
    """Counted for the convolution that unfolds its input: the estimate must not be far below it."""
    network = ConvexConvNet(6)
    unfolded = 6 * 11**2 * 32 * 32
    assert unfolded < network.floats_per_input((6, 32, 32)) < 3 * unfolded


def test_batch_statistics_do_not_enter_the_evaluated_score():
    """In evaluation mode an input's score does not depend on its neighbours: otherwise no certificate holds."""
    network = ConvexConvNet(1, 4, 2)
    images = torch.rand(8, 1, 8, 8)
    network.train()(images)
    network.eval()
    torch.testing.assert_close(network(images)[:1], network(images[:1]))
    assert isinstance(network.first_norm, nn.BatchNorm2d)
