"""Certified radii by bound propagation against exact ones, and what the search promises."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.bounds import METHODS, BoundedScore, RadiusSearch, certified_radii, certify

NORMS = ("l1", "l2", "linf")
DUAL = {"l1": float("inf"), "l2": 2.0, "linf": 1.0}
# The reference radii are accurate to about 1e-5.
REFERENCE_ACCURACY = 2e-5


@pytest.fixture(scope="module")
def reference(vectors) -> dict[str, np.ndarray]:
    with np.load(vectors / "relu_exact_radii.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def reference_score(reference) -> BoundedScore:
    hidden = nn.Linear(6, 7).double()
    out = nn.Linear(7, 1).double()
    with torch.no_grad():
        hidden.weight.copy_(torch.from_numpy(reference["W0"]))
        hidden.bias.copy_(torch.from_numpy(reference["b0"]))
        out.weight.copy_(torch.from_numpy(reference["W1"][:1] - reference["W1"][1:]))
        out.bias.copy_(torch.from_numpy(reference["b1"][:1] - reference["b1"][1:]))
    return BoundedScore(nn.Sequential(hidden, nn.ReLU(), out), (6,))


@pytest.mark.parametrize("domain", ["free", "box"])
@pytest.mark.parametrize("norm", NORMS)
def test_branch_and_bound_reaches_the_exact_radius(reference, reference_score, norm, domain):
    x = torch.from_numpy(reference["x"])
    exact = torch.from_numpy(reference[f"exact_{norm}" + ("_box" if domain == "box" else "")])
    radius = certify(reference_score, x, norm, "alpha_beta_crown", domain, tolerance=8e-3)
    assert (radius >= certify(reference_score, x, norm, "alpha_crown", domain, tolerance=8e-3)).all()
    assert (radius <= exact * (1 + REFERENCE_ACCURACY)).all()
    assert (radius >= 0.99 * exact).all()


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_radii_of_scores_that_cancel_stay_below_the_exact_distance(method):
    """Terms of 1e6 and scores of 1e-6: rounding is a share of 1e-4 of them, which no relative shave covers."""
    rng = np.random.default_rng(1)
    weight, x = rng.normal(size=8) * 1e6, rng.random((60, 8))
    x[:, 7] = (1e-6 - x[:, :7] @ weight[:7]) / weight[7]
    found = certify(linear(torch.from_numpy(weight), 0.0), torch.from_numpy(x), "linf", method)
    for row, radius in zip(x, found.tolist(), strict=True):
        score = sum(Fraction(w) * Fraction(value) for w, value in zip(weight, row, strict=True))
        assert Fraction(radius) <= max(score / sum(abs(Fraction(w)) for w in weight), 0)
    assert (found > 0).sum() > 30


def linear(weight: Tensor, bias: float) -> nn.Module:
    layer = nn.Linear(len(weight), 1).double()
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        layer.bias.fill_(bias)
    return layer


@pytest.mark.parametrize("norm", NORMS)
def test_the_chain_of_methods_stays_below_the_exact_radius(reference, reference_score, norm):
    x = torch.from_numpy(reference["x"])
    search = RadiusSearch(reference_score, x, norm)
    for domain in ("free", "box"):
        exact = torch.from_numpy(reference[f"exact_{norm}" + ("_box" if domain == "box" else "")])
        radii = [search.radii(method, domain).radius for method in METHODS]
        for looser, tighter in pairwise(radii):
            assert (tighter >= looser).all()
        assert (radii[-1] <= exact * (1 + REFERENCE_ACCURACY)).all()
        assert (radii[0] > 0).all()
        # Some of these inputs are so far from the ReLUs' kinks that linear bounds are exact.
        assert radii[-1].max() > 0 and ((radii[-1] / exact) > 1 - 1e-3).sum() >= 4
    free, box = search.radii("crown", "free").radius, search.radii("crown", "box").radius
    assert (box >= free).all() and (box > free * 1.01).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", METHODS)
def test_radius_of_a_linear_model_is_the_distance_to_the_plane(norm, method):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(9, generator=generator, dtype=torch.float64)
    model = linear(weight, 0.2)
    x = torch.rand(20, 9, generator=generator, dtype=torch.float64)
    margin = model(x).detach().squeeze(1)
    exact = (margin / torch.linalg.vector_norm(weight, ord=DUAL[norm])).clamp(min=0)
    radius = certify(model, x, norm, method, tolerance=1e-7)
    assert (radius <= exact).all()
    torch.testing.assert_close(radius, exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_box_radius_is_infinite_exactly_where_the_whole_box_is_certified(norm):
    weight = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x = torch.tensor([[0.9, 0.2], [0.5, 0.5]], dtype=torch.float64)
    assert certify(linear(weight, 1.01), x, norm, "crown", "box").isinf().all()
    found = certified_radii(linear(weight, 0.99), x, norm, "crown", "box", tolerance=1e-6)
    # The score falls to zero just before the corner (0, 1), at distance (0.9, 0.8) and (0.5, 0.5).
    room = torch.maximum(x, 1 - x)
    farthest = torch.linalg.vector_norm(room, ord={"l1": 1, "l2": 2, "linf": float("inf")}[norm], dim=1)
    assert (found.radius < farthest).all() and not found.reached_limit.any()
    assert (found.radius > 0.9 * farthest).all()


@pytest.mark.parametrize("method", ["ibp", "alpha_beta_crown"])
@pytest.mark.parametrize("domain", ["free", "box"])
def test_a_search_that_hits_its_limit_says_so(domain, method):
    """Positive in all of the box, but nothing is said beyond the largest radius that was to be tried."""
    model = linear(torch.ones(3, dtype=torch.float64), 0.1)
    found = certified_radii(model, torch.ones(2, 3), "linf", method, domain, max_radius=0.25)
    assert found.reached_limit.all()
    torch.testing.assert_close(found.radius, torch.full((2,), 0.25, dtype=torch.float64), rtol=1e-6, atol=0)


def test_inputs_that_are_not_sensitive_get_radius_zero():
    model = linear(torch.ones(3, dtype=torch.float64), -1.5)
    x = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]])
    radius = certify(model, x, "l2", "crown")
    assert radius[0] == 0 and radius[1] > 0


@pytest.mark.parametrize("domain", ["free", "box"])
def test_radii_do_not_depend_on_the_other_inputs_of_the_batch(reference, reference_score, domain):
    x = torch.from_numpy(reference["x"])
    together = certify(reference_score, x, "l2", "crown", domain)
    alone = torch.cat([certify(reference_score, x[i : i + 1], "l2", "crown", domain) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=0)


def test_no_inputs_give_no_radii(reference_score):
    assert certify(reference_score, torch.zeros(0, 6), "l1", "crown", "box").shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "l3"}, "unknown norm 'l3': choose one of l1, l2, linf"),
        ({"method": "magic"}, "unknown method 'magic': choose one of ibp"),
        ({"domain": "cube"}, "unknown domain 'cube': choose one of free, box"),
        ({"max_radius": -1.0}, "max_radius is -1.0, it must be positive"),
        ({"x": torch.full((1, 6), 2.0), "domain": "box"}, r"needs inputs in \[0, 1\], found 2 to 2"),
        ({"x": torch.full((1, 6), float("nan"))}, "not finite"),
        ({"x": torch.zeros(1, 5)}, r"inputs have shape \(5,\), the network was built for \(6,\)"),
    ],
)
def test_bad_requests_are_refused(reference_score, change, message):
    request = {"x": torch.zeros(1, 6), "norm": "l2", "method": "crown"} | change
    with pytest.raises(ValueError, match=message):
        certify(reference_score, **request)
