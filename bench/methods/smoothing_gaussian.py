"""Randomized smoothing with Gaussian noise, native in l2."""

from bench.methods._smoothing import GivenInNoise, Smoothing


class SmoothingGaussian(Smoothing):
    """Votes of a network under Gaussian noise.

    Guarantee: with probability 1 - alpha over the method's own draws, per input; l2 native, l1 and linf by inequalities
    between norms. Source: Cohen, Rosenfeld, Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML
    2019, theorem 1, with the binary one-sided bound of its section 3.2.2.

    The proofs are about noise that takes real numbers: what holds for drawn noise stands in baselines.smoothing.noise.
    """

    name = "smoothing_gaussian"
    title = "Smoothing (Gaussian)"
    slot = 0
    reference = "Cohen et al., ICML 2019"
    noise = "gaussian"


class GivenGaussian(GivenInNoise, SmoothingGaussian):
    """Votes of a network that was trained already."""

    certificates = ("smoothing_gaussian",)
    chosen = "then"
