"""CROWN on a network trained in the ordinary way."""

from bench.methods._bounds import BoundPropagation


class CROWN(BoundPropagation):
    """Linear bounds passed backwards through a standard ReLU network; radii by a search per input.

    Guarantee: deterministic, all three norms native. Source: Zhang, Weng, Chen, Hsieh, Daniel, "Efficient Neural
    Network Robustness Certification with General Activation Functions", NeurIPS 2018; own
    implementation, equal to auto-LiRPA's (Xu et al., NeurIPS 2020) to rounding.
    """

    name = "crown"
    title = "CROWN"
    slot = 0
    reference = "Zhang et al., NeurIPS 2018"
