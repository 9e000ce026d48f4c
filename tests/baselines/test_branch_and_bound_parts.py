"""The parts of branch and bound: networks as chains, regions, relaxations, tightening."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from test_branch_and_bound import every_domain, every_norm, positive_inputs, random_chain
from torch import nn

from baselines.branch_and_bound import Budget, UnsupportedNetwork, certify, to_chain, verify
from baselines.branch_and_bound import radius as radius_search
from baselines.branch_and_bound.branching import costly_neuron, split
from baselines.branch_and_bound.chain import Chain
from baselines.branch_and_bound.region import ORDER, Region
from baselines.branch_and_bound.relaxation import Lines, ascend, bound_score
from baselines.branch_and_bound.settings import Search, Status, Verdicts
from baselines.branch_and_bound.tightening import _least, initial_domains, tighten
from baselines.networks import build_network


class Thresholded(nn.Module):
    """A wrapper as the harness has one: a buffer is subtracted from the score."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("threshold", torch.tensor(0.125))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) - self.threshold


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x + torch.relu(self.first(x)))


def pooled_network() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(4 * 9, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 1)]
    network = nn.Sequential(*layers)
    with torch.no_grad():
        network(torch.rand(64, 2, 6, 6))  # gives the batch norm statistics of its own
    return network


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: Thresholded(build_network("mlp", (1, 5, 5), (12, 7))), (1, 5, 5)),
        (lambda: build_network("convnet", (1, 12, 12)), (1, 12, 12)),
        (pooled_network, (2, 6, 6)),
        (lambda: nn.Linear(6, 1), (6,)),
    ],
)
def test_a_chain_computes_what_the_network_computes(network, shape):
    torch.manual_seed(0)
    model = network().eval()
    x = torch.rand(9, *shape, dtype=torch.float64)
    chain = to_chain(model, shape)
    assert torch.allclose(chain.score(x.flatten(1)), model.double()(x).reshape(-1), rtol=1e-12, atol=1e-12)
    score, gradient = chain.score_and_gradient(x.flatten(1))
    assert torch.equal(score, chain.score(x.flatten(1)))
    x.requires_grad_()
    expected = torch.autograd.grad(model(x).sum(), x)[0].flatten(1)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 1)), "'1' \\(Sigmoid\\)"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2), nn.Flatten()), "'1' \\(MaxPool2d\\)"),
        (Residual(), "add"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), "2 outputs"),
    ],
)
def test_other_networks_are_refused_by_name(network, named):
    with pytest.raises(UnsupportedNetwork, match=named):
        to_chain(network, (4,))


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 1)], "first layer of 40 neurons on 30 inputs"),
        (
            [nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 1)],
            "hidden layer of 60",
        ),
    ],
)
def test_layers_that_are_too_large_as_matrices_are_refused(layers, named, monkeypatch):
    monkeypatch.setattr("baselines.branch_and_bound.chain.MAX_WEIGHTS", 1000)
    with pytest.raises(UnsupportedNetwork, match=named):
        to_chain(nn.Sequential(*layers), (30,))


class Wrapped(nn.Module):
    """A function of the two values of a linear layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(2, 2), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.layer(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda h: (h * h).sum(1),
        lambda h: torch.mul(h, other=h)[:, 0],
        lambda h: (h / h)[:, 0],
        lambda h: (3.0 / h)[:, 0],
        lambda h: h[:, 0] // 2,
        lambda h: torch.div(h, 3, rounding_mode="floor")[:, 0],
        lambda h: torch.relu(h)[:, 0] * h[:, 1],
        lambda h: h[:, 0].round(),
        lambda h: h.reshape(1, -1)[:, 0],
        lambda h: h.flatten()[0:1],
        lambda h: h[0:1, 0].expand(len(h)),
        lambda h: h.flip(0)[:, 0],
        lambda h: h[:, 0] - h[:, 0].mean(),
        lambda h: nn.functional.dropout(h)[:, 0],
        lambda h: h.float()[:, 0],
    ],
)
def test_what_is_no_affine_map_of_each_input_is_refused(function):
    torch.manual_seed(0)
    with pytest.raises(UnsupportedNetwork):
        to_chain(Wrapped(function), (2,))


@pytest.mark.parametrize(
    "function",
    [
        lambda h: torch.add(h, h, alpha=2)[:, 0],
        lambda h: torch.div(h, 3)[:, 0] - h[:, 1],
        lambda h: (torch.tensor([[1.0, 2.0]]).double() @ h.T)[0],
        lambda h: torch.cat([h, torch.relu(h[:, :1] - 1)], dim=1).sum(1) - torch.relu(h[:, :1] - 1)[:, 0],
    ],
)
def test_affine_maps_are_read_exactly_or_refused(function):
    torch.manual_seed(0)
    model = Wrapped(function).double()
    x = 10 * torch.randn(50, 2, dtype=torch.float64)
    try:
        chain = to_chain(model, (2,))
    except UnsupportedNetwork as error:
        assert "shortcut" in str(error)
    else:
        torch.testing.assert_close(chain.score(x), model(x).detach(), rtol=1e-12, atol=1e-12)


def exact_score(chain, x) -> Fraction:
    """The score in rational arithmetic."""
    values = [Fraction(float(value)) for value in x]
    for place, (weight, bias) in enumerate(zip(chain.weights, chain.biases, strict=True)):
        values = [
            Fraction(float(b)) + sum(Fraction(float(w)) * value for w, value in zip(row, values, strict=True))
            for row, b in zip(weight, bias, strict=True)
        ]
        values = values if place == chain.depth else [max(value, Fraction(0)) for value in values]
    return values[0]


def test_rounding_is_bounded_and_nothing_is_proved_below_it():
    """Weights near 1e9 that cancel: a score of 1e-5 is noise."""
    chain = random_chain((6, 20, 20, 1), seed=1)
    for weight in chain.weights[:-1]:
        weight.mul_(3e4)
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chain.biases[-1].sub_(chain.score(x)[0])
    exact = torch.tensor([float(exact_score(chain, point)) for point in x], dtype=torch.float64)
    error = (chain.score(x).double() - exact).abs()
    assert (error <= chain.roundings(x)[-1]).all() and error.max() > 1e-8
    assert (chain.roundings(x)[-1] <= 1e-10 * chain.score(x + 0.1).abs().max()).all()
    chain.biases[-1].add_(float(chain.roundings(x)[-1][0]))  # positive, but by no more than rounding
    assert float(chain.score(x[:1])) > 0
    assert not verify(chain, x[:1], 1e-20, "linf").robust.any()


def test_rounding_of_a_layer_is_passed_on_by_those_after_it():
    """x + 1e8 - 1e8 is off by up to 7e-9, and a thousand times that by a thousand times as much."""
    weights, biases = ([torch.tensor([[w]]).double() for w in (1, 1, 1000)], [1e8, -1e8, 0.0])
    chain = Chain(tuple(weights), tuple(torch.tensor([bias]).double() for bias in biases))
    x = torch.rand(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.tensor([float(exact_score(chain, point)) for point in x], dtype=torch.float64)
    error = (chain.score(x) - exact).abs()
    assert (error <= chain.roundings(x)[-1]).all() and error.max() > 1e-6


@every_norm
@every_domain
def test_linear_minimisation_is_exact(norm, domain):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    x[::3, :2] = 0.0  # corners of the box, where a coordinate cannot move one way
    a = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    radius = torch.linspace(0.05, 4.0, 40).double()
    region = Region.around(x, radius, norm, domain)
    delta, slack = region.minimise(a)
    value = (a * delta).sum(1) + slack
    assert (torch.linalg.vector_norm(delta, ord=ORDER[norm], dim=1) <= radius * (1 + 1e-9)).all()
    assert (delta <= region.upper + 1e-12).all() and (delta >= region.lower - 1e-12).all()
    assert (slack <= 0).all() and (slack >= -1e-9).all()
    samples = torch.randn(3000, 1, 6, generator=generator, dtype=torch.float64)
    size = torch.linalg.vector_norm(samples, ord=ORDER[norm], dim=2, keepdim=True)
    samples = torch.clamp(samples / size * region.radius, region.lower, region.upper)
    assert ((samples * a).sum(2) >= value - 1e-12).all()
    if norm == "l1":
        assert torch.allclose(value, least_in_l1(a, region), atol=1e-9)


@every_domain
def test_a_search_for_the_l2_step_that_is_cut_short_gives_a_lower_bound_still(domain, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(200, 6, generator=generator, dtype=torch.float64)
    a = (
        torch.randn(200, 6, generator=generator, dtype=torch.float64) ** 3
    )  # caps are reached one after the other
    region = Region.around(x, torch.linspace(0.3, 1.5, 200).double(), "l2", domain)
    least, _ = region.minimise(a)
    monkeypatch.setattr("baselines.branch_and_bound.region.NEWTON_STEPS", 1)
    short, slack = region.minimise(a)
    assert bool((slack < -1e-3).any()) == (domain == "box")
    assert ((a * short).sum(1) + slack <= (a * least).sum(1) + 1e-12).all()


@pytest.mark.parametrize("with_halfspace", [False, True])
def test_a_step_that_is_cut_short_leaves_bounds_on_neurons_lower_bounds(with_halfspace, monkeypatch):
    """Neurons of the first layer are affine, so that their least values are known; the halfspace holds everywhere."""
    chain = random_chain((6, 40, 1), seed=3)
    with torch.no_grad():
        chain.weights[0].copy_(chain.weights[0] ** 3)  # caps are reached one after the other
    x = torch.rand(1, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    region = Region.around(x, torch.tensor([0.9]).double(), "l2", "box")
    domains, rows = initial_domains(chain, region, 1), torch.zeros(40, dtype=torch.long)
    step, _ = region.take(rows).minimise(chain.weights[0])
    least = ((x + step) * chain.weights[0]).sum(1) + chain.biases[0]
    everywhere = bound_score(chain, region, domains)
    everywhere = replace(everywhere, constant=everywhere.constant - 1e6) if with_halfspace else None
    monkeypatch.setattr("baselines.branch_and_bound.region.NEWTON_STEPS", 1)
    found = _least(chain, region, domains, 0, rows, torch.arange(40), 1.0, everywhere)
    assert (found <= least + 1e-12).all() and (found < least - 1e-3).any()


def least_in_l1(a: torch.Tensor, region: Region) -> torch.Tensor:
    """The same by linear programming, delta = up - down with sum(up + down) <= radius."""
    values = []
    for row, low, high, radius in zip(a, region.lower, region.upper, region.radius, strict=True):
        bounds = [(0, float(h)) for h in high] + [(0, -float(low_i)) for low_i in low]
        cost = torch.cat([row, -row]).numpy()
        solved = linprog(cost, A_ub=[[1.0] * len(cost)], b_ub=[float(radius)], bounds=bounds)
        values.append(solved.fun)
    return torch.tensor(values, dtype=torch.float64)


def sampled(region: Region, count: int) -> torch.Tensor:
    """Perturbations (count, N, d) inside the region."""
    noise = torch.randn(
        count, *region.center.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)
    )
    size = torch.linalg.vector_norm(noise, ord=ORDER[region.norm], dim=2, keepdim=True)
    length = torch.rand(count, len(region.center), 1, dtype=torch.float64) ** 0.3
    return torch.clamp(noise / size * region.radius * length, region.lower, region.upper)


@every_norm
@every_domain
@pytest.mark.parametrize("slack", [0.0, 0.3])
def test_bounds_hold_at_samples_before_and_after_splits_and_tightening(norm, domain, slack):
    """Tightening keeps what scores up to the slack, which stands for what rounding may add to a score of 0."""
    chain = random_chain((5, 12, 8, 1), seed=3)
    x = torch.rand(400, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    chain.biases[-1].sub_(chain.score(x).median())  # so that the boundary runs through the inputs
    x = x[chain.score(x) > 0][:6]
    radius = torch.full((len(x),), {"l1": 0.9, "l2": 0.5, "linf": 0.25}[norm], dtype=torch.float64)
    region = Region.around(x, radius, norm, domain)
    domains = initial_domains(chain, region, len(x))
    deltas = sampled(region, 2000)
    for _ in range(3):
        part, samples = region.take(domains.query), deltas[:, domains.query]
        bound, _ = ascend(chain, part, domains, 15, torch.full_like(domains.bound, torch.inf))
        check_samples(chain, part, domains, bound, samples, slack)
        tighten(chain, part, domains, bound, [torch.full_like(domains.bound, each) for each in (0, 0, slack)])
        bound = bound_score(chain, part, domains)
        check_samples(chain, part, domains, bound, samples, slack)
        neuron, _ = costly_neuron(domains, bound)
        domains = split(domains, neuron)


@pytest.mark.parametrize(("slack", "empty"), [(0.02, False), (0.005, True)])
def test_a_range_that_rounding_may_have_emptied_is_not_taken_for_empty(slack, empty):
    chain = random_chain((5, 12, 1), seed=3)
    region = Region.around(
        torch.full((1, 5), 0.5, dtype=torch.float64), torch.tensor([0.1]).double(), "l2", "free"
    )
    domains = initial_domains(chain, region, 1)
    domains.lower[0][0, 4] = domains.upper[0][0, 4] + 0.01
    bound = bound_score(chain, region, domains)
    tighten(chain, region, domains, bound, [torch.full_like(domains.bound, each) for each in (slack, 0)])
    assert bool(domains.bound.isinf() & (domains.bound > 0)) == empty


def check_samples(chain, region, domains, bound, deltas, slack) -> None:
    """At samples of the sub-domain with a score <= slack: pre-activations in their bounds, score above its bound."""
    points = region.center + deltas
    values = [z.reshape(*deltas.shape[:2], -1) for z in chain.preactivations(points.flatten(0, 1))]
    score = values.pop()[..., 0]
    inside = score <= slack
    for z, sign in zip(values, domains.sign, strict=True):
        inside &= (z * sign >= 0).all(2)
    assert inside.sum() > 100
    for z, lower, upper in zip(values, domains.lower, domains.upper, strict=True):
        outside = (z < lower - 1e-9) | (z > upper + 1e-9)
        assert not outside[inside].any()
    linear = (deltas * bound.direction).sum(2) + bound.constant
    assert (linear <= score + 1e-9)[inside].all()
    assert (bound.value <= linear.amin(0) + 1e-9).all()


def test_lines_enclose_the_relu():
    chain = random_chain((5, 40, 1), seed=5)
    region = Region.around(positive_inputs(chain, 8, seed=6), torch.full((8,), 0.3).double(), "linf", "free")
    domains = initial_domains(chain, region, 8)
    lines = Lines.of(domains)
    lower, upper = domains.lower[0], domains.upper[0]
    assert ((lower < 0) & (upper > 0)).any() and (upper < 0).any()
    for share in torch.linspace(0, 1, 21):
        z = lower + share * (upper - lower)
        assert (lines.steep[0] * z + lines.offset[0] >= z.relu() - 1e-12).all()
        for slope in (lines.least[0], lines.most[0]):
            assert (slope * z <= z.relu() + 1e-12).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_margin_that_is_lost_in_rounding_is_not_halved_to_nothing(norm, monkeypatch):
    """Beside sums of 1e8 a margin of 1e-9 proves nothing at any radius: a few tries say so."""
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double().eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1e8, 0.0], [0.0, 1e8], [1e8, 1e8]]))
        network[0].bias.zero_()
        network[2].weight.fill_(-1.0)
        network[2].bias.fill_(1e-9)
    tries = []
    whole = radius_search.verify
    monkeypatch.setattr(radius_search, "verify", lambda *given: tries.append(1) or whole(*given))
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = certify(to_chain(network, (2,)), x, norm, "free", Budget(max_domains=20))
    assert float(found.radius) < 1e-13 and len(tries) < 100


def test_a_failed_try_below_the_upper_end_does_not_lower_where_the_next_budget_looks(monkeypatch):
    network = nn.Sequential(nn.Linear(1, 1)).double().eval()
    chain, x = to_chain(network, (1,)), torch.ones(1, 1, dtype=torch.float64)
    bracket = radius_search._Bracket(chain, x, "l2", "free", None, max_radius=3.0)
    bracket.lower, bracket.upper = torch.tensor([1.0]).double(), torch.tensor([2.0]).double()
    bracket.reopen()
    tried = []

    def undecided(chain, x, radius, *rest):
        tried.append(radius.item())
        status = np.array([Status.TIMEOUT], dtype=object)
        return Verdicts(
            status, torch.full_like(x, torch.nan), torch.zeros(1).double(), np.zeros(1, dtype=int)
        )

    monkeypatch.setattr(radius_search, "verify", undecided)
    bracket.probe(Budget(max_domains=1), Search(), 0.01, None)
    assert len(tried) == 1 and 1.9 < tried[0] < 2.0
    assert (bracket.lower.item(), bracket.ceiling.item(), bracket.upper.item()) == (1.0, 2.0, 2.0)
