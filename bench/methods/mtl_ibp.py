"""A network trained between adversarial examples and interval bounds, certified by CROWN."""

from dataclasses import dataclass

from bench.basics.space import Range, SearchSpace
from bench.methods._bounds import ADVERSARIAL_SPACE, QUICK_BOUNDS, BoundPropagation, Training
from bench.methods.ibp import IBPSettings


@dataclass(frozen=True)
class MTLIBPSettings(IBPSettings):
    """Recipe of a network trained by MTL-IBP: that of interval bounds, with another loss."""

    training: Training = "mtl_ibp"


class MTLIBP(BoundPropagation):
    """A network trained on a mix of its score at adversarial points and its worst score by interval arithmetic.

    Guarantee: deterministic, all three norms native. Source: De Palma et al., "Expressive Losses for Verified
    Robustness via Convex Combinations", ICLR 2024 (arXiv 2305.13991); certified by the tightest of IBP,
    CROWN-IBP and CROWN.
    """

    name = "mtl_ibp"
    title = "CROWN (MTL-IBP-trained)"
    slot = 3
    reference = "De Palma et al., ICLR 2024"
    Settings = MTLIBPSettings
    space = SearchSpace(
        {**ADVERSARIAL_SPACE, "bound_share": Range(0.01, 0.9, log=True)},
        starts=({"epsilon": 1.5}, {"epsilon": 1.5, "bound_share": 0.5}),
        judging=QUICK_BOUNDS,
        judged_inputs=400,
    )
