"""Save and load classifiers: weights as safetensors, settings as JSON beside them; loading never executes code."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.heads import MaxAffine
from fcnn.networks import ConvexConvNet, ConvexMLP, ConvexNetwork
from fcnn.published import PublishedConvNet, PublishedMLP

FORMAT = 1
KNOWN_TYPES = (ConvexMLP, ConvexConvNet, MaxAffine, PublishedMLP, PublishedConvNet, Identity, CenteredAbs)


def settings_path(path: Path) -> Path:
    """Return where the settings of the weights in ``path`` lie: the same name, ending in .json."""
    return path.with_suffix(".json")


def pack_classifier(classifier: FeatureConvexClassifier) -> tuple[bytes, dict[str, Any]]:
    """Return the weights as safetensors and the settings as JSON holds them; ``unpack_classifier`` takes both."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    threshold = state.pop("threshold").item()
    weights = save(state)
    settings = {
        "format": FORMAT,
        "network": _describe(classifier.network, "network"),
        "feature_map": _describe(classifier.feature_map, "feature_map"),
        "threshold": threshold,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    return weights, settings


def unpack_classifier(
    weights: bytes, settings: dict[str, Any], types: Iterable[type] = ()
) -> FeatureConvexClassifier:
    """Return the classifier that ``pack_classifier`` packed; raise ValueError or KeyError for what it did not write."""
    if settings["format"] != FORMAT:
        raise ValueError(f"its format is {settings['format']!r}, this version reads {FORMAT}")
    if hashlib.sha256(weights).hexdigest() != settings["sha256"]:
        raise ValueError("the weights and the settings do not belong together (digests differ)")
    return _build(settings, load(weights), {kind.__name__: kind for kind in (*KNOWN_TYPES, *types)})


def save_classifier(
    classifier: FeatureConvexClassifier, path: Path, extra: dict[str, Any] | None = None
) -> None:
    """Write the weights to ``path`` (.safetensors) and architecture, feature map and threshold beside it (.json).

    Each file appears at once or not at all; the settings name the digest of the weights they belong to, and hold
    ``extra``, plain JSON, for ``load_extra``.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoint {path}: the name must end in .safetensors")
    weights, settings = pack_classifier(classifier)
    if extra is not None:
        settings["extra"] = extra
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, weights)
    _write_atomically(settings_path(path), (json.dumps(settings, indent=2) + "\n").encode())


def load_classifier(path: Path, types: Iterable[type] = ()) -> FeatureConvexClassifier:
    """Return the classifier that ``save_classifier`` wrote to ``path``, in evaluation mode, bit for bit.

    types: network and feature map classes of your own that the checkpoint may name. Raises ValueError, with one
    line, for files that are missing, damaged, or do not belong together.
    """
    try:
        weights = path.read_bytes()
        return unpack_classifier(weights, json.loads(settings_path(path).read_bytes()), types)
    except KeyError as error:
        raise ValueError(f"checkpoint {path}: it lacks {error}; save it again") from error
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"checkpoint {path} cannot be loaded: {reason}; save it again") from error


def load_extra(path: Path) -> Any:
    """Return what ``save_classifier`` was given as ``extra``; raise ValueError where there is nothing of the kind."""
    try:
        return json.loads(settings_path(path).read_bytes())["extra"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"checkpoint {path} holds a classifier and no more ({error}); save it again"
        ) from error


def _describe(part: ConvexNetwork | FeatureMap, prefix: str) -> dict[str, Any]:
    """Return type and constructor arguments as JSON; a tensor is replaced by its name among the weights."""
    settings = {
        name: {"tensor": f"{prefix}.{name}"} if isinstance(value, Tensor) else value
        for name, value in part.settings().items()
    }
    return {"type": type(part).__name__, "settings": settings}


def _build(
    settings: dict[str, Any], weights: dict[str, Tensor], types: dict[str, type]
) -> FeatureConvexClassifier:
    # Initial weights are drawn only to be replaced: the caller's random numbers must not notice.
    with torch.random.fork_rng(devices=[]):
        network = _instantiate(settings["network"], weights, types)
        feature_map = _instantiate(settings["feature_map"], weights, types)
    if not isinstance(network, ConvexNetwork) or not isinstance(feature_map, FeatureMap):
        raise ValueError(
            f"{type(network).__name__} is not a network or {type(feature_map).__name__} not a feature map"
        )
    classifier = FeatureConvexClassifier(network, feature_map, settings["threshold"])
    # Assigned rather than copied, so that the stored dtype wins over the default one.
    classifier.load_state_dict({**weights, "threshold": classifier.threshold}, assign=True)
    return classifier.eval()


def _instantiate(description: dict[str, Any], weights: dict[str, Tensor], types: dict[str, type]) -> Any:
    if description["type"] not in types:
        raise ValueError(
            f"it names the type {description['type']!r}, known are {', '.join(types)} (pass others in types)"
        )
    arguments = {
        name: weights[value["tensor"]] if isinstance(value, dict) else value
        for name, value in description["settings"].items()
    }
    return types[description["type"]](**arguments)


def _write_atomically(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
