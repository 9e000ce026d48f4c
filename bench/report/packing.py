"""Radii and bands in a form that is small and never flatters."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 4


def packed(values: np.ndarray, limit: int, upward: bool = False) -> dict[str, Any]:
    """Return the numbers (N,), sorted, as {count, block, values}: base64 of little-endian float64.

    Up to ``limit`` numbers are kept as they are (block 1). Of more, each block of neighbours keeps its smallest
    (upward: largest) one, so that a share of numbers >= r, counted as min(count, block * kept ones >= r), is never
    too large (upward: too small).
    """
    values = np.sort(np.asarray(values, dtype="<f8"))
    block = max(1, -(-len(values) // limit))
    starts = np.arange(len(values) % block - block if len(values) % block else 0, len(values), block)
    kept = starts + block - 1 if upward else np.maximum(starts, 0)
    data = values[kept] if len(values) else values
    return {"count": len(values), "block": block, "values": base64.b64encode(data.tobytes()).decode()}


def steps(band: Mapping[str, pd.Series]) -> dict[str, list[float]]:
    """Return the band's two ends with a few digits, the lower one rounded down and the upper one up."""
    scale = 10**DIGITS
    lower = np.floor(band["lower"].to_numpy(dtype=float) * scale) / scale
    upper = np.ceil(band["upper"].to_numpy(dtype=float) * scale) / scale
    return {"lower": lower.tolist(), "upper": upper.tolist()}
