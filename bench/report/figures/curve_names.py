"""Writes the names of curves beside them, where they hide least: no legend to look up, no text past an edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

HEIGHTS = np.arange(0.045, 0.97, 0.03)
GAP = 4.0
# What a name at this place costs: a pixel of another name under it, one of another curve or its own, a marker.
OVERLAP, CROSSED, OWN, HIDDEN = 10.0, 1.0, 0.3, 20.0


@dataclass(frozen=True)
class NamedCurve:
    """A curve to name: its stairs in data units, how its name is written, and where it has markers (x and y)."""

    name: str
    x: np.ndarray
    y: np.ndarray
    look: Mapping[str, Any]
    marks: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))


def name_curves(ax: Axes, curves: Sequence[NamedCurve], size: float) -> None:
    """Write each name at its curve, the first ones first; call it when the layout of the figure is final."""
    if not curves:
        return
    points = [_stairs(ax, curve) for curve in curves]
    marks = ax.transData.transform(np.concatenate([np.column_stack(curve.marks) for curve in curves]))
    inside, taken = ax.get_window_extent(), list[Bbox]()
    for number, curve in enumerate(curves):
        others = [path for place, path in enumerate(points) if place != number]
        text = ax.text(0, 0, curve.name, fontsize=size, va="center", zorder=5, **curve.look)
        text.set_in_layout(False)
        text.set_bbox({"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.3})
        extent = text.get_window_extent()
        gap = GAP * ax.figure.dpi / 72
        best = min(
            _places(points[number], inside, extent.width, extent.height, gap),
            key=lambda box: _cost(box, taken, others, points[number], marks),
        )
        taken.append(best)
        x, y = ax.transAxes.inverted().transform((best.x0, (best.y0 + best.y1) / 2))
        text.set_position((float(x), float(y)))
        text.set_transform(ax.transAxes)


def _stairs(ax: Axes, curve: NamedCurve) -> np.ndarray:
    """Return points (N, 2) in pixels, close to each other, along the stairs that a curve is drawn as."""
    x, y = np.repeat(curve.x, 2)[:-1], np.repeat(curve.y, 2)[1:]
    corners = ax.transData.transform(np.column_stack([x, y]))
    lengths = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(corners, axis=0)).sum(axis=1))])
    along = np.linspace(0, lengths[-1], 1 + int(lengths[-1]))
    return np.column_stack([np.interp(along, lengths, side) for side in corners.T])


def _places(path: np.ndarray, inside: Bbox, width: float, height: float, gap: float) -> list[Bbox]:
    """Return boxes right and left of the curve at all heights, moved so that none leaves the panel."""
    boxes = []
    for share in HEIGHTS:
        middle = inside.y0 + share * inside.height
        near = path[np.abs(path[:, 1] - middle) <= height / 2]
        if not len(near):
            continue
        for left in (near[:, 0].max() + gap, near[:, 0].min() - gap - width):
            left = float(np.clip(left, inside.x0 + 2, inside.x1 - width - 2))
            bottom = float(np.clip(middle - height / 2, inside.y0 + 1, inside.y1 - height - 1))
            boxes.append(Bbox.from_bounds(left, bottom, width, height))
    # A curve that lies along an edge is named in the middle of the panel.
    middle = (inside.x0 + (inside.width - width) / 2, inside.y0 + inside.height / 2)
    return boxes or [Bbox.from_bounds(*middle, width, height)]


def _cost(
    box: Bbox, taken: Sequence[Bbox], others: Sequence[np.ndarray], own: np.ndarray, marks: np.ndarray
) -> float:
    overlaps = [Bbox.intersection(box.padded(GAP), other) for other in taken]
    hidden = sum(part.width * part.height for part in overlaps if part is not None)
    crossed = sum(_within(box, path) for path in others)
    lines = CROSSED * crossed + OWN * _within(box, own)
    return OVERLAP * hidden + lines + HIDDEN * _within(box.padded(GAP), marks)


def _within(box: Bbox, points: np.ndarray) -> int:
    x, y = points.T
    return int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
