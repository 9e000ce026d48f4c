"""Kills a run with SIGKILL at random moments, restarts it each time, and compares its tables with an undisturbed run's.

    python tools/kill_and_resume.py --suite quick --kills 30 --out DIR

Exit codes: 0 identical tables; 1 different ones, or a run that failed by itself.
"""

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from bench.kept.store import CURVES, PREDICTIONS, RADII

TICK_SECONDS = 0.05


def main() -> int:
    """Run undisturbed, then killed, then compare."""
    options = _parser().parse_args()
    rng = random.Random(options.seed)
    calm, killed = options.out / "undisturbed", options.out / "killed"
    started = time.monotonic()
    if _run(calm, options) != 0:
        print("the undisturbed run failed")
        return 1
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s")
    kills = kill_repeatedly(killed, options, 1.5 * seconds / options.kills, rng)
    code = _run(killed, options)
    different = [name for name in (RADII, PREDICTIONS, CURVES) if not _same(calm / name, killed / name)]
    print(f"{kills} kills, last run's exit code {code}, tables that differ: {different or 'none'}")
    return 1 if code or different else 0


def kill_repeatedly(out: Path, options: argparse.Namespace, longest: float, rng: random.Random) -> int:
    """Start the run again and again, kill it after up to ``longest`` seconds of work; return how often that hit it."""
    kills = 0
    while kills < options.kills:
        before = _cell_starts(out)
        process = _start(out, options)
        # Importing takes seconds in which nothing is at stake: the clock starts with the first cell.
        while process.poll() is None and _cell_starts(out) == before:
            time.sleep(TICK_SECONDS)
        delay = rng.uniform(0, longest)
        try:
            process.wait(timeout=delay)
            # It ended before its kill: one cell is thrown away so that there is something to do.
            next(out.rglob("cell.json")).unlink()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            kept = {kind: sum(1 for _ in out.rglob(kind)) for kind in ("cell.json", "training.pt", "*.part")}
            print(f"kill {kills} after {delay:.1f} s of work, kept: {kept}", flush=True)
    return kills


def _cell_starts(out: Path) -> dict[Path, int]:
    """When each cell last opened its log, which is the first thing it does."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("cell.log")}


def _start(out: Path, options: argparse.Namespace) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "bench.compare",
        "--suite",
        options.suite,
        "--out",
        str(out),
        *options.rest,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run(out: Path, options: argparse.Namespace) -> int:
    return _start(out, options).wait()


def _same(one: Path, other: Path) -> bool:
    if one.suffix != ".parquet":
        return one.read_bytes() == other.read_bytes()
    tables = [pd.read_parquet(path).drop(columns="seconds") for path in (one, other)]
    return tables[0].equals(tables[1])


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    top.add_argument("--suite", default="quick", help="name or file (default: quick)")
    top.add_argument("--kills", type=int, default=30, help="how often to kill (default: 30)")
    top.add_argument("--out", type=Path, required=True, help="folder for the two runs")
    top.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    top.add_argument("rest", nargs="*", help="after --: further options of bench.compare")
    return top


if __name__ == "__main__":
    sys.exit(main())
