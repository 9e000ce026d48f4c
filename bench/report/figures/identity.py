"""One identity for every method: a colour per family and a shade per method, the same in every figure and report.

A method class declares ``kind``, its family, and ``slot``, its shade of the family's colour; a run's ``run.json`` keeps
both. Runs written before that get them from the registered name; a method that declares none gets free ones by a stable
hash of its name. The colours of the families differ for every kind of colour vision and in lightness.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from bench.methods import registered_methods

Color = tuple[float, float, float]

FAMILIES = {
    "feature_convex": "#0a3f9c",
    "smoothing": "#dc5a0a",
    "bounds": "#0b7d58",
    "verification": "#a32478",
    "lipschitz": "#4aaae3",
    "linear": "#202020",
}
FAMILY_NAMES = {
    "feature_convex": "feature-convex",
    "smoothing": "smoothing",
    "bounds": "bounds",
    "verification": "complete verification",
    "lipschitz": "Lipschitz",
    "linear": "linear",
}
# For curves that are all feature-convex networks': the family's colour, a lighter and a darker shade.
OWN, OWN_LIGHT, OWN_DARK = FAMILIES["feature_convex"], "#6f94d6", "#03153a"
# For methods of no family: none is near a family's colour.
FREE_COLORS = ("#7a5230", "#6b7a00", "#5c5c78", "#b08a2e")
# Shares of white (positive) or black (negative) mixed in: first those of the slots, then those between them. The two
# blue families keep to their own side of middle grey, so that a dark one is never taken for a light one.
SLOT_SHADES = (0.0, 0.3, -0.34, 0.46, -0.52, 0.16, -0.18, 0.38)
SHADES_OF_FAMILY = {
    "feature_convex": (0.0, 0.24, -0.5, 0.12, -0.3, 0.06, -0.16, 0.18),
    "lipschitz": (0.0, 0.3, -0.14, 0.5, 0.15, 0.4, -0.07, 0.22),
}
# The contrast of letters against white below which they are darkened: what WCAG 2 asks for of text is 4.5.
READABLE = 4.5
MORE_SHADES = (
    0.23,
    -0.26,
    0.08,
    -0.43,
    0.42,
    -0.1,
    0.34,
    -0.6,
    0.12,
    0.5,
    -0.3,
    0.27,
    -0.14,
    0.2,
    -0.47,
    0.04,
)


def registered(name: str, methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the registered name of a run's method; methods as in run.json."""
    return str(methods.get(name, {}).get("method") or name)


def family_and_slot(name: str, methods: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """Return the family ("" for none) and the slot of a run's method; methods as in run.json."""
    facts = methods.get(name, {})
    own = registered(name, methods)
    kind, slot = facts.get("kind"), facts.get("slot")
    if kind is None:
        known = registered_methods().get(own)
        kind, slot = (known.kind, known.slot) if known else ("", None)
    kind = kind if kind in FAMILIES else ""
    # Slots that our own methods leave free, so that an outside method takes no one's shade.
    return kind, slot if slot is not None else 5 + stable_number(own) % 3


def apart(name: str, methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what tells a run's method from the others of its family, in whose main figure both have a curve."""
    facts = methods.get(name, {})
    known = registered_methods().get(registered(name, methods))
    return str(facts.get("apart", known.apart if known else ""))


def shades(name: str, methods: Mapping[str, Mapping[str, Any]], main: bool) -> list[Color]:
    """Return the shades a method's curve may have, best first; main: its first certificate under its own name."""
    kind, slot = family_and_slot(name, methods)
    free = FREE_COLORS[stable_number(registered(name, methods)) % len(FREE_COLORS)]
    base = to_rgb(FAMILIES.get(kind, free))
    first = stable_number(name) % len(MORE_SHADES)
    between = MORE_SHADES[first:] + MORE_SHADES[:first]
    if kind in SHADES_OF_FAMILY:
        # As strong as the slots' shades at most.
        low, high = min(SHADES_OF_FAMILY[kind]), max(SHADES_OF_FAMILY[kind])
        between = tuple(low + (high - low) * (share + 0.6) / 1.1 for share in between)
    slots = SHADES_OF_FAMILY.get(kind, SLOT_SHADES)
    own = slots[slot % len(slots)]
    shares = (own, *between) if main else between
    return [shade(base, share) for share in dict.fromkeys(shares)]


def spread_shades(kind: str, count: int) -> list[Color]:
    """Return a family's colour, then shades of it, each as far from those before as can be."""
    base = to_rgb(FAMILIES[kind])
    choice = [shade(base, share) for share in np.linspace(-0.65, 0.65, max(2 * count, 16))]
    found = [base]
    while len(found) < count:
        found.append(max(choice, key=lambda color: min(math.dist(color, taken) for taken in found)))
    return found


def family_color(kind: str) -> Color | None:
    """Return a family's colour; None for a method of no family."""
    return to_rgb(FAMILIES[kind]) if kind in FAMILIES else None


def shade(color: Color, share: float) -> Color:
    """Return the colour with a share of white (positive) or of black (negative) mixed in."""
    target = 1.0 if share > 0 else 0.0
    red, green, blue = (channel + abs(share) * (target - channel) for channel in color)
    return red, green, blue


def readable(color: Color) -> Color:
    """Return the colour, darkened as far as letters in it need to be read on white."""
    while contrast(color) < READABLE:
        color = shade(color, -0.05)
    return color


def contrast(color: Color) -> float:
    """Return how a colour stands out against white: 1 for white, 21 for black (WCAG 2)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color
    )
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def stable_number(name: str) -> int:
    """Return a number that depends on the name only, on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
