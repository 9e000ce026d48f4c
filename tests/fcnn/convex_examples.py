"""Small feature-convex classifiers to test certificates on."""

import math

import numpy as np
import torch

from fcnn import CenteredAbs, ConvexMLP, FeatureConvexClassifier, FeatureMap, Identity

NORMS = ("l1", "l2", "linf")
ORDER = {"l1": 1, "l2": 2, "linf": math.inf}


def reference_classifier(reference):
    """The network of the reference radii."""
    network = ConvexMLP.from_arrays(
        [reference[name] for name in ("W0", "W1", "W2")],
        [reference[name] for name in ("b0", "b1", "b2")],
        [reference[name] for name in ("Z0", "Z1")],
    )
    return FeatureConvexClassifier(network, Identity(reference["mu"]))


def random_classifier(seed, d, feature_map=None, hidden=(12, 6), sensitive=0.7):
    """A random convex network, its threshold set so that this share of the box is sensitive; and 40 inputs."""
    generator = torch.Generator().manual_seed(seed)
    feature_map = feature_map or Identity()
    inputs = math.prod(feature_map.feature_shape((d,)))
    network = ConvexMLP(inputs, hidden).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(inputs))
        for _, weight in network.nonnegative_parameters():
            weight.abs_()
    classifier = FeatureConvexClassifier(network, feature_map)
    x = torch.rand(40, d, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        classifier.threshold.copy_(classifier.score(x).quantile(1 - sensitive))
    return classifier, x


def centered_abs(d, seed=0):
    mean = torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return CenteredAbs(mean)


class Rotated(FeatureMap):
    """Mixes the coordinates, 1-Lipschitz in l2 only."""

    def __init__(self, d, seed=0):
        super().__init__()
        matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
        self.register_buffer("matrix", torch.tensor(matrix))

    def forward(self, x):
        return x @ self.matrix.to(x.dtype)

    def lipschitz(self, norm):
        if norm != "l2":
            raise ValueError(f"no Lipschitz constant in {norm!r}: choose l2")
        return 1.0 + 1e-12

    def feature_shape(self, input_shape):
        return tuple(input_shape)
