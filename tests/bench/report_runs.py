"""A finished run made of drawn rows, with everything in it that a report must be able to show."""

from pathlib import Path

import numpy as np
import pandas as pd
from tables import USUAL_FACTS

from bench.kept.rows import check_predictions, check_radii
from bench.kept.store import Store
from bench.running.provenance import RunClock, run_record

NAN = float("nan")
NASTY = "<script>window.hacked = 1</script>&lt;b>%{x}"
INPUTS = 30
METHODS = {
    "fcnn": {
        "method": "fcnn",
        "title": "Feature-convex network",
        "reference": "Pfrommer et al. 2023",
        "guarantee": "deterministic",
    },
    "smoothing": {
        "title": "Gaussian smoothing",
        "reference": "Cohen et al. 2019",
        "guarantee": "probabilistic",
    },
    "verifier": {
        "title": "Complete <b>verifier</b> <img src=x onerror=window.hacked=1>",
        "reference": "</script><script>window.hacked = 1</script>",
        "guarantee": "deterministic",
    },
}
SCALE = {"l1": 1.0, "l2": 0.4, "linf": 0.02}


def curve(
    dataset: str, method: str, certificate: str, norm: str, seed: int = 0, **changes: object
) -> pd.DataFrame:
    """Rows of INPUTS sensitive inputs of one curve, all certified, at positions 0, 2, 4, ... of the test split."""
    rng = np.random.default_rng([len(method), len(certificate), len(norm), seed])
    facts = {
        "dataset": dataset,
        "method": method,
        "certificate": certificate,
        "norm": norm,
        **USUAL_FACTS,
        "seed": seed,
        "index": 2 * np.arange(INPUTS),
        "predicted": 1,
        "outcome": "certified",
        "radius": SCALE[norm] * rng.lognormal(sigma=0.6, size=INPUTS),
        "seconds": 0.002,
        "norms_in_call": 1,
    }
    return pd.DataFrame({**facts, **changes})


def radii_of(dataset: str, seeds: tuple[int, ...] = (0,)) -> list[pd.DataFrame]:
    """Rows of three methods and four curves: in the box with upper ends, probabilistic, and with timeouts."""
    frames = []
    for seed in seeds:
        for norm in ("l1", "l2", "linf"):
            free = curve(dataset, "fcnn", "closed_form", norm, seed)
            boxed = curve(dataset, "fcnn", "in_domain", norm, seed, domain="box", seconds=0.004)
            boxed["radius"] = free["radius"] * 1.1
            boxed["radius_upper"] = free["radius"] * np.where(np.arange(INPUTS) % 5, 1.6, NAN)
            boxed.loc[0, "radius"] = np.inf
            boxed.loc[0, "radius_upper"] = NAN
            vote = {"guarantee": "probabilistic", "alpha": 0.001, "draws": 1000, "native": norm == "l2"}
            voted = curve(dataset, "smoothing", "gaussian", norm, seed, **vote, seconds=0.3)
            voted["radius"] = np.minimum(voted["radius"], 1.5 * SCALE[norm])
            verified = curve(dataset, "verifier", "complete", norm, seed, seconds=20.0)
            verified["radius"] = SCALE[norm] * np.repeat([0.25, 0.5, 1.0], INPUTS // 3)
            late = verified.index < 4
            verified.loc[late, ["outcome", "radius", "reason"]] = ["timeout", NAN, "30 s were not enough"]
            frames += [free, boxed, voted, verified]
    return frames


def predictions_of(
    dataset: str, methods: tuple[str, ...] = tuple(METHODS), seeds: tuple[int, ...] = (0,)
) -> pd.DataFrame:
    """All test inputs, every second one sensitive; one in ten of the others is called sensitive, too."""
    index = np.arange(2 * INPUTS)
    label = (index % 2 == 0).astype(int)
    predicted = np.where(index % 20 == 1, 1, label)
    facts = {"index": index, "label": label, "predicted": predicted, "dataset": dataset, "seconds": 0.0}
    facts |= {"operating_point": "balanced", "score": predicted - 0.5}
    return pd.concat(
        [pd.DataFrame({**facts, "method": name, "seed": seed}) for name in methods for seed in seeds]
    )


def failed_rows(dataset: str) -> pd.DataFrame:
    """Rows of a cell that failed before it predicted anything."""
    nothing = {"outcome": "error", "radius": NAN, "predicted": NAN, "seconds": 0.0}
    return curve(dataset, "fcnn", "closed_form", "l2", **nothing, reason="RuntimeError: <b>out of luck</b>")


def write_run(
    out: Path, radii: list[pd.DataFrame], predictions: list[pd.DataFrame], **configuration: object
) -> Path:
    """Store the rows as a finished run in ``out``."""
    store = Store(out)
    store.prepare()
    radii = check_radii(pd.concat(radii)) if radii else None
    predicted = check_predictions(pd.concat(predictions)) if predictions else None
    cells = []
    if radii is not None:
        for (dataset, method, seed), rows in radii.groupby(["dataset", "method", "seed"]):
            cells.append(store.cell(dataset, method, seed))
            mine = predictions_of(dataset, (method,), (seed,)).iloc[:0]
            if predicted is not None:
                key = (
                    (predicted["dataset"] == dataset)
                    & (predicted["method"] == method)
                    & (predicted["seed"] == seed)
                )
                mine = predicted[key]
            cells[-1].write("key", rows, mine)
    merged, _ = store.merge(cells)
    settings = {
        "title": "Everything a report shows",
        "reduced": "30 inputs",
        "sensitive": None,
        **configuration,
    }
    store.write_run(run_record(settings, METHODS, merged, RunClock()))
    return out


def write_images(folder: Path, name: str = "tiny") -> Path:
    """Write NAME.npz with 8x8 grey images whose test split fits the rows above."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    y = (np.arange(2 * INPUTS) % 2 == 0).astype(np.int64)
    x = rng.integers(0, 200, (2 * INPUTS, 8, 8)).astype(np.uint8)
    x[:, 2:6, 2:6] += (50 * y[:, None, None]).astype(np.uint8)
    np.savez(folder / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return folder
