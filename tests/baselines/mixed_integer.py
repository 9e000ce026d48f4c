"""An independent exact answer for tests: the least score over a box, as a mixed-integer linear program (HiGHS)."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from baselines.branch_and_bound import Chain


def least_score(chain: Chain, lower: np.ndarray, upper: np.ndarray) -> float:
    """Least score over lower <= x <= upper (d,), with one binary variable per hidden neuron (big-M encoding)."""
    weights = [weight.numpy() for weight in chain.weights]
    biases = [bias.numpy() for bias in chain.biases]
    start = np.cumsum([0, len(lower)] + [2 * len(bias) for bias in biases[:-1]])
    least, most = np.zeros(start[-1]), np.ones(start[-1])
    least[: len(lower)], most[: len(lower)] = lower, upper
    binary = np.zeros(start[-1])
    before, rows, limits = slice(0, len(lower)), [], []
    for k, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        width = len(bias)
        after = slice(start[k + 1], start[k + 1] + width)
        switch = slice(start[k + 1] + width, start[k + 2])
        z_least, z_most = interval(weight, bias, lower, upper)
        binary[switch] = 1
        most[after] = np.maximum(z_most, 0)
        z, h, s = (np.zeros((width, start[-1])) for _ in range(3))
        z[:, before], h[:, after], s[:, switch] = weight, np.eye(width), np.eye(width)
        rows += [z - h, h - z - np.diag(z_least) @ s, h - np.diag(most[after]) @ s]
        limits += [-bias, bias - z_least, np.zeros(width)]
        lower, upper, before = np.maximum(z_least, 0), np.maximum(z_most, 0), after
    cost = np.zeros(start[-1])
    cost[before] = weights[-1][0]
    constraint = LinearConstraint(np.vstack(rows), -np.inf, np.concatenate(limits))
    solved = milp(cost, constraints=constraint, bounds=Bounds(least, most), integrality=binary)
    assert solved.success
    return solved.fun + biases[-1][0]


def interval(
    weight: np.ndarray, bias: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    positive, negative = weight.clip(min=0), weight.clip(max=0)
    return positive @ lower + negative @ upper + bias, positive @ upper + negative @ lower + bias
