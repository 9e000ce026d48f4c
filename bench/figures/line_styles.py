"""How each curve looks and what the legend calls it: told apart by colour, and without colour by dashes and markers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

NORM_SYMBOLS = {"l1": r"$\ell_1$", "l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}
# Solid or nearly so where inputs are free, broken where they stay in the box.
DASHES = {
    "free": ("-", (0, (9, 1.5, 1.5, 1.5)), (0, (14, 2)), (0, (9, 1.5, 1.5, 1.5, 1.5, 1.5))),
    "box": ((0, (4, 2)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (2.5, 2.5))),
}
MARKERS = "os^DvPX<>*ph"
# Shades of a method's colour for its certificates: shares of black (negative) or white (positive) mixed in.
SHADES = (0.0, -0.45, 0.4, -0.75)

CurveId = tuple[str, str, str]


@dataclass(frozen=True)
class LineStyle:
    """Look and label of one curve (method, certificate, domain). rank: its place in the legend, from 0."""

    rank: int
    name: str
    label: str
    color: tuple[float, float, float]
    dashes: str | tuple
    marker: str


def legend_styles(
    summary: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]
) -> dict[CurveId, LineStyle]:
    """Return the style of each curve of one data set's summary, in the order of the legend.

    A method has one hue, its certificates are shades of it. methods: {id: {"title": ...}} in legend order.
    """
    order = list(dict.fromkeys([*methods, *summary["method"]]))
    palette = seaborn.color_palette("colorblind")
    rows = dict(list(summary.groupby(["method", "certificate", "domain"])))
    # The two domains stay together, free inputs first.
    keys = sorted(rows, key=lambda key: (order.index(key[0]), key[2] != "free", key[1]))
    styles: dict[CurveId, LineStyle] = {}
    for rank, key in enumerate(keys):
        method, _, domain = key
        place = order.index(method)
        siblings = [other for other in styles if other[0] == method]
        # Colours repeat when the palette ends; another shade and other dashes keep such methods apart.
        turn = place // len(palette)
        hue = place % len(palette)
        alike = [style for other, style in styles.items() if order.index(other[0]) % len(palette) == hue]
        dashes = _free_dashes(DASHES[domain], turn, alike)
        name = plain_text(curve_title(key, keys, methods))
        styles[key] = LineStyle(
            rank=rank,
            name=name,
            label=name + _remarks(rows[key]),
            color=_free_shade(palette[hue], len(siblings) + turn, styles.values()),
            dashes=dashes,
            marker=_free_marker(rank, dashes, styles.values()),
        )
    return styles


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
    decades = np.log10(high / low)
    steps = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3.5 else (1,)
    ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def shown_length(label: str) -> int:
    """Return how many characters of a label a reader sees: a norm's symbol is two."""
    for symbol in NORM_SYMBOLS.values():
        label = label.replace(symbol, "l1")
    return len(label)


def _free_dashes(choice: tuple, first: int, others: Sequence[LineStyle]) -> str | tuple:
    """Return the first dashes, from the one numbered ``first`` on, that fewest of the other curves have."""
    used = [style.dashes for style in others]
    turned = choice[first % len(choice) :] + choice[: first % len(choice)]
    return min(turned, key=used.count)


def _free_marker(rank: int, dashes: str | tuple, others: Iterable[LineStyle]) -> str:
    """Return a marker that no other curve has together with these dashes, as long as there is one."""
    taken = {style.marker for style in others if style.dashes == dashes}
    turned = MARKERS[rank % len(MARKERS) :] + MARKERS[: rank % len(MARKERS)]
    return next((marker for marker in turned if marker not in taken), turned[0])


def _free_shade(
    color: tuple[float, float, float], first: int, others: Iterable[LineStyle]
) -> tuple[float, float, float]:
    """Return a shade that no other curve has, as long as there is one; the shade numbered ``first`` if it is free."""
    taken = {style.color for style in others}
    shades = [_shade(color, SHADES[(first + step) % len(SHADES)]) for step in range(len(SHADES))]
    return next((shade for shade in shades if shade not in taken), shades[0])


def _shade(color: tuple[float, float, float], share: float) -> tuple[float, float, float]:
    target = 1.0 if share > 0 else 0.0
    return tuple(channel + abs(share) * (target - channel) for channel in color)


def _remarks(rows: pd.DataFrame) -> str:
    """What the reader must know beside the name: conversions, the split it was balanced on, clean accuracy."""
    first, remarks = rows.iloc[0], []
    converted = rows.loc[~rows["native"] & (rows["certified"] > 0), "norm"]
    if len(converted):
        remarks.append(f"converted in {', '.join(NORM_SYMBOLS[norm] for norm in converted)}")
    if first["calibrated_on"] == "test":
        remarks.append("threshold chosen on test data")
    if first["near_chance"]:
        remarks.append("near chance, or far below the others")
    recalls = [_share(first["recall_sensitive"]), _share(first["recall_other"])]
    return "; ".join(["", *remarks, f"clean {' / '.join(recalls)}"])


def _share(share: float) -> str:
    # Cut, not rounded: 100.0 % is for a method that makes no mistake.
    return "?" if np.isnan(share) else f"{np.floor(share * 1000 + 1e-9) / 10:.1f} %"
