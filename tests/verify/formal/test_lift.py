"""The lift accepts exactly the pairings that the operations respect."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import MismatchError
from verify.formal.lift import Correspondence, align, flat_index, sources
from verify.network.evaluate import evaluate_values
from verify.network.graph import build

NAMES = ("dense", "deep", "convolutional", "leaky_relu")


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_correspondence(twins, name):
    for seed in range(5):
        original, compact, channels = twins(name, seed)
        lift = align(original, compact, channels)
        assert [c.original for c in lift] == [original.input, *(n.name for n in original.nodes)]
        for pair in lift:
            large, small = original.shape_of(pair.original), compact.shape_of(pair.compact)
            assert len(flat_index(large, pair.axis, pair.kept)) == np.prod(small, dtype=int)


def lifted(original, compact, lift):
    """The compact network in the original's shapes: zeros for removed channels, removed inputs unread."""
    pairs = {c.original: c for c in lift}
    parameters = {}
    for node, small in zip(original.nodes, compact.nodes, strict=True):
        arrays = original.parameters_of(node)
        rows = list(pairs[node.name].kept)
        columns = list(pairs[node.inputs[0]].kept)
        for role, key in node.parameters.items():
            full = np.zeros_like(arrays[role])
            cut = compact.parameters[small.parameters[role]]
            full[np.ix_(rows, columns) if role == "weight" else rows] = cut
            parameters[key] = full
    return original.with_parameters(parameters)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_the_lifted_network_equals_the_compact_one(twins, seed):
    original, compact, channels = twins("deep", seed)
    lift = align(original, compact, channels)
    large = lifted(original, compact, lift)
    x = np.random.default_rng(seed).standard_normal((7, *original.input_shape))
    names = [n.name for n in original.nodes]
    a, b = evaluate_values(large, x, names), evaluate_values(compact, x, names)
    for pair in lift[1:]:
        np.testing.assert_allclose(a[pair.original][:, list(pair.kept)], b[pair.compact], rtol=1e-12, atol=1e-12)


def test_equal_networks_need_no_channels(twins):
    original, _, _ = twins("convolutional", 1)
    lift = align(original, original, None)
    assert all(c == Correspondence(c.original, c.original, 0, c.kept) for c in lift)


def test_other_topologies_are_bounded_separately(twins):
    original, compact, channels = twins("dense", 0)
    other, _, _ = twins("deep", 0)
    assert align(original, other, None) is None
    assert align(original, compact, None) is None  # sizes differ and nothing says how they correspond
    leaky, _, _ = twins("leaky_relu", 0)
    assert align(original, leaky, None) is None
    assert align(original, compact, channels) is not None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"axis": 0, "kept": [0, 0]}, "distinct|with 2 kept"),
        ({"axis": 0, "kept": [99]}, "distinct|with 1 kept"),
        ({"axis": 1, "kept": [0]}, "axis 1 does not exist"),
        ({"axis": 0, "kept": [-1]}, "distinct|with 1 kept"),
        ({"axis": 0, "kept": "0"}, "integers"),
        ({"axis": True, "kept": [0]}, "integer axis"),
        ({"kept": [0]}, "integer axis"),
        ({"axis": 0, "kept": [0.0]}, "integers"),
        (None, "integer axis"),
    ],
)
def test_malformed_channels_are_refused(twins, entry, message):
    original, compact, channels = twins("dense", 0)
    broken = copy.deepcopy(channels)
    name = next(iter(broken["values"]))
    broken["values"][name] = entry
    with pytest.raises(MismatchError, match=message):
        align(original, compact, broken)


@pytest.mark.parametrize(
    "channels", [{}, {"version": 2, "values": {}}, {"version": 1}, {"version": 1, "values": {"absent": {}}}, []]
)
def test_channels_of_another_form_are_refused(twins, channels):
    original, compact, _ = twins("dense", 0)
    with pytest.raises(MismatchError, match="channels"):
        align(original, compact, channels)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_a_pairing_that_the_activation_breaks_is_refused(twins, seed):
    original, compact, channels = twins("dense", seed % 7)
    generator = np.random.default_rng(seed)
    names = [n for n in channels["values"] if original.node(n).op == "relu"]
    name = names[int(generator.integers(len(names)))] if names else None
    if name is None:
        return
    kept = channels["values"][name]["kept"]
    size = original.shape_of(name)[0]
    other = [int(i) for i in generator.permutation(size)[: len(kept)]]
    if other == list(kept):
        return
    broken = copy.deepcopy(channels)
    broken["values"][name]["kept"] = other
    with pytest.raises(MismatchError, match="do not follow"):
        align(original, compact, broken)


def test_sources_of_moves():
    steps = [
        ("p", "pad", ["x"], {}, {"padding": (1, 0, 0, 0), "value": 7.0}),
        ("t", "transpose", ["p"], {}, {"permutation": (1, 0)}),
        ("c", "concat", ["t", "t"], {}, {"axis": 0}),
    ]
    network = build("x", (2, 2), steps, "c", {})
    assert sources(network, network.nodes[0]).tolist() == [-1, -1, 0, 1, 2, 3]
    assert sources(network, network.nodes[1]).tolist() == [0, 2, 4, 1, 3, 5]
    assert sources(network, network.nodes[2]).tolist() == [*range(12)]


def test_networks_with_permuted_outputs_are_refused(twins):
    original, _, _ = twins("dense", 0)
    output = original.output
    channels = {"version": 1, "values": {output: {"axis": 0, "kept": [1, 0]}}}
    with pytest.raises(MismatchError, match="input or output"):
        align(original, original, channels)
