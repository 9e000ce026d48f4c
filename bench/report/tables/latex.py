"""The tables of a run for a paper: LaTeX with booktabs, to be read in with \\input."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.calibration import shown_point
from bench.contract import Outcome
from bench.report.tables.summary import floor_digits
from bench.report.tables.summary_text import LEGEND, curve_name

HEAD = "% Made by certbench; needs \\usepackage{booktabs}."
SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "ℓ": "$\\ell$",
    "∞": "$\\infty$",
    "√": "$\\sqrt{}$",
    "α": "$\\alpha$",
    "β": "$\\beta$",
    "σ": "$\\sigma$",
    "λ": "$\\lambda$",
    "ε": "$\\varepsilon$",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "×": "$\\times$",
    "–": "--",
}
NORM_NAMES = {"l1": "$\\ell_1$", "l2": "$\\ell_2$", "linf": "$\\ell_\\infty$"}
UNITS = "radii in units of the inputs, which lie in [0, 1]"


def summary_latex(summary: pd.DataFrame) -> str:
    """Return the summary's tables, one for each data set, operating point and norm, as a LaTeX file."""
    tables = []
    for (dataset, point, norm), panel in summary.groupby(["dataset", "operating_point", "norm"], sort=True):
        caption = f"{escape(dataset)}, {NORM_NAMES[norm]}, {escape(shown_point(point))}: "
        caption += f"{panel['inputs'].max()} sensitive test inputs; {UNITS}."
        named = [n for n in (1, 2, 3) if f"radius_{n}" in panel and panel[f"radius_{n}"].notna().any()]
        columns = ["", "Recall, sensitive (\\%)", "Recall, other (\\%)", "Median", "Mean"]
        columns += [f"at {floor_digits(panel[f'radius_{n}'].iloc[0], 3):g} (\\%)" for n in named]
        rows = [_row(row, named) for _, row in panel.iterrows()]
        tables.append(_table(columns, rows, caption))
    return "\n".join([HEAD, *tables, f"% {LEGEND}", ""])


def markdown_latex(text: str) -> str:
    """Return the tables of a Markdown text as a LaTeX file, each with the heading above it as its caption."""
    tables, caption, lines = [], "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif lines:
            columns, _, *rows = lines
            tables.append(
                _table(
                    [_inline(cell) for cell in columns],
                    [[_inline(cell) for cell in row] for row in rows],
                    caption,
                )
            )
            lines = []
        if line.startswith("#"):
            caption = _inline(line.lstrip("# "))
    return "\n".join([HEAD, *tables, ""])


def escape(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(SPECIAL.get(sign, sign) for sign in str(text))


def _row(row: pd.Series, named: Sequence[int]) -> list[str]:
    cells = [escape(curve_name(row)), _percent(row["recall_sensitive"]), _percent(row["recall_other"])]
    if row[str(Outcome.UNSUPPORTED)] and not row[str(Outcome.CERTIFIED)]:
        return cells + ["--"] * (2 + len(named))
    cells += [_radius(row["median_radius"]), _radius(row["mean_radius"])]
    return cells + [_percent(row[f"certified_accuracy_{number}"]) for number in named]


def _percent(share: float) -> str:
    return "--" if pd.isna(share) else f"{np.floor(share * 1000 + 1e-9) / 10:.1f}"


def _radius(radius: float) -> str:
    return "--" if pd.isna(radius) else escape("∞") if np.isinf(radius) else f"{floor_digits(radius, 4):.4g}"


def _inline(text: str) -> str:
    """Markdown's bold and code within a cell."""
    parts = re.split(r"(\*\*.+?\*\*|`[^`]+`)", text)
    made = []
    for part in parts:
        if part.startswith("**") and part.endswith("**") and len(part) > 4:
            made.append(f"\\textbf{{{escape(part[2:-2])}}}")
        elif part.startswith("`") and part.endswith("`") and len(part) > 2:
            made.append(f"\\texttt{{{escape(part[1:-1])}}}")
        else:
            made.append(escape(part))
    return "".join(made)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{caption}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", "\\toprule"]
    lines += [" & ".join(columns) + " \\\\", "\\midrule", *(" & ".join(row) + " \\\\" for row in rows)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])
