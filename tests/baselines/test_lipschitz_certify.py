"""Certificates of Lipschitz networks: exact on linear scores, never beaten by attacks on trained networks."""

import copy
import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from baselines.lipschitz import (
    LipschitzNetwork,
    bro_convnet,
    bro_mlp,
    cayley_convnet,
    cayley_mlp,
    cayley_resnet9,
    certify,
    l1_mlp,
    linf_distance_net,
    lipschitz_bound,
    margin_loss,
    one_sided_radius_loss,
    set_exponent,
    sll_convnet,
    sll_mlp,
)
from baselines.lipschitz.cayley import CayleyLinear
from baselines.lipschitz.certify import layer_bound
from baselines.lipschitz.linf import LinfDistance, MeanShift
from baselines.lipschitz.rounding import score_error

SHAPE = (1, 7, 6)
NETWORKS: dict[str, Callable[[], LipschitzNetwork]] = {
    "cayley_mlp": lambda: cayley_mlp(SHAPE, (20, 9)),
    "cayley_convnet": lambda: cayley_convnet(SHAPE, width=4, dense=10),
    "cayley_resnet9": lambda: cayley_resnet9(SHAPE, width=2),
    "bro_mlp": lambda: bro_mlp(SHAPE, (12, 12)),
    "bro_convnet": lambda: bro_convnet(SHAPE, width=2, depth=2, dense=10),
    "sll_mlp": lambda: sll_mlp(SHAPE, (16, 16)),
    "sll_convnet": lambda: sll_convnet(SHAPE, width=4, depth=1, dense=8),
    "linf_distance_net": lambda: linf_distance_net(SHAPE, (16, 16)),
    "l1_mlp": lambda: l1_mlp(SHAPE, (20, 10)),
}
# Rate and margin of the training; l1 distances are longer, and so are the ways of the entries.
RECIPES = {"l1_mlp": (0.1, 3.0)}
every_network = pytest.mark.parametrize("name", NETWORKS)


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bright (1) or dark (0) upper halves, noisy elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.arange(count) % 2).float()
    x = 0.6 * torch.rand((count, *SHAPE), generator=generator)
    x[:, :, :3] += 0.4 * y[:, None, None, None]
    return x, y


@cache
def trained(name: str) -> LipschitzNetwork:
    """The network after 60 real steps, through a finite exponent where it has one."""
    x, y = images(64, seed=1)
    rate, margin = RECIPES.get(name, (0.01, 0.3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]()
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for step in range(60):
            set_exponent(network, 8.0 if step < 30 else math.inf)
            loss = margin_loss(network(x), y, margin)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.project()
    return network.double().eval()


def sensitive_inputs(network: LipschitzNetwork) -> Tensor:
    x, _ = images(60, seed=2)
    x = x.double()
    return x[network(x) > 0]


def jacobians(function: nn.Module, x: Tensor) -> Tensor:
    """(N, outputs, d) Jacobians at each x, one backward pass per output."""
    x = x.clone().requires_grad_()
    outputs = function(x).flatten(1)
    rows = [
        torch.autograd.grad(outputs[:, k].sum(), x, retain_graph=True)[0] for k in range(outputs.shape[1])
    ]
    return torch.stack(rows, dim=1).flatten(2)


def attack(network: LipschitzNetwork, x: Tensor, radius: Tensor, norm: str, steps: int = 60) -> Tensor:
    """Lowest score (N,) that projected gradient descent finds on the balls around x, from the centre and at random."""
    radius = radius[:, None, None, None]
    best = network(x).detach()
    for start in (
        torch.zeros_like(x),
        torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x),
    ):
        delta = project(start, radius, norm)
        for step in range(steps):
            delta = delta.detach().requires_grad_()
            score = network(x + delta)
            best = torch.minimum(best, score.detach())
            (slope,) = torch.autograd.grad(score.sum(), delta)
            length = slope.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            direction = slope.sign() if norm == "linf" else slope / length
            if norm == "l1":  # the steepest pixel only
                steepest = slope.abs().flatten(1).argmax(dim=1)
                direction = nn.functional.one_hot(steepest, slope[0].numel()).view_as(slope) * slope.sign()
            delta = project(delta.detach() - radius * direction * (0.5 if step < 20 else 0.05), radius, norm)
    return best


def project(delta: Tensor, radius: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return delta.clamp(-radius, radius)
    if norm == "l1":  # scaled back, which stays in the ball
        return delta * (
            radius / delta.abs().flatten(1).sum(dim=1)[:, None, None, None].clamp_min(1e-12)
        ).clamp_max(1)
    length = delta.flatten(1).norm(dim=1)[:, None, None, None]
    return delta * (radius / length.clamp_min(1e-12)).clamp_max(1)


@every_network
def test_trained_networks_separate_the_classes(name):
    x, y = images(60, seed=2)
    right = (trained(name)(x.double()) > 0) == (y > 0)
    assert right.double().mean() > 0.9


@every_network
def test_bound_of_trained_networks_is_one(name):
    network = trained(name)
    assert lipschitz_bound(network.body, network.norm) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("linf_distance_net", "l1_mlp")])
def test_singular_values_of_the_whole_jacobian_are_at_most_one(name):
    network = trained(name)
    x = torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
    for function in (network.body, network.body[:-1]):
        assert torch.linalg.svdvals(jacobians(function, x)).max() <= 1 + 1e-9


def test_linf_distance_net_moves_by_at_most_the_linf_distance():
    network = trained("linf_distance_net")
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(10_000, *SHAPE, generator=generator).double()
    scale = torch.rand(10_000, 1, 1, 1, generator=generator).double() ** 3
    other = x + scale * (2 * torch.rand(x.shape, generator=generator).double() - 1)
    with torch.no_grad():
        change = (network(x) - network(other)).abs()
    distance = (x - other).flatten(1).abs().amax(dim=1)
    assert (change <= distance + 1e-12).all()
    assert (change > 0.5 * distance).any(), "the pairs say nothing about a score that hardly moves"


def test_l1_net_moves_by_at_most_the_l1_distance_and_less_in_the_norms_of_its_first_rows():
    network = trained("l1_mlp")
    x, _ = images(500, seed=5)
    x = x.double()
    slopes = jacobians(network.body, x)[:, 0]
    assert (slopes.abs().amax(dim=1) <= 1 + 1e-12).all()
    assert (slopes.abs().amax(dim=1) > 0.25).any(), "a score that hardly moves says nothing"
    bounds = {norm: network(x).detach() / certify(network, x, [norm])[norm] for norm in ("l1", "l2", "linf")}
    certified = network(x).detach() > 1e-6
    for norm, order in (("l1", math.inf), ("l2", 2), ("linf", 1)):
        steepness = torch.linalg.vector_norm(slopes, ord=order, dim=1)
        assert (steepness[certified] <= bounds[norm][certified] * (1 + 1e-6)).all(), norm
    # Tighter than the norm inequalities alone.
    assert (bounds["l2"][certified] < math.sqrt(42) * bounds["l1"][certified]).all()
    assert (bounds["linf"][certified] < 42 * bounds["l1"][certified]).all()


@every_network
def test_no_attack_succeeds_inside_the_radius(name):
    network = trained(name)
    x = sensitive_inputs(network)
    radius = certify(network, x, [network.norm])[network.norm]
    assert (radius > 0).all()
    lowest = attack(network, x, radius, network.norm)
    assert (lowest > 0).all()
    assert (lowest < 0.7 * network(x)).any(), "an attack that moves no score proves nothing"


@every_network
def test_attacks_succeed_not_far_outside_the_radius(name):
    """The certificates are not vacuous: an attack finds a counterexample within a few radii."""
    network = trained(name)
    x = sensitive_inputs(network)
    radius = certify(network, x, [network.norm])[network.norm]
    assert (attack(network, x, 4 * radius, network.norm) <= 0).double().mean() > 0.5


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_linear_scores_are_certified_exactly_in_the_native_norm(norm):
    layer = nn.Linear(6, 1).double()
    network = LipschitzNetwork(nn.Sequential(nn.Flatten(), layer), norm).double().eval()
    network.threshold.fill_(-3.0)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(6))
    radii = certify(network, x, ["l1", "l2", "linf"])
    weight = layer.weight.detach().squeeze(0)
    margin = x.double() @ weight + layer.bias.detach() + 3.0
    for name, dual in (("l1", math.inf), ("l2", 2), ("linf", 1)):
        exact = margin / torch.linalg.vector_norm(weight, ord=dual)
        assert (radii[name] <= exact).all()
        if name == norm:
            torch.testing.assert_close(radii[name], exact, rtol=1e-8, atol=0)


def test_conversions_between_norms():
    x, _ = images(20, seed=7)
    l2 = certify(trained("sll_mlp"), x, ["l1", "l2", "linf"])
    assert torch.equal(l2["l1"], l2["l2"])
    torch.testing.assert_close(l2["linf"], l2["l2"] / math.sqrt(42))
    assert (l2["linf"] * math.sqrt(42) <= l2["l2"]).all()
    linf = certify(trained("linf_distance_net"), x, ["l1", "l2", "linf"])
    assert torch.equal(linf["l1"], linf["linf"]) and torch.equal(linf["l2"], linf["linf"])


def test_l1_radius_of_an_orthogonal_row_is_the_exact_distance():
    layer = CayleyLinear(6, 1)
    network = LipschitzNetwork(nn.Sequential(nn.Flatten(), layer), "l2").double().eval()
    network.threshold.fill_(-3.0)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(6))
    steepest = layer.weight().abs().max()
    assert steepest < 0.999
    found = certify(network, x, ["l1"])["l1"]
    exact = network(x.double()).detach() / steepest
    assert (found <= exact).all()
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=0)


def test_l1_radius_through_a_narrow_first_layer_withstands_attacks():
    network = trained("cayley_mlp")
    x = sensitive_inputs(network)
    radii = certify(network, x, ["l1", "l2"])
    assert (radii["l1"] > 1.05 * radii["l2"]).all()
    # The corners of the l1 ball: the whole budget on one pixel, up or down; and points between two corners.
    pixels = torch.eye(42, dtype=torch.float64)
    corners = torch.cat([pixels, -pixels])
    pairs = (corners + corners[torch.randperm(84, generator=torch.Generator().manual_seed(8))]) / 2
    for point, radius in zip(x, radii["l1"], strict=True):
        steps = radius * torch.cat([corners, pairs]).reshape(-1, *SHAPE)
        assert (network(point + steps) > 0).all()


def test_the_threshold_shifts_the_radius():
    network = trained("cayley_mlp")
    x = sensitive_inputs(network)
    before = certify(network, x, ["l2"])["l2"]
    network.threshold += 0.05
    try:
        after = certify(network, x, ["l2"])["l2"]
    finally:
        network.threshold -= 0.05
    torch.testing.assert_close(after, (before - 0.05).clamp_min(0), rtol=0, atol=1e-8)


def test_nothing_is_certified_for_negative_scores_and_inputs_that_are_no_numbers():
    for name in ("cayley_mlp", "linf_distance_net"):
        network = trained(name)
        x, _ = images(20, seed=2)
        x[0, 0, 0, 0], x[1, 0, 0, 0] = math.nan, math.inf
        radius = certify(network, x, ["l2"])["l2"]
        assert (radius[:2] == 0).all()
        assert (radius[2:][network(x.double())[2:] <= 0] == 0).all()


@pytest.mark.parametrize("spoil", [nn.Module.float, nn.Module.train])
def test_certificates_need_float64_and_evaluation_mode(spoil):
    network = spoil(NETWORKS["cayley_mlp"]().double().eval())
    with pytest.raises(ValueError, match=r"double\(\)\.eval\(\)"):
        certify(network, images(2, seed=1)[0], ["l2"])


def test_layers_without_a_bound_are_named():
    with pytest.raises(ValueError, match="BatchNorm1d"):
        lipschitz_bound(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)), "l2")
    with pytest.raises(ValueError, match="LinfDistance"):
        lipschitz_bound(LinfDistance(3, 2), "l2")


def test_convolutional_networks_need_images():
    with pytest.raises(ValueError, match="not an image"):
        cayley_convnet((30,))


def test_margin_loss_is_zero_beyond_the_margin():
    score, y = torch.tensor([0.6, -0.6, 0.2, 0.2]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert margin_loss(score, y, margin=0.5).item() == pytest.approx((0 + 0 + 0.3 + 0.7) / 4)


def test_the_radius_loss_pushes_sensitive_inputs_to_the_target_and_others_past_the_margin():
    y = torch.tensor([1.0, 1.0, 0.0, 0.0])
    reached = torch.tensor([2.0, 2.0, -0.5, -0.5])
    assert one_sided_radius_loss(reached, y, margin=0.5, target=2.0).item() == 0
    short = torch.tensor([1.0, 2.0, -0.5, -0.4])
    # One sensitive input at half the target, one other input a fifth short of its margin.
    assert one_sided_radius_loss(short, y, 0.5, 2.0, weight=3.0).item() == pytest.approx((3 * 0.5 + 0.2) / 4)


def test_training_for_a_radius_reaches_further_than_the_margin_alone():
    x, y = images(64, seed=1)
    radii = []
    for target in (0.0, 1.2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = NETWORKS["cayley_mlp"]()
            optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
            for _ in range(60):
                score = network(x)
                loss = one_sided_radius_loss(score, y, 0.1, target) if target else margin_loss(score, y, 0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        radii.append(certify(network.double().eval(), x[y > 0.5], ["l2"])["l2"].median())
    assert radii[1] > 1.2 * radii[0]


@every_network
def test_the_rounding_allowed_for_is_above_what_occurs_and_small(name):
    """Against the score in numbers of float64 in another order: inputs in other batches, and float32 for its size."""
    network = trained(name)
    x, _ = images(40, seed=5)
    x = x.double()
    with torch.no_grad():
        scores = network(x)
        allowed = score_error(network, x, torch.zeros(len(x)).double(), 1.0, layer_bound)
        alone = torch.cat([network(one) for one in x.split(1)])
        narrow = copy.deepcopy(network).float()(x.float()).double()
    assert (scores - alone).abs().max() <= 2 * allowed.min()
    assert allowed.max() < 1e-9
    # u is 2^29 times larger in float32: the bound scaled by that holds there, too, and is not far too large.
    assert ((scores - narrow).abs() <= 2.0**29 * allowed + 1e-6).all()
    assert (scores - narrow).abs().max() > 1e-9


def exact_score(network: LipschitzNetwork, x: Tensor) -> Fraction:
    """The score of one input in rational numbers."""
    values = [Fraction(value) for value in x.flatten().tolist()]
    for layer in network.body:
        if isinstance(layer, LinfDistance):
            centres = [[Fraction(value) for value in row] for row in layer.centre.tolist()]
            values = [max(abs(v - w) for v, w in zip(values, row, strict=True)) for row in centres]
        elif isinstance(layer, MeanShift):
            values = [v - Fraction(m) for v, m in zip(values, layer.mean.tolist(), strict=True)]
    return (values[1] - values[0]) / 2 - Fraction(network.threshold.item())


@pytest.mark.parametrize("size", [1.0, 1e4, 1e8])
def test_distance_nets_with_huge_weights_are_certified_below_their_exact_score(size):
    """Near 1e8 a float64 has steps of 1e-8: a score is rounded by more than the smallest certificates."""
    torch.manual_seed(1)
    network = linf_distance_net((3,), (4,)).double().eval()
    with torch.no_grad():
        for layer in network.body:
            if isinstance(layer, LinfDistance):
                layer.centre += size * torch.randn_like(layer.centre)
            elif isinstance(layer, MeanShift):
                layer.mean += size
    x = torch.rand(100, 3, dtype=torch.float64)
    scores, certified = network(x).detach(), 0
    for margin in (1e-2, 1e-6, 1e-8, 1e-9):
        for one, score in zip(x.split(1), scores, strict=True):
            network.threshold.fill_(score - margin)
            radius = certify(network, one, ["linf"])["linf"].item()
            assert radius <= max(exact_score(network, one), 0)
            if radius > 0:
                certified += 1
                reach, level = torch.full((1,), radius).double(), network.threshold.abs().item()
                error = score_error(network, one, reach, level, layer_bound).item()
                assert radius <= network(one).item() - 2 * error * (1 - 1e-6)  # at both ends
                moved = one + 0.999999 * radius * torch.randn(200, 3, dtype=torch.float64).sign()
                inside = (moved - one).abs().amax(dim=1) < radius
                assert (network(moved[inside]) > 0).all()
    assert certified >= (100 if size == 1e8 else 300)


def test_a_layer_that_stretches_passes_on_the_rounding_before_it_stretched():
    """x + 1e8 - 1e8 is off by up to 7e-9, and a thousand times that by a thousand times as much."""
    shifts = nn.Sequential(MeanShift(1), MeanShift(1))
    shifts[0].mean.fill_(-1e8)
    shifts[1].mean.fill_(1e8)
    stretch = nn.Linear(1, 1, bias=False)
    stretch.weight.data.fill_(1000.0)
    network = LipschitzNetwork(nn.Sequential(*shifts, stretch), "l2").double().eval()
    edge = 0.5 + 1e-8
    network.threshold.fill_(1000 * edge)
    x = edge + torch.linspace(-2e-8, 2e-7, 111, dtype=torch.float64)[:, None]
    assert ((network(x) > 0) & (x < edge)[:, 0]).any()
    radius = certify(network, x, ["l2"])["l2"]
    assert (radius <= (x[:, 0] - edge).clamp(min=0)).all() and (radius > 0).any()
