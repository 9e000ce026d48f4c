"""Searches in processes of their own, so that the processor time of one is its training's and nobody else's."""

import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from bench.data.request import DataRequest, cached_dataset
from bench.running.evaluate import describe
from bench.tune.search import Search, Task

PRELOADED = ["bench.tune.search", "bench.methods", "sklearn.datasets"]


@dataclass(frozen=True)
class SearchJob:
    """What a process needs for one search: the task, its data, and the file and key of its record.

    The key is made once: code that is edited meanwhile must not part a search from its result.
    """

    task: Task
    data: DataRequest
    file: Path
    key: str
    threads: int = 1


def run_searches(jobs: Sequence[SearchJob], devices: Sequence[str]) -> Iterator[tuple[SearchJob, str]]:
    """Run the searches, one at a time on each of the devices; yield each as it ends, with its error or ""."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, free = deque(jobs), deque(devices)
    running: dict[Connection, tuple[SearchJob, str, ForkServerProcess]] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, device = waiting.popleft(), free.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, job, device))
                process.start()
                theirs.close()
                running[ours] = job, device, process
            ready = wait(list(running))
            for pipe in [pipe for pipe in running if pipe in ready]:
                job, device, process = running.pop(pipe)
                try:
                    error = pipe.recv()
                except EOFError:
                    process.join()
                    error = f"its process ended with exit code {process.exitcode}"
                pipe.close()
                process.join()
                free.append(device)
                yield job, error
    finally:
        for _, _, process in running.values():
            process.kill()  # its record is whole at any moment
            process.join()


def _work(result: multiprocessing.connection.Connection, job: SearchJob, device: str) -> None:
    """What the process of a search does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the process that waits decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    try:
        with threadpool_limits(job.threads):
            data = cached_dataset(job.data)
            Search(job.task, data, job.file, torch.device(device), key=job.key).run()
        result.send("")
    except Exception as error:  # the other searches go on
        job.file.with_suffix(".log").write_text(traceback.format_exc(), encoding="utf-8")
        result.send(describe(error))


def _die_with_parent() -> None:
    """End this process when the one that waits for it is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    signal.raise_signal(signal.SIGKILL)
