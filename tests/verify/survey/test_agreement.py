"""All algorithms against exact enumeration of activation regions: complete ones equal it, no one contradicts it."""

import numpy as np
import pytest

from verify.survey import ALGORITHMS, Status
from verify.survey.formal_engine import FACTS, formal_engine

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def test_all_18_are_there():
    assert len(ALGORITHMS) == 18


def check(case, result):
    """Neither answer contradicts the enumeration, and a counter-example is one."""
    if result.status is Status.HOLDS:
        assert case.level > 0
    if result.status is Status.VIOLATED:
        assert case.level < 0
        assert case.problem.input.contains(result.counter_example)
        y = case.problem.network.evaluate(result.counter_example)
        assert min(v.level(y) for v in case.problem.violations) < 0


@every_algorithm
def test_no_answer_contradicts_enumeration(name, answers):
    found = answers(name)
    assert len(found) >= 5
    assert {case.level > 0 for case, _ in found} == {True, False}
    for case, result in found:
        check(case, result)
        if ALGORITHMS[name].facts.complete:
            assert result.status is (Status.HOLDS if case.level > 0 else Status.VIOLATED)


@every_algorithm
def test_every_algorithm_decides_something(name, answers):
    """None is a stub (ILP proves only where there is one linear region, and refutes only in the centre's)."""
    statuses = [result.status for _, result in answers(name)]
    assert sum(status is not Status.UNKNOWN for status in statuses) >= len(statuses) / 10


@every_algorithm
def test_reach_sets_contain_sampled_outputs(name, answers):
    rng = np.random.default_rng(0)
    for case, result in answers(name):
        problem = case.problem
        if result.reach is not None and result.status is not Status.VIOLATED:
            x = rng.uniform(problem.box.lower, problem.box.upper, size=(200, problem.network.inputs))
            y = problem.network.evaluate(x[[problem.input.contains(v) for v in x]])
            assert (y >= result.reach.lower - 1e-6).all()
            assert (y <= result.reach.upper + 1e-6).all()


@every_algorithm
def test_no_violation_lies_within_a_radius(name, answers):
    """A certified or nearest radius: sampled inputs of the input set that violate lie farther out."""
    rng = np.random.default_rng(1)
    for case, result in answers(name):
        problem = case.problem
        if result.radius is not None and result.radius_kind != "region-local":
            x = rng.uniform(problem.box.lower, problem.box.upper, size=(2000, problem.network.inputs))
            y = problem.network.evaluate(x)
            levels = np.min([v.level(y) for v in problem.violations], axis=0)
            distance = np.abs(x - problem.box.center).max(axis=1)
            assert not ((levels < 0) & (distance < result.radius - 1e-6)).any()


def test_our_own_engine_agrees_too(cases):
    mine = [case for case in cases if FACTS.refusal(case.problem) is None and abs(case.level) > 0.1][:8]
    results = [formal_engine(case.problem, timeout=20) for case in mine]
    assert {r.status for r in results} >= {Status.HOLDS, Status.VIOLATED}
    for case, result in zip(mine, results, strict=True):
        check(case, result)


@pytest.mark.slow
@every_algorithm
def test_agreement_on_more_cases(name, more_answers):
    for case, result in more_answers(name):
        check(case, result)
        if ALGORITHMS[name].facts.complete:
            assert result.status is (Status.HOLDS if case.level > 0 else Status.VIOLATED)
