"""Answers the questions of ``python -m bench.export OUT`` with Marabou, and writes what ``--import`` reads.

pip install maraboupy
python -m bench.export OUT --radii 0.05 0.1
python examples/verify_with_marabou.py OUT/vnnlib answers.csv
python -m bench.export OUT --import answers.csv --tool marabou
"""

import argparse
import csv
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

BOUND = re.compile(r"\(assert \((>=|<=) X_(\d+) (\S+?)\)\)")
# Marabou decides up to a tolerance of its own: a score this close above 0 counts as a counterexample, to be looked at.
LEAST_SCORE = 0.0


def bounds(question: Path) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (d,) of the inputs in a VNN-LIB file as bench.export writes it."""
    found = {">=": {}, "<=": {}}
    for side, place, value in BOUND.findall(question.read_text(encoding="utf-8")):
        found[side][int(place)] = float(value)
    lower, upper = ([part[place] for place in sorted(part)] for part in (found[">="], found["<="]))
    return np.array(lower), np.array(upper)


def answer(network: Path, question: Path, seconds: int) -> tuple[str, float]:
    """``unsat`` (holds), ``sat`` (violated), ``timeout`` or ``unknown``, and how long it took."""
    from maraboupy import Marabou

    began = time.monotonic()
    query = Marabou.read_onnx(str(network))
    for variable, low, high in zip(query.inputVars[0].flatten(), *bounds(question), strict=True):
        query.setLowerBound(variable, low)
        query.setUpperBound(variable, high)
    query.setUpperBound(query.outputVars[0].flatten()[0], LEAST_SCORE)
    options = Marabou.createOptions(verbosity=0, timeoutInSeconds=seconds)
    result = query.solve(verbose=False, options=options)[0]
    word = result if result in ("sat", "unsat") else "timeout" if result == "TIMEOUT" else "unknown"
    return word, time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer every instance in the folder, telling how far it is."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("folder", type=Path, help="OUT/vnnlib, with instances.csv")
    top.add_argument("answers", type=Path, help="CSV file to write")
    options = top.parse_args(arguments)
    with (options.folder / "instances.csv").open(encoding="utf-8", newline="") as file:
        instances = list(csv.reader(file))
    with options.answers.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["vnnlib", "result", "seconds"])
        for place, (network, question, seconds) in enumerate(instances, start=1):
            word, took = answer(options.folder / network, options.folder / question, int(seconds))
            writer.writerow([question, word, f"{took:.3f}"])
            print(f"{place}/{len(instances)} {question}: {word} in {took:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
