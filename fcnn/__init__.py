"""Feature-convex neural networks: classifiers whose sensitive class has certified radii in closed form."""

import importlib
from typing import Any

from fcnn import certificates
from fcnn.certificates import UnsoundCertificate
from fcnn.certify import certify_batch, certify_with_bounds
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.networks import ConvexConvNet, ConvexMLP, ConvexNetwork
from fcnn.published import PublishedConvNet, PublishedMLP
from fcnn.refine import RadiusBounds, RefineSettings

__all__ = [
    "CenteredAbs",
    "ConvexConvNet",
    "ConvexMLP",
    "ConvexNetwork",
    "FCNNClassifier",
    "FeatureConvexClassifier",
    "FeatureMap",
    "Identity",
    "PublishedConvNet",
    "PublishedMLP",
    "RadiusBounds",
    "RefineSettings",
    "UnsoundCertificate",
    "certificates",
    "certify_batch",
    "certify_pipeline",
    "certify_with_bounds",
]


# These need scikit-learn, which fcnn itself does not: they are imported when they are first asked for.
_LATER = {"FCNNClassifier": "fcnn.estimator", "certify_pipeline": "fcnn.pipelines"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
