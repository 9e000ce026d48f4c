"""Tables as people have them, made up for tests."""

from pathlib import Path

import numpy as np
import pandas as pd

SENSITIVE_SHARE = 0.01
# What rows of certificates hold where a test is not about it: deterministic, native, any input, balanced recalls.
USUAL_FACTS: dict[str, object] = {
    "domain": "free",
    "operating_point": "balanced",
    "guarantee": "deterministic",
    "alpha": float("nan"),
    "draws": float("nan"),
    "native": True,
    "calibrated_on": "validation",
    "calibration_others": 200,
    "label": 1,
    "radius_upper": float("nan"),
    "reason": "",
}


def mixed_table(rows: int, share: float = SENSITIVE_SHARE, seed: int = 0) -> pd.DataFrame:
    """Numbers of several scales, texts, booleans and a label, fine or fraud; fraud is separable to the eye."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(rows) < share
    shape = rng.standard_normal((rows, 6))
    shape[fraud, :3] += 3.0
    frame = pd.DataFrame({f"amount{place}": 10.0**place * shape[:, place] + 5 for place in range(5)})
    frame["imports"] = np.round(np.exp(5 + shape[:, 5])).astype(int)
    frame["country"] = rng.choice(["DE", "FR", "US"], rows)
    frame["packer"] = np.where(fraud & (rng.random(rows) < 0.6), "upx", rng.choice(["none", "nsis"], rows))
    frame["signed"] = rng.random(rows) < 0.5
    frame["label"] = np.where(fraud, "fraud", "fine")
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path
