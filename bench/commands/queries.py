"""Is the network of a finished run robust at given radii? Branch and bound answers, kept as they come."""

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from baselines.branch_and_bound import Budget, Search, Status, UnsupportedNetwork, to_chain, verify
from baselines.branch_and_bound.chain import Chain
from bench.basics.commands import DONE
from bench.basics.errors import UsageError, unknown
from bench.contract import check_norms
from bench.data import Dataset
from bench.export.inputs import asked_inputs
from bench.kept.finished import load_method
from bench.kept.points import points_in_order
from bench.kept.store import Store
from bench.running.runner import DataRequest, cached_dataset

ANSWERS = "queries.csv"
# Most queries are easy: they are decided in one batch, with so few sub-domains each, before the clock starts.
EASY = Budget(max_domains=40)
# The clock ends a hard query, not the number of its sub-domains; bounds are tightened on the shallow ones.
NO_LIMIT = 10**9
HARD_SEARCH = Search(refine_depth=8)
UNIT = ["network", "norm", "domain", "radius"]


@dataclass(frozen=True)
class Queries:
    """What is asked of each network: the radii in each norm, the domain, how many inputs, seconds per query.

    operating_point: at whose threshold (None: the run's first).
    """

    radii: dict[str, tuple[float, ...]]
    domain: str = "box"
    inputs: int = 20
    seconds: float = 30.0
    operating_point: str | None = None


@dataclass(frozen=True)
class Network:
    """The trained network of one cell, as affine layers and ReLUs, and a name that changes with its weights."""

    method: str
    chain: Chain
    fingerprint: str


def answer(
    network: Network,
    x: torch.Tensor,
    index: np.ndarray,
    norm: str,
    radius: float,
    queries: Queries,
    mutable: torch.Tensor | None = None,
) -> pd.DataFrame:
    """Return one row per input of x (N, *shape): its index, the answer, sub-domains bounded and seconds.

    mutable: (d,) bool, the only features that move; None: all.
    """
    torch.set_num_threads(1)
    begin = time.perf_counter()
    easy = verify(network.chain, x, radius, norm, queries.domain, EASY, mutable=mutable)
    status, domains = easy.status.copy(), easy.domains.copy()
    seconds = np.full(len(x), (time.perf_counter() - begin) / len(x))
    budget = Budget(NO_LIMIT, queries.seconds)
    for row in np.flatnonzero(status == Status.TIMEOUT):
        begin = time.perf_counter()
        hard = verify(
            network.chain, x[row : row + 1], radius, norm, queries.domain, budget, HARD_SEARCH, mutable
        )
        status[row], domains[row] = hard.status[0], domains[row] + hard.domains[0]
        seconds[row] += time.perf_counter() - begin
    return pd.DataFrame(
        {
            "method": network.method,
            "network": network.fingerprint,
            "norm": norm,
            "domain": queries.domain,
            "radius": radius,
            "index": index,
            "answer": [str(value) for value in status],
            "domains": domains,
            "seconds": seconds.round(3),
        }
    )


def ask(
    out: Path, data: Dataset, methods: Sequence[str], seed: int, queries: Queries, jobs: int
) -> pd.DataFrame:
    """Answer all queries of the networks of these cells, those of an earlier call excepted; write and return them."""
    store = Store(out)
    networks = [load_network(store, data, method, seed, queries.operating_point) for method in methods]
    done = _earlier(out / ANSWERS)
    mutable = None if data.mutable is None else torch.from_numpy(data.mutable)
    calls = [
        joblib.delayed(answer)(network, x, index, norm, radius, queries, mutable)
        for network in networks
        for x, index in [chosen_inputs(store, network, data, seed, queries)]
        for norm, radii in queries.radii.items()
        for radius in radii
        if not _answered(done, network, norm, radius, queries, index)
    ]
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    for rows in tqdm(parallel(calls), total=len(calls), desc="queries", disable=None):
        done = pd.concat([done, rows]).drop_duplicates([*UNIT, "index"], keep="last")
        store.write_table(ANSWERS, done.sort_values(["method", *UNIT, "index"]))
    current = {network.fingerprint for network in networks}
    return done[done["network"].isin(current) & (done["domain"] == queries.domain)]


def load_network(
    store: Store, data: Dataset, method_id: str, seed: int, operating_point: str | None = None
) -> Network:
    """Rebuild the network of a finished cell; raise UsageError if there is none that branch and bound can read."""
    method = load_method(store, data, data.name, method_id, seed, operating_point)
    try:
        chain = to_chain(method.model, data.input_shape)
    except UnsupportedNetwork as error:
        raise UsageError(f"branch and bound cannot read the network of {method_id!r}: {error}") from error
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in method.state().values())
    return Network(method_id, chain, hashlib.sha256(weights).hexdigest()[:16])


def chosen_inputs(
    store: Store, network: Network, data: Dataset, seed: int, queries: Queries
) -> tuple[torch.Tensor, np.ndarray]:
    """Return the run's own first inputs that the network calls sensitive, and their indices.

    They are those that exported questions ask about, so that other verifiers' answers can be set beside these.
    """
    run, radii, _ = store.read_run()
    cell = (radii["dataset"] == data.name) & (radii["method"] == network.method) & (radii["seed"] == seed)
    points = points_in_order(run["configuration"], radii["operating_point"])
    point = radii["operating_point"] == (queries.operating_point or points[0])
    index = asked_inputs(radii[cell & point], queries.inputs)
    return torch.from_numpy(data.x_test[index]), index


def summarise(answers: pd.DataFrame) -> str:
    """Return a table, one line per method and norm: robust + not robust of those asked, and the share decided."""
    lines = []
    for (method, domain), mine in answers.groupby(["method", "domain"], sort=False):
        lines.append(f"{method}, domain {domain}: robust + not robust of asked")
        for norm, rows in mine.groupby("norm", sort=False):
            lines.append(f"  {norm:5}" + "".join(_at_radius(*group) for group in rows.groupby("radius")))
        decided = (mine["answer"] != Status.TIMEOUT).sum()
        lines.append(f"  decided: {decided} of {len(mine)} ({decided / len(mine):.0%})")
    return "\n".join(lines)


def _at_radius(radius: float, rows: pd.DataFrame) -> str:
    robust, wrong = ((rows["answer"] == status).sum() for status in (Status.ROBUST, Status.NOT_ROBUST))
    return f"  @{radius:g}: {robust}+{wrong}/{len(rows)}"


def _earlier(path: Path) -> pd.DataFrame:
    columns = [*UNIT, "method", "index"]
    if not path.exists():
        return pd.DataFrame(columns=columns)
    try:
        answers = pd.read_csv(path)
        answers[columns]
        return answers
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{str(path)!r} is no table of earlier answers ({' '.join(str(error).split())}): move it away, and all is "
            "asked anew"
        ) from error


def _answered(
    done: pd.DataFrame, network: Network, norm: str, radius: float, queries: Queries, index: np.ndarray
) -> bool:
    """Whether an earlier call has answered this radius for all these inputs; a timeout may deserve more seconds."""
    unit = (network.fingerprint, norm, queries.domain, radius)
    rows = done[(done[UNIT] == list(unit)).all(axis=1)]
    return set(index) <= set(rows["index"])


def _radii(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Parse NORM=R,R,...; raise UsageError for anything else."""
    radii = {}
    for word in words:
        norm, _, listed = word.partition("=")
        check_norms([norm])
        if norm in radii:
            raise UsageError(f"--radii {word!r}: {norm} is named twice, write {norm}=R,R,... once")
        try:
            radii[norm] = tuple(float(radius) for radius in listed.split(","))
        except ValueError:
            raise UsageError(f"--radii {word!r}: write NORM=R,R,..., for example l2=0.5,1,1.5") from None
        if not all(0 < radius < float("inf") for radius in radii[norm]):
            raise UsageError(f"--radii {word!r}: radii must be positive numbers")
    return radii


def _check_cells(radii: pd.DataFrame, options: argparse.Namespace) -> None:
    """Raise UsageError for a data set, method or seed that the run does not have."""
    asked = {"dataset": [options.dataset], "method": options.methods, "seed": [options.seed]}
    for what, values in asked.items():
        known = sorted(radii[what].unique())
        for value in values:
            if value not in known:
                raise unknown(f"{what} of the run", str(value), map(str, known))
        radii = radii[radii[what].isin(values)]


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    if not 0 < options.seconds < float("inf"):
        raise UsageError(f"--seconds {options.seconds}: give a number > 0")
    return options


def run(options: argparse.Namespace) -> int:
    """Ask, and print the table."""
    options = _checked(options)
    queries = Queries(
        _radii(options.radii), options.domain, options.inputs, options.seconds, options.operating_point
    )
    run, radii, _ = Store(options.out).read_run()
    configuration = run["configuration"]
    _check_cells(radii, options)
    request = DataRequest.of_run(configuration, options.dataset, options.data_dir)
    data = cached_dataset(replace(request, sensitive=options.sensitive or request.sensitive))
    answers = ask(options.out, data, options.methods, options.seed, queries, options.jobs)
    print(summarise(answers))
    print(f"Answers: {options.out / ANSWERS}")
    return DONE
