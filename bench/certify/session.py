"""Certify a trained network: read it, say which certificates apply, issue them, write what a run writes."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from bench.certify.choice import choose, described, methods_for, obstacles
from bench.certify.meaning import check, label_place, sensitive_logit
from bench.certify.options import DEFAULT_OUT
from bench.contract import Outcome, check_norms
from bench.data import Dataset
from bench.data.asked import own_data, print_account
from bench.data.request import cached_dataset
from bench.kept.model_file import keep
from bench.kept.store import SUMMARY, CellFolder, Store
from bench.methods._stage import Stage
from bench.methods.given import Effort, Given, GivenNetwork, budgets
from bench.model_files import ModelFile, open_model
from bench.report.finish import finish_cells, method_facts
from bench.running.chosen import chosen_devices
from bench.running.evaluate import Evaluation, chosen_test_inputs, describe, failed
from bench.running.lock import FolderLock
from bench.running.plan import CellPlan
from bench.running.provenance import RunClock

LOG = logging.getLogger(__name__)


def certify(options: argparse.Namespace) -> int:
    """Certify what the options ask for; raise UsageError before anything is started if they make no sense."""
    clock = RunClock()
    norms = check_norms(options.norms)
    check(options)
    effort = Effort(options.sigma, options.draws, options.seconds)
    device = torch.device(chosen_devices(options.device)[0])
    request = own_data(options)
    assert request is not None  # --data is required
    data = cached_dataset(request)
    model = open_model(
        options.model,
        data.input_shape,
        place=data.place,
        labels=label_place(data),
        logit=sensitive_logit(options.sensitive_logit, data),
        threshold=options.threshold,
        output=options.output,
        layout=options.layout,
        trust=options.trust,
    )
    network = GivenNetwork(model.score, data.input_shape, device, model.unread)
    against = obstacles(network)
    chosen = choose(options.certificates, against, effort)
    print_account([request])
    print("\n".join([*_said(options.model, model, data), described(against, chosen)]), flush=True)
    store = Store(options.out or DEFAULT_OUT / options.model.stem)
    store.prepare()
    plan = CellPlan(data.name, "", 0, 0, norms, "none", options.inputs)
    methods = methods_for(network, chosen, effort)
    with FolderLock(store.out):
        store.sweep()
        kept = {"model_file": options.model.name, "given": keep(store, options, model.logit)}
        cells, errors = [], []
        for method, seconds in zip(methods, budgets(methods, options.minutes), strict=True):
            method_plan = replace(plan, method_id=method.name)
            cell, found = _run(method, data, method_plan, store, kept, seconds)
            cells.append(cell)
            errors += found
        text = finish_cells(
            store,
            cells,
            {**_configuration(options, data, norms), **request.record()},
            {m.name: method_facts(type(m), f"{options.model.stem}: {m.title}") for m in methods},
            clock,
            request.data_dir,
            data if request.table is not None else None,
        )
    print(f"\n{text}")
    _warn_if_reversed(pd.read_csv(store.out / SUMMARY))
    for reason in errors:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if errors else 0


def _said(path: Path, model: ModelFile, data: Dataset) -> list[str]:
    """What was understood of the network, in lines."""
    lines = [f"{path.name}: {model.kind}"]
    if model.layers:
        lines.append(f"Layers: {', '.join(model.layers)}")
    if model.unread:
        lines.append(f"Not read: {model.unread}; onnxruntime runs it, which is all that smoothing needs")
    if model.removed:
        lines.append(f"Undone at its end, the rule carried through: {', '.join(model.removed)}")
    name = data.classes[0]
    if model.logits > 1:
        called = f" ({data.labels[model.logit]!r})" if len(data.labels) == model.logits else ""
        lines.append(
            f"Sensitive class {name!r}: logit {model.logit}{called} of {model.logits}, where it is {model.rule} "
            "(--sensitive-logit changes it)"
        )
    else:
        lines.append(f"Sensitive class {name!r}: where its output is {model.rule}")
    return lines


def _warn_if_reversed(summary: pd.DataFrame) -> None:
    """A network that gets most inputs of both classes wrong was probably read the wrong way round."""
    recalls = summary[["recall_sensitive", "recall_other"]].astype(float)
    if ((recalls < 0.5).all(axis=1)).any():
        print(
            "bench.certify: most test inputs of both classes are classified wrong: does the other logit, or the other "
            "sign of the score, belong to the sensitive class? See --sensitive-logit.",
            file=sys.stderr,
        )


def _run(
    method: Given, data: Dataset, plan: CellPlan, store: Store, kept: dict[str, object], seconds: float
) -> tuple[CellFolder, list[str]]:
    """Issue one method's certificates and store them; whatever goes wrong becomes rows with the reason."""
    sensitive = data.y_test[chosen_test_inputs(data, plan.test_inputs)].sum()
    stage = method.stage = Stage(method.title, len(method.curves()), int(sensitive), seconds)
    try:
        result = Evaluation(method, data, plan).run()
    except Exception as error:  # one failing method must not take the others down
        LOG.exception("%s on %s failed", method.name, data.name)
        result = failed(method, data, plan, Outcome.ERROR, describe(error))
    finally:
        stage.close()
    folder = store.cell(data.name, method.name, plan.seed)
    meta = {
        "method": method.name,
        **kept,
        "title": method.title,
        "settings": method.settings,
        "curves": list(method.curves()),
        "seconds": result.seconds,
        "errors": result.errors,
        "operating_points": {point.point: point for point in result.calibrations},
    }
    folder.write("certify", result.radii, result.predictions, result.state or None, meta, result.roc)
    return folder, result.errors


def _configuration(options: argparse.Namespace, data: Dataset, norms: tuple[str, ...]) -> dict[str, object]:
    used = len(data.y_test) if options.inputs == 0 else min(options.inputs, len(data.y_test))
    return {
        "name": f"certify {options.model.stem}",
        "title": f"Certificates of {options.model.name}",
        "reduced": "" if used == len(data.y_test) else f"{used} of {len(data.y_test)} test inputs",
        "datasets": [data.name],
        "norms": norms,
        "seeds": [0],
        **{
            name: getattr(options, name)
            for name in ("threshold", "output", "layout", "sigma", "draws", "seconds", "minutes")
        },
    }
