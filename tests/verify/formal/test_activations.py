"""Every activation of the table: its value, its intervals, its affine forms and its difference tell one story."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.formal.backward.bound import backward_bounds
from verify.formal.lift import align
from verify.formal.program import compile_pair
from verify.formal.rules import RULES
from verify.network.evaluate import evaluate
from verify.network.graph import Node, build
from verify.network.operations.activations import ACTIVATIONS

ATTRIBUTES = {
    "leaky_relu": [{"slope": 0.1}], "clip": [{"lower": -0.75, "upper": 1.25}, {"lower": 0.0, "upper": np.inf}],
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}], "hardsigmoid": [{"alpha": 0.2, "beta": 0.5}],
}  # fmt: skip
CASES = [(activation, given) for activation in ACTIVATIONS for given in ATTRIBUTES.get(activation.name, [{}])]
TINY = 1e-12


def every(cases):
    names = [" ".join([a.name, *map(str, given.values())]) for a, given in cases]
    return pytest.mark.parametrize(("activation", "attributes"), cases, ids=names)


numbers = st.one_of(st.floats(-8, 8), st.sampled_from([0.0, -3.0, 3.0, -1.5, 1.25, -0.75, -1.2784645427, 2.5, 700.0]))


def node_of(activation, attributes):
    return Node("y", activation.name, ("x",), (1,), {}, attributes)


def value(activation, attributes, x):
    return activation.evaluate(node_of(activation, attributes), [x], {})


class Intervals:
    """Bounds by plain intervals ``(lower, upper)``: what an activation composes, interpreted once more."""

    def weighted_sum(self, factors, values, shift):
        products = [sorted((float(f) * low, float(f) * high)) for f, (low, high) in zip(factors, values, strict=True)]
        return tuple(sum(p[end] for p in products) + float(shift) for end in (0, 1))

    def relu(self, value):
        return tuple(max(v, 0.0) for v in value)

    def curve(self, function, value):
        low, high = function.values(*(np.array([v]) for v in value))
        return float(low[0]), float(high[0])


class Derivatives:
    """What a curve says about its derivative."""

    def curve(self, function, value):
        return function.derivatives(*value)


@every(CASES)
@settings(deadline=None, max_examples=60)
@given(ends=st.lists(numbers, min_size=2, max_size=2), share=st.floats(0, 1))
def test_values_lie_inside_the_intervals_and_at_a_point_are_the_value(activation, attributes, ends, share):
    low, high = sorted(ends)
    x = min(max(low + share * (high - low), low), high)
    for end in ((low, high), (x, x)):
        below, above = activation.bound(node_of(activation, attributes), Intervals(), end)
        found = float(value(activation, attributes, np.array([x]))[0])
        assert below - TINY * (1 + abs(found)) <= found <= above + TINY * (1 + abs(found))
    assert above - below <= 1e-8 + TINY * abs(x)


@every([case for case in CASES if not case[0].piecewise_linear])
@settings(deadline=None, max_examples=60)
@given(ends=st.lists(numbers, min_size=2, max_size=2), shares=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_chords_are_as_steep_as_the_derivatives_say(activation, attributes, ends, shares):
    low, high = (np.array([v]) for v in sorted(ends))
    p, q = (low + s * (high - low) for s in sorted(shares))
    least, most = activation.bound(node_of(activation, attributes), Derivatives(), (low, high))
    rise, room = (
        value(activation, attributes, q) - value(activation, attributes, p),
        1e-12 * (1 + np.abs(value(activation, attributes, q))),
    )
    assert ((q - p) * least - room <= rise).all()
    assert (rise <= (q - p) * most + room).all()


@every(CASES)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**16))
def test_deviations_lie_inside_affine_forms_and_backward_planes(activation, attributes, seed):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(4, 2)), rng.normal(size=4)
    steps = [
        ("a", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
        ("h", activation.name, ["a"], {}, attributes),
        ("y", "linear", ["h"], {"weight": "v"}, {}),
    ]
    original = build("x", (2,), steps, "y", {"w": weight, "b": bias, "v": rng.normal(size=(3, 4))})
    noise = 2.0 ** -rng.integers(0, 12)
    compact = original.with_parameters(
        {k: p + noise * rng.normal(size=p.shape) for k, p in original.parameters.items()}
    )
    lift, low = align(original, compact, None), rng.normal(size=(3, 2))
    high = low + rng.random((3, 1)) * 2.0 ** rng.integers(-6, 2, (3, 2))
    ends = torch.from_numpy(low), torch.from_numpy(high)
    x = low + rng.random((40, 3, 2)) * (high - low)
    deviation = np.stack([evaluate(original, p) - evaluate(compact, p) for p in x])
    room = 1e-12 * (1 + np.abs(deviation).max() + np.abs(weight).sum())
    for found in (
        compile_pair(original, compact, lift).bounds(*ends),
        compile_pair(original, compact, lift).bounds(*ends, symbols=0),
        compile_pair(original, compact, None).bounds(*ends),
        backward_bounds(original, compact, lift, *ends, iterations=0, inner_iterations=0),
    ):
        assert (deviation >= found.lower.numpy() - room).all()
        assert (deviation <= found.upper.numpy() + room).all()


def test_every_activation_has_a_rule():
    assert {activation.name for activation in ACTIVATIONS} <= set(RULES)
