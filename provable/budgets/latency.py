"""Measured time of one call on this machine: ONNX Runtime, one thread, batch norm folded.

    the recipe's rule for multiply-adds gives a family of networks, one per share of multiply-adds
    the largest share whose network is measured to meet the budget is found by bisection on a grid of 1 / `STEPS`

Times depend on widths, not on weights, so the networks are cut without compensation. Original and candidate are timed
in turns and the fastest call of each counts: what disturbs a machine only ever adds time.

Not claimed: that another machine, thread count or batch gives the same ratio, or that a second measurement gives the
same counts; the counts that were found are in the report.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from provable.allocation.budget import Allocation, Budget, unreachable
from provable.budgets.problem import Problem
from provable.cost import cost_model
from provable.errors import BudgetError
from provable.folding import fold_batch_norms
from provable.surgery import shrink
from verify.network.graph import Network

STEPS = 32
ROUNDS, SECONDS = 400, 0.6
"""Calls of each network, or seconds for both, whichever is less; never under `LEAST` calls."""
LEAST = 5

Stopwatch = Callable[[Sequence[Network], int], list[float]]
"""(networks, batch) -> seconds of one call of each."""


def measured(networks: Sequence[Network], batch: int) -> list[float]:
    """Seconds of the fastest call of each network with ONNX Runtime, in turns, one thread.

    Args:
        networks: all with the same input shape.
        batch: samples per call.

    Raises:
        BudgetError: ONNX Runtime is not installed.
    """
    sessions = [_session(network) for network in networks]
    x = np.random.default_rng(0).normal(size=(batch, *networks[0].input_shape)).astype(np.float32)
    best = [np.inf] * len(sessions)
    began = time.perf_counter()
    for turn in range(ROUNDS + 2):
        for i, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: x})
            best[i] = min(best[i], time.perf_counter() - start) if turn >= 2 else best[i]  # two to warm up
        if turn >= LEAST + 1 and time.perf_counter() - began > SECONDS:
            break
    return best


def _session(network: Network) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise BudgetError(
            "a latency budget is measured with ONNX Runtime, which is not installed; install the extra: "
            "pip install 'provable-pruning[run]'"
        ) from None
    from verify.network.write_onnx import onnx_bytes, single_precision

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    data = onnx_bytes(single_precision(fold_batch_norms(network)))
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Latency:
    """The fraction of the original's measured time that stays."""

    stopwatch: Stopwatch = measured

    def meet(self, problem: Problem) -> Allocation:
        """See `problem.Kind`."""
        flops = cost_model(problem.network, problem.groups)
        narrow = {name: widths[0] for name, widths in problem.widths.items()}
        dense, least = self._times(problem, narrow)
        if least > problem.budget.fraction * dense:
            whole = f"original's {1e3 * dense:.3g} ms per call (batch {problem.batch}, ONNX Runtime)"
            raise unreachable(problem.budget, least / dense, whole)
        full = int(flops.flop_terms.value(flops.counts({})))
        low = int(flops.flop_terms.value(flops.counts(narrow))) * STEPS // full + 1  # shares below are out of reach
        best, taken = narrow, least
        high = STEPS
        while low <= high:
            middle = (low + high + 1) // 2
            found = problem.by_cost(flops.flop_terms.value, Budget("flops", middle / STEPS))
            dense, seconds = self._times(problem, found.counts)
            if seconds <= problem.budget.fraction * dense:
                best, taken, low = dict(found.counts), seconds, middle + 1
            else:
                high = middle - 1
        words = (
            f"measured milliseconds per call, batch {problem.batch}, one thread, ONNX Runtime; "
            f"the original's: {1e3 * dense:.4g}"
        )
        return Allocation(best, 1e3 * taken, words)

    def _times(self, problem: Problem, counts: Mapping[str, int]) -> list[float]:
        kept = {name: range(count) for name, count in counts.items()}
        compact = shrink(problem.network, kept, groups=problem.groups).compact
        return self.stopwatch([problem.network, compact], problem.batch)
