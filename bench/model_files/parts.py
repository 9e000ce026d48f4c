"""The files that a model consists of: beside an ONNX file lie its weights, beside a checkpoint its settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.basics.errors import UsageError
from fcnn.checkpoints import settings_path


def parts(path: Path) -> tuple[Path, ...]:
    """Return the file of a model and those that belong to it."""
    if path.suffix == ".safetensors":
        return path, settings_path(path)
    if path.suffix == ".onnx":
        import onnx

        return path, *weight_files(path, onnx.load(path, load_external_data=False))
    return (path,)


def weight_files(path: Path, model: Any) -> tuple[Path, ...]:
    """Return the files that an ONNX model keeps weights in, in its own folder.

    Raises UsageError for one that lies elsewhere, or is not there.
    """
    found = {
        entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"
    }
    for name in sorted(found):
        file = path.parent / name
        if Path(name).name != name or file.is_symlink():
            raise UsageError(f"it keeps weights in {name!r}, outside its own folder: save it as one file")
        if not file.is_file():
            raise UsageError(
                f"it keeps weights in {name!r}, which is not beside it: copy that file there too"
            )
    return tuple(path.parent / name for name in sorted(found))


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
