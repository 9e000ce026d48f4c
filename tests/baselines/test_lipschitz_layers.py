"""Layers of the Lipschitz networks, measured independently: dense matrices, SVDs, plain formulas."""

import math

import pytest
import torch
from torch import nn

from baselines.lipschitz import lipschitz_bound, scheduled_exponent, set_exponent
from baselines.lipschitz.activations import MaxMin
from baselines.lipschitz.bro import BROConv2d, BROLinear
from baselines.lipschitz.cayley import CayleyConv2d, CayleyLinear, cayley_transform
from baselines.lipschitz.l1 import BoundedEntries, UnitRows
from baselines.lipschitz.linf import LinfDistance, MeanShift
from baselines.lipschitz.networks import ConvexResidual, UnitRow
from baselines.lipschitz.sll import SLLConv2d, SLLLinear


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def dense(layer: nn.Module, shape: tuple[int, ...], point: torch.Tensor | None = None) -> torch.Tensor:
    """The Jacobian (outputs, inputs) of a layer at a point, column by column through autograd."""
    point = torch.zeros(shape, dtype=torch.float64) if point is None else point
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), point)
    return jacobian.reshape(jacobian.shape[0], -1)


def train_a_little(layer: nn.Module, shape: tuple[int, ...], steps: int = 20) -> nn.Module:
    """Real optimisation steps towards outputs ten times larger, which strains every constraint."""
    x = torch.rand(32, *shape)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    target = 10 * torch.randn_like(layer(x))
    for _ in range(steps):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.double().eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (1, 6), (6, 1), (3, 6, 2)])
def test_cayley_transform_is_semi_orthogonal(shape, dtype):
    q = cayley_transform(3 * torch.randn(shape, dtype=dtype))
    gram = q.mH @ q if shape[-2] >= shape[-1] else q @ q.mH
    torch.testing.assert_close(gram, torch.eye(min(shape[-2:]), dtype=dtype).expand_as(gram))


@pytest.mark.parametrize(
    ("channels", "size"), [((3, 8), (6, 5)), ((8, 3), (5, 6)), ((4, 4), (2, 2)), ((4, 6), (1, 1))]
)
def test_cayley_convolution_is_semi_orthogonal_after_training(channels, size):
    layer = train_a_little(CayleyConv2d(*channels, 3, size), (channels[0], *size))
    values = torch.linalg.svdvals(dense(layer, (channels[0], *size)))
    torch.testing.assert_close(values, torch.ones_like(values))


@pytest.mark.parametrize("turned", [1, 3, 7])
def test_dense_block_reflector_is_orthogonal_after_training(turned):
    layer = train_a_little(BROLinear(7, turned), (7,))
    values = torch.linalg.svdvals(dense(layer, (7,)))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-4, atol=0)
    assert values.max() <= 1 + 1e-12
    turned_round = torch.linalg.eigvalsh(dense(layer, (7,))) < 0
    assert turned_round.sum() == min(turned, 3)


@pytest.mark.parametrize(
    ("channels", "size"), [((3, 8), (6, 5)), ((8, 3), (5, 6)), ((4, 4), (2, 2)), ((4, 6), (1, 1))]
)
def test_block_reflector_convolution_stretches_nothing_after_training(channels, size):
    layer = train_a_little(BROConv2d(*channels, 3, size), (channels[0], *size))
    values = torch.linalg.svdvals(dense(layer, (channels[0], *size)))
    assert values.max() <= 1 + 1e-12
    if channels[0] <= channels[1]:  # no part of the input is left out
        widened = torch.linalg.svdvals(dense(BROConv2d(4, 4, 3, size).double().eval(), (4, *size)))
        torch.testing.assert_close(widened, torch.ones_like(widened), rtol=1e-4, atol=0)


def test_a_block_reflector_with_dependent_directions_is_still_bounded():
    layer = BROLinear(6, 3).double().eval()
    with torch.no_grad():
        layer.raw[:, 1] = layer.raw[:, 0]
        layer.raw[:, 2] = 0
    layer.eval()
    assert lipschitz_bound(layer, "l2") <= 1 + 1e-9
    assert layer(torch.rand(2, 6, dtype=torch.float64)).isfinite().all()


def test_cayley_convolution_commutes_with_circular_shifts():
    layer = CayleyConv2d(3, 4, 3, (6, 5)).double().eval()
    x = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    moved = layer(x.roll((2, 3), dims=(2, 3)))
    torch.testing.assert_close(moved, layer(x).roll((2, 3), dims=(2, 3)))


@pytest.mark.parametrize("size", [(6, 5), (2, 2)])
def test_spectrum_is_that_of_the_circular_convolution(size):
    layer = CayleyConv2d(3, 4, 3, size).double()
    layer.compute_weight = lambda: layer._spectrum(layer.raw)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    # Position k of the kernel delays by k - 1, so the correlation that conv2d computes has it flipped.
    torch.testing.assert_close(layer(x), nn.functional.conv2d(padded, layer.raw.flip(2, 3)))


def test_cayley_layer_rejects_another_image_size():
    with pytest.raises(ValueError, match="image size"):
        CayleyConv2d(1, 2, 3, (4, 4))(torch.zeros(1, 1, 5, 4))


@pytest.mark.parametrize(
    "layer",
    [CayleyLinear(6, 4), CayleyConv2d(2, 3, 3, (4, 5)), BROConv2d(2, 3, 3, (4, 5))],
    ids=["dense", "conv", "bro"],
)
def test_bound_is_computed_from_the_weight_in_use(layer):
    layer = layer.double().eval()
    assert lipschitz_bound(layer, "l2") == pytest.approx(1, abs=1e-5)
    layer.weight().mul_(1.5)  # the cached weight: as wrong as a bug would make it
    shape = (6,) if isinstance(layer, CayleyLinear) else (2, 4, 5)
    assert lipschitz_bound(layer, "l2") == pytest.approx(
        torch.linalg.svdvals(dense(layer, shape)).max().item()
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (SLLLinear(9, 5), (9,)),
        (SLLLinear(4, 8), (4,)),
        (SLLConv2d(3, 6), (3, 5, 4)),
        (SLLConv2d(2, 3, 5), (2, 4, 3)),
    ],
    ids=["narrow", "wide", "conv", "conv5"],
)
def test_sll_block_is_one_lipschitz_after_training(layer, shape):
    layer = train_a_little(layer, shape)
    points = 5 * torch.randn(10, *shape, dtype=torch.float64)
    largest = max(torch.linalg.svdvals(dense(layer, shape, point)).max().item() for point in points)
    assert largest <= lipschitz_bound(layer, "l2") * (1 + 1e-12)
    assert lipschitz_bound(layer, "l2") <= 1 + 1e-12


@pytest.mark.parametrize(
    ("layer", "shape"), [(SLLLinear(9, 5), (9,)), (SLLConv2d(3, 6), (3, 5, 4))], ids=["dense", "conv"]
)
def test_sll_bound_covers_a_wrong_scaling(layer, shape):
    layer = layer.double().eval()
    layer.weight().div_(4)
    nn.init.constant_(layer.bias, 10.0)  # all units active: the steepest Jacobian
    largest = torch.linalg.svdvals(dense(layer, shape)).max().item()
    assert 1.01 < largest <= lipschitz_bound(layer, "l2") * (1 + 1e-12)


@pytest.mark.parametrize("size", [0.1, 3.0])
@pytest.mark.parametrize("logit", [-5.0, 0.0, 5.0])
def test_the_bound_of_a_residual_covers_its_input_as_well_as_its_branch(size, logit):
    """(1 - a) x + a branch(x): where a is small it moves as far as x, however little the branch does."""
    branch = nn.Linear(4, 4, bias=False, dtype=torch.float64)
    branch.weight.data = size * torch.eye(4, dtype=torch.float64)
    residual = ConvexResidual(nn.Sequential(branch)).double()
    residual.logit.data.fill_(logit)
    stretched = torch.linalg.svdvals(dense(residual, (4,))).max().item()
    assert lipschitz_bound(residual, "l2") >= stretched - 1e-12


def test_unit_row_has_unit_gradient():
    layer = UnitRow(5).double()
    assert dense(layer, (5,)).norm().item() == pytest.approx(1)
    assert lipschitz_bound(layer, "l2") == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_layers_of_the_l1_network_keep_their_promise_after_training(seed):
    torch.manual_seed(seed)
    first = train_a_little(BoundedEntries(9, 5), (9,))
    assert dense(first, (9,)).abs().max() <= 1
    assert first.raw.abs().max() > 1, "the training should strain the bound"
    rows = train_a_little(UnitRows(9, 5), (9,))
    lengths = dense(rows, (9,)).abs().sum(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    x, y = torch.randn(2, 200, 9, dtype=torch.float64)
    moved = (x - y).abs()
    assert ((first(x) - first(y)).abs().amax(1) <= moved.sum(1) * (1 + 1e-12)).all()
    assert ((rows(x) - rows(y)).abs().amax(1) <= moved.amax(1) * (1 + 1e-12)).all()


def test_the_l1_layers_bounds_are_those_of_the_weights_in_use():
    first, rows = BoundedEntries(6, 4).double().eval(), UnitRows(4, 3).double().eval()
    weight = dense(first, (6,))
    for norm, order in (("l1", math.inf), ("l2", 2), ("linf", 1)):
        expected = torch.linalg.vector_norm(weight, ord=order, dim=1).max().item()
        assert first.bound_from(norm) == pytest.approx(expected)
    chain = nn.Sequential(first, MaxMin(), rows)
    rows.weight().mul_(1.5)  # the cached weight: as wrong as a bug would make it
    assert lipschitz_bound(chain, "l1") == pytest.approx(1.5 * weight.abs().max().item())
    with pytest.raises(ValueError, match="UnitRows"):
        lipschitz_bound(rows, "l1")


def test_projection_keeps_entries_where_they_can_be_trained():
    layer = BoundedEntries(3, 2)
    with torch.no_grad():
        layer.raw.fill_(5.0)
    layer.project()
    layer(torch.ones(1, 3)).sum().backward()
    assert (layer.raw == 1).all() and (layer.raw.grad == 1).all()


@pytest.mark.parametrize("channels", [2, 5, 8])
def test_maxmin_sorts_pairs(channels):
    x = torch.randn(4, channels, 3)
    y = MaxMin()(x)
    half = channels // 2
    assert (y[:, :half] >= y[:, half : 2 * half]).all()
    assert torch.equal(y.sort(dim=1).values, x.sort(dim=1).values)


@pytest.mark.parametrize("p", [2.5, 8.0, 60.0])
def test_power_distance_and_its_gradients_are_those_of_the_norm(p):
    layer = LinfDistance(6, 4).double()
    set_exponent(layer, p)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.linalg.vector_norm(x[:, None, :] - layer.centre, ord=p, dim=2)
    torch.testing.assert_close(layer(x), expected)
    weight = torch.randn(5, 4, dtype=torch.float64)
    inputs = (x, layer.centre)
    found = torch.autograd.grad((layer(x) * weight).sum(), inputs)
    for one, other in zip(found, torch.autograd.grad((expected * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_power_distance_in_several_chunks():
    layer = LinfDistance(700, 5).double()  # 300 x 700 inputs exceed a chunk: one unit at a time
    set_exponent(layer, 8.0)
    x = torch.rand(300, 700, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.cdist(x, layer.centre, p=8.0))


def test_power_distance_tends_to_the_exact_distance():
    layer = LinfDistance(20, 3)
    x = torch.rand(10, 20)
    exact = layer(x)
    torch.testing.assert_close(exact, (x[:, None, :] - layer.centre).abs().amax(dim=2))
    gaps = []
    for p in (8.0, 100.0, 1000.0):
        set_exponent(layer, p)
        assert (layer(x) >= exact - 1e-5).all()
        gaps.append((layer(x) - exact).max().item())
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.01


def test_a_finite_exponent_is_no_certificate_and_survives_a_state():
    layer = LinfDistance(20, 3)
    set_exponent(layer, 8.0)
    with pytest.raises(ValueError, match="p = 8"):
        lipschitz_bound(layer, "linf")
    other = LinfDistance(20, 3)
    other.load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="p = 8"):
        lipschitz_bound(other, "linf")
    set_exponent(other, math.inf)
    assert lipschitz_bound(other, "linf") == 1


def test_schedule_grows_and_ends_exact():
    values = [scheduled_exponent(step / 100, start=8, end=1000, relaxed=0.8) for step in range(100)]
    assert values[0] == 8 and values == sorted(values)
    assert 900 < values[79] < 1000 and all(math.isinf(value) for value in values[80:])


def test_mean_shift_centres_in_training_and_translates_in_evaluation():
    layer = MeanShift(3)
    x = torch.rand(50, 3) + 2
    torch.testing.assert_close(layer(x).mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    layer.eval()
    moved = x - layer(x)
    torch.testing.assert_close(moved, moved[:1].expand(50, 3))
    assert (moved > 0.1).all()


def test_the_running_mean_is_that_of_batch_normalisation():
    layer, usual = MeanShift(3, momentum=0.1), nn.BatchNorm1d(3, momentum=0.1, affine=False)
    for _ in range(5):
        x = torch.randn(7, 3) + 1
        layer(x)
        usual(x)
    torch.testing.assert_close(layer.mean, usual.running_mean)


def test_weights_are_computed_once_in_evaluation_and_follow_every_change():
    layer = CayleyLinear(4, 3)
    assert layer.weight() is not layer.weight()
    layer.eval()
    before = layer.weight()
    assert layer.weight() is before and not before.requires_grad
    layer.load_state_dict(CayleyLinear(4, 3).state_dict())
    assert not torch.equal(layer.weight(), before)
    assert layer.double().weight().dtype == torch.float64


def test_evaluation_after_more_training_uses_the_new_weight():
    layer = CayleyLinear(4, 3).eval()
    before = layer.weight()
    layer.train()
    with torch.no_grad():
        layer.raw += torch.randn_like(layer.raw)
    expected = layer.weight()
    layer.eval()
    torch.testing.assert_close(layer.weight(), expected)
    assert not torch.equal(layer.weight(), before)
