"""The survey's two small networks: ranges and verdicts that follow from exact enumeration, with every algorithm."""

import numpy as np
import pytest

from verify.errors import SpecificationError
from verify.survey import (
    ALGORITHMS,
    Complement,
    HalfSpace,
    Hyperrectangle,
    Polytope,
    Problem,
    ReluNetwork,
    Status,
    algorithm,
)

FIRST, SECOND = ([[1], [1]], [1.5, 1.5]), ([[2, 2], [2, 2]], [2.5, 2.5])
SMALL_ID = ReluNetwork.of([FIRST, SECOND, ([[-3, -3]], [3.5])])
SMALL = ReluNetwork.of([FIRST, SECOND, ([[3, 3]], [3.5])], last_relu=True)
BOX = Hyperrectangle([-0.9], [0.9])
QUESTIONS = [
    (SMALL_ID, BOX, Hyperrectangle([-70], [-23]), Status.HOLDS),
    (SMALL_ID, BOX, Hyperrectangle([-100], [-45]), Status.VIOLATED),
    (SMALL_ID, BOX, HalfSpace([1], -10), Status.HOLDS),
    (SMALL_ID, BOX, HalfSpace([-1], 20), Status.VIOLATED),
    (SMALL_ID, BOX, Complement(HalfSpace([1], -70)), Status.HOLDS),
    (SMALL, BOX, Hyperrectangle([30], [80]), Status.HOLDS),
    (SMALL, BOX, HalfSpace([1], 100), Status.HOLDS),
    (SMALL, Hyperrectangle([-1], [1]), Hyperrectangle([-1], [70]), Status.VIOLATED),
]


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n != "Certify"])
@pytest.mark.parametrize(("network", "inputs", "outputs", "expected"), QUESTIONS)
def test_verdicts(name, network, inputs, outputs, expected):
    problem = Problem(network, inputs, outputs)
    if ALGORITHMS[name].facts.refusal(problem) is not None:
        with pytest.raises(SpecificationError, match="supported by"):
            algorithm(name).solve(problem)
        return
    result = algorithm(name).solve(problem, timeout=30)
    assert result.status in ({expected} if name not in {"MaxSens", "Ai2", "ILP"} else {expected, Status.UNKNOWN})


@pytest.mark.parametrize("name", ["ExactReach", "BaB", "Sherlock", "ReluVal"])
@pytest.mark.parametrize(("network", "low", "high"), [(SMALL_ID, -69.1, -25.9), (SMALL, 32.9, 76.1)])
def test_ranges(name, network, low, high):
    outputs = Hyperrectangle([low - 1], [high + 1])
    reach = algorithm(name).solve(Problem(network, BOX, outputs), timeout=30).reach
    assert low - 1 <= reach.lower[0] <= low + 1e-6
    assert high - 1e-6 <= reach.upper[0] <= high + 1
    if name == "ExactReach":
        np.testing.assert_allclose([reach.lower[0], reach.upper[0]], [low, high], atol=1e-6)


def test_readme_example_is_violated_at_one():
    problem = Problem(SMALL, Hyperrectangle([-1], [1]), Hyperrectangle([-1], [70]))
    x = algorithm("BaB").solve(problem).counter_example
    assert SMALL.evaluate(x)[0] > 70
    assert SMALL.evaluate(np.array([1.0]))[0] == pytest.approx(78.5)


def test_polytope_of_inputs_narrows_the_answer():
    """x1 + x2 <= 0 keeps y = relu(x1 + x2) at 0, the box alone does not."""
    network = ReluNetwork.of([([[1, 1]], [0]), ([[1]], [0])])
    rows, offsets = Hyperrectangle([-1, -1], [1, 1]).rows()
    cut = Polytope(np.vstack([rows, [[1, 1]]]), np.append(offsets, 0))
    for name in ("ExactReach", "NSVerify", "Neurify", "Planet", "Reluplex"):
        assert algorithm(name).solve(Problem(network, cut, HalfSpace([1], 0.1))).status is Status.HOLDS
        whole = Problem(network, Hyperrectangle([-1, -1], [1, 1]), HalfSpace([1], 0.1))
        assert algorithm(name).solve(whole).status is Status.VIOLATED
