"""Certified recall over the false positive rate: what a curve would certify at other thresholds than the chosen ones.

Nothing is chosen from it: the thresholds are scores of the other class's test inputs, and the figures show all of them.
One row for each curve whose method finds radii at many thresholds in one pass, norm, seed and threshold:

false_positives, others: how many of the other class's test inputs score above the threshold, and how many there are.
inputs: sensitive test inputs; radii: those certified there, descending, at most LEVELS of them (see ``cut_radii``).
"""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.basics.files import DamagedFileError

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
