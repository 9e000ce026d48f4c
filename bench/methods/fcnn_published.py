"""Feature-convex neural networks as published: the paper's own architectures, for ours to be compared with."""

import math

from bench.methods.fcnn import FCNN
from fcnn.networks import ConvexNetwork
from fcnn.published import PublishedConvNet, PublishedMLP


class PublishedFCNN(FCNN):
    """Feature-convex classifier with the networks of the paper; the setting ``convnet`` is for PublishedConvNet, and
    the MLP always has its passthrough.

    Guarantee: deterministic, all three norms native. Source: Pfrommer, Anderson, Piet, Sojoudi, NeurIPS 2023 (arXiv
    2302.01961), theorem 3.1 and section 4.
    """

    name = "fcnn_published"
    title = "FCNN, published networks"
    slot = 1

    def _convex_network(self, feature_shape: tuple[int, ...]) -> ConvexNetwork:
        if self.settings.architecture == "convnet":
            return PublishedConvNet(feature_shape, **self.settings.convnet)
        return PublishedMLP(math.prod(feature_shape), self.settings.hidden)
