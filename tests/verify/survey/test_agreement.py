"""All algorithms against exact enumeration of activation regions: complete ones equal it, no one contradicts it."""

import numpy as np
import pytest

from verify.survey import ALGORITHMS, Status, algorithm


def taken(name, cases):
    return [case for case in cases if ALGORITHMS[name].facts.refusal(case.problem) is None]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_answer_contradicts_enumeration(name, cases):
    mine = taken(name, cases)
    assert len(mine) >= 5
    assert {case.level > 0 for case in mine} == {True, False}
    for case in mine:
        result = algorithm(name).solve(case.problem, timeout=30)
        if result.status is Status.HOLDS:
            assert case.level > 0
        if result.status is Status.VIOLATED:
            assert case.level < 0
            x = result.counter_example
            assert case.problem.input.contains(x)
            assert min(v.level(case.problem.network.evaluate(x)) for v in case.problem.violations) < 0
        if ALGORITHMS[name].facts.complete:
            assert result.status is (Status.HOLDS if case.level > 0 else Status.VIOLATED)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_decides_something(name, cases):
    """None is a stub (ILP proves only where there is one linear region, and refutes only in the centre's)."""
    statuses = [algorithm(name).solve(case.problem, timeout=30).status for case in taken(name, cases)]
    decided = sum(status is not Status.UNKNOWN for status in statuses)
    assert decided >= len(statuses) / 10


@pytest.mark.parametrize("name", ALGORITHMS)
def test_reach_sets_contain_sampled_outputs(name, cases):
    rng = np.random.default_rng(0)
    for case in taken(name, cases)[::3]:
        problem = case.problem
        result = algorithm(name).solve(problem, timeout=30)
        x = rng.uniform(problem.box.lower, problem.box.upper, size=(200, problem.network.inputs))
        x = x[[problem.input.contains(v) for v in x]]
        if result.reach is not None and result.status is not Status.VIOLATED:
            y = problem.network.evaluate(x)
            assert (y >= result.reach.lower - 1e-6).all()
            assert (y <= result.reach.upper + 1e-6).all()
