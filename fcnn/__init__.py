"""Feature-convex neural networks: classifiers whose sensitive class has certified radii in closed form."""

from fcnn import certificates
from fcnn.classifier import FeatureConvexClassifier
from fcnn.feature_maps import CenteredAbs, FeatureMap, Identity
from fcnn.networks import ConvexConvNet, ConvexMLP, ConvexNetwork

__all__ = [
    "CenteredAbs",
    "ConvexConvNet",
    "ConvexMLP",
    "ConvexNetwork",
    "FeatureConvexClassifier",
    "FeatureMap",
    "Identity",
    "certificates",
]
