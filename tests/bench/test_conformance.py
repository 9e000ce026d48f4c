"""What every registered method must pass, present and future: one test over all of them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import blobs, plan

from bench.attacking.attacks import steepest
from bench.attacking.targets import Target
from bench.contract import DUAL_NORM_ORDER, NORMS, Method, Outcome
from bench.data import Dataset
from bench.kept.rows import check_predictions, check_radii, without_timing
from bench.methods import registered_methods
from bench.running.evaluate import CellResult, Evaluation

METHODS = registered_methods()
POINTS = ("balanced", "other_recall=0.9")
every_method = pytest.mark.parametrize("name", METHODS)
# Every method has its default settings, but that a search by branch and bound takes seconds for 200 neurons.
SMALLER = {"alpha_beta_crown": {"hidden": (16,)}}


def made(name: str) -> Method:
    """Return an untrained method."""
    kind = METHODS[name]
    return kind(replace(kind.Settings(), **SMALLER.get(name, {})))


def well_trained() -> Dataset:
    """The clouds with four times their training inputs: with fewer, some seeds leave some networks half trained."""
    larger = blobs(count=480)
    return replace(blobs(), x_train=larger.x_train, y_train=larger.y_train)


def evaluate(name: str, points: tuple[str, ...]) -> CellResult:
    result = Evaluation(made(name), well_trained(), plan(name, points=points)).run()
    assert not result.errors
    result.radii, result.predictions = check_radii(result.radii), check_predictions(result.predictions)
    return result


@cache
def evaluated(name: str) -> CellResult:
    return evaluate(name, POINTS)


def at(rows: pd.DataFrame, point: str) -> pd.DataFrame:
    return rows[rows["operating_point"] == point].reset_index(drop=True)


@every_method
def test_rows_are_complete_and_those_of_a_point_are_those_of_a_run_at_it_alone(name):
    """The same seed gives the same rows, bit for bit, whatever other thresholds are asked for."""
    radii, predictions = evaluated(name).radii, evaluated(name).predictions
    data, method = well_trained(), made(name)
    assert len(radii) == data.y_test.sum() * len(NORMS) * len(method.curves()) * len(POINTS)
    assert len(predictions) == len(data.y_test) * len(POINTS)
    assert (radii["guarantee"] == method.guarantee).all()
    certified = radii["outcome"] == Outcome.CERTIFIED
    assert certified.mean() > 0.2, "a method should certify something on two well separated clouds"
    alone = evaluate(name, POINTS[1:])
    pd.testing.assert_frame_equal(without_timing(at(radii, POINTS[1])), without_timing(alone.radii))
    pd.testing.assert_frame_equal(
        without_timing(at(predictions, POINTS[1])), without_timing(alone.predictions)
    )


@every_method
def test_the_other_class_keeps_its_recall_on_the_data_that_the_threshold_was_chosen_on(name):
    data, method = blobs(), made(name)
    method.build(data.input_shape, seed=99)
    method.load_state(evaluated(name).state)
    _, strict = evaluated(name).calibrations
    method.set_threshold(strict.threshold)
    others = torch.from_numpy(data.x_val[data.y_val == 0])
    kept = (method.predict(others, seed=5) == 0).double().mean()
    # A vote near the threshold may fall the other way when its draws are others.
    assert kept >= 0.9 - (0.1 if method.guarantee == "probabilistic" else 0)
    assert strict.others == len(others) and strict.false_positives <= 0.1 * len(others)


@every_method
def test_certificates_at_several_thresholds_are_those_with_each_threshold_set(name):
    data, method = blobs(), made(name)
    method.build(data.input_shape, seed=99)
    method.load_state(evaluated(name).state)
    x = torch.from_numpy(data.x_test[data.y_test == 1][:6])
    thresholds = [found.threshold for found in evaluated(name).calibrations]
    thresholds.append(thresholds[0] - abs(thresholds[0]) / 8)
    wanted = torch.stack([_predicted(method, x, threshold) for threshold in thresholds])
    for curve in (curve for curve in method.curves() if method.shares_thresholds(curve)):
        method.set_threshold(0.0)
        found = method.certify_at(x, thresholds, wanted, curve, curve.norms, seed=7)
        for threshold, chosen, radii in zip(thresholds, wanted, found, strict=True):
            method.set_threshold(threshold)
            for norm, alone in method.certify(x[chosen], curve, curve.norms, seed=7).items():
                slack = (
                    0.2 if method.guarantee == "probabilistic" else 1e-6
                )  # other draws for other positions
                np.testing.assert_allclose(radii[norm].radius, alone.radius, rtol=slack)
                assert (radii[norm].outcome == alone.outcome).all()


def _predicted(method: Method, x: torch.Tensor, threshold: float) -> torch.Tensor:
    method.set_threshold(threshold)
    return method.predict(x, seed=5) == 1


@every_method
def test_predictions_beat_chance(name):
    predictions = at(evaluated(name).predictions, POINTS[0])
    right = (predictions["predicted"] == predictions["label"]).fillna(False)
    for label in (0, 1):
        assert right[predictions["label"] == label].mean() > 0.8


@every_method
def test_radii_on_a_linear_model_never_exceed_the_exact_distance(name):
    method = made(name)
    weight = torch.tensor([0.6, -0.2, 0.1, 0.4])
    bias = -0.35
    method.build((4,), seed=1)
    method.use_linear(weight, bias)
    x = torch.rand((60, 4), generator=torch.Generator().manual_seed(2))
    x = x[method.predict(x, seed=3) == 1]
    assert len(x) > 5
    # The network may hold the weights as float32; the exact distance is that of the weights it was given.
    margin = (x.double() @ weight.double() + bias).numpy()
    for curve in method.curves():
        found = method.certify(x, curve, curve.norms, seed=4)
        for norm in curve.norms:
            exact = exact_distance(weight.double().numpy(), margin, x.double().numpy(), norm, curve.domain)
            radius = np.where(np.asarray(found[norm].outcome) == Outcome.CERTIFIED, found[norm].radius, 0)
            assert (radius <= exact * (1 + 1e-6)).all()


def exact_distance(
    weight: np.ndarray, margin: np.ndarray, x: np.ndarray, norm: str, domain: str
) -> np.ndarray:
    """Distances (N,) of x to the other side of the plane; in the box by bisection over the reachable decrease."""
    if domain == "free":
        return margin / np.linalg.norm(weight, ord=DUAL_NORM_ORDER[norm])
    room = np.where(weight > 0, x, 1 - x)
    return np.array([box_distance(np.abs(weight), *pair, norm) for pair in zip(margin, room, strict=True)])


def box_distance(weight: np.ndarray, margin: float, room: np.ndarray, norm: str) -> float:
    if (weight * room).sum() < margin:
        return np.inf
    if norm == "l1":  # greedy: the steepest coordinates first
        order = np.argsort(-weight)
        gains = np.cumsum(weight[order] * room[order])
        last = int(np.searchsorted(gains, margin))
        before = gains[last - 1] if last else 0.0
        return room[order][:last].sum() + (margin - before) / weight[order][last]
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        step = np.minimum(middle * weight, room) if norm == "l2" else np.minimum(middle, room)
        low, high = (middle, high) if (weight * step).sum() < margin else (low, middle)
    step = np.minimum(high * weight, room)
    return float(np.linalg.norm(step)) if norm == "l2" else high


# How far inside its radius a perturbed input lies, relative to the radius.
DEPTHS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)
MARGINS = (1e-2, 1e-3, 1e-4, 1e-5)


@every_method
def test_what_predicts_is_what_is_certified_down_to_the_smallest_margins(name):
    """No float32 input strictly inside a radius, down the gradient, is predicted not sensitive.

    A prediction in float32 beside a certificate of a float64 copy fails here: at a margin of 1e-5 rounding decides.
    """
    method = made(name)
    method.build((200,), seed=0)
    method.load_state(method.state())
    method.model.eval()
    x = torch.rand((24, 200), generator=torch.Generator().manual_seed(1))
    if method.score(x).detach().std() == 0:  # a network that training starts at zero
        method.use_linear(torch.randn(200, generator=torch.Generator().manual_seed(1)), 0.0)
    x = near_the_boundary(method, x)
    x = x[method.predict(x, seed=2) == 1]
    assert len(x) > 1
    depths = DEPTHS if method.guarantee == "deterministic" else DEPTHS[-2:]
    for curve in method.curves():
        for norm, found in method.certify(x, curve, curve.native, seed=3).items():
            radius = torch.where(
                torch.from_numpy(found.outcome == Outcome.CERTIFIED), torch.from_numpy(found.radius), 0
            )
            point = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(method.score(point).sum(), point)
            down = steepest(gradient, norm).double()
            for depth in depths:
                length = radius.clamp(max=1e3) * (1 - depth)
                moved = (x.double() + length[:, None] * down).float()
                moved = moved.clamp(0, 1) if curve.domain == "box" else moved
                target = Target(method, x, radius, norm, curve.domain, 4)
                inside = target.distances(moved) < radius
                assert not (target.not_sensitive(moved) & inside).any(), (curve, norm, depth)


def near_the_boundary(method: Method, x: torch.Tensor) -> torch.Tensor:
    """Inputs between those of lower and of higher scores, whose scores are the MARGINS in turn (votes: the higher)."""
    threshold = next(values for key, values in method.model.named_buffers() if key.endswith("threshold"))
    with torch.no_grad():
        scores = method.score(x)
        threshold += ((scores.min() + scores.max()) / 2).to(threshold)
        scores = method.score(x)
        if method.guarantee == "probabilistic":
            return x[scores > scores.max() / 2]
        low, high = (part[torch.arange(4) % len(part)] for part in (x[scores <= 0], x[scores > 0]))
        wanted = torch.tensor(MARGINS)
        below, above = torch.zeros(4), torch.ones(4)
        for _ in range(40):
            middle = (below + above) / 2
            enough = method.score(low + middle[:, None] * (high - low)) >= wanted
            below, above = torch.where(enough, below, middle), torch.where(enough, middle, above)
        return low + above[:, None] * (high - low)


@every_method
def test_inputs_that_are_no_numbers_or_of_another_shape_get_no_certificate(name):
    method = made(name)
    method.build((4,), seed=1)
    method.use_linear(torch.ones(4), -0.5)
    curve = method.curves()[0]
    broken = torch.full((3, 4), 0.9)
    broken[1, 2] = float("nan")
    try:
        found = method.certify(broken, curve, curve.norms[:1], seed=0)[curve.norms[0]]
    except ValueError:
        pass
    else:
        assert found.outcome[1] != Outcome.CERTIFIED
    with pytest.raises((ValueError, RuntimeError)):
        method.certify(torch.full((3, 5), 0.9), curve, curve.norms[:1], seed=0)


@every_method
def test_the_state_holds_everything(name):
    data = well_trained()
    other = made(name)
    other.build(data.input_shape, seed=99)
    other.load_state(evaluated(name).state)
    x = torch.from_numpy(data.x_test)
    rows = at(evaluated(name).predictions, POINTS[0])["predicted"].fillna(-1).to_numpy()
    # Sensitive inputs whose certificate abstained are stored as abstentions, whatever was predicted.
    kept = rows != -1
    assert (other.predict(x, plan(name).seed_for("predict", 0)).numpy()[kept] == rows[kept]).all()


@every_method
def test_what_readers_need_to_know_is_there(name):
    method = METHODS[name]
    assert method.name == name
    assert method.title and method.reference and method.__doc__
    assert method.guarantee in ("deterministic", "probabilistic")
    instance = method()
    assert (instance.alpha is not None) == (method.guarantee == "probabilistic")
    curves = [(curve.certificate, curve.domain) for curve in instance.curves()]
    assert len(curves) == len(set(curves)) > 0
    for curve in instance.curves():
        assert curve.norms and set(curve.native) <= set(curve.norms) <= set(NORMS)
