"""python -m bench.certify: certify a trained network of your own on your own data.

Exit codes: 0 done; 1 some certificates failed, the rest is saved; 2 bad usage, nothing started.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from bench.certify.choice import CERTIFICATES, Noise, choose, described, methods_for, obstacles
from bench.certify.kept import keep
from bench.commands import command
from bench.contract import NORMS, Method, Outcome, check_norms
from bench.data import Dataset
from bench.data_options import add_data_options, own_data, print_account
from bench.errors import Parser, UsageError
from bench.model_files import ModelFile, open_model
from bench.options import chosen_devices
from bench.running.cells import cached_dataset
from bench.running.evaluate import Evaluation, describe, failed
from bench.running.finish import finish_cells
from bench.running.lock import FolderLock
from bench.running.plan import CellPlan
from bench.running.provenance import RunClock
from bench.store import SUMMARY, CellFolder, Store

LOG = logging.getLogger(__name__)
DEFAULT_OUT = Path("out/certify")
DEFAULT_INPUTS = 200


def parser() -> Parser:
    """Describe the command line."""
    top = Parser(
        prog="python -m bench.certify",
        description="Certify a trained network: an FCNN checkpoint (.safetensors), ONNX, TorchScript or "
        "torch.export file with one score (positive: sensitive) or two logits. Says which certificates apply, "
        "issues them, and writes the tables, figures and report of a run.",
    )
    add = top.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="the trained network")
    add("--data", required=True, metavar="FILE|NAME", help="own .npz, .csv or .parquet, or a NAME")
    add("--norms", nargs="+", default=NORMS, metavar="NORM", help=f"some of {' '.join(NORMS)}")
    add(
        "--certificates",
        nargs="+",
        metavar="NAME",
        help=f"some of {', '.join(CERTIFICATES)} (default: all that apply, but no smoothing)",
    )
    add(
        "--sensitive-logit",
        type=int,
        choices=(0, 1),
        help="which of two logits is the sensitive class's (default: its place among the data's labels); "
        "of one score, 0 says that negative means sensitive",
    )
    add("--threshold", type=float, default=0.0, metavar="T", help="the score must exceed it (default: 0)")
    add("--output", metavar="NAME", help="which output of an ONNX file holds the scores")
    add("--sigma", type=float, metavar="S", help="noise of randomized smoothing, per coordinate")
    add("--draws", type=int, default=10_000, metavar="N", help="noise draws per input (default: 10000)")
    add(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="budget of alpha_beta_crown per input and norm (default: 10)",
    )
    add(
        "--inputs",
        type=int,
        default=DEFAULT_INPUTS,
        metavar="N",
        help=f"test inputs to use, 0 for all (default: {DEFAULT_INPUTS})",
    )
    add("--trust", action="store_true", help="load TorchScript and torch.export files, which can run code")
    add("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute (default: auto)")
    add("--out", type=Path, metavar="DIR", help="output folder (default: out/certify/MODEL)")
    add_data_options(top.add_argument_group("data").add_argument)
    return top


def certify(options: argparse.Namespace) -> int:
    """Certify what the options ask for; raise UsageError before anything is started if they make no sense."""
    clock = RunClock()
    norms, noise = check_norms(options.norms), Noise(options.sigma, options.draws)
    if options.inputs < 0 or not options.seconds > 0:
        raise UsageError("--inputs must be 0 (all) or more, and --seconds a number > 0")
    device = torch.device(chosen_devices(options.device)[0])
    request = own_data(options)
    data = cached_dataset(request)
    model = open_model(
        options.model,
        data.input_shape,
        place=data.place,
        logit=options.sensitive_logit,
        threshold=options.threshold,
        output=options.output,
        trust=options.trust,
    )
    against = obstacles(model.score, data.input_shape)
    chosen = choose(options.certificates, against, noise)
    print_account([request])
    print("\n".join([*_said(options.model, model, data), described(against, chosen)]), flush=True)
    store = Store(options.out or DEFAULT_OUT / options.model.stem)
    store.prepare()
    plan = CellPlan(data.name, "", 0, 0, norms, "none", options.inputs)
    methods = methods_for(model.score, chosen, noise, options.seconds, device)
    with FolderLock(store.out):
        store.sweep()
        kept = {"model_file": options.model.name, "given": keep(store, options)}
        cells, errors = [], []
        for method in methods:
            cell, found = _run(method, data, replace(plan, method_id=method.name), store, kept)
            cells.append(cell)
            errors += found
        text = finish_cells(
            store,
            cells,
            {**_configuration(options, data, norms), **request.record()},
            _metadata(methods, options.model),
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
    if model.removed:
        lines.append(f"Left off at its end: {model.removed}, which does not change the class")
    if model.logits:
        lines.append(
            f"Sensitive class {data.classes[0]!r}: logit {model.logit} (--sensitive-logit changes it)"
        )
    else:
        sign = "positive" if model.logit == 1 else "negative"
        lines.append(f"Sensitive class {data.classes[0]!r}: {sign} score")
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
    method: Method, data: Dataset, plan: CellPlan, store: Store, kept: dict[str, object]
) -> tuple[CellFolder, list[str]]:
    """Issue one method's certificates and store them; whatever goes wrong becomes rows with the reason."""
    try:
        result = Evaluation(method, data, plan).run()
    except Exception as error:  # one failing method must not take the others down
        LOG.exception("%s on %s failed", method.name, data.name)
        result = failed(method, data, plan, Outcome.ERROR, describe(error))
    folder = store.cell(data.name, method.name, plan.seed)
    meta = {
        "method": method.name,
        **kept,
        "title": method.title,
        "settings": method.settings,
        "curves": list(method.curves()),
        "seconds": result.seconds,
        "errors": result.errors,
    }
    folder.write("certify", result.radii, result.predictions, result.state or None, meta)
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
        **{name: getattr(options, name) for name in ("threshold", "output", "sigma", "draws", "seconds")},
    }


def _metadata(methods: Sequence[Method], model: Path) -> dict[str, dict[str, str]]:
    return {
        method.name: {
            "method": method.name,
            "title": f"{model.stem}: {method.title}",
            "reference": method.reference,
            "guarantee": method.guarantee,
            "family": "",
        }
        for method in methods
    }


main = command("bench.certify", parser, certify)

if __name__ == "__main__":
    sys.exit(main())
