"""Opens a model file of any kind that is supported."""

import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench.basics.errors import UsageError, unknown
from bench.model_files.ends import undo
from bench.model_files.layouts import LAYOUTS
from bench.model_files.onnx_file import NetworkFile, read_onnx
from bench.model_files.program import INNER, Program
from bench.model_files.scores import Margins, RuntimeScore, Score, check_rule, rule_of_outputs
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

    score: (N, *shape of the data) -> (N,), sensitive iff positive; a FeatureConvexClassifier, a float64 network, or
    one that only onnxruntime runs, where ``unread`` says which layer was not understood.
    kind: of file, for people; layers: its operators in order; removed: the functions at its end that were undone.
    logits: how many it has (1: one score); logit: the sensitive class's. rule: when an input is sensitive, for people.
    """

    score: nn.Module
    kind: str
    layers: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    logits: int = 1
    logit: int = 1
    rule: str = ""
    unread: str = ""


def open_model(
    path: Path,
    input_shape: tuple[int, ...],
    *,
    place: int = 1,
    labels: tuple[int, int] | None = None,
    logit: int | None = None,
    threshold: float | None = None,
    output: str | None = None,
    layout: str = "auto",
    trust: bool = False,
) -> ModelFile:
    """Open an FCNN checkpoint, an ONNX, a TorchScript or a torch.export file for data of this input shape.

    place: of the sensitive class among two labels, and so among two logits unless ``logit`` says otherwise; labels: the
    same among any number of labels, (place, number), for as many logits. Else ``logit`` must be given; of a single
    score it is 1, so that positive means sensitive, unless it is given as 0.
    threshold: what the network's own output must exceed, see ``ends``. output: name of the ONNX output to use.
    layout: order of the axes that the network wants images in (auto: as its input's shape says). trust: whether
    files that can run code may be loaded. Raises UsageError, one line.
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
    if threshold is not None and not math.isfinite(threshold):
        raise UsageError(f"--threshold {threshold}: give a number")
    try:
        if path.suffix == ".safetensors":
            return ModelFile(
                _fcnn(path, input_shape, threshold or 0.0),
                KINDS[path.suffix],
                rule=f"> {threshold or 0:g}",
            )
        asked = _asked_shape(input_shape, layout)
        found = read_onnx(path, asked, output) if path.suffix == ".onnx" else read_torch(path, asked, trust)
        order = _order(found.shape, input_shape, layout)
        return _with_rule(found, KINDS[path.suffix], input_shape, order, (logit, place, labels, threshold))
    except UsageError as error:
        raise UsageError(f"model {str(path)!r}: {error}") from error


def _with_rule(
    found: NetworkFile,
    kind: str,
    input_shape: tuple[int, ...],
    order: tuple[int, ...] | None,
    wanted: tuple[int | None, int, tuple[int, int] | None, float | None],
) -> ModelFile:
    """The score of a network by the user's rule."""
    logit, place, labels, threshold = wanted
    if logit is None and labels is not None and labels[1] == found.session.outputs > 2:
        logit = labels[0]
    if found.program is None:
        rule = rule_of_outputs(found.session, logit, place, threshold)
        run = RuntimeScore(found.session, rule, input_shape, order)
        return ModelFile(run, kind, (), (), found.session.outputs, rule.logit, rule.text, found.unread)
    undone = undo(found.program, found.shape, logit, place, threshold)
    score = Score(Margins(undone, input_shape, found.shape, order))
    check_rule(found.session, score, undone.rule, given=threshold is not None or bool(undone.removed))
    return ModelFile(
        score,
        kind,
        _layers(undone.program),
        undone.removed,
        undone.outputs,
        undone.rule.logit,
        undone.rule.text,
    )


def _fcnn(path: Path, input_shape: tuple[int, ...], threshold: float) -> FeatureConvexClassifier:
    try:
        classifier = load_classifier(path)
        classifier.network.floats_per_input(classifier.feature_map.feature_shape(input_shape))
    except ValueError as error:
        raise UsageError(str(error)) from error
    classifier.threshold += threshold
    return classifier


def _asked_shape(input_shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape to assume where a file leaves its own open."""
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if layout == "hwc" and len(input_shape) == 3:
        return (*input_shape[1:], input_shape[0])
    return input_shape


def _order(shape: tuple[int, ...], input_shape: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """How to permute the data's axes (channels first, behind the batch) into the network's; None: not at all."""
    wanted, given = math.prod(shape), math.prod(input_shape)
    if wanted != given:
        raise UsageError(
            f"it takes inputs of shape {shape} ({wanted} numbers), the data has {input_shape} ({given})"
        )
    if len(input_shape) != 3:
        if layout != "auto":
            raise UsageError(
                f"--layout {layout}: the data has inputs of shape {input_shape}, which are no images"
            )
        return None
    last = (*input_shape[1:], input_shape[0])
    if layout != "auto":
        meant, other = (last, input_shape) if layout == "hwc" else (input_shape, last)
        if shape == other != meant and input_shape[0] > 1:
            raise UsageError(
                f"--layout {layout}: the data's images would have the shape {meant}, but it takes inputs of shape "
                f"{shape}"
            )
        return (0, 2, 3, 1) if layout == "hwc" else None
    if len(shape) != 3 or shape == input_shape or input_shape[0] == 1:
        return None
    if shape == last:
        return (0, 2, 3, 1)
    raise UsageError(
        f"it takes inputs of shape {shape}, the data has {input_shape} with channels first: say with --layout which "
        "order the network wants: chw or hwc"
    )


def _layers(program: Program) -> tuple[str, ...]:
    return tuple(name.rpartition("_")[0] for name, _, output in program.wiring if INNER not in output)
