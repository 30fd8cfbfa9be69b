"""Workers give every item's result once, also when one of them is killed."""

import os
import signal
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from verify.errors import SpecificationError
from verify.network.graph import build
from verify.parallel.pieces import verify_in_pieces
from verify.parallel.workers import MOST_LOSSES, Cluster, Here, Processes, WorkersLost
from verify.spec.box import Box
from verify.spec.deviation import Verdict


def kill_one(workers):
    """Kill one process of the pool."""
    pids = list(workers._pool._processes)
    os.kill(pids[0], signal.SIGKILL)


def test_here_runs_in_order():
    assert list(Here().each(abs, [-1, 2, -3])) == [(0, 1), (1, 2), (2, 3)]


def test_processes_survive_the_loss_of_one():
    items = [0.05, 0.3, 0.3, 0.3, 0.3]
    seen = []
    with Processes(2) as workers:
        for position, _ in workers.each(time.sleep, items):
            if not seen:
                kill_one(workers)
            seen.append(position)
        assert sorted(seen) == list(range(len(items)))
        assert sorted(workers.each(abs, [-1, -2])) == [(0, 1), (1, 2)]


def test_an_item_that_kills_every_worker_is_given_up():
    with Processes(1) as workers, pytest.raises(WorkersLost, match=f"{MOST_LOSSES + 1} times"):
        list(workers.each(os._exit, [1]))


def test_exceptions_of_the_function_are_raised_as_they_are():
    with Processes(1) as workers, pytest.raises(ZeroDivisionError):
        list(workers.each(Fraction(1).__truediv__, [0]))
    with pytest.raises(SpecificationError, match="worker"):
        Processes(0)


def dense_pair():
    rng = np.random.default_rng(0)
    widths = (3, 8, 8, 2)
    parameters, steps, last = {}, [], "x"
    for i in range(3):
        parameters[f"w{i}"] = rng.normal(size=(widths[i + 1], widths[i])) / np.sqrt(widths[i])
        steps.append((f"a{i}", "linear", [last], {"weight": f"w{i}"}, {}))
        last = f"a{i}"
        if i < 2:
            last = f"h{i}"
            steps.append((last, "relu", [f"a{i}"], {}, {}))
    original = build("x", (3,), steps, last, parameters)
    return original, original.with_parameters({k: np.round(8 * v) / 8 for k, v in parameters.items()})


def proved_despite_a_loss(workers, lose):
    """A search that loses a worker after its second finished piece proves what a calm search proves."""
    original, compact = dense_pair()
    edges = [Fraction(i, 3) for i in range(-3, 4)]
    boxes = [Box((a, Fraction(-1), Fraction(-1)), (b, Fraction(1), Fraction(1))) for a, b in pairwise(edges)]
    calm = verify_in_pieces(original, compact, boxes, ratio=1.3, timeout=120.0, backward=False)
    epsilon = Fraction(calm.upper) * Fraction(101, 100)

    class Losing:
        count = workers.count

        def __init__(self):
            self.finished = 0

        def each(self, function, items):
            for pair in workers.each(function, items):
                self.finished += 1
                if self.finished == 2:
                    lose()
                yield pair

    losing = Losing()
    result = verify_in_pieces(
        original, compact, boxes, epsilon=epsilon, timeout=240.0, slice_seconds=0.2, workers=losing, attack=None,
        backward=False,
    )  # fmt: skip
    assert losing.finished >= len(boxes)
    assert result.verdict is Verdict.PROVED
    assert Fraction(result.upper) <= epsilon


@pytest.mark.slow
def test_a_search_on_processes_survives_the_loss_of_one():
    with Processes(2) as workers:
        proved_despite_a_loss(workers, lambda: kill_one(workers))


@pytest.mark.slow
def test_a_search_on_a_cluster_survives_the_loss_of_a_worker():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster,
        Cluster(cluster.scheduler_address, seconds=60.0) as workers,
    ):
        assert workers.count == 2
        victim = next(iter(cluster.workers.values()))
        proved_despite_a_loss(workers, lambda: os.kill(victim.pid, signal.SIGKILL))


def test_a_cluster_that_is_not_there_is_refused():
    pytest.importorskip("distributed")
    with pytest.raises(SpecificationError, match="no Dask scheduler"):
        Cluster("tcp://127.0.0.1:1", seconds=1.0)
