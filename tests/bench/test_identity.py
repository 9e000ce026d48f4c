"""A method looks the same everywhere, and families are told apart by every kind of colour vision and in greyscale."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from bench.methods import registered_methods
from bench.report.figures.identity import FAMILIES, FREE_COLORS, family_and_slot, shade, shades
from bench.report.figures.line_styles import legend_styles

# Full dichromacy, on linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 2009).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: tuple[float, float, float] | str, vision: str = "normal") -> np.ndarray:
    """CIELAB of an sRGB colour as this vision sees it."""
    srgb = np.array(to_rgb(color))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_families_are_told_apart_by_every_colour_vision(vision: str) -> None:
    for one, other in combinations(FAMILIES.values(), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) >= 20, (one, other)


def test_families_are_told_apart_in_greyscale() -> None:
    lightness = sorted(lab(color)[0] for color in FAMILIES.values())
    assert min(np.diff(lightness)) >= 7  # about three times what the eye just sees


def main_shades() -> dict[str, list[tuple[float, float, float]]]:
    """The shade of each of our methods' main curves, by family."""
    found: dict[str, list] = {}
    for name, cls in registered_methods().items():
        if cls.__module__.startswith("bench."):
            found.setdefault(cls.kind, []).append(shades(name, {}, main=True)[0])
    return found


@pytest.mark.parametrize("vision", VISION)
def test_no_method_is_taken_for_one_of_another_family(vision: str) -> None:
    for one, other in combinations(main_shades().values(), 2):
        for mine, theirs in product(one, other):
            assert np.linalg.norm(lab(mine, vision) - lab(theirs, vision)) >= 12, (mine, theirs)


def test_the_two_blue_families_differ_in_lightness() -> None:
    found = main_shades()
    ours, others = ([lab(color)[0] for color in found[kind]] for kind in ("feature_convex", "lipschitz"))
    assert max(ours) + 10 < min(others)
    # No curve of them crosses over either, whichever shade a further certificate or entry gets.
    ours, others = (
        [lab(color)[0] for color in shades(name, {}, main=False)] for name in ("fcnn", "linf_distance")
    )
    assert max(ours) + 7 < min(others)


def test_every_method_declares_its_family_and_a_slot_of_its_own() -> None:
    ours = {name: cls for name, cls in registered_methods().items() if cls.__module__.startswith("bench.")}
    slots = [(cls.kind, cls.slot) for cls in ours.values()]
    assert {kind for kind, _ in slots} == set(FAMILIES)
    assert all(slot in range(5) for _, slot in slots) and len(set(slots)) == len(slots)


def summary(*methods: str) -> pd.DataFrame:
    facts = {"certificate": "c", "domain": "free", "norm": "l2", "native": True, "certified": 1}
    facts |= {
        "calibrated_on": "validation",
        "near_chance": False,
        "recall_sensitive": 1.0,
        "recall_other": 1.0,
    }
    return pd.DataFrame([{"method": method, **facts} for method in methods])


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    everyone = {name: {"method": name} for name in registered_methods()}
    together = legend_styles(summary(*everyone), everyone)
    for name in everyone:
        alone = legend_styles(summary(name), {name: {"method": name}})
        assert alone[name, "c", "free"].color == together[name, "c", "free"].color
    backwards = dict(reversed(everyone.items()))
    looks = [(style.color, style.marker, style.dashes) for style in together.values()]
    turned = legend_styles(summary(*backwards), backwards)
    assert {(s.color, s.marker, s.dashes) for s in turned.values()} == set(looks) and len(set(looks)) == len(
        looks
    )
    assert all(turned[key].color == style.color for key, style in together.items())


def test_entries_of_a_method_are_shades_of_its_family_and_keep_them() -> None:
    entries = {"fcnn": {"method": "fcnn"}, "fcnn_l1": {"method": "fcnn"}, "fcnn_paper": {"method": "fcnn"}}
    styles = legend_styles(summary(*entries), entries)
    assert len({style.color for style in styles.values()}) == 3
    assert styles["fcnn", "c", "free"].color == to_rgb(FAMILIES["feature_convex"])
    hue = {shade(to_rgb(FAMILIES["feature_convex"]), share / 100) for share in range(-66, 66)}
    assert all(
        min(np.abs(np.subtract(style.color, near)).max() for near in hue) < 0.02 for style in styles.values()
    )


def test_box_and_free_line_of_a_certificate_differ_in_dashes_only() -> None:
    both = pd.concat([summary("fcnn"), summary("fcnn").assign(domain="box")])
    free, box = legend_styles(both, {}).values()
    assert (free.color, free.marker) == (box.color, box.marker) and free.dashes == "-" != box.dashes


def test_an_outside_method_gets_a_free_colour_by_its_name_alone() -> None:
    methods = {"theirs": {"method": "theirs", "kind": "", "slot": None}}
    assert family_and_slot("theirs", methods)[0] == ""
    first = shades("theirs", methods, main=True)[0]
    assert first == shades("theirs", {**methods, "fcnn": {"method": "fcnn"}}, main=True)[0]
    assert all(
        np.linalg.norm(lab(free) - lab(color)) >= 20 for free in FREE_COLORS for color in FAMILIES.values()
    )
    theirs = {"theirs": {"method": "theirs", "kind": "smoothing", "slot": None}}
    kind, slot = family_and_slot("theirs", theirs)
    assert kind == "smoothing" and slot not in {cls.slot for cls in registered_methods().values()}


def test_runs_of_before_get_the_identity_of_the_registered_name_and_newer_ones_keep_their_own() -> None:
    assert family_and_slot("a", {"a": {"method": "sll"}}) == ("lipschitz", 1)
    assert family_and_slot("a", {"a": {"method": "sll", "kind": "bounds", "slot": 3}}) == ("bounds", 3)


@pytest.mark.parametrize("vision", VISION)
def test_a_family_alone_takes_shades_that_are_told_apart_by_every_colour_vision(vision: str) -> None:
    entries = {name: {"method": "fcnn"} for name in ("fcnn", *(f"fcnn_{n}" for n in range(7)))}
    colors = [style.color for style in legend_styles(summary(*entries), entries).values()]
    assert colors[0] == to_rgb(FAMILIES["feature_convex"])
    distances = [
        np.linalg.norm(lab(one, vision) - lab(other, vision)) for one, other in combinations(colors, 2)
    ]
    lightness = sorted(lab(color)[0] for color in colors)
    assert (
        min(distances) >= 5 and min(np.diff(lightness)) >= 3
    )  # more than twice, and once, what the eye just sees
