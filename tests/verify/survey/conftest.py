"""Small random problems, and what enumeration says about them."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from verify.survey import ALGORITHMS, Complement, HalfSpace, Hyperrectangle, Polytope, Problem, ReluNetwork, algorithm
from verify.survey.enumeration import least_level
from verify.survey.result import Result
from verify.survey.sets import OutputSet

CLEAR = 1e-4  # a level this far from 0 must be decided by a complete algorithm


def random_network(rng: np.random.Generator, sizes: tuple[int, ...]) -> ReluNetwork:
    return ReluNetwork.of([(rng.normal(size=(m, n)), rng.normal(size=m) * 0.5) for n, m in itertools.pairwise(sizes)])


@dataclass(frozen=True)
class Case:
    """A problem and the least level of its violations by enumeration: a violation exists iff it is below 0."""

    problem: Problem
    level: float

    @property
    def clear(self) -> bool:
        return abs(self.level) > CLEAR


def output_sets(outputs: int, kind: str, y: np.ndarray, slack: float, rng: np.random.Generator) -> OutputSet:
    """A set of a kind whose border is near the sampled outputs y ``(batch, outputs)``: slack < 0 cuts into them."""
    low, high = y.min(axis=0), y.max(axis=0)
    room = slack * (high - low + 0.1)
    if kind == "hyperrectangle":
        return Hyperrectangle(low - np.maximum(room, -0.4 * (high - low)), high + np.maximum(room, -0.4 * (high - low)))
    normal = rng.normal(size=outputs)
    if kind == "half-space":
        return HalfSpace(normal, float((y @ normal).max() + slack * (np.ptp(y @ normal) + 0.1)))
    rows = rng.normal(size=(2, outputs))
    levels = y @ rows.T
    if kind == "polytope":
        return Polytope(rows, levels.max(axis=0) + slack * (np.ptp(levels, axis=0) + 0.1))
    middle = np.median(levels, axis=0) if slack < 0 else levels.min(axis=0) - slack * (np.ptp(levels, axis=0) + 0.1)
    return Complement(Polytope(rows, middle))


def random_case(
    seed: int, kind: str, sizes: tuple[int, ...], polytope_input: bool = False, slack: float | None = None
) -> Case:
    rng = np.random.default_rng(seed)
    network = random_network(rng, sizes)
    center = rng.normal(size=sizes[0])
    box = Hyperrectangle(center - rng.uniform(0.2, 1, sizes[0]), center + rng.uniform(0.2, 1, sizes[0]))
    x = rng.uniform(box.lower, box.upper, size=(400, sizes[0]))
    inputs = box
    if polytope_input:
        cut = rng.normal(size=sizes[0])
        a, b = box.rows()
        inputs = Polytope(np.vstack([a, cut]), np.append(b, float(cut @ box.center) + 0.05))
        x = x[(x @ inputs.normals.T <= inputs.offsets).all(axis=1)]
    slack = float(rng.choice([-0.3, -0.1, 0.05, 0.3, 1.5])) if slack is None else slack
    problem = Problem(network, inputs, output_sets(sizes[-1], kind, network.evaluate(x), slack, rng))
    return Case(problem, min(least_level(problem, v)[0] for v in problem.violations))


SIZES = {1: (2, 3, 3, 1), 2: (2, 3, 3, 2)}
_KINDS = ("hyperrectangle", "half-space", "polytope", "complement")


def case_set(seeds: range) -> list[Case]:
    """Every kind of output set, one and two outputs, one and two hidden layers, boxes and polytopes of inputs."""
    found = []
    for index, kind in enumerate(_KINDS):
        for seed in seeds:
            found.append(random_case(100 * index + seed, kind, SIZES[1 + seed % 2]))
            found.append(random_case(1000 + 100 * index + seed, kind, (3, 4, 1 + seed % 2)))
            found.append(random_case(2000 + 100 * index + seed, kind, SIZES[2 - seed % 2], polytope_input=True))
    for seed in range(3 * seeds.start, 3 * seeds.stop):
        found.append(random_case(3000 + seed, "half-space", (2, 4, 2), slack=(1.5, -0.3, 0.05)[seed % 3]))
        found.append(random_case(4000 + seed, "hyperrectangle", SIZES[1], slack=(1.5, -0.3, 0.05)[seed % 3]))
    return [case for case in found if case.clear]


def solver(cases: list[Case]) -> Callable[[str], list[tuple[Case, Result]]]:
    """Name -> (case, result) for every case that the algorithm takes, solved once."""

    @functools.cache
    def solved(name: str) -> list[tuple[Case, Result]]:
        mine = [case for case in cases if ALGORITHMS[name].facts.refusal(case.problem) is None]
        return [(case, algorithm(name).solve(case.problem, timeout=60)) for case in mine]

    return solved


@pytest.fixture(scope="session")
def cases():
    return case_set(range(2))


@pytest.fixture(scope="session")
def answers(cases):
    return solver(cases)


@pytest.fixture(scope="session")
def more_answers():
    return solver(case_set(range(2, 6)))
