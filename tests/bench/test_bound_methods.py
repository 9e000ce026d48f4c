"""Bounds and branch and bound in the harness: one function predicts and is certified, and a failure is told as one."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.bounds import BoundedScore, RadiusSearch
from baselines.branch_and_bound import CertifiedRange, Ending
from bench.contract import Curve, Outcome
from bench.methods._frozen import FrozenNetwork
from bench.methods.alpha_beta_crown import AlphaBetaCROWN, AlphaBetaCROWNSettings, GivenBranchAndBound
from bench.methods.crown import CROWN
from bench.methods.crown_adversarial import CROWNAdversarial
from bench.methods.given import GivenNetwork
from bench.methods.ibp import IBP

METHODS = (CROWN, CROWNAdversarial, IBP, AlphaBetaCROWN)
QUICK = AlphaBetaCROWNSettings(hidden=(8,), max_domains=16)


def built(kind: type, settings=None, shape: tuple[int, ...] = (40,)):
    method = kind(settings)
    method.build(shape, 0)
    return method


@pytest.mark.parametrize("kind", METHODS)
def test_the_network_in_float64_predicts(kind):
    """Scores closer to zero than float32 can tell: the prediction is that of the function that is certified."""
    method = built(kind)
    x = torch.rand(64, 40)
    exact = method.network((40,)).double().eval()
    exact.load_state_dict(method.model.state_dict())
    scores = exact(x.double()).detach()
    torch.testing.assert_close(method.score(x), scores, rtol=0, atol=0)
    assert method.score(x).dtype == torch.float64
    # Tell apart inputs by less than the spacing of float32 at the score's size.
    with torch.no_grad():
        method.model.threshold.fill_(float(scores[0]))
    above = scores > float(method.model.threshold)
    assert torch.equal(method.predict(x, 0) == 1, above)
    x32 = x.clone().requires_grad_()
    method.score(x32).sum().backward()
    assert x32.grad.dtype == torch.float32 and x32.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", METHODS)
def test_predictions_at_the_edge_of_a_certificate_with_a_small_margin(kind):
    method = built(kind, QUICK if kind is AlphaBetaCROWN else None)
    curve = method.curves()[0]
    x = torch.rand(24, 40, generator=torch.Generator().manual_seed(1))
    scores = method.score(x).detach()
    generator = torch.Generator().manual_seed(2)
    for place in range(6):
        with torch.no_grad():
            method.model.threshold.fill_(float(scores[place] - 1e-5))
            method.model.threshold.copy_(method.model.threshold)
        one = x[place : place + 1]
        if int(method.predict(one, 0)) != 1:
            continue
        radius = method.certify(one, curve, ("linf",), 0)["linf"].radius[0]
        point = one.double().requires_grad_()
        (slope,) = torch.autograd.grad(method.score(point).sum(), point)
        for share in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
            noise = share * (2 * torch.rand(50, 40, generator=generator, dtype=torch.float64) - 1)
            points = (one.double() - radius * ((1 - share) * slope.sign() + noise)).float()
            inside = (points.double() - one.double()).abs().amax(dim=1) < radius
            assert (method.predict(points[inside], 0) == 1).all()


def test_the_copy_follows_every_change_of_the_weights():
    model = nn.Linear(3, 1)
    frozen, x = FrozenNetwork(), torch.rand(2, 3).double()
    first = frozen.network(model)
    assert frozen.network(model) is first
    made = frozen.kept("thing", lambda network: object())
    assert frozen.kept("thing", lambda network: object()) is made
    model.weight.data[0, 0] += 1  # autograd's version counter does not see this
    second = frozen.network(model)
    assert second is not first and frozen.kept("thing", lambda network: object()) is not made
    torch.testing.assert_close(second(x), model.double()(x))
    model.float()
    with torch.no_grad():
        model.bias.fill_(2.0)
    assert float(frozen.network(model).bias) == 2.0


class Failing(nn.Module):
    """Something that the harness's author got wrong."""

    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("compute_bounds() got an unexpected keyword argument")


class Softmaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.layer(x), dim=1)[:, 0]


@pytest.mark.parametrize("kind", METHODS)
def test_only_what_is_known_to_be_unsupported_is_called_so(kind, monkeypatch):
    method = built(kind, QUICK if kind is AlphaBetaCROWN else None, (4,))
    curve, x = method.curves()[0], torch.rand(2, 4)
    method.model = Softmaxed()
    found = method.certify(x, curve, ("l2",), 0)["l2"]
    assert (found.outcome == Outcome.UNSUPPORTED).all() and "softmax" in found.reason
    method.model = Failing()
    with pytest.raises(TypeError, match="unexpected keyword"):
        method.certify(x, curve, ("l2",), 0)
    method.build((4,), 0)
    target = "baselines.branch_and_bound.radius.verify" if kind is AlphaBetaCROWN else None

    def broken(*arguments, **named):
        raise TypeError("an internal fault")

    monkeypatch.setattr(target or "baselines.bounds.propagation.BoundedScore.lower", broken)
    with torch.no_grad():
        method.model.threshold.fill_(float(method.score(x).min()) - 1)
    with pytest.raises(TypeError, match="internal fault"):
        method.certify(x, curve, ("l2",), 0)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_branch_and_bound_in_the_box_is_never_below_the_free_radius(norm):
    """At a coarse tolerance two searches differ by far more than the box adds."""
    settings = dataclasses.replace(QUICK, tolerance=0.3)
    method = built(AlphaBetaCROWN, settings, (6,))
    x = 0.3 + 0.4 * torch.rand(30, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        method.model.threshold.fill_(float(method.score(x).min()) - 0.02)
    box = method.certify(x, Curve("alpha_beta_crown", "box"), (norm,), 7)[norm]
    free = method.certify(x, Curve("alpha_beta_crown", "free"), (norm,), 5)[norm]
    assert (box.radius >= free.radius).all() and (free.radius > 0).all()
    assert (box.radius <= box.radius_upper).all()
    again = built(AlphaBetaCROWN, settings, (6,))
    again.load_state(method.state())
    alone = again.certify(x, Curve("alpha_beta_crown", "free"), (norm,), 11)[norm]
    assert (alone.radius == free.radius).all(), "neither the order of the curves nor the seed matters"


def test_how_branch_and_bound_searches_is_a_setting(monkeypatch):
    seen = []

    def spy(chains, x, norm, domain, budget, search, *rest):
        seen.append(search)
        raise RuntimeError("seen")

    monkeypatch.setattr("bench.methods.alpha_beta_crown.certify_all", spy)
    settings = dataclasses.replace(QUICK, root_steps=3, refine_depth=2, restarts=1, search_steps=4, rounds=5)
    method = built(AlphaBetaCROWN, settings)
    with pytest.raises(RuntimeError, match="seen"):
        method.certify(torch.rand(1, 40), Curve("alpha_beta_crown"), ("l2",), 0)
    assert (seen[0].root_steps, seen[0].refine_depth, seen[0].restarts) == (3, 2, 1)
    assert (seen[0].attack_steps, seen[0].rounds) == (4, 5)


def test_branch_and_bound_of_a_given_network_starts_from_crown(monkeypatch):
    """Whatever the search itself proves in its time."""
    monkeypatch.setattr(
        "bench.methods.alpha_beta_crown.certify_all",
        lambda chains, x, norm, domain, budget, search, tolerance, start, mutable: CertifiedRange(
            start, torch.full_like(start, torch.inf), np.full(len(start), Ending.LOWER_BOUND), start > 0
        ),
    )
    given = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double().requires_grad_(False)
    x = torch.rand(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x[given(x).amin(dim=1) > given(x).amin(dim=1).quantile(0.9)]
    with torch.no_grad():
        given[2].bias += 0.1 - given(x).amin()
    method = GivenBranchAndBound(AlphaBetaCROWNSettings(seconds=60.0))
    method.given = GivenNetwork(given, (6,))
    method.build((6,), 0)
    found = method.certify(x, Curve("alpha_beta_crown"), ("l2",), 0)["l2"]
    expected = RadiusSearch(BoundedScore(given, (6,)), x, "l2", tolerance=0.02).radii("crown").radius
    np.testing.assert_allclose(found.radius, expected, rtol=0.03)
    assert (found.radius > 0).all()
