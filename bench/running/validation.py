"""What a trained method certifies on a few validation inputs: by it figures choose between methods, without test data.

Each cell keeps, for each operating point and norm, the median certified radius of some sensitive validation inputs
under the method's cheapest free certificate, with the settings that tuning judges by (few draws of smoothing, coarse
bounds). It is for choosing only and stands in no table of results. A fifth of the inputs at a fraction of the
draws or bounds costs a few percent of a cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bench.basics.seeds import derive_seed
from bench.basics.settings import from_table
from bench.calibration import Calibration
from bench.contract import Curve, Method, Outcome
from bench.data import Dataset
from bench.running.plan import CellPlan

MIN_INPUTS, MAX_INPUTS = 10, 100
# Of the sensitive test inputs, so many are measured beside them.
SHARE = 0.2


def validated_inputs(data: Dataset, tested: int) -> np.ndarray:
    """Return which sensitive validation inputs measure, sorted, the same ones for every method.

    tested: how many sensitive test inputs each method certifies.
    """
    sensitive = np.flatnonzero(data.y_val == 1)
    count = min(MAX_INPUTS, max(MIN_INPUTS, int(SHARE * tested)))
    if len(sensitive) <= count:
        return sensitive
    rng = np.random.default_rng(derive_seed(data.name, "validated inputs", count))
    return np.sort(rng.choice(sensitive, count, replace=False))


def cheapest_curve(method: Method) -> Curve:
    """Return the certificate that judges: the first that holds anywhere, else the first."""
    curves = list(method.curves())
    return next((curve for curve in curves if curve.domain == "free"), curves[0])


def judged_twin(method: Method, judging: Mapping[str, Any], shape: tuple[int, ...]) -> Method:
    """Return the method as it stands, even in the middle of its training, with the settings of judging laid over it."""
    where = f"judging settings of {method.name!r}"
    settings = from_table(type(method).Settings, judging, where, base=method.settings)
    twin = type(method)(settings, method.device)
    twin.mutable = method.mutable
    twin.build(shape, seed=0)
    twin.load_state({name: tensor.detach().clone() for name, tensor in method.state().items()})
    twin.model.eval()
    return twin


def validation_measures(
    method: Method, data: Dataset, plan: CellPlan, points: Sequence[Calibration], tested: int
) -> list[dict[str, Any]]:
    """Return rows of bench.kept.store's VALIDATION_COLUMNS, one for each operating point and norm.

    method: trained, and left as it is; tested: as for ``validated_inputs``. A radius that is not certified counts as 0;
    there are no rows where no free certificate or no sensitive validation input exists.
    """
    index = validated_inputs(data, tested)
    twin = judged_twin(method, type(method).space.judging, data.input_shape)
    curve = cheapest_curve(twin)
    norms = tuple(norm for norm in plan.norms if norm in curve.norms)
    if curve.domain != "free" or not norms or not len(index):
        return []
    thresholds = [point.threshold or 0.0 for point in points]
    found: list[dict[str, list[np.ndarray]]] = [{norm: [] for norm in norms} for _ in points]
    if points[0].threshold is not None:
        twin.set_threshold(0.0)
    for start, batch in enumerate(
        torch.from_numpy(data.x_val[index]).to(method.device).split(twin.batch_size)
    ):
        seed = plan.seed_for("validate", start)
        wanted = torch.stack([predicted == 1 for predicted in twin.predict_at(batch, thresholds, seed)])
        certified = twin.certify_at(batch, thresholds, wanted, curve, norms, seed)
        for kept, one, chosen in zip(found, certified, wanted.cpu().numpy(), strict=True):
            for norm in norms:
                radii = np.zeros(len(batch))
                radii[chosen] = np.where(one[norm].outcome == Outcome.CERTIFIED, one[norm].radius, 0.0)
                kept[norm].append(radii)
    cell = {"dataset": plan.dataset, "method": plan.method_id, "seed": plan.seed}
    facts = {**cell, "certificate": curve.certificate, "inputs": len(index)}
    return [
        {
            **facts,
            "norm": norm,
            "operating_point": point.point,
            "median_radius": float(np.median(np.concatenate(r))),
        }
        for point, kept in zip(points, found, strict=True)
        for norm, r in kept.items()
    ]
