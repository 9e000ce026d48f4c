"""Feature-convex neural networks: classifiers whose sensitive class has certified radii in closed form."""

from fcnn import certificates
from fcnn.certify import certify_batch, certify_with_bounds
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.networks import ConvexConvNet, ConvexMLP, ConvexNetwork
from fcnn.refine import RadiusBounds, RefineSettings

__all__ = [
    "CenteredAbs",
    "ConvexConvNet",
    "ConvexMLP",
    "ConvexNetwork",
    "FeatureConvexClassifier",
    "FeatureMap",
    "Identity",
    "RadiusBounds",
    "RefineSettings",
    "certificates",
    "certify_batch",
    "certify_with_bounds",
]
