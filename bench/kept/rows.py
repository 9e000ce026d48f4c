"""The tables: their columns, what makes a row valid, and their form on disk (parquet).

``radii`` has one row for each *sensitive* test input of each data set, method, certificate, domain, norm, operating
point and seed. ``predictions`` has one row for every test input of each data set, method, operating point and seed,
with the ``score`` above the threshold (missing where the method has none). Columns of ``radii``:

dataset, method, certificate, norm, domain, operating_point: the curve that the row belongs to.
guarantee, alpha, draws: ``deterministic``, or ``probabilistic`` with its error probability and number of draws.
native: whether the radius is the method's own in this norm (else converted from another norm).
calibrated_on: the split that chose the threshold (``test`` only to reproduce others' numbers).
calibration_others: how many inputs of the other class that split has; missing where nothing was chosen, or not known.
seed, index, label: the run's seed, the input's position in the test split, its label (1 = sensitive).
predicted: 1 sensitive, 0 not, missing where the method abstained or never got as far as predicting.
outcome: one of the seven of :class:`bench.contract.Outcome`; reason: a sentence where the outcome needs one.
radius: certified radius in units of x, ``inf`` where the whole domain is certified; missing unless ``certified``.
radius_upper: norm of a known adversarial perturbation; missing where none is known.
seconds: what the call that certified this input took (its share of the batch); the only column that differs between
    two runs with the same seed. norms_in_call: a call covers so many norms at once (0: the curve has no certificate in
    this norm); their rows show the same seconds, and only equal numbers of norms compare.
"""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.basics.files import READABLE_VERSIONS, SCHEMA_VERSION, DamagedFileError
from bench.calibration import BALANCED, GIVEN
from bench.contract import NORMS, Outcome

RADII_COLUMNS = {
    "dataset": "str",
    "method": "str",
    "certificate": "str",
    "norm": "str",
    "domain": "str",
    "operating_point": "str",
    "guarantee": "str",
    "alpha": "Float64",
    "draws": "Int64",
    "native": "bool",
    "calibrated_on": "str",
    "calibration_others": "Int64",
    "seed": "int64",
    "index": "int64",
    "label": "int8",
    "predicted": "Int8",
    "outcome": "str",
    "radius": "Float64",
    "radius_upper": "Float64",
    "seconds": "float64",
    "norms_in_call": "int8",
    "reason": "str",
}
PREDICTION_COLUMNS = {
    "dataset": "str",
    "method": "str",
    "operating_point": "str",
    "seed": "int64",
    "index": "int64",
    "label": "int8",
    "predicted": "Int8",
    "score": "Float64",
    "seconds": "float64",
}
LINE = ["method", "certificate", "domain"]
CURVE_KEY = ["dataset", *LINE, "norm", "operating_point"]
RADII_KEY = [*CURVE_KEY, "seed", "index"]
PREDICTION_KEY = ["dataset", "method", "operating_point", "seed", "index"]
ALLOWED = {
    "norm": NORMS,
    "domain": ("free", "box"),
    "guarantee": ("deterministic", "probabilistic"),
    "calibrated_on": ("validation", "test", "none"),
    "outcome": tuple(Outcome),
    "label": (0, 1),
    "predicted": (0, 1),
}
VERSION_TAG = b"certbench_schema_version"
ARROW_TYPES = {
    "str": pa.string(),
    "Float64": pa.float64(),
    "float64": pa.float64(),
    "Int64": pa.int64(),
    "int64": pa.int64(),
    "Int8": pa.int8(),
    "int8": pa.int8(),
    "bool": pa.bool_(),
}


def check_radii(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the dtypes of RADII_COLUMNS in canonical order; raise ValueError for a wrong row."""
    frame = _conform(frame, RADII_COLUMNS, RADII_KEY)
    certified = frame["outcome"] == Outcome.CERTIFIED
    radius, upper = frame["radius"], frame["radius_upper"]
    rules = {
        "label must be 1: only sensitive inputs have a radius": frame["label"] == 1,
        "radius must be a positive number where certified (inf is allowed)": ~certified | (radius > 0),
        "radius must be missing where not certified": certified | radius.isna(),
        "predicted must be 1 where certified": ~certified | (frame["predicted"] == 1),
        "predicted must be 0 where misclassified": (frame["outcome"] != Outcome.MISCLASSIFIED)
        | (frame["predicted"] == 0),
        "radius_upper must be a finite number >= 0, or missing": upper.isna() | upper.between(0, 1e308),
        "norms_in_call must be a whole number >= 0": frame["norms_in_call"] >= 0,
        "alpha must lie in (0, 1) where the guarantee is probabilistic, else be missing": _alpha_fits(frame),
    }
    _enforce(frame, rules)
    return frame


def check_predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the dtypes of PREDICTION_COLUMNS in canonical order; raise ValueError for a wrong row."""
    return _conform(frame, PREDICTION_COLUMNS, PREDICTION_KEY)


def without_timing(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table without its timing, the only part that two runs with the same seed may differ in."""
    return frame.drop(columns="seconds")


def to_parquet(frame: pd.DataFrame, columns: dict[str, str]) -> bytes:
    """Return a checked table as parquet bytes; equal tables give equal bytes."""
    schema = pa.schema(
        [pa.field(name, ARROW_TYPES[dtype]) for name, dtype in columns.items()],
        metadata={VERSION_TAG: str(SCHEMA_VERSION).encode()},
    )
    arrays = [pa.array(frame[name], type=schema.field(name).type, from_pandas=True) for name in columns]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes, columns: dict[str, str]) -> pd.DataFrame:
    """Return the table in parquet bytes; raise DamagedFileError unless ``to_parquet`` wrote such a table."""
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFileError("is not a parquet table, or is damaged") from error
    version = (table.schema.metadata or {}).get(VERSION_TAG, b"none").decode(errors="replace")
    if version not in map(str, READABLE_VERSIONS):
        raise DamagedFileError(
            f"has schema version {version}, this version of the suite reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}"
        )
    frame = table.to_pandas()
    if version == "1":
        frame = from_version_1(frame)
    if sorted(frame.columns) != sorted(columns):
        raise DamagedFileError("has other columns than this version of the suite writes")
    try:
        return check_radii(frame) if columns is RADII_COLUMNS else check_predictions(frame)
    except ValueError as error:
        raise DamagedFileError(f"holds a row that is not valid ({error})") from error


def from_version_1(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of schema version 1 with the columns of today: it had one operating point and no scores."""
    if "calibrated_on" not in frame:
        return frame.assign(operating_point=BALANCED, score=pd.NA)
    if "norms_in_call" not in frame:
        frame = _with_norms_in_call(frame)
    point = np.where(frame["calibrated_on"] == "none", GIVEN, BALANCED)
    return frame.assign(operating_point=point, calibration_others=pd.NA)


def _with_norms_in_call(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring rows to today's form that were written when a call's seconds were divided by the norms it covered."""
    call = ["dataset", *LINE, "seed"]
    covered = frame["outcome"] != Outcome.UNSUPPORTED
    count = frame["norm"].where(covered).groupby([frame[name] for name in call]).transform("nunique")
    seconds = frame["seconds"] * count.clip(lower=1)
    return frame.assign(seconds=seconds, norms_in_call=count.where(covered, 0).fillna(0))


def _conform(frame: pd.DataFrame, columns: dict[str, str], key: list[str]) -> pd.DataFrame:
    if set(frame.columns) != set(columns):
        different = sorted(set(frame.columns) ^ set(columns))
        raise ValueError(f"wrong columns: {', '.join(different)}; a table has {', '.join(columns)}")
    optional = [name for name, dtype in columns.items() if dtype[0] in "IF"]
    for name in columns:
        if name not in optional and frame[name].isna().any():
            raise ValueError(f"column {name!r} has a missing value: only {', '.join(optional)} may")
    try:
        frame = frame[list(columns)].astype(columns)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a column has the wrong type: {error}") from error
    _enforce(
        frame,
        {
            f"{name} must be one of {', '.join(map(str, allowed))}": frame[name].isin(allowed)
            | frame[name].isna()
            for name, allowed in ALLOWED.items()
            if name in columns
        },
    )
    if frame.duplicated(key).any():
        first = frame.loc[frame.duplicated(key), key].iloc[0].to_dict()
        raise ValueError(f"two rows for {first}: there is one row for each {', '.join(key)}")
    return frame.sort_values(key, kind="stable", ignore_index=True)


def _alpha_fits(frame: pd.DataFrame) -> pd.Series:
    probabilistic = frame["guarantee"] == "probabilistic"
    inside = (frame["alpha"] > 0) & (frame["alpha"] < 1)
    return (probabilistic & inside.fillna(False)) | (~probabilistic & frame["alpha"].isna())


def _enforce(frame: pd.DataFrame, rules: dict[str, pd.Series]) -> None:
    """Raise ValueError naming the first broken rule and row; a comparison with a missing value breaks it."""
    for rule, holds in rules.items():
        broken = ~holds.fillna(False).astype(bool)
        if broken.any():
            raise ValueError(
                f"{rule}; {int(broken.sum())} rows do not, the first is {frame[broken].iloc[0].to_dict()}"
            )
