"""A network trained for its interval bounds, certified by CROWN-IBP: what a user of verifiers would deploy."""

from dataclasses import dataclass, field

from bench.basics.space import Range, SearchSpace
from bench.methods._bounds import (
    ADVERSARIAL_SPACE,
    QUICK_BOUNDS,
    BoundPropagation,
    BoundsSettings,
    Training,
)
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class IBPSettings(BoundsSettings):
    """Recipe of a network trained with interval bounds; the keys are those of ``BoundsSettings``."""

    training: Training = "ibp"
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=40, batch_size=128))


class IBP(BoundPropagation):
    """A network trained on its worst score within linf balls, by interval arithmetic.

    Guarantee: deterministic, all three norms native. Source: Gowal et al., "On the Effectiveness of Interval Bound
    Propagation for Training Verifiably Robust Models" (2018); certified by the tightest of IBP, CROWN-IBP (Zhang et
    al., ICLR 2020) and CROWN.
    """

    name = "ibp"
    title = "CROWN (IBP-trained)"
    slot = 1
    reference = "Gowal et al., 2018"
    Settings = IBPSettings
    space = SearchSpace(
        {**ADVERSARIAL_SPACE, "clean_share": Range(0.2, 0.8)},
        starts=({"epsilon": 1.5},),
        judging=QUICK_BOUNDS,
        judged_inputs=400,
    )
