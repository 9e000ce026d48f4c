"""Networks whose score has a known Lipschitz constant, so that radius = score / constant.

Cayley, BRO and SLL layers are 1-Lipschitz in l2, distance layers in linf, those of ``l1_mlp`` in l1;
``certify`` gives the radii.
"""

from baselines.lipschitz.certify import certify, certify_at_thresholds, lipschitz_bound
from baselines.lipschitz.linf import scheduled_exponent, set_exponent
from baselines.lipschitz.losses import margin_loss, one_sided_radius_loss
from baselines.lipschitz.networks import (
    LipschitzNetwork,
    bro_convnet,
    bro_mlp,
    cayley_convnet,
    cayley_mlp,
    cayley_resnet9,
    l1_mlp,
    linf_distance_net,
    sll_convnet,
    sll_mlp,
)

__all__ = [
    "LipschitzNetwork",
    "bro_convnet",
    "bro_mlp",
    "cayley_convnet",
    "cayley_mlp",
    "cayley_resnet9",
    "certify",
    "certify_at_thresholds",
    "l1_mlp",
    "linf_distance_net",
    "lipschitz_bound",
    "margin_loss",
    "one_sided_radius_loss",
    "scheduled_exponent",
    "set_exponent",
    "sll_convnet",
    "sll_mlp",
]
