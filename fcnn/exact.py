"""Exact radii of ReLU networks: the smallest adversarial perturbation, by one convex program for each input.

An oracle for tests and small studies: a linear program in ℓ1 and ℓ∞, a quadratic program in ℓ2. The score of a
``ConvexMLP`` is a minimum over its epigraph: with z_k >= 0 and z_k >= H_{k-1} z_{k-1} + A_k x + b_k, non-negative H
makes the smallest feasible z the network's own activations, so "score <= 0" is a set of linear constraints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from fcnn.certificates import check_norm
from fcnn.feature_maps import Identity
from fcnn.networks import ConvexMLP
from fcnn.score import FeatureConvexScore, check_inputs

DOMAINS = ("free", "box")
TOLERANCE = 1e-11


@dataclass(frozen=True)
class Epigraph:
    """Constraints of one input on δ and the hidden units z: ``on_input`` δ + ``on_hidden`` z <= ``limits``."""

    on_input: np.ndarray
    on_hidden: np.ndarray
    limits: np.ndarray


def exact_radius(
    classifier: FeatureConvexScore, x: Tensor, norm: str, domain: str = "free"
) -> tuple[Tensor, Tensor]:
    """Norm of the smallest δ with score(x + δ) <= 0, and the points x + δ, to the solver's accuracy (about 1e-7).

    Args:
        classifier: a ConvexMLP behind an Identity feature map.
        x: inputs (N, *shape), in [0, 1] for the box.
        norm: "l1", "l2" or "linf".
        domain: "free" (all of R^d) or "box" (x + δ in [0, 1]^d).

    Returns:
        Radii (N,) float64: 0 where the score is not positive, inf where nothing in the domain is adversarial; and
        points (N, *shape), NaN where the radius is inf.

    Raises:
        ValueError: an unknown norm or domain, another network or feature map, bad inputs.
        ImportError: ℓ2 without the extra ``exact``.
        RuntimeError: the solver gave up.
    """
    check_norm(norm)
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}: choose from {', '.join(DOMAINS)}")
    check_inputs(x)
    network = classifier.network
    if not (
        isinstance(network, ConvexMLP)
        and type(network).forward is ConvexMLP.forward
        and classifier.feature_map.is_exactly(Identity)
    ):
        raise ValueError(
            f"exact radii need a ConvexMLP behind an Identity feature map, got {type(classifier.network).__name__} "
            f"behind {type(classifier.feature_map).__name__}: use certificate 'refined'"
        )
    frozen = classifier.frozen()
    solve = {"l1": _solve_l1, "l2": _solve_l2, "linf": _solve_linf}[norm]
    radii, points = [], []
    for one in x.double():
        radius, delta = _exact_one(frozen, one, solve, domain)
        radii.append(radius)
        points.append(one.flatten().cpu() + torch.from_numpy(delta))
    return torch.tensor(radii, dtype=torch.float64), torch.stack(points).reshape(x.shape)


Solver = Callable[[Epigraph, np.ndarray, np.ndarray], tuple[float, np.ndarray]]


def _exact_one(
    classifier: FeatureConvexScore, x: Tensor, solve: Solver, domain: str
) -> tuple[float, np.ndarray]:
    """Radius and perturbation (d,) of one input (*shape)."""
    values = x.flatten().cpu().numpy()
    if classifier.score(x[None]).item() <= 0:
        return 0.0, np.zeros(len(values))
    lower, upper = np.full_like(values, -math.inf), np.full_like(values, math.inf)
    if domain == "box":
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"box radii need inputs in [0, 1], got [{values.min()}, {values.max()}]")
        lower, upper = -values, 1 - values
    return solve(_epigraph(classifier, x), lower, upper)


def _epigraph(classifier: FeatureConvexScore, x: Tensor) -> Epigraph:
    """z_k >= H z_{k-1} + A_k δ + (A_k φ(x) + b_k) for hidden layers, and the last one <= 0."""
    network = classifier.network
    assert isinstance(network, ConvexMLP)  # others are refused above
    input_weights, biases, hidden_weights = network.to_arrays()
    features = classifier.feature_map(x[None]).flatten()
    offsets = [weight @ features + bias for weight, bias in zip(input_weights, biases, strict=True)]
    offsets[-1] = offsets[-1] - classifier.threshold
    input_weights, offsets, hidden_weights = _balanced(input_weights, offsets, hidden_weights)
    widths = [len(bias) for bias in biases]
    starts = np.concatenate([[0], np.cumsum(widths)])
    on_hidden = -np.eye(starts[-1])[:, : starts[-2]]
    for k, weight in enumerate(hidden_weights):
        on_hidden[starts[k + 1] : starts[k + 2], starts[k] : starts[k + 1]] = weight.cpu().numpy()
    return Epigraph(torch.cat(input_weights).cpu().numpy(), on_hidden, -torch.cat(offsets).cpu().numpy())


def _balanced(
    input_weights: list[Tensor], offsets: list[Tensor], hidden_weights: list[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The same network with each unit's largest weight at 1, which a ReLU allows: solvers have absolute tolerances."""
    columns = torch.ones(0, dtype=torch.float64)
    weights, shifts, hidden = [], [], []
    for k, (weight, offset) in enumerate(zip(input_weights, offsets, strict=True)):
        parts = [weight] if k == 0 else [weight, hidden_weights[k - 1] * columns]
        size = torch.cat(parts, 1).abs().amax(1)
        size = torch.where(size > 0, size, 1.0)
        weights.append(weight / size[:, None])
        shifts.append(offset / size)
        hidden += [part / size[:, None] for part in parts[1:]]
        columns = size
    return weights, shifts, hidden


def _solve_l1(program: Epigraph, lower: np.ndarray, upper: np.ndarray) -> tuple[float, np.ndarray]:
    """δ = p - n with p, n >= 0; minimise their sum."""
    d, units = len(lower), program.on_hidden.shape[1]
    rows = np.hstack([program.on_input, -program.on_input, program.on_hidden])
    costs = np.concatenate([np.ones(2 * d), np.zeros(units)])
    bounds = np.column_stack(
        [np.zeros(2 * d + units), np.concatenate([upper, -lower, np.full(units, math.inf)])]
    )
    value, solution = _linear_program(costs, rows, program.limits, bounds)
    return value, solution[:d] - solution[d : 2 * d]


def _solve_linf(program: Epigraph, lower: np.ndarray, upper: np.ndarray) -> tuple[float, np.ndarray]:
    """Minimise t with -t <= δ_i <= t."""
    d, units = len(lower), program.on_hidden.shape[1]
    identity, ones = sparse.eye(d), np.ones((d, 1))
    nothing = sparse.csr_matrix((d, units))
    rows = sparse.bmat(
        [
            [program.on_input, program.on_hidden, np.zeros((len(program.limits), 1))],
            [identity, nothing, -ones],
            [-identity, nothing, -ones],
        ],
        format="csr",
    )
    limits = np.concatenate([program.limits, np.zeros(2 * d)])
    costs = np.zeros(d + units + 1)
    costs[-1] = 1.0
    low = np.concatenate([lower, np.zeros(units + 1)])
    bounds = np.column_stack([low, np.concatenate([upper, np.full(units + 1, math.inf)])])
    value, solution = _linear_program(costs, rows, limits, bounds)
    return value, solution[:d]


def _linear_program(
    costs: np.ndarray, rows: np.ndarray, limits: np.ndarray, bounds: np.ndarray
) -> tuple[float, np.ndarray]:
    result = linprog(costs, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    if result.status == 2:
        return math.inf, np.full(len(costs), math.nan)
    if result.status != 0:
        raise RuntimeError(f"the linear program was not solved: {result.message}")
    return result.fun, result.x


def _solve_l2(program: Epigraph, lower: np.ndarray, upper: np.ndarray) -> tuple[float, np.ndarray]:
    """Minimise ‖δ‖² / 2 by an interior-point method."""
    try:
        import clarabel
    except ImportError as error:
        raise ImportError("exact ℓ2 radii need the package clarabel: install the extra 'exact'") from error
    d, units = len(lower), program.on_hidden.shape[1]
    bounded = np.isfinite(lower)
    box = sparse.eye(d, format="csr")[bounded]
    nothing = sparse.csr_matrix((box.shape[0], units))
    rows = sparse.bmat(
        [
            [program.on_input, program.on_hidden],
            [sparse.csr_matrix((units, d)), -sparse.eye(units)],
            [box, nothing],
            [-box, nothing],
        ],
        format="csc",
    )
    limits = np.concatenate([program.limits, np.zeros(units), upper[bounded], -lower[bounded]])
    quadratic = sparse.diags(np.concatenate([np.ones(d), np.zeros(units)]), format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    cones = [clarabel.NonnegativeConeT(len(limits))]
    solution = clarabel.DefaultSolver(quadratic, np.zeros(d + units), rows, limits, cones, settings).solve()
    if solution.status == clarabel.SolverStatus.PrimalInfeasible:
        return math.inf, np.full(d, math.nan)
    if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        raise RuntimeError(f"the quadratic program was not solved: {solution.status}")
    delta = np.array(solution.x)[:d]
    return float(np.linalg.norm(delta)), delta
