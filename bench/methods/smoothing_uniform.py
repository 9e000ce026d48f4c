"""Randomized smoothing with uniform noise, native in l1 and linf."""

from bench.methods._smoothing import GivenInNoise, Smoothing


class SmoothingUniform(Smoothing):
    """Votes of a network under noise uniform on [-lambda, lambda] per coordinate, lambda = sqrt(3) sigma.

    Guarantee: with probability 1 - alpha over the method's own draws, per input; l1 and linf native, l2 the better of
    their conversions. Source: Yang et al., "Randomized Smoothing of All Shapes and Sizes", ICML 2020; Lee et al. 2019.

    The proofs are about noise that takes real numbers: what holds for drawn noise stands in baselines.smoothing.noise.
    """

    name = "smoothing_uniform"
    title = "Smoothing (uniform)"
    slot = 2
    reference = "Yang et al., ICML 2020"
    noise = "uniform"


class GivenUniform(GivenInNoise, SmoothingUniform):
    """Votes of a network that was trained already."""

    certificates = ("smoothing_uniform",)
