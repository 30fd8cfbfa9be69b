"""No attained deviation lies outside a backward bound: every op, with and without a lift, any slopes."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from verify.complete.system import relu_system
from verify.formal.backward.bound import analyse, backward_bounds
from verify.formal.backward.tape import record_pair
from verify.formal.lift import align
from verify.formal.program import compile_pair
from verify.network.evaluate import evaluate
from verify.network.graph import build

DENSE = ("dense", "deep", "unpruned", "large", "small")
OTHERS = ("convolutional", "leaky_relu", "clip", "hardsigmoid", "sigmoid", "tanh", "erf", "silu", "gelu", "hardswish")
PLAIN = {"iterations": 0, "inner_iterations": 0}
SEARCH = {"iterations": 4, "inner_iterations": 2}


def boxes(rng, dimension, count):
    """Boxes of many sizes; the first is a point."""
    centre = rng.uniform(-1, 1, (count, dimension))
    radius = rng.uniform(0, 1, (count, dimension)) * 2.0 ** -rng.integers(0, 8, (count, 1))
    radius[0] = 0.0
    return centre - radius, centre + radius


def points(rng, low, high, count):
    """Uniform points and corners."""
    share = rng.random((count, len(low)))
    share[: count // 2] = np.round(share[: count // 2])
    return np.clip(low + share * (high - low), low, high)


def bounded(original, compact, lift, low, high, **options):
    return backward_bounds(original, compact, lift, torch.from_numpy(low), torch.from_numpy(high), **options)


@pytest.mark.parametrize("name", DENSE + OTHERS)
@pytest.mark.parametrize("options", [PLAIN, SEARCH | {"symbols": 0}], ids=["plain", "search"])
def test_sampled_deviations_lie_inside_the_bounds(twins, name, options):
    slow = name == "convolutional"
    for seed in range(2 if options is PLAIN and not slow else 1):
        rng = np.random.default_rng([seed, 3])
        original, compact, channels = twins(name, seed)
        low, high = boxes(rng, int(np.prod(original.input_shape)), 2 if slow else 4)
        for lift in (align(original, compact, channels), None):
            found = bounded(original, compact, lift, low, high, **options)
            for i in range(len(low)):
                x = points(rng, low[i], high[i], 40)
                f, g = (evaluate(n, x.reshape(-1, *n.input_shape)).reshape(len(x), -1) for n in (original, compact))
                noise = 1e-11 * (1.0 + np.abs(f).max() + np.abs(g).max()) * magnitude(original)
                assert (f - g >= found.lower[i].numpy() - noise).all()
                assert (f - g <= found.upper[i].numpy() + noise).all()


def magnitude(network):
    """Room for the rounding of `evaluate` itself."""
    return max(1.0, *(float(np.abs(p).max()) for p in network.parameters.values())) ** 2


@pytest.mark.parametrize("name", [*DENSE, "leaky_relu", "clip", "hardsigmoid"])
def test_exact_rational_values_lie_inside_the_bounds_without_any_tolerance(twins, name):
    for seed in range(3):
        rng = np.random.default_rng([seed, 4])
        original, compact, channels = twins(name, seed)
        low, high = boxes(rng, original.input_shape[0], 4)
        high[:2] = low[:2]
        system = relu_system(original, compact)
        for lift in (align(original, compact, channels), None):
            found = bounded(original, compact, lift, low, high, **PLAIN)
            for i in range(len(low)):
                for x in points(rng, low[i], high[i], 5):
                    point = [Fraction(float(v)) for v in x]
                    for j, exact in enumerate(system.values(point)):
                        assert Fraction(float(found.lower[i, j])) <= exact <= Fraction(float(found.upper[i, j]))


def test_at_a_point_only_rounding_is_left(twins):
    original, compact, channels = twins("deep", 5)
    x = np.random.default_rng(0).uniform(-1, 1, (6, original.input_shape[0]))
    found = bounded(original, compact, align(original, compact, channels), x, x, **PLAIN)
    assert float((found.upper - found.lower).max()) < 1e-12


@pytest.mark.parametrize("name", ["deep", "convolutional", "sigmoid"])
def test_identical_networks_deviate_by_nothing(twins, name):
    original, _, _ = twins(name, 3)
    low = -np.ones((1, int(np.prod(original.input_shape))))
    found = bounded(original, original, align(original, original, None), low, -low, **PLAIN)
    assert float(found.deviation()) < 1e-200


@pytest.mark.parametrize("name", ["dense", "deep", "tanh"])
def test_the_answer_is_the_best_of_all_methods(twins, name):
    for seed in range(3):
        original, compact, channels = twins(name, seed)
        low, high = boxes(np.random.default_rng(seed), int(np.prod(original.input_shape)), 3)
        lift = align(original, compact, channels)
        found = bounded(original, compact, lift, low, high, **SEARCH)
        forward = compile_pair(original, compact, lift).bounds(torch.from_numpy(low), torch.from_numpy(high))
        for worse in (*found.by_method.values(), forward.deviation()):
            assert (found.deviation() <= worse * (1 + 1e-9) + 1e-300).all()
        assert (found.by_method["pair_optimised"] <= found.by_method["pair"]).all()


def test_optimised_slopes_and_the_pair_pay():
    """On close networks with undecided neurons the search gains, and the pair beats separate bounds by far."""
    rng = np.random.default_rng(0)
    sizes = (4, 16, 16, 2)
    parameters = {f"w{i}": rng.standard_normal((sizes[i + 1], sizes[i])) / np.sqrt(sizes[i]) for i in range(3)}
    steps = [("a", "linear", ("x",), {"weight": "w0"}, {}), ("b", "relu", ("a",), {}, {}),
             ("c", "linear", ("b",), {"weight": "w1"}, {}), ("d", "relu", ("c",), {}, {}),
             ("y", "linear", ("d",), {"weight": "w2"}, {})]  # fmt: skip
    original = build("x", (4,), steps, "y", parameters)
    close = original.with_parameters({k: v + 1e-3 * rng.standard_normal(v.shape) for k, v in parameters.items()})
    low = np.full((1, 4), -1.0)
    found = bounded(original, close, align(original, close, None), low, -low, iterations=15, inner_iterations=0)
    methods = {name: float(value) for name, value in found.by_method.items()}
    assert methods["pair_optimised"] < 0.99 * methods["pair"]
    assert methods["pair"] < 0.1 * methods["separate"]
    assert methods["separate_optimised"] < 0.99 * methods["separate"]


def test_networks_of_another_topology_are_bounded_on_their_own(twins):
    original, _, _ = twins("dense", 1)
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((2, 3)).astype(np.float32)
    other = build("x", (3,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": weight})
    low, high = boxes(rng, 3, 3)
    found = bounded(original, other, None, low, high, **SEARCH)
    for i in range(3):
        x = points(rng, low[i], high[i], 50)
        difference = evaluate(original, x) - evaluate(other, x)
        assert (difference >= found.lower[i].numpy() - 1e-9).all()
        assert (difference <= found.upper[i].numpy() + 1e-9).all()


def test_the_bounds_of_a_box_do_not_depend_on_its_batch(twins):
    original, compact, channels = twins("deep", 2)
    lift = align(original, compact, channels)
    low, high = boxes(np.random.default_rng(7), original.input_shape[0], 5)
    together = bounded(original, compact, lift, low, high, **PLAIN)
    for i in range(5):
        alone = bounded(original, compact, lift, low[i : i + 1], high[i : i + 1], **PLAIN)
        # a neuron undecided in another box is sharpened here too, so a batch may only gain
        assert (together.upper[i] <= alone.upper[0] + 1e-9).all()
        assert (together.lower[i] >= alone.lower[0] - 1e-9).all()


def test_numbers_beyond_float64_are_not_proved(twins):
    original, compact, channels = twins("dense", 0)
    huge = original.with_parameters({k: v.astype(np.float64) * 1e200 for k, v in original.parameters.items()})
    low = -np.ones((2, 3))
    found = bounded(huge, compact, align(huge, compact, channels), low, -low, **SEARCH)
    assert torch.isinf(found.deviation()).all()


@pytest.mark.parametrize("name", ["dense", "deep"])
def test_what_is_known_of_a_box_does_not_depend_on_its_batch(twins, name):
    """Elements that are open on other boxes only were sharpened as well: tighter bounds than an auditor finds."""
    for seed in range(4):
        original, compact, channels = twins(name, seed)
        tape = record_pair(original, compact, align(original, compact, channels))
        sides = boxes(np.random.default_rng([seed, 9]), original.input_shape[0], 6)
        low, high = (torch.from_numpy(side) for side in sides)
        together = analyse(tape, low, high)
        for i in range(len(low)):
            for both, own in zip(together, analyse(tape, low[i : i + 1], high[i : i + 1]), strict=True):
                for one, other in ((both.z, own.z), (both.y, own.y), (both.d, own.d)):
                    torch.testing.assert_close(one.upper[i], other.upper[0], rtol=1e-6, atol=1e-9)
                    torch.testing.assert_close(one.lower[i], other.lower[0], rtol=1e-6, atol=1e-9)
