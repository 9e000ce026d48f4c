"""How each curve looks and what the legend calls it: told apart by colour, and without colour by dashes and markers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.typing import LineStyleType

from bench.report.figures.identity import (
    FAMILIES,
    Color,
    family_and_slot,
    shades,
    spread_shades,
    stable_number,
)

NORM_SYMBOLS = {"l1": r"$\ell_1$", "l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}
# Solid where inputs are free, broken where they stay in the box; the others only when markers have run out.
DASHES: dict[str, tuple[LineStyleType, ...]] = {
    "free": ("-", (0, (9, 1.5, 1.5, 1.5)), (0, (14, 2)), (0, (9, 1.5, 1.5, 1.5, 1.5, 1.5))),
    "box": ((0, (4, 2)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (2.5, 2.5))),
}
MARKERS = "os^DvPX<>*ph"
# What a logarithmic axis of so many powers of ten at the most numbers within each, where there is room; points that a
# digit takes in small print, and that lie between two numbers.
STEPS, DIGIT, AIR = ((2.0, (1, 2, 5)), (3.5, (1, 3)), (np.inf, (1,))), 3.6, 5.0
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
CHARACTERS_PER_INCH = 23.5

CurveId = tuple[str, str, str]


@dataclass(frozen=True)
class LineStyle:
    """Look and label of one curve (method, certificate, domain). rank: its place in the legend, from 0."""

    rank: int
    name: str
    label: str
    color: Color
    dashes: LineStyleType
    marker: str

    def handle(self, label: str, width: float) -> Line2D:
        """Return the curve's line and marker for a legend."""
        line = Line2D([], [], color=self.color, linestyle=self.dashes, linewidth=width, label=label)
        line.set_marker(self.marker)
        line.set_markersize(3.5)
        return line


def legend_styles(
    summary: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]
) -> dict[CurveId, LineStyle]:
    """Return the style of each curve of one data set's summary, in the order of the legend.

    Colours are the methods' own (see bench.report.figures.identity), the same whatever else is in the figure; a
    method's further certificates and entries take shades between. Box and free line of a certificate share colour
    and marker. methods: as in run.json, in legend order.
    """
    order = list(dict.fromkeys([*methods, *summary["method"]]))
    rows = dict(list(summary.groupby(["method", "certificate", "domain"])))
    # The two domains stay together, free inputs first.
    keys = sorted(rows, key=lambda key: (order.index(key[0]), key[2] != "free", key[1]))
    colors, markers = _colors(keys, methods), _markers(keys, methods)
    styles: dict[CurveId, LineStyle] = {}
    for rank, key in enumerate(keys):
        method, certificate, domain = key
        marker, turn = markers[method, certificate]
        name = plain_text(curve_title(key, keys, methods))
        styles[key] = LineStyle(
            rank=rank,
            name=name,
            label=name + _remarks(rows[key]),
            color=colors[method, certificate],
            dashes=DASHES[domain][turn % len(DASHES[domain])],
            marker=marker,
        )
    return styles


def _lines_by_identity(
    keys: Iterable[CurveId], methods: Mapping[str, Mapping[str, Any]]
) -> list[tuple[tuple[str, str], bool]]:
    """Return ((method, certificate), main) in the order in which looks are given away, whatever a suite's order is.

    Main curves come first: the first certificate of a method under its registered name.
    """
    lines = sorted({key[:2] for key in keys})
    firsts: dict[str, tuple[str, str]] = {}
    for line in lines:
        firsts.setdefault(line[0], line)
    found = [
        (line, firsts[line[0]] == line and str(methods.get(line[0], {}).get("method") or line[0]) == line[0])
        for line in lines
    ]
    return sorted(found, key=lambda entry: (not entry[1], entry[0]))


def _colors(
    keys: Iterable[CurveId], methods: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], Color]:
    """Return a colour for each (method, certificate): its own, or the next shade of it that no other curve has.

    Where a figure is of one family alone, its curves take shades as far from each other as there are.
    """
    found: dict[tuple[str, str], Color] = {}
    entries = _lines_by_identity(keys, methods)
    families = {family_and_slot(line[0], methods)[0] for line, _ in entries}
    if len(entries) > 1 and len(families) == 1 and "" not in families:
        spread = spread_shades(families.pop(), len(entries))
        return dict(zip((line for line, _ in entries), spread, strict=True))
    named = {str(methods.get(line[0], {}).get("method") or line[0]) for line, main in entries if main}
    for line, main in entries:
        # A suite may know a method under other names only: the first of them has its shade.
        registered = str(methods.get(line[0], {}).get("method") or line[0])
        own = main or registered not in named
        named.add(registered)
        choice, taken = shades(line[0], methods, own), set(found.values())
        found[line] = next((color for color in choice if color not in taken), choice[0])
    return found


def _markers(
    keys: Iterable[CurveId], methods: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], tuple[str, int]]:
    """Return (marker, number of dashes) for each (method, certificate); no two share both as long as there are any."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    families = list(FAMILIES)
    for line, main in _lines_by_identity(keys, methods):
        kind, slot = family_and_slot(line[0], methods)
        place = 2 * families.index(kind) + slot if kind else stable_number(line[0])
        place = place if main else place + stable_number("/".join(line))
        first = place % len(MARKERS)
        turned = MARKERS[first:] + MARKERS[:first]
        choice = [(marker, turn) for turn in range(len(DASHES["free"])) for marker in turned]
        taken = set(found.values())
        found[line] = next((look for look in choice if look not in taken), choice[0])
    return found


def curve_title(key: CurveId, curves: Iterable[CurveId], methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what people call a curve: its method's title, its certificate if ``curves`` have several, its domain."""
    method, certificate, domain = key
    title = str(methods.get(method, {}).get("title") or method)
    if len({other[1] for other in curves if other[0] == method}) > 1:
        title = f"{title}, {certificate.replace('_', ' ')}"
    return f"{title} (box)" if domain == "box" else title


def plain_text(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")


def log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic with as many plain numbers on it as it has room for."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    assert ax.figure is not None
    room, decades = 72 * ax.bbox.width / ax.figure.dpi, np.log10(high / low)
    choice = [steps for most, steps in STEPS if decades < most]
    steps = next((steps for steps in choice if sum(_widths(low, high, steps)) <= room), choice[-1])
    most = int(room / max([DIGIT + AIR, *_widths(low, high, steps)]))
    ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=max(2, min(12, most))))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _widths(low: float, high: float, steps: tuple[int, ...]) -> list[float]:
    """Return how many points each number of a logarithmic axis takes, with some air."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [DIGIT * len(f"{tick:g}") + AIR for tick in ticks if low <= tick <= high]


def seconds_axis(ax: Axes) -> None:
    """Make the x axis, of seconds, logarithmic over a power of ten at least, and write its numbers with units."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    room = max(1.0, (10 * low / high) ** 0.5)
    ax.set_xlim(low / room, high * room)
    log_axis(ax)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_seconds(value)))


def in_seconds(value: float) -> str:
    """Return a time in the largest unit in which it is at least 1: 0.0003 is 300 µs."""
    size, unit = next(((size, unit) for size, unit in UNITS if value >= 0.999 * size), UNITS[-1])
    return f"{value / size:g} {unit}"


def shown_length(label: str) -> int:
    """Return how many characters of a label a reader sees: a norm's symbol is two."""
    for symbol in NORM_SYMBOLS.values():
        label = label.replace(symbol, "l1")
    return len(label)


def legend_columns(labels: Iterable[str], width: float) -> int:
    """Return how many columns of a legend in small print, lines and gaps included, fit into a figure (inches)."""
    longest = max(shown_length(label) for label in labels)
    return max(1, int((width - 0.15) / (longest / CHARACTERS_PER_INCH + 0.4)))


def _remarks(rows: pd.DataFrame) -> str:
    """What the reader must know beside the name: the split it was balanced on, doubts, clean accuracy."""
    first, remarks = rows.iloc[0], list[str]()
    if first["calibrated_on"] == "test":
        remarks.append("threshold chosen on test data")
    if first["near_chance"]:
        remarks.append("(?)")
    recalls = [_share(first["recall_sensitive"]), _share(first["recall_other"])]
    return "; ".join(["", *remarks, f"clean {' / '.join(recalls)} %"])


def _share(share: float) -> str:
    # Cut, not rounded: 100.0 % is for a method that makes no mistake.
    return "?" if np.isnan(share) else f"{np.floor(share * 1000 + 1e-9) / 10:.1f}"
