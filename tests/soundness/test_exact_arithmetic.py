"""The score in exact arithmetic, which has the last word on what looks like a violation."""

from fractions import Fraction

import torch

from fcnn import ConvexMLP, FeatureConvexClassifier, Identity
from tools.fuzz.rational import rational_score


def test_the_exact_score_of_a_small_network():
    network = ConvexMLP.from_arrays([[[1.0, -2.0]], [[0.0, 1.0]]], [[0.5], [0.25]], [[[3.0]]])
    classifier = FeatureConvexClassifier(network, Identity([0.5, 0.0]), threshold=0.125)
    # relu(1 - 0.5 - 2 * 0.25 + 0.5) = 0.5; 3 * 0.5 + 0.25 + 0.25 - 0.125 = 1.875
    assert rational_score(classifier.frozen(), [Fraction(1), Fraction(1, 4)]) == Fraction(15, 8)


def test_the_exact_score_sees_what_float64_loses():
    network = ConvexMLP.from_arrays([[[1e17, 1.0]]], [[-1e17]], [])
    classifier = FeatureConvexClassifier(network.double())
    point = [1.0, 0.25]
    with torch.no_grad():
        assert float(classifier.score(torch.tensor([point], dtype=torch.float64))) == 0.0
    assert rational_score(classifier.frozen(), [Fraction(value) for value in point]) == Fraction(1, 4)
