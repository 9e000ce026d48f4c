"""Exact distances to the boundary of linear scores and of small ReLU networks, by means of their own."""

import math

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from tools.fuzz.case import ORDER, Oracle

# HiGHS branches on that many neurons in a hundredth of a second.
MOST_NEURONS = 10
FARTHER = 1.001


def hyperplane_oracle(weight: Tensor, margin: Tensor, x: Tensor) -> Oracle:
    """Distances of inputs x (N, d) with margin (N,) from the boundary of a score with slope weight (d,)."""
    return lambda norm, domain, rows, found: (
        hyperplane_distance(weight, margin[rows], x[rows], norm, domain),
        None,
    )


def hyperplane_distance(weight: Tensor, margin: Tensor, x: Tensor, norm: str, domain: str) -> Tensor:
    """Norms (N,) of the least steps from x (N, d) that take margin (N,) from a score with slope weight (d,); inf."""
    steep, margin = weight.abs().expand_as(x), margin.clamp(min=0)
    if domain == "free":
        size = {"l1": steep.amax(1), "l2": steep.norm(dim=1), "linf": steep.sum(1)}[norm]
        return margin / size
    room = torch.where(weight > 0, x, 1 - x)
    if norm == "l1":
        order = steep.argsort(1, descending=True)
        slopes, rooms = steep.gather(1, order), room.gather(1, order)
        taken = (slopes * rooms).cumsum(1)
        left = (margin[:, None] - taken + slopes * rooms).clamp(min=0)
        steps = torch.minimum(rooms, left / slopes.clamp(min=1e-300))
        distance = torch.where(slopes > 0, steps, 0.0).sum(1)
    else:
        distance = _common_level(steep, room, margin, norm)
    return torch.where((steep * room).sum(1) < margin, math.inf, distance)


def _common_level(steep: Tensor, room: Tensor, margin: Tensor, norm: str) -> Tensor:
    """The steps min(t s_i, room_i), s = 1 in linf and the slope in l2: coordinates hit their walls one by one."""
    pace = torch.ones_like(steep) if norm == "linf" else steep
    walls = torch.where(pace > 0, room / pace, math.inf)
    levels = torch.cat([torch.zeros_like(walls[:, :1]), walls.sort(1).values], 1)
    best = torch.full_like(margin, math.inf)
    for before in levels.unbind(1):
        moving = walls > before[:, None]
        rate = (steep * pace * moving).sum(1)
        stopped = (steep * room * ~moving).sum(1)
        level = torch.maximum((margin - stopped) / rate, before)
        steps = torch.minimum(level[:, None] * pace, room)
        enough = level.isfinite() & ((steep * steps).sum(1) >= margin * (1 - 1e-12))
        size = steps.amax(1) if norm == "linf" else steps.norm(dim=1)
        best = torch.where(enough, torch.minimum(best, size), best)
    return best


def mixed_integer_distance(
    layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray, norm: str, domain: str, reach: float
) -> tuple[float, np.ndarray]:
    """Norm of the least step from x (d,) to a score <= 0 and the point, by a mixed-integer program with big M.

    layers: weights and offsets of a ReLU network. norm: "l1" or "linf". reach: a distance at which something is
    adversarial, inf where none is known, which only the box allows. NaN where there is no answer.
    """
    d, nothing = len(x), np.full(len(x), math.nan)
    hidden = sum(len(offset) for _, offset in layers[:-1])
    if norm == "l2" or hidden > MOST_NEURONS or not (math.isfinite(reach) or domain == "box"):
        return math.nan, nothing
    low, high = x - FARTHER * reach, x + FARTHER * reach
    if domain == "box":
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
    # Variables: the point, how far each coordinate moved (one number for all in linf), then outputs and switches.
    moved = d if norm == "l1" else 1
    start = d + moved
    columns = start + 2 * hidden
    least, most, whole = np.zeros(columns), np.full(columns, math.inf), np.zeros(columns)
    least[:d], most[:d] = low, high
    picks = np.eye(columns)
    away = picks[d:start] if norm == "l1" else np.repeat(picks[d:start], d, 0)
    rows, limits = [picks[:d] - away, -picks[:d] - away], [x, -x]
    before, lower, upper = picks[:d], low, high
    for weight, offset in _balanced(layers):
        z = weight @ before
        z_low = weight.clip(min=0) @ lower + weight.clip(max=0) @ upper + offset
        z_high = weight.clip(min=0) @ upper + weight.clip(max=0) @ lower + offset
        width = len(offset)
        if start == columns:
            rows.append(z)
            limits.append(-offset)
            break
        out, switch = picks[start : start + width], picks[start + width : start + 2 * width]
        most[start : start + width], most[start + width : start + 2 * width] = z_high.clip(min=0), 1
        whole[start + width : start + 2 * width] = 1
        rows += [
            z - out,
            out - z - np.minimum(z_low, 0)[:, None] * switch,
            out - z_high.clip(min=0)[:, None] * switch,
        ]
        limits += [-offset, offset - np.minimum(z_low, 0), np.zeros(width)]
        before, lower, upper, start = out, z_low.clip(min=0), z_high.clip(min=0), start + 2 * width
    cost = np.zeros(columns)
    cost[d : d + moved] = 1
    constraint = LinearConstraint(np.vstack(rows), -np.inf, np.concatenate(limits))
    options = {"mip_rel_gap": 0.0, "time_limit": 2.0}
    solved = milp(
        cost, constraints=constraint, bounds=Bounds(least, most), integrality=whole, options=options
    )
    if solved.status == 2:
        return math.inf, nothing
    if solved.status != 0:
        return math.nan, nothing
    point = solved.x[:d]
    return float(np.linalg.norm(point - x, ORDER[norm])), point


def _balanced(layers: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same network with each neuron's largest weight at 1: solvers have absolute tolerances."""
    balanced, columns = [], np.ones(layers[0][0].shape[1])
    for weight, offset in layers:
        weight = weight * columns
        size = np.abs(weight).max(1)
        size = np.where(size > 0, size, 1.0)
        balanced.append((weight / size[:, None], offset / size))
        columns = size
    return balanced
