"""The model file of a run of ``bench.certify``, kept beside its rows, so that its certificates can be attacked."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.basics.errors import UsageError, unknown
from bench.basics.files import DamagedFileError, checksum, write_atomic
from bench.basics.settings import from_table
from bench.contract import Method
from bench.data import Dataset
from bench.kept.store import Store, read_verified
from bench.methods import given_methods
from bench.methods.given import GivenNetwork
from bench.model_files import open_model
from bench.model_files.parts import parts

FOLDER = "model"
RUNS_NOTHING = (".safetensors", ".onnx")


def keep(store: Store, options: argparse.Namespace, logit: int) -> dict[str, Any]:
    """Copy the model file into OUT/model; return what ``reopen`` needs to read it as it was read now.

    logit: the sensitive class's.
    """
    path: Path = options.model
    (store.out / FOLDER).mkdir(exist_ok=True)
    files = {}
    for part in parts(path):
        content = part.read_bytes()
        write_atomic(store.out / FOLDER / part.name, content)
        files[part.name] = {"bytes": len(content), "sha256": checksum(content)}
    return {
        "files": files,
        "logit": logit,
        "threshold": options.threshold,
        "output": options.output,
        "layout": options.layout,
    }


def reopen(store: Store, data: Dataset, meta: Mapping[str, Any]) -> Method:
    """Return the method, not built yet, that issued a cell's certificates, with the network that was kept.

    meta: of the cell. Raises UsageError where the file is missing, changed, or of a kind that can run code.
    """
    name, given = meta["model_file"], meta.get("given")
    again = "run python -m bench.certify again"
    if given is None:
        raise UsageError(f"model {name!r} was not kept with its certificates: {again}")
    path = store.out / FOLDER / name
    if path.suffix not in RUNS_NOTHING:
        raise UsageError(
            f"model {name!r} can run code when it is loaded and is not opened again: certify the network as ONNX"
        )
    try:
        for part, expected in given["files"].items():
            read_verified(store.out / FOLDER / part, expected)
    except DamagedFileError as error:
        raise UsageError(f"model {str(path)!r} {error}: {again}") from error
    if meta["method"] not in given_methods():
        raise unknown("method", meta["method"], given_methods())
    kind = given_methods()[meta["method"]]
    method = kind(from_table(kind.Settings, meta["settings"], f"settings stored with model {name}"))
    opened = open_model(
        path,
        data.input_shape,
        logit=given["logit"],
        threshold=given["threshold"],
        output=given["output"],
        layout=given.get("layout", "auto"),
    )
    method.given = GivenNetwork(opened.score, data.input_shape, method.device, opened.unread)
    return method
