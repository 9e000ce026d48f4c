"""What a run would do: its data, its cells and how long they will take; nothing is computed or written."""

from collections.abc import Sequence

from bench.data import Dataset
from bench.data.request import cached_dataset
from bench.kept.store import Store
from bench.running.cells import CellJob
from bench.running.costs import Costs, in_words
from bench.running.progress import estimate
from bench.suites.suite import Suite


def dry_run(store: Store, suite: Suite, jobs: Sequence[CellJob], at_a_time: int) -> str:
    """Return the text for the terminal: one line for each data set and each method on it, then the sum."""
    costs = Costs.at_hand(store.out)
    left = [job for job in jobs if not job.folder.finished(job.key)]
    seeds = ", ".join(map(str, suite.seeds))
    lines = [f"{suite.title}: {', '.join(suite.norms)}; seeds {seeds}; into {store.out}"]
    for dataset in suite.datasets:
        here = [job for job in jobs if job.folder.dataset == dataset]
        if here:
            lines += ["", describe(cached_dataset(here[0].data))]
        for method in dict.fromkeys(job.folder.method for job in here):
            cells = [job for job in here if job.folder.method == method]
            lines.append(f"  {method:28} {_state(cells, left, costs)}")
    done = f"{len(left)} of {len(jobs)} cells to compute, {at_a_time} at a time"
    return "\n".join([*lines, "", f"{done}; {estimate(left, costs, at_a_time) if left else 'nothing to do'}"])


def describe(data: Dataset) -> str:
    """Return a data set in one line: shape, sizes of the splits, share of the sensitive class."""
    shape = " x ".join(map(str, data.input_shape))
    splits = ((name, getattr(data, f"y_{name}")) for name in ("train", "val", "test"))
    counts = ", ".join(f"{name} {len(y):,} ({int(y.sum()):,} sensitive)" for name, y in splits)
    return f"{data.name}: {shape}; {counts}; sensitive: {data.classes[0]}"


def _state(cells: Sequence[CellJob], left: Sequence[CellJob], costs: Costs) -> str:
    todo = [job for job in cells if job in left]
    if not todo:
        return "finished before"
    seconds = costs.of(todo[0])
    each = "never timed" if seconds is None else f"about {in_words(seconds)} each"
    return f"{len(todo)} cell{'s' if len(todo) > 1 else ''}, {each}"
