"""α-CROWN on an adversarially trained network."""

from dataclasses import dataclass, field

from bench.basics.space import SearchSpace
from bench.methods._bounds import (
    ADVERSARIAL_SPACE,
    QUICK_BOUNDS,
    BoundPropagation,
    BoundsSettings,
    Certificate,
    Training,
)
from fcnn.training import TrainSettings


@dataclass(frozen=True)
class AdversarialSettings(BoundsSettings):
    """Recipe of an adversarially trained network; the keys are those of ``BoundsSettings``.

    The paper's epsilon is 0.3 on MNIST, 0.1 on Fashion-MNIST, 2/255 on CIFAR-10, ramped up over 20 epochs.
    """

    training: Training = "adversarial"
    certificates: tuple[Certificate, ...] = ("alpha_crown:free",)
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=40, batch_size=128))


class CROWNAdversarial(BoundPropagation):
    """A network trained on linf PGD adversaries, certified by CROWN with optimised slopes.

    Guarantee: deterministic, all three norms native. Source: Xu et al., "Fast and Complete: Enabling Complete Neural
    Network Verification with Rapid and Massively Parallel Incomplete Verifiers", ICLR 2021 (alpha-CROWN); Madry et al.,
    ICLR 2018 (training).
    """

    name = "crown_adversarial"
    title = "α-CROWN (adversarially trained)"
    slot = 2
    reference = "Xu et al., ICLR 2021"
    Settings = AdversarialSettings
    space = SearchSpace(ADVERSARIAL_SPACE, judging=QUICK_BOUNDS, judged_inputs=400)
