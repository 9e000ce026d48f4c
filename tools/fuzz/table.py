"""The published table of a run: a line for each method, from the rows of its fuzz.csv.

python -m tools.fuzz.table results/fuzz
"""

import argparse
import json
from pathlib import Path

import pandas as pd

GROUPS = (
    ("learned", "FCNN on learned maps"),
    ("union", "union of FCNNs"),
    ("fcnn", "FCNN"),
    ("linear", "linear"),
    ("bounds", "bounds (IBP, CROWN)"),
    ("branch_and_bound", "branch and bound"),
    ("splitting", "splitting noise"),
    ("smoothing", "smoothing, exact probabilities"),
)
OTHERS = "Lipschitz networks"
SUMMED = ("held", "exact", "above", "withdrawn", "refused", "solver_below", "solver_refuted", "radius_proved")
HEADINGS = (
    *("Method", "radii held", "against an exact answer besides", "largest radius / truth", "above by > 1e-6"),
    *("withdrawn", "solver below the radius", "its point refuted exactly", "radius proved exactly"),
)


def markdown(rows: pd.DataFrame, record: dict) -> str:
    """The table of a run's rows, with the line that says what it took."""
    named = rows.assign(group=[_group(method) for method in rows.method])
    summed = named.groupby("group", sort=False)[list(SUMMED)].sum()
    summed["worst"] = named.groupby("group", sort=False).worst_ratio.max()
    order = [title for _, title in GROUPS[2:3] + GROUPS[:2] + GROUPS[3:] if title in summed.index]
    summed = summed.loc[[*order, *[title for title in summed.index if title not in order]]]
    total = summed.sum()
    total["worst"] = summed.worst.max()
    lines = [_line(HEADINGS), _line(["---"] + ["---:"] * (len(HEADINGS) - 1))]
    lines += [_line([title, *_cells(row)]) for title, row in summed.iterrows()]
    lines.append(_line(["**all**", *_cells(total)]))
    settings, times = record["configuration"], record["times"]
    cases = sum(record["cases"].values())
    lines.append("")
    lines.append(
        f"{cases:,} networks in {times['seconds'] / 60:.0f} minutes, seed {settings['seed']}; "
        "rows for each certificate, norm and domain are in fuzz.csv, versions and hardware in run.json."
    )
    return "\n".join(lines) + "\n"


def _group(method: str) -> str:
    return next((title for start, title in GROUPS if method.startswith(start)), OTHERS)


def _cells(row: pd.Series) -> list[str]:
    counts = [f"{int(row[name]):,}" for name in SUMMED if name != "refused"]
    return [*counts[:2], f"{row.worst:.9f}", *counts[2:]]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def write_table(folder: Path) -> Path:
    """Write fuzz.md beside a run's fuzz.csv and run.json."""
    rows = pd.read_csv(folder / "fuzz.csv")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    path = folder / "fuzz.md"
    path.write_text(markdown(rows, record), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz.table", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(write_table(parser.parse_args().folder))
