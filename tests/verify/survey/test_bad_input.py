"""What is refused, and with which words."""

import numpy as np
import pytest

from verify.errors import MismatchError, ModelError, SpecificationError, UnsupportedOperation, VerifyError
from verify.network.graph import build
from verify.survey import (
    ALGORITHMS,
    Complement,
    HalfSpace,
    Hyperrectangle,
    Polytope,
    Problem,
    ReluNetwork,
    Result,
    Status,
    algorithm,
    difference,
    from_graph,
)
from verify.survey.ai2 import Ai2
from verify.survey.bab import BaB
from verify.survey.enumeration import regions
from verify.survey.max_sens import MaxSens

NETWORK = ReluNetwork.of([([[1.0, 2.0], [0.5, -1.0]], [0, 0]), ([[1.0, 1.0], [1.0, -1.0]], [0, 0])])
BOX = Hyperrectangle([-1, -1], [1, 1])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_unsupported_sets_are_named_with_those_that_take_them(name):
    facts = ALGORITHMS[name].facts
    sets = [BOX, HalfSpace([1, 0], 1), Polytope(np.eye(2), [9, 9]), Complement(HalfSpace([1, 0], 9))]
    refused = [s for s in sets if facts.refusal(Problem(NETWORK, BOX, s))]
    for outputs in refused:
        with pytest.raises(SpecificationError) as caught:
            algorithm(name).solve(Problem(NETWORK, BOX, outputs))
        words = str(caught.value)
        assert name in words
        assert "Planet" in words.split("supported by")[1]
        assert outputs.kind in words or "one output" in words


def test_polytope_input_is_refused_by_name():
    problem = Problem(NETWORK, Polytope(*BOX.rows()), HalfSpace([1, 0], 1))
    with pytest.raises(SpecificationError, match=r"ConvDual takes no polytope as input set.*NSVerify"):
        algorithm("ConvDual").solve(problem)


def test_certify_wants_one_hidden_layer():
    deep = ReluNetwork.of([(np.eye(2), [0, 0])] * 3)
    with pytest.raises(SpecificationError, match="1 hidden layer, not 2"):
        algorithm("Certify").solve(Problem(deep, BOX, HalfSpace([1, 0], 1)))


@pytest.mark.parametrize(
    ("rows", "offsets", "word"), [([[1, 0]], [1], "unbounded"), ([[1, 0], [-1, 0]], [-1, -1], "infeasible")]
)
def test_empty_and_unbounded_inputs(rows, offsets, word):
    with pytest.raises(SpecificationError, match=word):
        algorithm("NSVerify").solve(Problem(NETWORK, Polytope(rows, offsets), HalfSpace([1, 0], 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hyperrectangle([1], [0]),
        lambda: Hyperrectangle([np.nan], [0]),
        lambda: Hyperrectangle([0, 0], [1]),
        lambda: Polytope([[1, 0]], [1, 2]),
        lambda: HalfSpace([np.inf], 0),
        lambda: HalfSpace([1], float("nan")),
        lambda: MaxSens(resolution=0.0),
        lambda: Ai2(domain="octagon"),
        lambda: BaB(eps=-1.0),
        lambda: algorithm("nobody"),
        lambda: algorithm("Ai2").solve(Problem(NETWORK, BOX, BOX), timeout=0),
    ],
)
def test_bad_numbers(make):
    with pytest.raises(SpecificationError):
        make()


def test_dimensions_must_fit():
    with pytest.raises(MismatchError, match="input set has dimension 1, the network has 2"):
        Problem(NETWORK, Hyperrectangle([0], [1]), BOX)
    with pytest.raises(ModelError, match="layer 1 reads 3"):
        ReluNetwork.of([(np.eye(2), [0, 0]), (np.ones((1, 3)), [0])])
    with pytest.raises(MismatchError, match="differ"):
        difference(NETWORK, ReluNetwork.of([(np.eye(2), [0, 0])]))


def test_violated_needs_a_counter_example():
    with pytest.raises(VerifyError, match="counter-example"):
        Result(Status.VIOLATED)
    with pytest.raises(VerifyError, match="counter-example"):
        Result(Status.HOLDS, counter_example=np.zeros(2))


def test_other_ops_are_refused():
    graph = build("x", (2,), [("a", "sigmoid", ("x",), {}, {})], "a", {})
    with pytest.raises(UnsupportedOperation, match="sigmoid"):
        from_graph(graph)


def test_enumeration_refuses_large_networks():
    large = ReluNetwork.of([(np.ones((30, 2)), np.zeros(30)), (np.ones((1, 30)), [0])])
    with pytest.raises(ValueError, match="at most"):
        next(regions(Problem(large, BOX, HalfSpace([1], 1))))


@pytest.mark.parametrize("name", ["ExactReach", "NSVerify", "Reluplex", "BaB", "ReluVal", "FastLin"])
def test_no_time_means_unknown(name):
    network = ReluNetwork.of([(np.ones((3, 2)), np.zeros(3)), (np.ones((1, 3)), [0])])
    output = Hyperrectangle([-1], [50]) if name == "BaB" else HalfSpace([1], 50)
    assert algorithm(name).solve(Problem(network, BOX, output), timeout=1e-9).status is Status.UNKNOWN


def test_graph_and_layers_are_the_same_network():
    x = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(from_graph(NETWORK.as_graph()).evaluate(x), NETWORK.evaluate(x))


def test_difference_network_certifies_a_compression():
    """|f - f'| <= tau through the difference network holds on samples, and fails below an attained deviation."""
    rng = np.random.default_rng(2)
    pairs = [(rng.normal(size=(3, 2)), rng.normal(size=3)), (rng.normal(size=(1, 3)), [0.0])]
    pruned = [(pairs[0][0] * [[1], [1], [0.9]], pairs[0][1]), pairs[1]]
    original, compact = ReluNetwork.of(pairs), ReluNetwork.of(pruned)
    gap, x = difference(original, compact), rng.uniform(-1, 1, size=(2000, 2))
    np.testing.assert_allclose(gap.evaluate(x), original.evaluate(x) - compact.evaluate(x), atol=1e-12)
    attained = float(np.abs(gap.evaluate(x)).max())
    for name in ("Planet", "MIPVerify", "Reluplex"):
        for tau, expected in ((2 * attained, Status.HOLDS), (0.9 * attained, Status.VIOLATED)):
            problem = Problem(gap, BOX, Hyperrectangle([-tau], [tau]))
            assert algorithm(name).solve(problem).status is expected
