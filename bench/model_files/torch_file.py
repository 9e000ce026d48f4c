"""Reads TorchScript and torch.export files by way of ONNX, once the user trusts them.

Loading either kind can run code: torch.export.load falls back on pickle for the sample inputs, and torch.jit.load
interprets the program in the file. So neither is opened without ``trust``. A pickled module is never opened.
"""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.basics.errors import UsageError
from bench.model_files.onnx_file import NetworkFile, read_model
from bench.model_files.runtime import INSTALL_HINT, agree

TRUST = (
    "{kind} files can run code when they are loaded: add --trust if you made the file yourself or trust who did, "
    "or give an ONNX file, which runs nothing"
)
PICKLE = "it is a pickle, which is never loaded because it can run code: export the network to ONNX"
OPSET = 17


def read_torch(path: Path, input_shape: tuple[int, ...], trust: bool) -> NetworkFile:
    """Return the network of a TorchScript or torch.export file, for inputs of this shape.

    Raises UsageError for files that are not trusted, pickled, damaged, or do not fit.
    """
    kind = _kind(path)
    if not trust:
        raise UsageError(TRUST.format(kind=kind))
    network, batch = _loaded(path, kind)
    x = _example(network, (batch or 2 if kind == "torch.export" else 1, *input_shape))
    expected = _run(network, x)
    found = read_model(_as_onnx(network, x, open_batch=batch is None), input_shape)
    if not agree(expected, found.session.run(x.numpy())):
        raise UsageError("it was not understood: as ONNX it computes other values (is it in training mode?)")
    return found


def _kind(path: Path) -> str:
    """Tell the two kinds apart by the names in the archive; nothing in it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(PICKLE) from error
    if any(name.endswith("models/model.json") for name in names):
        return "torch.export"
    if any(name.endswith("/constants.pkl") for name in names):
        return "TorchScript"
    raise UsageError(PICKLE)


def _loaded(path: Path, kind: str) -> tuple[nn.Module, int | None]:
    """The network, and how many inputs at once it was exported for (None: any number)."""
    try:
        if kind == "torch.export":
            program = torch.export.load(path)
            sources = program.graph_signature.user_inputs
            if len(sources) != 1:
                raise UsageError(f"it has {len(sources)} inputs: a classifier has one")
            node = next(node for node in program.graph.nodes if node.name == sources[0])
            size = node.meta["val"].shape[0]
            return program.module(), size if isinstance(size, int) else None
        with warnings.catch_warnings():
            # Deprecated with TorchScript itself; there is no other reader of the files that people have.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location="cpu").eval(), None
    except UsageError:
        raise
    except Exception as error:  # both raise many types for damaged files
        raise UsageError(f"it is not a valid {kind} file ({_line(error)}): save it again") from error


def _example(network: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    dtype = next((value.dtype for value in network.parameters() if value.is_floating_point()), torch.float32)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def _run(network: nn.Module, x: torch.Tensor) -> Any:
    try:
        with torch.no_grad():
            result = network(x)
    except Exception as error:  # a network may raise anything for a wrong shape
        raise UsageError(
            f"it does not fit inputs of shape {tuple(x.shape[1:])} ({_line(error)}): is this the network's input size?"
        ) from error
    if not isinstance(result, torch.Tensor):
        count = len(result) if isinstance(result, tuple | list) else 0
        raise UsageError(f"it returns {count} values: return the scores or the logits alone")
    if result.shape[:1] != x.shape[:1] and result.numel() != len(x):
        raise UsageError("it does not keep the inputs of a batch apart")
    return result.reshape(len(x), -1).double().numpy()


def _as_onnx(network: nn.Module, x: torch.Tensor, open_batch: bool) -> Any:
    """The network as ONNX, its operators and weights as they are: nothing fused, folded or switched to evaluation."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(INSTALL_HINT) from error
    sink = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter that needs no further package
            torch.onnx.export(
                network,
                (x,),
                sink,  # type: ignore[arg-type]  # the older exporter writes into memory too
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                opset_version=OPSET,
                input_names=["input"],
                dynamic_axes={"input": {0: "batch"}} if open_batch else None,
            )
    except Exception as error:  # the exporter raises many types for what it does not know
        raise UsageError(
            f"it cannot be written as ONNX ({_line(error)}): export the network to ONNX yourself"
        ) from error
    return onnx.load_from_string(sink.getvalue())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
