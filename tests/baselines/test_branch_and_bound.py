"""Branch and bound against exact answers, mixed-integer programs, samples and attacks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from mixed_integer import least_score
from torch import nn

from baselines.bounds import certified_radii
from baselines.branch_and_bound import Budget, Chain, Ending, Search, Status, certify, to_chain, verify

NORMS = ("l1", "l2", "linf")
every_norm = pytest.mark.parametrize("norm", NORMS)
every_domain = pytest.mark.parametrize("domain", ("free", "box"))
NORM_ORDER = {"l1": 1, "l2": 2, "linf": float("inf")}
# The reference radii are known to about this relative accuracy.
REFERENCE = 2e-5


def random_chain(widths: tuple[int, ...], seed: int) -> Chain:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = tuple(1.5 * normal(b, a) / a**0.5 for a, b in pairwise(widths))
    return Chain(weights, tuple(0.3 * normal(b) for b in widths[1:]))


def positive_inputs(chain: Chain, count: int, seed: int) -> torch.Tensor:
    x = torch.rand(400, chain.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x[chain.score(x) > 0][:count]


@pytest.fixture(scope="module")
def reference(vectors):
    """The reference network, its inputs and its exact radii."""
    data = np.load(vectors / "relu_exact_radii.npz")
    w0, b0, w1, b1 = (torch.tensor(data[name]) for name in ("W0", "b0", "W1", "b1"))
    return Chain((w0, w1[:1] - w1[1:]), (b0, b1[:1] - b1[1:])), torch.tensor(data["x"]), data


def exact_radii(data, norm: str, domain: str) -> torch.Tensor:
    return torch.tensor(data[f"exact_{norm}" + ("_box" if domain == "box" else "")])


@every_norm
@every_domain
def test_radii_bracket_the_exact_ones(reference, norm, domain):
    chain, x, data = reference
    exact = exact_radii(data, norm, domain)
    found = certify(chain, x, norm, domain, tolerance=8e-3)
    assert (found.radius <= exact * (1 + REFERENCE)).all()
    assert (found.radius >= 0.99 * exact).all()
    assert (found.radius_upper >= exact * (1 - REFERENCE)).all()
    assert (found.radius_upper <= 1.01 * exact).all()
    assert (found.radius <= found.radius_upper).all()
    assert (found.ending == Ending.EXACT).all()


@every_norm
@every_domain
def test_decisions_just_below_and_above_the_exact_radii(reference, norm, domain):
    chain, x, data = reference
    exact = exact_radii(data, norm, domain)
    assert verify(chain, x, 0.998 * exact, norm, domain).robust.all()
    assert verify(chain, x, 1.002 * exact, norm, domain).not_robust.all()


@every_domain
@pytest.mark.parametrize(
    ("widths", "seeds"), [((6, 12, 1), (4, 7)), ((5, 10, 8, 1), (0, 7)), ((5, 8, 8, 6, 1), (2, 3))]
)
def test_every_decision_agrees_with_a_mixed_integer_program(widths, seeds, domain):
    answers = set()
    for seed in seeds:
        chain = random_chain(widths, seed)
        x = positive_inputs(chain, 3, seed)
        for radius in (0.15, 0.5):
            status = verify(chain, x, radius, "linf", domain).status
            for center, answer in zip(x.numpy(), status, strict=True):
                low, high = center - radius, center + radius
                if domain == "box":
                    low, high = low.clip(min=0), high.clip(max=1)
                robust = least_score(chain, low, high) > 0
                assert answer == (Status.ROBUST if robust else Status.NOT_ROBUST)
                answers.add(str(answer))
    assert answers == {"robust", "not_robust"}


@every_norm
@every_domain
def test_counterexamples_are_allowed_and_wrong(norm, domain):
    chain = random_chain((8, 30, 1), seed=5)
    x = positive_inputs(chain, 20, seed=6)
    radius = torch.linspace(0.1, 0.6, len(x)).double() * {"l1": 3.0, "l2": 1.5, "linf": 0.5}[norm]
    found = verify(chain, x, radius, norm, domain)
    wrong = torch.as_tensor(found.not_robust)
    assert 3 < wrong.sum() < len(x)
    points = found.counterexample[wrong]
    assert (chain.score(points) <= 0).all()
    distance = torch.linalg.vector_norm(points - x[wrong], ord=NORM_ORDER[norm], dim=1)
    assert (distance <= radius[wrong] * (1 + 1e-9)).all()
    assert domain == "free" or (points.min() >= -1e-12 and points.max() <= 1 + 1e-12)
    assert found.counterexample[~wrong].isnan().all()


def trained_network(seed: int) -> nn.Sequential:
    """A network after real training steps, where neurons die, grow and align."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 1), nn.Flatten(0))
    x = torch.rand(256, 10)
    y = ((x[:, 0] - x[:, 1] * x[:, 2] + 0.3 * torch.sin(6 * x[:, 3])) > 0.3).float()
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model


@every_norm
@every_domain
def test_no_attack_succeeds_inside_a_certified_radius(norm, domain):
    model = trained_network(seed=0)
    chain = to_chain(model, (10,))
    x = torch.rand(300, 10, generator=torch.Generator().manual_seed(1))
    x = x[model(x) > 0.2][:8]
    found = certify(model, x, norm, domain, tolerance=0.01)
    assert (found.ending == Ending.EXACT).all()
    generator = torch.Generator().manual_seed(2)
    radius = found.radius[:, None].clamp(max=100.0)
    for _ in range(10):
        delta = torch.randn(8, 10, generator=generator, dtype=torch.float64)
        for _ in range(40):
            point = (x.double() + delta).requires_grad_()
            gradient = torch.autograd.grad(chain.score(point).sum(), point)[0]
            step = gradient.sign() if norm == "linf" else gradient
            delta = delta - 0.2 * radius * step / torch.linalg.vector_norm(step, dim=1, keepdim=True)
            if domain == "box":
                delta = (x + delta).clamp(0, 1) - x
            size = torch.linalg.vector_norm(delta, ord=NORM_ORDER[norm], dim=1, keepdim=True)
            delta = delta * (radius / size).clamp(max=1.0)
            assert (chain.score(x + delta) > 0).all()


@every_norm
@every_domain
def test_a_linear_network_gets_its_exact_distance(norm, domain):
    weight = torch.tensor([[0.5, -0.25, 0.125, 0.75]])
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.fill_(-0.25)
    x = torch.tensor([[0.5625, 0.5, 0.25, 0.5], [0.5, 0.5, 0.5, 0.5]])
    margin = (x.double() @ weight.double().T - 0.25)[:, 0]
    dual = torch.linalg.vector_norm(weight.double(), ord={"l1": float("inf"), "l2": 2, "linf": 1}[norm])
    found = certify(model, x, norm, domain)
    exact = margin / dual  # here the nearest boundary point lies in the box in every norm
    assert (found.radius <= exact).all() and (found.radius >= 0.998 * exact).all()


def test_a_network_that_is_always_positive_certifies_the_whole_box():
    chain = Chain(
        (torch.eye(3).double(), torch.ones(1, 3).double()), (torch.zeros(3).double(), torch.ones(1).double())
    )
    x = torch.full((2, 3), 0.25)
    assert (certify(chain, x, "l2", "box").radius == torch.inf).all()
    limited = certify(chain, x, "l2", "free", max_radius=2.0)
    assert limited.reached_limit.all() and torch.allclose(limited.radius, torch.tensor(2.0).double())


def test_inputs_that_are_not_sensitive_get_radius_zero():
    chain = random_chain((4, 6, 1), seed=2)
    x = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = x[chain.score(x) <= 0]
    assert len(x) > 3
    found = certify(chain, x, "l2")
    assert (found.radius == 0).all() and (found.radius_upper == 0).all()


@every_norm
@every_domain
def test_radii_are_at_least_those_of_bound_propagation(reference, norm, domain):
    chain, x, data = reference
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 1)).double()
    with torch.no_grad():
        for layer, weight, bias in zip((model[0], model[2]), chain.weights, chain.biases, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    looser = certified_radii(model, x, norm, "alpha_crown", domain).radius
    found = certify(model, x, norm, domain, tolerance=5e-3)
    assert (found.radius >= looser * (1 - 5e-3)).all()
    assert (found.radius > looser * 1.05).any(), "splitting should gain something"
    started = certify(model, x, norm, domain, start=looser, tolerance=0.05)
    assert (started.radius >= looser).all()
    assert (started.radius <= exact_radii(data, norm, domain) * (1 + REFERENCE)).all()


def test_the_budget_ends_a_search_and_the_answer_says_so():
    chain = random_chain((20, 60, 1), seed=8)
    x = positive_inputs(chain, 6, seed=8)
    search = Search(rounds=0)
    radius = certify(chain, x, "l2", budget=Budget(max_domains=0), search=search).radius * 1.05
    none = verify(chain, x, radius, "l2", budget=Budget(max_domains=0), search=search)
    some = verify(chain, x, radius, "l2", budget=Budget(max_domains=400), search=search)
    assert (none.status == Status.TIMEOUT).sum() > (some.status == Status.TIMEOUT).sum()
    assert (none.domains <= 1).all() and (
        none.bound[torch.as_tensor(none.status == Status.TIMEOUT)] <= 0
    ).all()
    again = verify(chain, x, radius, "l2", budget=Budget(max_domains=400), search=search)
    assert (again.status == some.status).all() and torch.equal(again.bound, some.bound)
    hurried = verify(chain, x, radius, "l2", budget=Budget(10**6, seconds=1e-6), search=search)
    assert not (hurried.robust & ~none.robust).any()


def test_weights_that_are_no_numbers_prove_nothing():
    chain = random_chain((4, 6, 1), seed=1)
    chain.weights[0][2, 1] = torch.nan
    found = verify(chain, torch.full((2, 4), 0.5), 0.1, "l2")
    assert not found.robust.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l3"}, "unknown norm 'l3': choose one of l1, l2, linf"),
        ({"domain": "cube"}, "unknown domain 'cube'"),
        ({"x": torch.full((1, 4), torch.nan)}, "not finite"),
        ({"x": torch.full((1, 4), 1.5), "domain": "box"}, "needs inputs in \\[0, 1\\]"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"max_radius": -1.0}, "max_radius is -1.0"),
    ],
)
def test_requests_that_make_no_sense_are_refused(change, message):
    request = {"x": torch.full((1, 4), 0.5), "norm": "l2"} | change
    with pytest.raises(ValueError, match=message):
        certify(random_chain((4, 6, 1), seed=1), **request)


def test_budgets_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="max_domains is -1"):
        Budget(max_domains=-1)
    with pytest.raises(ValueError, match="seconds is 0"):
        Budget(seconds=0.0)
