"""What a network's operations prove: that its score is convex, and how far rounding can carry it.

Every operation of a recorded pass has a rule, or the network is refused. A rule says how an operation bends
(affine, convex or concave in the features: disciplined convex programming, Grant, Boyd, Ye 2006) and bounds the sum of
the absolute values of all terms that enter a number, which is what its rounding is relative to (running error
analysis: Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.3). Proofs: ``docs/certificates.md``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fcnn.convexity_bounds import CONCAVE, Interpreter, NotProved
from fcnn.convexity_rules import RULES
from fcnn.tape import record

LEAST_ROUNDINGS = 64


@dataclass(frozen=True)
class Proof:
    """A convex score's sizes: each score's terms add up to at most slope . |features| + offset in absolute value.

    slope (N, *feature shape), offset (N,): the same for every pattern of active units, or for the recorded pass's own.
    roundings: how many roundings a term goes through on its way to the score, or to the gradient and back, at most.
    """

    slope: Tensor
    offset: Tensor
    roundings: int


def prove(network: nn.Module, features: Tensor, own_pattern: bool = False) -> Proof:
    """Prove that ``network``, in float64 and evaluation mode, is convex, and bound its sizes; features (N, *shape).

    ``own_pattern`` bounds them for the units that are active at these features only. Raises NotProved naming the layer
    and the operation.
    """
    calls, score = record(network, features)
    magnitude = torch.zeros_like(features).requires_grad_()
    with torch.enable_grad():
        interpreter = Interpreter(RULES, features, magnitude, own_pattern)
        for call in calls:
            interpreter.take(call)
        bound = interpreter.bounds.get(id(score))
        if bound is None:
            raise NotProved("the score does not come out of operations on the features")
        if score.shape != (len(features),) or score.dtype != features.dtype:
            raise NotProved(f"scores must be (N,) in float64, got {tuple(score.shape)} in {score.dtype}")
        if bound.curvature == CONCAVE:
            raise NotProved("the score is concave where it must be convex: turn its sign")
        (slope,) = torch.autograd.grad(bound.size.sum() + 0 * magnitude.sum(), magnitude)
    roundings = max(interpreter.roundings, LEAST_ROUNDINGS)
    return Proof(slope, bound.size.detach(), roundings)
