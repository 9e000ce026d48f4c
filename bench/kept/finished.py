"""The methods of a finished run, rebuilt as they were trained; nothing that was stored is executed."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.basics.errors import UsageError
from bench.basics.files import DamagedFileError
from bench.basics.settings import from_table
from bench.contract import Method
from bench.data import Dataset
from bench.kept.model_file import reopen
from bench.kept.store import CellFolder, Store
from bench.methods import get_method


def load_method(
    store: Store,
    data: Dataset,
    dataset: str,
    method_id: str,
    seed: int,
    operating_point: str | None = None,
) -> Method:
    """Rebuild a trained method from a finished cell, settings, weights and threshold; nothing in it is executed.

    operating_point: whose threshold to set (None: the cell's first). Raises UsageError for one that the cell lacks.

    The network of a run of ``bench.certify`` is opened again from the file kept with the run.
    """
    cell = store.cell(dataset, method_id, seed)
    try:
        meta, state = cell.record()["meta"], cell.read_state() or {}
    except DamagedFileError as error:
        raise UsageError(
            f"the trained network in {str(cell.path)!r} {error}: run python -m bench.compare again"
        ) from error
    if "model_file" in meta:
        method = reopen(store, data, meta)
    else:
        kind = get_method(meta["method"])
        method = kind(from_table(kind.Settings, meta["settings"], f"settings stored in {cell.path.name}"))
    method.mutable = None if data.mutable is None else torch.from_numpy(data.mutable)
    method.build(data.input_shape, seed=0)
    method.load_state(state)
    method.model.eval()
    _set_threshold(method, cell, meta, operating_point)
    return method


def _set_threshold(
    method: Method, cell: CellFolder, meta: Mapping[str, Any], operating_point: str | None
) -> None:
    points = meta.get("operating_points")
    if points is None or operating_point is None:
        return  # the threshold of the first point, and of a version that knew no others, is part of the state
    if operating_point not in points:
        raise UsageError(
            f"the cell in {str(cell.path)!r} has no operating point {operating_point!r}: "
            f"choose from {', '.join(points)}"
        )
    threshold = points[operating_point]["threshold"]
    if threshold is not None:
        method.set_threshold(float(threshold))
