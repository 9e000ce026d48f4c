"""Writes the names of curves beside them, where they hide least: no legend to look up, no text past an edge."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.report.figures.identity import readable

# Longer names stand in two lines, equally long ones; what does not fit into two of the longest is cut.
LINE, LONGEST_LINE = 24, 30
# At which shares of the panel's height, and of the curve's length, a name may stand beside its curve.
HEIGHTS = np.arange(0.045, 0.97, 0.03)
ALONG = np.linspace(0, 1, 25)
# Points between a name and its curve, and what is left to a panel's edge.
GAPS, EDGE = (4.0, 9.0, 16.0), 1.5
# What a name at this place costs: a pixel of another name under it, one of another curve or its own, a marker, and
# each point farther from its curve.
OVERLAP, CROSSED, OWN, HIDDEN, FAR = 10.0, 1.0, 0.6, 20.0, 4.0
# How often each name may move when it knows where all others are.
ROUNDS = 3


@dataclass(frozen=True)
class NamedCurve:
    """A curve to name: its stairs in data units, how its name is written, and where it has markers (x and y).

    joined: whether the stairs are drawn; if not, its points stand alone and the name belongs beside one of them.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    look: Mapping[str, Any]
    marks: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    joined: bool = True


def name_curves(ax: Axes, curves: Sequence[NamedCurve], size: float) -> None:
    """Write each name at its curve, the first ones first; call it when the layout of the figure is final."""
    if not curves:
        return
    paths = [_path(ax, curve) for curve in curves]
    marks = ax.transData.transform(np.concatenate([np.column_stack(curve.marks) for curve in curves]))
    texts = [_text(ax, curve, size) for curve in curves]
    pixels = ax.figure.dpi / 72
    choices = [
        _places(path, text.get_window_extent(), ax.get_window_extent(), pixels)
        for path, text in zip(paths, texts, strict=True)
    ]
    taken: dict[int, Bbox] = {}
    for number in [*range(len(curves))] * ROUNDS:
        names = [box for place, box in taken.items() if place != number]
        others = [path for place, path in enumerate(paths) if place != number and curves[place].joined]
        own = paths[number] if curves[number].joined else paths[number][:0]
        costs = [away + _cost(box, names, others, own, marks, pixels) for away, box in choices[number]]
        taken[number] = choices[number][int(np.argmin(costs))][1]
    for number, text in enumerate(texts):
        box = taken[number]
        x, y = ax.transAxes.inverted().transform((box.x0, (box.y0 + box.y1) / 2))
        text.set_position((float(x), float(y)))
        text.set_transform(ax.transAxes)


def _text(ax: Axes, curve: NamedCurve, size: float) -> Text:
    """Return the name as a text of the panel that takes no part in the layout."""
    look = {**curve.look, "color": readable(to_rgb(curve.look.get("color", "black")))}
    name = in_lines(curve.name)
    text = ax.text(0, 0, name, fontsize=size, va="center", linespacing=1.0, zorder=5, **look)
    text.set_in_layout(False)
    text.set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.3})
    return text


def in_lines(name: str) -> str:
    """Return a name in one line, or in two that are as equally long as its words allow."""
    if len(name) <= LINE:
        return name
    widths = range(min(len(name) // 2, LONGEST_LINE), LONGEST_LINE)
    width = next((width for width in widths if len(textwrap.wrap(name, width)) <= 2), LONGEST_LINE)
    return textwrap.fill(name, width, max_lines=2, placeholder=" ...")


def _path(ax: Axes, curve: NamedCurve) -> np.ndarray:
    """Return points (N, 2) in pixels, close to each other, along the stairs that a curve is drawn as."""
    if not curve.joined:
        return ax.transData.transform(np.column_stack([curve.x, curve.y]))
    x, y = np.repeat(curve.x, 2)[:-1], np.repeat(curve.y, 2)[1:]
    corners = ax.transData.transform(np.column_stack([x, y]))
    lengths = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(corners, axis=0)).sum(axis=1))])
    along = np.linspace(0, lengths[-1], 1 + int(lengths[-1]))
    return np.column_stack([np.interp(along, lengths, side) for side in corners.T])


def _places(path: np.ndarray, name: Bbox, inside: Bbox, pixels: float) -> list[tuple[float, Bbox]]:
    """Return what distance costs and the box, for boxes all around the curve, moved so that none leaves the panel."""
    width, height, edge = name.width, name.height, EDGE * pixels
    corners = []
    for gap in GAPS:
        room = gap * pixels
        for middle in inside.y0 + HEIGHTS * inside.height:
            near = path[np.abs(path[:, 1] - middle) <= height / 2]
            if len(near):
                bottom = middle - height / 2
                corners += [
                    (gap, near[:, 0].max() + room, bottom),
                    (gap, near[:, 0].min() - room - width, bottom),
                ]
        for x, y in path[(ALONG * (len(path) - 1)).astype(int)]:
            corners += [(gap, x - width / 2, y + room), (gap, x - width / 2, y - room - height)]
            # Beside a point that stands alone, or the end of a level line.
            corners += [(gap, x + room, y - height / 2), (gap, x - room - width, y - height / 2)]
    boxes = []
    for gap, left, bottom in corners:
        left = min(max(left, inside.x0 + edge), inside.x1 - width - edge)
        bottom = min(max(bottom, inside.y0 + edge), inside.y1 - height - edge)
        boxes.append((FAR * (gap - GAPS[0]), Bbox.from_bounds(left, bottom, width, height)))
    return boxes


def _cost(
    box: Bbox,
    taken: Sequence[Bbox],
    others: Sequence[np.ndarray],
    own: np.ndarray,
    marks: np.ndarray,
    pixels: float,
) -> float:
    around = box.padded(GAPS[0] * pixels)
    overlaps = [Bbox.intersection(around, other) for other in taken]
    hidden = sum(part.width * part.height for part in overlaps if part is not None)
    crossed = sum(_within(box, path) for path in others)
    lines = CROSSED * crossed + OWN * _within(box, own)
    return OVERLAP * hidden + lines + HIDDEN * _within(around, marks)


def _within(box: Bbox, points: np.ndarray) -> int:
    x, y = points.T
    return int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
