"""Seconds per certificate of every method on every data set, from the rows of a finished run (--run DIR).

One call certifies an input in several norms at once, and many methods share nearly all of the work between them. So the
seconds are those of a call, and lines are told apart by how many norms it covers: only equal numbers compare.
"""

import sys

from bench.experiments._single import single

if __name__ == "__main__":  # before the imports that take seconds, which --help can do without
    sys.exit(single("runtime", __doc__)())

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.basics.errors import UsageError
from bench.experiments._finished import Figures, Finished
from bench.experiments._shared import Experiment, Options, finish
from bench.kept.store import Store
from bench.report.figures.line_styles import seconds_axis
from bench.report.tables.summary import summarise
from bench.running.provenance import RunClock

EXPERIMENT = Experiment("runtime", "Seconds per certificate", "")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MARKERS = "os^Dv*"


def run(options: Options) -> list[Path]:
    """Read the run's rows and plot."""
    clock = RunClock()
    if options.run is None:
        raise UsageError("which run? give --run DIR, the output folder of a finished bench.compare")
    record, radii, predictions = Store(options.run).read_run()
    rows = table(summarise(radii, predictions), record["methods"])
    Store(options.out).prepare()
    settings = {
        "run": record["configuration"]["name"],
        "title": record["configuration"]["title"],
        "reduced": record["configuration"].get("reduced") or "",
        "hardware": record["hardware"],
    }
    return finish(EXPERIMENT, options, rows, settings, clock)


def figures(finished: Finished) -> Figures:
    """The figure, from the rows; heading and machine are those of the run that was read."""
    return {EXPERIMENT.name: lambda: figure(finished.rows, finished.record["settings"])}


def table(summary: pd.DataFrame, methods: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each data set, method, certificate and domain, in legend order: seconds of a call, its norms."""
    key = ["dataset", "method", "certificate", "domain"]
    covered = summary[summary["norms_in_call"] > 0]
    rows = covered.groupby(key, as_index=False).agg(
        {"seconds_per_certificate": "mean", "norms_in_call": "max"}
    )
    order = list(methods)
    rows["place"] = rows["method"].map(lambda name: order.index(name) if name in order else len(order))
    rows["box"] = rows["domain"] == "box"
    rows = rows.sort_values(["dataset", "place", "box", "certificate"], ignore_index=True)
    rows["title"] = [methods.get(name, {}).get("title") or name for name in rows["method"]]
    return rows.drop(columns=["place", "box"])


def figure(rows: pd.DataFrame, read: Mapping[str, Any]) -> Figure:
    """Draw a line for each method and certificate, a marker for each data set; read: title and machine of the run."""
    several = rows.groupby("method")[["certificate", "domain"]].transform("nunique").max(axis=1) > 1
    names = rows["title"] + (", " + rows["certificate"].str.replace("_", " ")).where(several, "")
    names += rows["domain"].map({"box": " (box)"}).fillna("")
    if rows["norms_in_call"].nunique() > 1:
        names += rows["norms_in_call"].map(lambda count: f", {count} norm{'s' if count > 1 else ''}")
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    drawing = Figure(figsize=(7.5, 1.8 + 0.24 * len(places)), layout="constrained")
    ax = drawing.subplots()
    for number, (dataset, part) in enumerate(rows.groupby("dataset", sort=True)):
        shown = part["seconds_per_certificate"] > 0
        ax.plot(
            part.loc[shown, "seconds_per_certificate"],
            [places[name] for name in names[part.index[shown]]],
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=5,
            label=dataset,
        )
    ax.set_yticks(list(places.values()), list(places), fontsize=8)
    ax.set_ylim(len(places) - 0.5, -0.5)
    seconds_axis(ax)
    norms = " or ".join(map(str, sorted(rows["norms_in_call"].unique())))
    ax.set_xlabel(f"time to certify an input (one call, {norms} norms at once)")
    hardware = read["hardware"]
    machine = ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['cores']} cores"
    heading = f"{EXPERIMENT.title}, {read['title']}"
    shortfall = [f"reduced: {read['reduced']}"] if read["reduced"] else []
    drawing.suptitle("\n".join([heading, *shortfall, machine]), fontsize=10)
    drawing.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return drawing
