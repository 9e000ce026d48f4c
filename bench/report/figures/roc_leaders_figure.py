"""The certified ROC of the leaders, a panel for each norm, at print size: recall kept at few false positives."""

import textwrap
from collections.abc import Collection

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from bench.kept.rows import LINE
from bench.report.figures.curve_names import NamedCurve, name_curves
from bench.report.figures.leaders_figure import OURS, LeaderRow, chosen_by
from bench.report.figures.line_styles import NORM_SYMBOLS, CurveId, plain_text
from bench.report.figures.looks import NORMAL, PAGE, SMALL
from bench.report.figures.roc_figure import Thresholds, draw_roc, marked, named, rate_axis

HEIGHT = 2.7
TITLE = {"fontsize": NORMAL, "x": 0.01, "ha": "left"}
CAPTION = (
    "Share of the sensitive test inputs that are called sensitive and certified at this radius, over the share of the "
    "other class that is called sensitive, too. Lines: every threshold; markers: those chosen on validation data. The "
    "axis starts at no false positive."
)


def roc_leaders_figure(shown: Thresholds, row: LeaderRow, heading: str) -> Figure | None:
    """Draw the leaders' certified ROC at the middle one of each norm's named radii; None where no radius is named."""
    norms = [norm for norm in NORM_SYMBOLS if (row.leaders["norm"] == norm).any()]
    radii = {norm: named(shown.summary[shown.summary["norm"] == norm]) for norm in norms}
    norms = [norm for norm in norms if radii[norm]]
    if not norms:
        return None
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0.02)
    figure = Figure(figsize=(PAGE, HEIGHT), layout=engine)
    names = []
    for ax, norm in zip(figure.subplots(1, len(norms), squeeze=False, sharey=True)[0], norms, strict=True):
        place = (len(radii[norm]) + 1) // 2
        leading = row.leaders[row.leaders["norm"] == norm]
        keys = [tuple(key) for key in leading[LINE].to_numpy().tolist()]
        keys += _with_lines(shown, norm, {key[0] for key in keys})
        families = dict(zip(leading["method"], leading["family"], strict=True))
        ours = {key for key in keys if families[key[0]].startswith(OURS)}
        styles = {key: style for key, style in row.styles.items() if key in keys}
        marks = marked(shown, norm, f"certified_accuracy_{place}", styles)
        columns = (f"certified_recall_{place}", f"certified_accuracy_{place}")
        lines = draw_roc(ax, shown, norm, *columns, styles, bold=ours)
        rate_axis(ax, shown.others)
        ax.set_xlim(right=1.05)
        ax.set_ylim(-0.02, 1.03)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.tick_params(labelsize=SMALL, pad=1)
        ax.set_xlabel("false positive rate (%)", fontsize=NORMAL, labelpad=1)
        ax.set_title(
            f"certified at {NORM_SYMBOLS[norm]} radius {radii[norm][place - 1]:g}", fontsize=NORMAL, pad=3
        )
        curves = [
            NamedCurve(
                styles[key].name,
                # Stairs from the right: between two thresholds the value is that of the left one.
                path[0][::-1],
                path[1][::-1],
                {"color": styles[key].color, "fontweight": "bold" if key in ours else "normal"},
                marks.get(key, path),
                joined=key in lines,
            )
            for key, path in {**marks, **lines}.items()
        ]
        names.append((ax, sorted(curves, key=lambda curve: curve.look["fontweight"] == "normal")))
    figure.axes[0].set_ylabel("certified recall, sensitive class", fontsize=NORMAL)
    title, *notes = heading.splitlines()
    figure.suptitle("\n".join(textwrap.fill(plain_text(line), 110) for line in (title, *notes)), **TITLE)
    caption = f"{chosen_by([row])} {CAPTION}"
    figure.supxlabel(textwrap.fill(caption, 150), fontsize=SMALL, color="0.25")
    figure.draw_without_rendering()
    for ax, curves in names:
        name_curves(ax, curves, SMALL)
    return figure


def _with_lines(shown: Thresholds, norm: str, methods: Collection[str]) -> list[CurveId]:
    """Return a free curve with a line of each method that has any: its strongest certificate may be a point only."""
    roc = shown.roc[shown.roc["norm"] == norm] if len(shown.roc) else shown.roc
    if roc.empty:
        return []
    rows = roc[(roc["domain"] == "free") & roc["method"].isin(methods)]
    firsts = rows.sort_values(LINE).drop_duplicates("method")
    return [tuple(key) for key in firsts[LINE].to_numpy().tolist()]
