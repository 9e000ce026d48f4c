"""No certificate above the truth on networks of whole numbers, dead units, ties, kinks and odd scales.

``python -m tools.fuzz --minutes 30`` does the same for longer.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcnn import certify
from fcnn.certificates import closed_forms
from tools.fuzz.convex import FEATURE_MAPS
from tools.fuzz.families import SHARES, build
from tools.fuzz.holding import hold
from tools.fuzz.recipes import INPUTS, MARGINS, SCALED, SCALES, TWISTS, Recipe, draw

calm = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def recipes(families):
    return st.builds(
        Recipe,
        family=st.sampled_from(families),
        kind=st.integers(0, 11),
        seed=st.integers(0, 2**31 - 1),
        dimension=st.integers(1, 5),
        widths=st.lists(st.integers(1, 5), max_size=2).map(tuple),
        magnitude=st.sampled_from([1, 2, 9]),
        twist=st.sampled_from(TWISTS),
        scale=st.sampled_from(sorted(set(SCALES))),
        scaled=st.sampled_from(SCALED),
        inputs=st.sampled_from(INPUTS),
        margin=st.sampled_from(MARGINS),
        feature_map=st.sampled_from(sorted(set(FEATURE_MAPS))),
        count=st.just(12),
    )


def violations(case):
    assert not case.faults, case.faults
    return [found for held in hold(case).values() for found in held.violations]


@settings(max_examples=8, **calm)
@given(recipes(["convex", "linear"]))
def test_no_radius_of_a_convex_or_linear_score_is_above_the_truth(recipe):
    assert violations(build(recipe)) == []


@settings(max_examples=6, **calm)
@given(recipes(["lipschitz", "learned", "union", "bounds", "splitting", "smoothing"]))
def test_no_radius_of_another_method_is_above_the_truth(recipe):
    assert violations(build(recipe)) == []


@pytest.mark.slow
@settings(max_examples=400, **calm)
@given(recipes(list(SHARES)))
def test_no_radius_is_above_the_truth(recipe):
    assert violations(build(recipe)) == []


def held_and_violations(family, seeds, **changes):
    rng, held, found = np.random.default_rng(0), 0, []
    for _ in range(seeds):
        # The walk of "refined" notices some faults by itself, and withdraws its radii: that is no violation.
        for one in hold(build(replace(draw(rng, family, ("identity",)), count=12))).values():
            held += one.points
            found += one.violations
    return held, found


def test_radii_a_thousandth_too_large_are_caught(monkeypatch):
    monkeypatch.setattr(
        "fcnn.tangent_radii.closed_forms",
        lambda *arguments, **options: {
            norm: 1.001 * radius for norm, radius in closed_forms(*arguments, **options).items()
        },
    )
    held, found = held_and_violations("convex", 4)
    assert held > 50
    assert any(violation.key.certificate == "closed_form" for violation in found)


def test_caps_of_the_box_on_the_wrong_side_are_caught(monkeypatch):
    real = certify.tangent_radius
    monkeypatch.setattr(
        certify, "tangent_radius", lambda certified, m, a, x, *rest: real(certified, m, a, 1 - x, *rest)
    )
    _, found = held_and_violations("convex", 4)
    assert any(violation.key.domain == "box" for violation in found)


def test_swapped_dual_norms_are_caught(monkeypatch):
    from fcnn import certificates

    monkeypatch.setattr(certificates, "DUAL_ORDER", {"l1": 1.0, "l2": 2.0, "linf": torch.inf})
    _, found = held_and_violations("convex", 4)
    assert any(violation.key.norm == "linf" for violation in found)
