"""Networks as affine layers and activations: read exactly, or refused; nothing slips through the comparison."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from baselines.layered import UnreadableNetwork, read, reading
from baselines.layered.network import dense
from baselines.layered.operators import aten
from baselines.layered.reading import switching
from baselines.networks import Normalise


class Function(nn.Module):
    """Any function of an image, summed up behind a convolution that gives every place a weight of its own."""

    def __init__(self, function, shape: tuple[int, ...] = (2, 5, 6)) -> None:
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        with torch.no_grad():
            size = function(torch.zeros(3, *shape, dtype=torch.float64)).flatten(1).shape[1]
        self.last = nn.Linear(size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)).flatten(1)).squeeze(1)


def pools() -> dict[str, nn.Module]:
    found = {}
    for stride, padding, ceil, counted in ((2, 1, False, False), (2, 1, True, True), (3, 1, True, False)):
        found[f"average {stride} {padding} {ceil} {counted}"] = nn.AvgPool2d(
            3, stride, padding, ceil, counted
        )
    found["average divisor"] = nn.AvgPool2d(2, 1, divisor_override=3)
    found["average adaptive"] = nn.AdaptiveAvgPool2d((2, 4))
    for stride, padding, dilation, ceil in (
        (2, 0, 1, False),
        (2, 1, 1, True),
        (1, 1, 2, False),
        (3, 1, 1, True),
    ):
        found[f"greatest {stride} {padding} {dilation} {ceil}"] = nn.MaxPool2d(
            3, stride, padding, dilation, ceil_mode=ceil
        )
    return found


ONE, MINUS_ONE = torch.tensor(1.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
READ = {
    **pools(),
    "leaky": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(2, 0.3).double(),
    "relu6": nn.ReLU6(),
    "clip": lambda h: h.clamp(-0.1, 0.3),
    "abs": torch.abs,
    "max of two": lambda h: torch.maximum(h, 0.3 - h),
    "sigmoid": nn.Sigmoid(),
    "tanh": torch.tanh,
    "elu": nn.ELU(),
    "elu of another slope": nn.ELU(0.5),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.5),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "gelu by hand": lambda h: h * 0.5 * (1 + torch.erf(h / 2**0.5)),
    "swish by hand": lambda h: h * torch.sigmoid(1.702 * h) + torch.relu(h),
    "hardswish by hand": lambda h: h * functional.relu6(h + 3) * 0.1666667,
    "gelu by a difference": lambda h: h * (torch.erf(h / 2**0.5) - (-1.0)) * 0.5,
    "silu by differences": lambda h: h * (1 - 0.5 * (ONE - torch.tanh(0.5 * h))),
    "silu by two differences": lambda h: (torch.tanh(0.5 * h) - MINUS_ONE) / 2.0 * h,
    "silu of a negative": lambda h: h / 2 * (1 - torch.tanh(-0.5 * h)),
    "leaky by choice": lambda h: torch.where(h > 0, h, 2 * h),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "softplus": nn.Softplus(),
    "pad": lambda h: functional.pad(h, (1, 2, 0, 1), value=0.5),
    "reflect": nn.ReflectionPad2d(1),
    "slice and gather": lambda h: h[:, :, ::2, torch.tensor([3, 0, 3])],
    "split and concat": lambda h: torch.cat(h.split(1, dim=1)[::-1], dim=2),
    "sum and mean": lambda h: h.sum(dim=2) - h.mean(dim=(2,)),
    "constant first": lambda h: 2.0 - torch.ones(4, 5, dtype=h.dtype) @ h,
    "transposed": lambda h: h.permute(0, 3, 1, 2) * torch.arange(2.0).double()[:, None],
    "resize": nn.Upsample(scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "shuffle": nn.Sequential(nn.Conv2d(2, 4, 1).double(), nn.PixelShuffle(2)),
    "transposed convolution": nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double(),
    "dilated groups": nn.Conv2d(2, 4, 3, dilation=2, groups=2, padding="same").double(),
    "in place": lambda h: h.clone().mul_(2).relu_(),
}


@pytest.mark.parametrize("name", READ)
def test_layers_compute_what_the_network_computes(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), Function(READ[name])).double().eval()
    layered = read(model, (2, 5, 6))
    for scale in (0.1, 1.0, 50.0):
        x = scale * torch.randn(40, 2, 5, 6, dtype=torch.float64)
        expected = model(x.clone()).detach()
        found = layered.outputs(x.flatten(1))[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        error = layered.rounding(x.flatten(1))
        assert ((found - expected).abs() <= error).all() and (error <= 1e-9 * scale).all()


@pytest.mark.parametrize("padding", [0, 1])
def test_normalisation_before_a_padded_convolution_becomes_part_of_it(padding):
    """Zeros around a normalised image are not zeros around the image."""
    torch.manual_seed(0)
    model = nn.Sequential(
        Normalise(0.4, 0.2), nn.Conv2d(1, 2, 3, padding=padding), nn.Flatten(), nn.LazyLinear(1)
    )
    x = torch.rand(9, 1, 4, 4)
    model(x)
    layered = read(model, (1, 4, 4))
    assert len(layered.layers) == 1
    torch.testing.assert_close(layered.outputs(x.double().flatten(1)), model.double()(x.double()).detach())
    first = read(nn.Sequential(*model[:3], nn.ReLU(), model[3]), (1, 4, 4)).layers[0]
    folded = model[:3](x.double()).detach()
    torch.testing.assert_close(first.affine([x.double().flatten(1)]), folded)


@pytest.mark.parametrize(
    "function",
    [
        torch.exp,
        lambda h: h.pow(4),
        lambda h: h.mT @ h,
        lambda h: h / (1 + h.abs()),
        lambda h: h.sort(dim=1).values,
        lambda h: functional.layer_norm(h, h.shape[1:]),
        lambda h: functional.batch_norm(h, None, None, training=True),
        lambda h: h if h.sum() > 0 else -h,
        lambda h: h.half().double(),
        lambda h: functional.adaptive_max_pool2d(h, 2),
        lambda h: h * torch.tanh(h + 0.1 * h**3),
        lambda h: 0.5 * h * (1 + torch.tanh(0.8 * h + 0.1 * h**3)),
        lambda h: torch.where(h > 0, h, functional.softplus(h)),
        lambda h: h - h[:1],
        lambda h: torch.where(h > 0, h, 2 * h + 1),
        lambda h: torch.where(h > 1, h, 2 * h),
    ],
)
def test_anything_else_is_refused_in_one_line(function):
    torch.manual_seed(0)
    with pytest.raises(UnreadableNetwork) as refused:
        read(Function(function).double().eval(), (2, 5, 6))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", [0, 1])
def test_an_operator_that_is_on_the_list_by_mistake_is_found_out(monkeypatch, place):
    """A rounding far behind dead neurons, and a cube of the input, both called affine."""
    torch.manual_seed(0)
    target = (aten.round.default, aten.pow.Tensor_Scalar)[place]
    from baselines.layered import operators

    monkeypatch.setattr(operators, "_FIRST", (*operators._FIRST, target))
    first, last = nn.Linear(3, 3), nn.Linear(3, 1)
    with torch.no_grad():
        first.bias.fill_(-1e3 if place == 0 else 0.0)

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, last

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            return self.last(torch.relu(h).round() if place == 0 else torch.relu(h.pow(3)))

    with pytest.raises(UnreadableNetwork, match="not affine"):
        read(Hidden(), (3,))


def test_a_misread_layer_is_found_out_though_its_neurons_are_dead_at_first(monkeypatch):
    """The comparison with the network alone: random inputs do not wake the neurons, the switching points do."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].bias.fill_(-1e6)
    original = reading._Stretch.matrices

    def misread(self):
        return {place: matrix * (1 if self.size == 4 else 1.5) for place, matrix in original(self).items()}

    monkeypatch.setattr(reading._Stretch, "matrices", misread)
    monkeypatch.setattr(reading._Reader, "_check", lambda *arguments: None)
    with pytest.raises(UnreadableNetwork, match="computes other values"):
        read(model, (3,))


def test_switching_points_lie_on_both_sides_of_neurons_in_every_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    layered = read(model, (5,))
    points = switching(layered, torch.rand(7, 5, dtype=torch.float64), torch.Generator().manual_seed(1))
    for z in layered.preactivations(points)[:2]:
        assert ((z > 0).any(dim=0) & (z < 0).any(dim=0)).sum() >= 3


def test_large_matrices_are_kept_without_their_zeros(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 1)
    ).double()
    x = torch.rand(5, 1, 14, 14, dtype=torch.float64)
    expected = read(model, (1, 14, 14))
    monkeypatch.setattr(reading, "DENSE_ENTRIES", 1000)
    layered = read(model, (1, 14, 14))
    assert layered.layers[1].maps[1].layout == torch.sparse_csr
    torch.testing.assert_close(dense(layered.layers[1].maps[1]), expected.layers[1].maps[1])
    torch.testing.assert_close(layered.outputs(x.flatten(1)), model(x).detach())
    torch.testing.assert_close(layered.rounding(x.flatten(1)), expected.rounding(x.flatten(1)))


def test_a_network_that_fails_by_itself_fails_with_its_own_message():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        read(nn.Linear(3, 1), (4,))


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Squared.apply(x)


def test_what_cannot_be_traced_or_copied_is_refused_in_one_line():
    pruned = nn.Sequential(nn.Linear(3, 1))
    prune.l1_unstructured(pruned[0], "weight", amount=1)
    for network, message in (
        (nn.Sequential(nn.Linear(3, 2), Own()), r"autograd\.Function"),
        (pruned, r"prune\.remove"),
    ):
        with pytest.raises(UnreadableNetwork, match=message) as caught:
            read(network, (3,))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "padding", [nn.CircularPad2d(1), nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")]
)
def test_padding_that_is_written_in_place_is_read(padding):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = padding(torch.rand(1, 1, 3, 4)).numel()
        network = nn.Sequential(padding, nn.ReLU(), nn.Flatten(), nn.Linear(size, 2)).double()
        x = torch.randn(30, 1, 3, 4, dtype=torch.float64)
    found = read(network, (1, 3, 4)).outputs(x.flatten(1))
    torch.testing.assert_close(found, network(x).detach(), rtol=1e-9, atol=1e-9)
