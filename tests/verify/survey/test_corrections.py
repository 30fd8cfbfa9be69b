"""The published codes' unsound spots: the uncorrected form fails where the corrected one stays on the safe side."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import SpecificationError
from verify.survey import Complement, HalfSpace, Hyperrectangle, Polytope, Problem, ReluNetwork, Status, algorithm
from verify.survey.bounds import backward_lower, interval_bounds, linear_bounds, slopes
from verify.survey.certify import block_matrix, semidefinite_upper
from verify.survey.deadline import Deadline
from verify.survey.duality import dual_upper, multipliers
from verify.survey.encoding import add_triangles, encode
from verify.survey.max_sens import MaxSens
from verify.survey.network import Layer
from verify.survey.nsverify import NSVerify
from verify.survey.problem import Violation

seeds = st.integers(0, 10**6)
few = settings(max_examples=25, deadline=None, derandomize=True)


def random_network(rng, sizes):
    pairs = itertools.pairwise(sizes)
    return ReluNetwork.of([(rng.normal(size=(m, n)), rng.normal(size=m) * 0.5) for n, m in pairs])


def unit_box(n):
    return Hyperrectangle(-np.ones(n), np.ones(n))


def sampled(network, rng, count=3000):
    return network.evaluate(rng.uniform(-1, 1, size=(count, network.inputs)))


@few
@given(seeds)
def test_the_sign_aware_pass_stays_below_every_output(seed):
    rng = np.random.default_rng(seed)
    network = random_network(rng, (2, 4, 3, 1))
    bounds = linear_bounds(network, unit_box(2))
    y = sampled(network, rng)
    assert bounds.lower[-1][0] <= y.min() + 1e-9
    assert bounds.upper[-1][0] >= y.max() - 1e-9


def both_signs_lower(network, box):
    """The public code's pass for a lower bound of f (one hidden layer): the offset for every sign."""
    (first, second), bounds = network.layers, interval_bounds(network, box)
    low, high = bounds.lower[0], bounds.upper[0]
    v, o = second.weight[0], float(second.bias[0])
    slope = slopes(low, high)
    o -= np.where((low < 0) & (high > 0), low * slope * v, 0.0).sum()
    v = v * slope
    return o + v @ first.bias + v @ first.weight @ box.center - np.abs(v @ first.weight) @ box.radius


def test_offsets_for_both_signs_break_the_bound_on_some_networks():
    wrong = right = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        network = random_network(rng, (2, 4, 1))
        least, bounds = sampled(network, rng).min(), interval_bounds(network, unit_box(2))
        rows = Layer(np.eye(1), np.zeros(1))
        wrong += both_signs_lower(network, unit_box(2)) > least + 1e-9
        right += backward_lower(network.layers, bounds.lower, bounds.upper, rows, unit_box(2))[0] > least + 1e-9
    assert wrong >= 10
    assert right == 0


def test_certify_transposed_is_below_the_true_maximum():
    """W1 = [1, -1], v = 1, x0 = (1, -1), r = 0.5: the maximum is 3."""
    network = ReluNetwork.of([([[1, -1]], [0]), ([[1]], [0])])
    center, radius, weight = np.array([1.0, -1.0]), 0.5, np.array([[1.0, -1.0]]) * 0.5
    at_center, highest = network.evaluate(center)[0], network.evaluate(center + radius * np.array([1, -1]))[0]
    corrected = at_center + semidefinite_upper(block_matrix(np.ones(1), weight), Deadline()) / 4
    transposed = weight.T
    m = np.zeros((4, 4))
    m[0, 3:], m[1:3, 3:] = transposed.sum(axis=0), transposed
    published = at_center + semidefinite_upper(m + m.T, Deadline()) / 4
    assert highest == pytest.approx(3.0)
    assert corrected == pytest.approx(3.0, abs=1e-4)
    assert corrected >= 3.0 - 1e-9
    assert published < 2.6


@few
@given(seeds, st.floats(0, 5))
def test_the_dual_bounds_for_any_multipliers(seed, size):
    rng = np.random.default_rng(seed)
    network, box = random_network(rng, (2, 4, 3, 1)), unit_box(2)
    bounds = linear_bounds(network, box)
    lambdas = [size * rng.normal(size=k) for k in network.hidden]
    mus = [size * rng.normal(size=len(layer.bias)) for layer in network.layers]
    assert dual_upper(network, box, bounds, np.ones(1), lambdas, mus) >= sampled(network, rng).max() - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_the_best_dual_is_the_triangle_relaxation(seed):
    network, box = random_network(np.random.default_rng(seed), (2, 4, 3, 1)), unit_box(2)
    bounds = linear_bounds(network, box)
    found = multipliers(network, box, bounds, np.ones(1), Deadline())
    problem = Problem(network, box, HalfSpace([1.0], 0.0))
    encoding = encode(problem, Violation(-np.ones((1, 1)), np.zeros(1)), bounds)
    add_triangles(encoding, bounds)
    primal = min(-encoding.minimise().value, bounds.upper[-1][0])  # the dual also knows the output's box
    assert dual_upper(network, box, bounds, np.ones(1), *found) == pytest.approx(primal, abs=1e-6)


def test_big_m_that_cuts_off_values_is_refused():
    network = ReluNetwork.of([([[1]], [0]), ([[1]], [0])])
    problem = Problem(network, Hyperrectangle([0], [2000]), HalfSpace([1], 1500))
    with pytest.raises(SpecificationError, match="big_m = 1000"):
        NSVerify(big_m=1000.0).solve(problem)
    assert NSVerify().solve(problem).status is Status.VIOLATED


def test_ilp_says_that_it_knows_one_region_only():
    """f = relu(x - 1) on [-2, 2] from 0: the centre's region holds no violation of y <= 0.5, x = 2 is one."""
    network = ReluNetwork.of([([[1]], [-1]), ([[1]], [0])])
    result = algorithm("ILP").solve(Problem(network, Hyperrectangle([-2], [2]), HalfSpace([1], 0.5)))
    assert result.status is Status.UNKNOWN
    assert result.radius_kind == "region-local"
    assert "other regions" in result.words


@few
@given(seeds)
def test_max_sens_published_step_contains_the_tight_one(seed):
    rng = np.random.default_rng(seed)
    problem = Problem(random_network(rng, (2, 3, 2)), unit_box(2), HalfSpace([1.0, 0.0], 0.0))
    wide, tight = (MaxSens(tight=t).reach(problem, unit_box(2)) for t in (False, True))
    assert (wide[0] <= tight[0] + 1e-12).all()
    assert (tight[1] <= wide[1] + 1e-12).all()


def test_smaller_sets_keep_a_proof():
    """A law of every bound: shrinking the input set cannot lose HOLDS of the convex relaxations."""
    rng = np.random.default_rng(3)
    network = random_network(rng, (2, 4, 1))
    for name in ("ConvDual", "Duality", "FastLin", "FastLip"):
        held = []
        for radius in (1.0, 0.5, 0.1):
            output = HalfSpace([1.0], float(linear_bounds(network, unit_box(2)).upper[-1][0]) + 0.01)
            problem = Problem(network, Hyperrectangle.around(np.zeros(2), radius), output)
            held.append(algorithm(name).solve(problem).status is Status.HOLDS)
        assert held == sorted(held), name
        assert held[-1]


def test_a_question_on_the_border_is_unknown():
    """f(x) = relu(x) on [0, 1], y <= 1 holds with equality: within the margin, so no one claims it."""
    network = ReluNetwork.of([([[1]], [0]), ([[1]], [0])])
    for name in ("ExactReach", "NSVerify", "MIPVerify", "Planet", "Reluplex", "Neurify", "ConvDual"):
        result = algorithm(name).solve(Problem(network, Hyperrectangle([0], [1]), HalfSpace([1], 1)), timeout=5)
        assert result.status is Status.UNKNOWN, name


def test_complement_and_polytope_are_each_others_negation():
    network, box = random_network(np.random.default_rng(5), (2, 3, 2)), unit_box(2)
    region = Polytope(np.vstack([np.eye(2), -np.eye(2)]), np.full(4, 100.0))
    assert algorithm("Planet").solve(Problem(network, box, region)).status is Status.HOLDS
    assert algorithm("Planet").solve(Problem(network, box, Complement(region))).status is Status.VIOLATED
