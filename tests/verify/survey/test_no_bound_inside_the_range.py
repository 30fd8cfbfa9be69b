"""No algorithm claims what a sampled output refutes: 500 random networks each, questions cut into the sampled range."""

import numpy as np
import pytest

from verify.survey import ALGORITHMS, Complement, HalfSpace, Hyperrectangle, Problem, ReluNetwork, Status, algorithm
from verify.survey.algorithm import Facts

NETWORKS, SAMPLES = 500, 2000
INSIDE = 1e-3  # of the sampled range: how far the question's border lies below the largest sampled output
WIDE = 1e4


def drawn(seed: int) -> tuple[ReluNetwork, Hyperrectangle]:
    """A network 2-4-1 (what every algorithm takes) and a box."""
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(4, 2)), rng.normal(size=4) * 0.5), (rng.normal(size=(1, 4)), rng.normal(size=1))]
    return ReluNetwork.of(layers), Hyperrectangle.around(rng.normal(size=2), float(rng.uniform(0.2, 1)))


def below(facts: Facts, level: float) -> Hyperrectangle | HalfSpace | Complement:
    """``y <= level`` as a kind of set that the algorithm takes."""
    if "half-space" in facts.outputs:
        return HalfSpace([1.0], level)
    if "hyperrectangle" in facts.outputs:
        return Hyperrectangle([-WIDE], [level])
    return Complement(HalfSpace([-1.0], -level))


def answered(name: str, seed: int) -> tuple[Status, np.ndarray | None, np.ndarray, float]:
    """Status and reach set of "no output is above a level that a sampled one is above", the outputs, the level."""
    network, box = drawn(seed)
    corners = np.array([[x, y] for x in (box.lower[0], box.upper[0]) for y in (box.lower[1], box.upper[1])])
    x = np.vstack([np.random.default_rng(seed).uniform(box.lower, box.upper, size=(SAMPLES, 2)), corners])
    y = network.evaluate(x)
    level = float(y.max() - INSIDE * (np.ptp(y) + 1e-3))
    problem = Problem(network, box, below(ALGORITHMS[name].facts, level))
    found = algorithm(name).solve(problem, timeout=20)
    if found.status is Status.VIOLATED:
        assert found.counter_example is not None
        assert problem.input.contains(found.counter_example)
        assert network.evaluate(found.counter_example)[0] > level
    reach = None if found.reach is None else np.stack([found.reach.lower, found.reach.upper])
    return found.status, reach, y, level


def check(name: str, seeds: range) -> None:
    for seed in seeds:
        status, reach, y, level = answered(name, seed)
        assert status is not Status.HOLDS, (seed, level)
        if reach is not None and status is not Status.VIOLATED:
            assert (reach[0] - 1e-6 <= y.min()) & (y.max() <= reach[1] + 1e-6), seed


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_bound_lies_inside_the_sampled_range(name: str) -> None:
    check(name, range(NETWORKS))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_bound_lies_inside_the_sampled_range_of_a_few(name: str) -> None:
    check(name, range(5))
