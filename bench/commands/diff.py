"""Which certified-accuracy curves moved between two runs by more than their bands."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bench.basics.commands import DONE, FAILED
from bench.basics.errors import UsageError
from bench.basics.files import write_atomic
from bench.kept.rows import CURVE_KEY
from bench.kept.store import Store
from bench.report.figures.line_styles import NORM_SYMBOLS, plain_text
from bench.report.tables.curves import accuracy_by_seed, confidence_band, radius_grid

MAX_PANELS = 12
COLUMNS = 3
PANEL = (3.6, 2.5)
NAMES = ("before", "after")


def compare_runs(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (moves, curves) of the curves that both runs have; before, after: their radii tables.

    moves: one row for each curve, the most striking first: whether it ``moved``, the ``radius`` where its bands are
    furthest apart (if it did not move: where the change is largest), certified accuracy ``before`` and ``after``.
    curves: both runs' certified accuracy and band over one grid of radii, told apart by ``run``.
    Raises UsageError if the runs have no curve in common.
    """
    groups = [dict(list(radii.groupby(CURVE_KEY, sort=True))) for radii in (before, after)]
    common = [key for key in groups[0] if key in groups[1]]
    if not common:
        raise UsageError(
            "the two runs have no curve in common: compare runs of the same data sets and methods"
        )
    moves, curves = [], []
    for key in common:
        both = [group[key] for group in groups]
        lines = _lines(both)
        name = dict(zip(CURVE_KEY, key, strict=True))
        counts = {what: " -> ".join(str(rows[what].nunique()) for rows in both) for what in ("seed", "index")}
        moves.append({**name, **_move(*lines), "seeds": counts["seed"], "inputs": counts["index"]})
        curves += [line.assign(run=run, **name) for run, line in zip(NAMES, lines, strict=True)]
    moves.sort(key=lambda move: (-max(move["gap"], 0.0), -abs(move["change"])))
    return pd.DataFrame(moves), pd.concat(curves, ignore_index=True)


def only_in_one(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Return a line for each curve that one run has and the other does not."""
    keys = [set(radii[CURVE_KEY].itertuples(index=False, name=None)) for radii in (before, after)]
    lines = []
    first, second = keys
    for text, mine, other in (("only in OUT1", first, second), ("only in OUT2", second, first)):
        lines += [f"{text}: {' '.join(key)}" for key in sorted(mine - other)]
    return lines


def _lines(both: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Certified accuracy of the two runs, with its band, over one grid that holds the radii of both."""
    grid = radius_grid(pd.concat([rows["radius"] for rows in both]).dropna().to_numpy(dtype=float))
    lines = []
    for rows in both:
        shares, inputs = accuracy_by_seed(rows, grid)
        lower, upper = confidence_band(shares, inputs)
        lines.append(
            pd.DataFrame({"radius": grid, "share": shares.mean(axis=0), "lower": lower, "upper": upper})
        )
    return lines


def _move(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float | bool]:
    gap = np.maximum(after["lower"] - before["upper"], before["lower"] - after["upper"])
    change = after["share"] - before["share"]
    moved = bool(gap.max() > 0)
    # Of equal gaps the one with the larger change is the more telling.
    place = int(np.lexsort((change.abs(), gap))[-1]) if moved else int(change.abs().argmax())
    return {
        "moved": moved,
        "radius": float(before["radius"][place]),
        "before": float(before["share"][place]),
        "after": float(after["share"][place]),
        "change": float(change[place]),
        "gap": float(gap[place]),
    }


def render_moves(moves: pd.DataFrame) -> str:
    """Return the table as text, shares in per cent."""
    shown = moves.drop(columns="gap")
    for column in ("before", "after"):
        shown[column] = [f"{100 * share:.1f} %" for share in moves[column]]
    shown["change"] = [f"{100 * change:+.1f}" for change in moves["change"]]
    shown["radius"] = [f"{radius:.4g}" for radius in moves["radius"]]
    shown["moved"] = np.where(moves["moved"], "MOVED", "")
    return shown.to_string(index=False)


def moves_figure(moves: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Draw both runs' curves with their bands: those that moved, or if none did, those that changed most."""
    chosen = moves[moves["moved"]].head(MAX_PANELS) if moves["moved"].any() else moves.head(COLUMNS)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.5), layout="constrained")
    with seaborn.axes_style("whitegrid"), seaborn.plotting_context("paper"):
        axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax, (_, move) in zip(axes, chosen.iterrows(), strict=False):
        mine = curves[(curves[CURVE_KEY] == move[CURVE_KEY]).all(axis=1)]
        _draw(ax, mine, move)
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _draw(ax: Axes, mine: pd.DataFrame, move: pd.Series) -> None:
    for run, color, dashes in zip(NAMES, seaborn.color_palette("colorblind"), ("--", "-"), strict=False):
        line = mine[mine["run"] == run]
        ax.fill_between(
            line["radius"], line["lower"], line["upper"], step="pre", color=color, alpha=0.2, linewidth=0
        )
        ax.plot(line["radius"], line["share"], dashes, drawstyle="steps-pre", color=color, label=run)
    if move["moved"]:
        ax.axvline(move["radius"], color="0.3", linewidth=0.8, linestyle=":")
    method = f"{move['method']}, {move['certificate']}" + (" (box)" if move["domain"] == "box" else "")
    title = f"{plain_text(move['dataset'])}\n{plain_text(method)}" + (": moved" if move["moved"] else "")
    ax.set_title(title, fontsize=8)
    ax.set_xlabel(f"{NORM_SYMBOLS[move['norm']]} radius", fontsize=8)
    ax.set_ylim(-0.02, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))


def run(options: argparse.Namespace) -> int:
    """Print the table, draw the figure if one is wanted, and return 1 if a curve moved."""
    runs = [Store(out).read_run()[1] for out in (options.before, options.after)]
    moves, curves = compare_runs(*runs)
    if options.figure:
        _save(moves_figure(moves, curves), options.figure)
    moved = int(moves["moved"].sum())
    print("\n".join([render_moves(moves), "", *only_in_one(*runs)]).rstrip())
    print(f"\n{moved} of {len(moves)} curves moved by more than their 95 % bands.")
    if options.figure:
        print(f"Figure: {options.figure}")
    return FAILED if moved else DONE


def _save(figure: Figure, path: Path) -> None:
    kinds = ("png", "pdf", "svg")
    if path.suffix[1:] not in kinds:
        raise UsageError(
            f"bad figure name {str(path)!r}: it must end in {', '.join('.' + kind for kind in kinds)}"
        )
    sink = io.BytesIO()
    figure.savefig(sink, format=path.suffix[1:], dpi=150)
    try:
        write_atomic(path, sink.getvalue())
    except OSError as error:
        raise UsageError(
            f"cannot write {str(path)!r} ({error.strerror}): choose another file with --figure"
        ) from error
