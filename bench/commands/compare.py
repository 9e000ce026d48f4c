"""Run a suite, tuned first if wanted, and write its tables and figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.basics.commands import DONE, FAILED
from bench.basics.files import safe_name
from bench.basics.interrupts import Interrupts
from bench.data.asked import print_account, requests
from bench.kept.store import LOG_FILE, Store
from bench.report.unchanged import made_from, remember, remembered_text
from bench.running.chosen import chosen_engine, chosen_resources, chosen_suite
from bench.running.costs import Costs
from bench.running.dry_run import dry_run
from bench.running.lock import FolderLock
from bench.running.progress import Progress
from bench.running.provenance import RunClock
from bench.running.runner import CellReport, plan_jobs, run_jobs
from bench.suites.listing import listing
from bench.suites.suite import Suite, load_suite

DEFAULT_OUT = Path("out")
TUNING = "tuning"


def run(options: argparse.Namespace) -> int:
    """List what there is, or compare what the options ask for; return the exit code."""
    if options.list:
        print(listing())
        return DONE
    with Interrupts() as interrupts:
        return compare(options, interrupts)


def compare(options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Run what the options ask for; raise UsageError before anything is started if they make no sense."""
    suite = chosen_suite(options)
    if options.tune is None:
        return run_suite(suite, options, interrupts)
    from bench.tune.session import tune  # the search takes a second to import

    out = options.out or DEFAULT_OUT / safe_name(f"{suite.name}_tuned")
    file, failed = tune(suite, options, options.tune, out / TUNING, interrupts)
    if file is None:
        return DONE
    options.out = out
    return max(run_suite(load_suite(str(file)), options, interrupts), FAILED if failed else DONE)


def run_suite(suite: Suite, options: argparse.Namespace, interrupts: Interrupts) -> int:
    """Run a suite with the command line's folders and resources; return the exit code."""
    resources = chosen_resources(options, suite)
    asked = requests(options, suite.datasets)
    store = Store(options.out or DEFAULT_OUT / safe_name(suite.name))
    clock = RunClock()
    jobs = plan_jobs(suite, store, asked, resources)
    against_all = [
        entry.method_class.title for entry in suite.methods if not entry.method_class.respects_mutable
    ]
    print_account(asked.values(), list(dict.fromkeys(against_all)))
    if options.dry_run:
        print(dry_run(store, suite, jobs, len(resources.devices)))
        return DONE
    with chosen_engine(options, resources) as engine:
        store.prepare()
        with FolderLock(store.out):
            store.sweep()
            progress = Progress(jobs, len(resources.devices), Costs.at_hand(store.out))
            reports = list(run_jobs(jobs, engine, interrupts, progress, fresh=options.fresh))
            made = made_from(store, suite, jobs)
            text = remembered_text(store, made)
            if text is None:
                from bench.report.finish import finish_run  # drawing takes seconds to import

                text = finish_run(store, suite, jobs, resources, clock)
                remember(store, made, text)
    print(text)
    return report_failures(reports, store)


def report_failures(reports: Sequence[CellReport], store: Store) -> int:
    """Name the cells that failed, with their first reason and log file; return the exit code."""
    bad = [report for report in reports if report.errors]
    for report in bad:
        log = report.folder.path.relative_to(store.out) / LOG_FILE
        where = f"{report.folder.method} on {report.folder.dataset}, seed {report.folder.seed}"
        print(f"failed: {where}: {report.errors[0]} (log: {store.out / log})", file=sys.stderr)
    if bad:
        print(f"{len(bad)} of {len(reports)} cells failed; the others are saved.", file=sys.stderr)
    return 1 if bad else 0
