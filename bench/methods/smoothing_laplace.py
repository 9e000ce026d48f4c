"""Randomized smoothing with Laplace noise, native in l1 and linf."""

from bench.methods._smoothing import GivenInNoise, Smoothing


class SmoothingLaplace(Smoothing):
    """Votes of a network under Laplace noise.

    Guarantee: with probability 1 - alpha over the method's own draws, per input; l1 and linf native (linf by the exact
    differential method), l2 the better of their conversions. Sources: Teng, Lee, Yuan, "l1 Adversarial Robustness
    Certificates: a Randomized Smoothing Approach", 2020 (l1); Yang et al., "Randomized Smoothing of All Shapes and
    Sizes", ICML 2020 (linf).

    The proofs are about noise that takes real numbers: what holds for drawn noise stands in baselines.smoothing.noise.
    """

    name = "smoothing_laplace"
    title = "Smoothing (Laplace)"
    slot = 1
    reference = "Teng et al. 2020; Yang et al., ICML 2020"
    noise = "laplace"


class GivenLaplace(GivenInNoise, SmoothingLaplace):
    """Votes of a network that was trained already."""

    certificates = ("smoothing_laplace",)
