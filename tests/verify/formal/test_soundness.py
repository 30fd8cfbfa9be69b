"""No attained deviation lies outside a bound: every op, both rules, every symbol budget."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.complete.system import relu_system
from verify.formal.lift import align
from verify.formal.program import EVERY_SYMBOL, compile_pair
from verify.network.evaluate import evaluate
from verify.network.graph import build

NAMES = (
    "dense", "deep", "unpruned", "large", "small", "branches", "convolutional", "leaky_relu", "clip", "hardsigmoid",
    "sigmoid", "tanh", "erf", "silu", "gelu", "hardswish",
)  # fmt: skip


def boxes_around(rng, dimension, count, largest=2.0):
    """Random boxes of all sizes, some of zero width, stacked ``(count, dimension)``."""
    centre = rng.uniform(-1, 1, (count, dimension))
    radius = rng.uniform(0, 1, (count, dimension)) * largest * 2.0 ** -rng.integers(0, 12, (count, 1))
    radius[rng.random((count, dimension)) < 0.1] = 0.0
    return centre - radius, centre + radius


def points_in(rng, low, high, count):
    """Uniform points and corners of one box."""
    share = rng.random((count, len(low)))
    share[: count // 3] = np.round(share[: count // 3])
    return np.clip(low + share * (high - low), low, high)


def check(original, compact, program, low, high, symbols, rng):
    bounds = program.bounds(torch.from_numpy(low), torch.from_numpy(high), symbols=symbols)
    for i in range(len(low)):
        x = points_in(rng, low[i], high[i], 60)
        f, g = (evaluate(n, x.reshape(-1, *n.input_shape)).reshape(len(x), -1) for n in (original, compact))
        noise = 1e-11 * (1.0 + np.abs(f).max() + np.abs(g).max()) * original_scale(original)
        difference = f - g
        assert (difference >= bounds.lower[i].numpy() - noise).all()
        assert (difference <= bounds.upper[i].numpy() + noise).all()


def original_scale(network):
    """Room for the rounding of `evaluate` itself."""
    largest = max((float(np.abs(p).max()) for p in network.parameters.values()), default=1.0)
    return max(1.0, largest) ** 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symbols", [EVERY_SYMBOL, 7, 0])
def test_sampled_deviations_lie_inside_the_bounds(twins, name, symbols):
    for seed in range(4):
        rng = np.random.default_rng([seed, 1])
        original, compact, channels = twins(name, seed)
        lift = align(original, compact, channels)
        assert lift is not None
        low, high = boxes_around(rng, int(np.prod(original.input_shape)), 6)
        for program in (compile_pair(original, compact, lift), compile_pair(original, compact, None)):
            check(original, compact, program, low, high, symbols, rng)


def test_every_family_is_tested(families):
    assert set(families) == set(NAMES)


PIECEWISE_LINEAR = ("dense", "deep", "unpruned", "large", "small", "branches", "leaky_relu", "clip", "hardsigmoid")


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_exact_rational_values_lie_inside_the_bounds_without_any_tolerance(twins, name):
    for seed in range(3):
        rng = np.random.default_rng([seed, 2])
        original, compact, channels = twins(name, seed)
        program = compile_pair(original, compact, align(original, compact, channels))
        system = relu_system(original, compact)
        low, high = boxes_around(rng, original.input_shape[0], 8)
        high[:2] = low[:2]  # points: only rounding is left
        for symbols in (EVERY_SYMBOL, 0):
            bounds = program.bounds(torch.from_numpy(low), torch.from_numpy(high), symbols=symbols)
            for i in range(len(low)):
                for x in points_in(rng, low[i], high[i], 6):
                    point = [Fraction(float(v)) for v in x]
                    for j, exact in enumerate(system.values(point)):
                        assert Fraction(float(bounds.lower[i, j])) <= exact <= Fraction(float(bounds.upper[i, j]))


def test_bounds_at_a_point_are_only_rounding_wide(twins):
    original, compact, channels = twins("deep", 5)
    program = compile_pair(original, compact, align(original, compact, channels))
    x = np.random.default_rng(0).uniform(-1, 1, (20, original.input_shape[0]))
    bounds = program.bounds(torch.from_numpy(x), torch.from_numpy(x), symbols=0)
    assert float((bounds.upper - bounds.lower).max()) < 1e-12


@pytest.mark.parametrize("name", ["dense", "deep", "convolutional", "leaky_relu", "sigmoid"])
def test_identical_networks_deviate_by_nothing(twins, name):
    original, _, _ = twins(name, 3)
    program = compile_pair(original, original, align(original, original, None))
    size = int(np.prod(original.input_shape))
    for symbols in (EVERY_SYMBOL, 0):
        bounds = program.bounds(-torch.ones(1, size), torch.ones(1, size).to(torch.float64), symbols=symbols)
        assert float(bounds.deviation()) < 1e-200


@given(st.integers(0, 2**32), st.integers(0, 8))
@settings(deadline=None, max_examples=8)
def test_the_result_of_a_sub_box_does_not_depend_on_its_batch(twins, seed, alone):
    original, compact, channels = twins("dense", seed % 5)
    program = compile_pair(original, compact, align(original, compact, channels))
    low, high = (torch.from_numpy(a) for a in boxes_around(np.random.default_rng(seed), original.input_shape[0], 9))
    for symbols in (EVERY_SYMBOL, 9):
        together = program.bounds(low, high, symbols=symbols)
        single = program.bounds(low[alone : alone + 1], high[alone : alone + 1], symbols=symbols)
        torch.testing.assert_close(together.upper[alone], single.upper[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.lower[alone], single.lower[0], rtol=1e-9, atol=1e-9)


def test_numbers_beyond_float64_are_not_proved(twins):
    original, compact, channels = twins("dense", 0)
    huge = {k: v.astype(np.float64) * 1e200 for k, v in original.parameters.items()}
    original = original.with_parameters(huge)
    program = compile_pair(original, compact, align(original, compact, channels))
    bounds = program.bounds(-torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64))
    assert all(math.isinf(v) for v in bounds.deviation().tolist())


def test_large_inputs_are_not_proved_either(twins):
    original, compact, channels = twins("dense", 0)
    program = compile_pair(original, compact, align(original, compact, channels))
    far = torch.full((1, 3), 1e308, dtype=torch.float64)
    assert math.isinf(float(program.bounds(-far, far).deviation()))


def constant_through_an_activation(rng, noise):
    """A constant that meets activations before any input does, so that its errors are the first symbols."""
    value, weight = rng.standard_normal(4).astype(np.float32), rng.standard_normal((4, 2)).astype(np.float32)
    steps = [
        ("k", "constant", [], {"value": "k"}, {}),
        ("s", "sigmoid", ["k"], {}, {}),
        ("h", "linear", ["x"], {"weight": "w"}, {}),
        ("r", "relu", ["h"], {}, {}),
        ("a", "add", ["r", "s"], {}, {}),
        ("t", "tanh", ["a"], {}, {}),
        ("o", "linear", ["t"], {"weight": "v"}, {}),
    ]
    parameters = {"k": value, "w": weight, "v": rng.standard_normal((3, 4)).astype(np.float32)}
    moved = {k: (v + noise * rng.standard_normal(v.shape)).astype(np.float32) for k, v in parameters.items()}
    return build("x", (2,), steps, "o", parameters), build("x", (2,), steps, "o", moved)


@pytest.mark.parametrize("symbols", [EVERY_SYMBOL, 6, 0])
def test_symbols_that_stem_from_no_input(symbols):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        original, compact = constant_through_an_activation(rng, 0.05)
        low, high = boxes_around(rng, 2, 8)
        for lift in (align(original, compact, None), None):
            check(original, compact, compile_pair(original, compact, lift), low, high, symbols, rng)
