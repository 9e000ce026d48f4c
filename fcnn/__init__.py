"""Feature-convex neural networks: classifiers whose sensitive class has certified radii in closed form."""

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
    "certify_with_bounds",
]


def __getattr__(name: str) -> Any:
    """Import the scikit-learn estimator when it is first asked for, so that fcnn itself needs torch only."""
    if name == "FCNNClassifier":
        from fcnn.estimator import FCNNClassifier

        return FCNNClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
