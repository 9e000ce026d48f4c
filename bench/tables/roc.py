"""Certified recall over the false positive rate: what a curve would certify at other thresholds than the chosen ones.

Nothing is chosen from it: the thresholds are scores of the other class's test inputs, and the figures show all of them.
One row for each curve whose method finds radii at many thresholds in one pass, norm, seed and threshold:

false_positives, others: how many of the other class's test inputs score above the threshold, and how many there are.
inputs: sensitive test inputs; radii: those certified there, descending, at most LEVELS of them (see ``cut_radii``).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.files import DamagedFileError
from bench.tables.summary import named_radii

ROC_COLUMNS = {
    "dataset": pa.string(),
    "method": pa.string(),
    "certificate": pa.string(),
    "domain": pa.string(),
    "norm": pa.string(),
    "seed": pa.int64(),
    "threshold": pa.float64(),
    "false_positives": pa.int64(),
    "others": pa.int64(),
    "inputs": pa.int64(),
    "radii": pa.list_(pa.float64()),
}
ROC_KEY = list(ROC_COLUMNS)[:7]
LEVELS = 200
POINTS = 24


def grid_of_thresholds(others: np.ndarray) -> np.ndarray:
    """Return thresholds (T,), ascending, at about POINTS false positive rates, evenly spaced on a logarithmic axis.

    others: (N,) scores of the other class's test inputs; rates from 0 and 1 / N, the smallest that they tell apart, up
    to 1. Each is one of the scores, and false positives are the scores above it.
    """
    descending = -np.sort(-others[np.isfinite(others)])
    if not len(descending):
        return np.zeros(0)
    ranks = np.unique(np.r_[0, np.geomspace(1, len(descending), POINTS).round().astype(int)])
    # At rank N every input is called sensitive, which takes a threshold below all scores.
    lowest = np.nextafter(descending[-1], -np.inf)
    return np.unique(np.r_[lowest, descending[ranks[ranks < len(descending)]]])


def cut_radii(radii: np.ndarray) -> np.ndarray:
    """Return the positive radii (N,), descending; of more than LEVELS the smallest of a block stands for the block.

    So a share of inputs with a radius of at least r, read off it, is never too large: the blocks are
    ``np.array_split``'s of all N inputs, and ``certified_share`` counts whole blocks.
    """
    descending = -np.sort(-radii)
    blocks = np.array_split(descending, min(LEVELS, len(descending))) if len(descending) else []
    smallest = np.array([block[-1] for block in blocks])
    return smallest[smallest > 0]


def certified_share(radii: np.ndarray, inputs: int, radius: float) -> float:
    """Return the share of ``inputs`` that ``cut_radii`` says have a radius of at least ``radius`` (0: any radius)."""
    count = int((radii >= radius).sum())
    blocks = min(LEVELS, inputs)
    # The first inputs % blocks blocks of np.array_split have one input more than the others.
    return (count * (inputs // blocks) + min(count, inputs % blocks)) / inputs if inputs else 0.0


def median_radius(radii: np.ndarray, inputs: int) -> float:
    """Return the largest radius that at least half of the inputs have, 0 where there is none."""
    reached = [radius for radius in radii if certified_share(radii, inputs, radius) >= 0.5]
    return float(max(reached, default=0.0))


def roc_rows(
    curve: dict[str, object], thresholds: Sequence[float], others: np.ndarray, radii: Sequence[np.ndarray]
) -> pd.DataFrame:
    """Return the rows of one curve, norm and seed; radii: for each threshold (N,), 0 where not certified."""
    return pd.DataFrame(
        [
            {
                **curve,
                "threshold": float(threshold),
                "false_positives": int((others > threshold).sum()),
                "others": len(others),
                "inputs": len(found),
                "radii": cut_radii(found),
            }
            for threshold, found in zip(thresholds, radii, strict=True)
        ],
        columns=list(ROC_COLUMNS),
    )


def roc_to_parquet(frame: pd.DataFrame) -> bytes:
    """Return the table as parquet bytes; equal tables give equal bytes."""
    table = pa.Table.from_pandas(frame, schema=pa.schema(list(ROC_COLUMNS.items())), preserve_index=False)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    return sink.getvalue()


def roc_from_parquet(data: bytes) -> pd.DataFrame:
    """Return the table in parquet bytes; raise DamagedFileError unless ``roc_to_parquet`` wrote it."""
    try:
        frame = pq.read_table(io.BytesIO(data), schema=pa.schema(list(ROC_COLUMNS.items()))).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError("is not a table of certified recalls, or is damaged") from error
    return frame


def no_roc() -> pd.DataFrame:
    """Return the table without rows."""
    return pd.DataFrame(columns=list(ROC_COLUMNS))


def roc_table(roc: pd.DataFrame, radii: pd.DataFrame, named: Mapping[str, Any]) -> pd.DataFrame:
    """Return what a run's folder keeps of the cells' tables: one row for each curve, norm, seed and threshold.

    Columns: those of a cell's table but the radii; median_radius, over all sensitive test inputs; radius_1,
    certified_recall_1, ...: the share of them with a radius of at least that, at the radii the summary names.
    radii: the run's rows; named: as in ``summarise``.
    """
    rows = []
    for (dataset, norm), panel in roc.groupby(["dataset", "norm"], sort=True):
        own = radii[(radii["dataset"] == dataset) & (radii["norm"] == norm)]
        at = named_radii(named, str(dataset), str(norm), own)
        for row in panel.to_dict("records"):
            found, inputs = np.asarray(row.pop("radii"), dtype=float), row["inputs"]
            row["median_radius"] = median_radius(found, inputs)
            for number, radius in enumerate(at, start=1):
                row |= {
                    f"radius_{number}": radius,
                    f"certified_recall_{number}": certified_share(found, inputs, radius),
                }
            rows.append(row)
    kept = [name for name in ROC_COLUMNS if name != "radii"] + ["median_radius"]
    frame = pd.DataFrame(rows)
    return frame[[*kept, *sorted(set(frame.columns) - set(kept), key=_number)]] if rows else frame


def mean_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the seeds of ``roc_table``'s numbers at each number of false positives that all reach."""
    key = ["dataset", "method", "certificate", "domain", "norm"]
    seeds = table.groupby(key)["seed"].transform("nunique")
    place = [*key, "false_positives"]
    # Scores that tie give two thresholds the same count: the lower one certifies at least as much.
    best = table.sort_values("threshold").drop_duplicates([*place, "seed"])
    whole = best.groupby(place)["seed"].transform("count") == seeds.loc[best.index]
    return best[whole].drop(columns=["seed", "threshold"]).groupby(place, as_index=False).mean()


def _number(column: str) -> tuple[int, str]:
    return int(column.rpartition("_")[2]), column
