"""Opens a model file of any kind that is supported."""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench.errors import UsageError
from bench.model_files.ends import one_score, output_shape, strip
from bench.model_files.onnx_file import read_onnx
from bench.model_files.program import Program
from bench.model_files.torch_file import read_torch
from fcnn.checkpoints import load_classifier
from fcnn.classifier import FeatureConvexClassifier

KINDS = {
    ".safetensors": "FCNN checkpoint",
    ".onnx": "ONNX",
    ".pt": "TorchScript or torch.export",
    ".pt2": "torch.export",
    ".pth": "TorchScript or torch.export",
    ".ts": "TorchScript",
}


@dataclass(frozen=True)
class ModelFile:
    """A network from a file.

    score: (N, *shape of the data) -> (N,), sensitive iff positive; a FeatureConvexClassifier, or a float64 network.
    kind: of file, for people; layers: its operators in order; removed: what was left off its end.
    logits: whether it has two, so that the score is their difference; logit: the sensitive class's.
    """

    score: nn.Module
    kind: str
    layers: tuple[str, ...] = ()
    removed: str = ""
    logits: bool = False
    logit: int = 1


def open_model(
    path: Path,
    input_shape: tuple[int, ...],
    *,
    place: int = 1,
    logit: int | None = None,
    threshold: float = 0.0,
    output: str | None = None,
    trust: bool = False,
) -> ModelFile:
    """Open an FCNN checkpoint, an ONNX, a TorchScript or a torch.export file for data of this input shape.

    place: of the sensitive class among the data's labels, and so among two logits unless ``logit`` says otherwise; a
    single score is positive for the sensitive class unless ``logit`` is 0. threshold: what the score must exceed.
    output: name of the ONNX output to use. trust: whether files that can run code may be loaded. Raises UsageError,
    one line.
    """
    if not path.is_file():
        raise UsageError(
            f"model {str(path)!r} does not exist or is not a file: give --model a trained network"
        )
    if path.suffix not in KINDS:
        raise UsageError(
            f"model {str(path)!r}: files of type {path.suffix or '(none)'} are not supported; "
            f"supported are {', '.join(f'{suffix} ({kind})' for suffix, kind in KINDS.items())}"
        )
    try:
        if path.suffix == ".safetensors":
            return ModelFile(_fcnn(path, input_shape, threshold), "FCNN checkpoint")
        if path.suffix == ".onnx":
            program, shape = read_onnx(path, input_shape, output)
            _check_size(shape, input_shape)
        else:
            program, shape = read_torch(path, input_shape, trust), input_shape
        stripped = strip(program)
        logits = stripped.pair or output_shape(stripped.program, shape)[-1] == 2
        logit = logit if logit is not None else place if logits else 1
        score = one_score(stripped, shape, logit, threshold)
    except UsageError as error:
        raise UsageError(f"model {str(path)!r}: {error}") from error
    kind = KINDS[path.suffix]
    return ModelFile(score, kind, _layers(stripped.program), stripped.removed, logits, logit)


def _fcnn(path: Path, input_shape: tuple[int, ...], threshold: float) -> FeatureConvexClassifier:
    try:
        classifier = load_classifier(path)
        classifier.network.floats_per_input(classifier.feature_map.feature_shape(input_shape))
    except ValueError as error:
        raise UsageError(str(error)) from error
    classifier.threshold += threshold
    return classifier


def _check_size(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> None:
    """The data's inputs must have as many numbers, and not in another order of axes."""
    wanted, given = math.prod(shape), math.prod(input_shape)
    if wanted != given:
        raise UsageError(
            f"it takes inputs of shape {shape} ({wanted} numbers), the data has {input_shape} ({given})"
        )
    other_order = len(shape) == len(input_shape) == 3 and shape != input_shape and input_shape[0] > 1
    if other_order:
        raise UsageError(
            f"it takes inputs of shape {shape}, the data has {input_shape} with channels first: "
            "export the network for channels first"
        )


def _layers(program: Program) -> tuple[str, ...]:
    return tuple(name.rpartition("_")[0] for name, _, _ in program.wiring)
