"""What a run on a cluster does about losses, with a client that is pretended: no cluster, no waiting."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from bench.running import cluster
from bench.running.cells import Failure

JOB = SimpleNamespace(key="k", data="data", label="a cell")


class Future(NamedTuple):
    key: str
    result: Callable[[], str]

    def done(self) -> bool:
        return True


class Client:
    """Takes data after so many failures; hands out results one after the other."""

    def __init__(self, failures: int = 0, results: tuple = ()) -> None:
        self.failures, self.results, self.sent = failures, list(results), 0

    def scatter(self, data, hash):
        if self.failures:
            self.failures -= 1
            raise TimeoutError("the worker died")
        return object()

    def submit(self, *_, pure):
        self.sent += 1
        return Future(f"f{self.sent}", self.results.pop(0))


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(cluster, "cached_dataset", lambda _: SimpleNamespace(name="data"))


def lost():
    from distributed import CancelledError

    raise CancelledError("its data are gone")


@pytest.mark.parametrize("failures", [0, 1, cluster.SENDINGS - 1])
def test_data_are_offered_again_when_a_worker_dies(failures):
    run = cluster._Run(Client(failures), "cpu", 0)
    assert run._scatter(SimpleNamespace(name="data")) is not None


def test_a_cluster_that_takes_no_data_is_given_up():
    with pytest.raises(OSError, match=r"does not take data .*the worker died"):
        cluster._Run(Client(cluster.SENDINGS), "cpu", 0)._scatter(SimpleNamespace(name="data"))


@pytest.mark.parametrize("losses", [0, 1, cluster.SENDINGS - 1, cluster.SENDINGS])
def test_a_lost_cell_is_sent_again_so_often_and_not_more(losses):
    pytest.importorskip("distributed")
    client = Client(results=(*[lost] * losses, lambda: "computed"))
    run = cluster._Run(client, "cpu", 0)
    run._send(JOB)
    found = None
    while found is None:
        ((future, (job, data)),) = run.pending.items()
        del run.pending[future]
        found = run._result(future, job, data)
    assert client.sent == min(losses + 1, cluster.SENDINGS)
    if losses < cluster.SENDINGS:
        assert found == "computed"
    else:
        assert isinstance(found, Failure) and f"{cluster.SENDINGS} times" in str(found)


def test_a_cell_on_time_is_not_stopped_and_a_late_one_is():
    stopped = []
    client = SimpleNamespace(restart_workers=lambda workers, raise_for_error: stopped.extend(workers))
    run = cluster._Run(client, "cpu", minutes=2)
    future = SimpleNamespace(key="f1", done=lambda: False, cancel=lambda: None)
    assert not run._is_overdue(future), "it has not begun"
    for ago, late in ((119, False), (121, True)):
        run.started["f1"] = (cluster.time.monotonic() - ago, "worker")
        assert run._is_overdue(future) is late
    failure = run._result(future, JOB, None)
    assert stopped == ["worker"] and "2 minutes" in str(failure)
