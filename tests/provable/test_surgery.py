"""Removing channels is exact: the shrunken network is the masked original, value by value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.channels import ChannelGroup, channel_groups
from provable.errors import CalibrationError, SelectionError, SurgeryError
from provable.surgery import check_surgery, masked, shrink
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import Network
from verify.network.operations import OPERATIONS

laws = settings(max_examples=40, deadline=None)


def selections(groups: tuple[ChannelGroup, ...]) -> st.SearchStrategy[dict[str, list[int]]]:
    """Any non-empty set of slots for every removable group."""
    return st.fixed_dictionaries(
        {g.name: st.sets(st.sampled_from(range(len(g.slots))), min_size=1).map(sorted) for g in groups if g.removable}
    )


def inputs_of(network: Network, count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *network.input_shape))


@laws
@given(data=st.data())
def test_shrunken_equals_masked_at_every_kept_position(recipes, data):
    network = data.draw(recipes).network()
    groups = channel_groups(network)
    kept = data.draw(selections(groups))
    surgery, reference = shrink(network, kept), masked(network, kept)
    names = [node.name for node in network]
    assert [node.name for node in surgery.compact] == names
    whole = evaluate_values(reference, inputs_of(network), names)
    small = evaluate_values(surgery.compact, inputs_of(network), names)
    for name in names:
        cut = surgery.channels["values"].get(name)
        expected = whole[name] if cut is None else whole[name].take(cut["kept"], cut["axis"] + 1)
        np.testing.assert_allclose(small[name], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        assert cut is None or len(cut["kept"]) < network.node(name).shape[cut["axis"]]
    assert check_surgery(network, kept, surgery, inputs_of(network)) < 1e-9


@pytest.mark.parametrize(
    ("seed", "width", "moves", "tail"),
    [
        (475, 3, (("concat", 3), ("pad channels", 3), ("every second channel", 2), ("gate", 2),
                  ("every second channel", 3), ("grouped", 3)), "mean"),
        (318, 2, (("every second channel", 2), ("padded shortcut", 2), ("rows", 2), ("depthwise twice", 2),
                  ("every second channel", 3)), "mean"),
        (872, 2, (("every second channel", 2), ("pad channels", 2), ("difference", 2), ("split", 3)), "mean"),
        (237, 2, (("sigmoid", 2), ("every second channel", 2), ("pad rows", 2), ("concat", 2),
                  ("depthwise twice", 2)), "mean"),
        (0, 4, (("split", 2),), "flat"),
    ],
)  # fmt: skip
def test_networks_that_once_broke(recipe, seed, width, moves, tail):
    """Channels that fill a whole value, labels that vary along two axes, slices whose value stays whole."""
    network = recipe(seed, width, moves, tail).network()
    for group in channel_groups(network):
        for slot in range(len(group.slots)) if group.removable else ():
            kept = {group.name: [i for i in range(len(group.slots)) if i != slot]}
            assert check_surgery(network, kept, shrink(network, kept), inputs_of(network)) < 1e-9


PROBES = {
    "linear": lambda s, x: s.linear(x, 3),
    "conv": lambda s, x: s.conv(x, 3, 3),
    "batch_norm": lambda s, x: s.norm(x),
    "scale": lambda s, x: s.constant("scale", x, 4, 1, 1),
    "divide": lambda s, x: s.constant("divide", x, 4, 3, 2),
    "shift": lambda s, x: s.constant("shift", x, 1, 3, 1),
    "constant": lambda s, x: s.add("add", x, s.add("constant", parameters={"value": s.normal(4, 3, 2)})),
    "add": lambda s, x: s.add("add", x, s.conv(x, 4)),
    "subtract": lambda s, x: s.add("subtract", s.conv(x, 4), x),
    "multiply": lambda s, x: s.add("multiply", x, s.conv(x, 4)),
    "matmul": lambda s, x: s.add("matmul", x, s.transpose(s.conv(x, 4), 0, 2, 1)),
    "attention": lambda s, x: s.add("attention", x, s.conv(x, 4), s.conv(x, 4), scale=0.5),
    "softmax": lambda s, x: s.add("softmax", x, axis=2),
    "layer_norm": lambda s, x: s.add("layer_norm", x, parameters={"weight": s.normal(2)}, epsilon=1e-5),
    "leaky_relu": lambda s, x: s.add("leaky_relu", x, slope=0.1),
    "clip": lambda s, x: s.add("clip", x, lower=-0.5, upper=0.5),
    "gelu": lambda s, x: s.add("gelu", x, approximate="tanh"),
    "hardsigmoid": lambda s, x: s.add("hardsigmoid", x, alpha=0.2, beta=0.5),
    "max_pool": lambda s, x: s.pool(x, "max_pool", 2, 1),
    "average_pool": lambda s, x: s.pool(x, "average_pool", 2, 1),
    "mean": lambda s, x: s.add("mean", x, axes=(1,), keepdims=True),
    "reshape": lambda s, x: s.reshape(x, 2, 2, 6),
    "transpose": lambda s, x: s.transpose(x, 1, 0, 2),
    "slice": lambda s, x: s.slice(x, 0, 1, 4),
    "pad": lambda s, x: s.pad(x, 0, 1, 2),
    "concat": lambda s, x: s.add("concat", x, s.conv(x, 2), axis=0),
    **{op: (lambda s, x, op=op: s.add(op, x)) for op in ("relu", "sigmoid", "tanh", "erf", "silu", "hardswish")},
}


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_channels_leave_through_every_op(sketch, op):
    """A convolution with four channels, the op behind it, a linear layer that reads them."""
    s = sketch((2, 3, 2), seed=3)
    network = s.network(s.linear(s.flat(PROBES[op](s, s.conv("x", 4))), 2))
    first = next(g for g in channel_groups(network) if g.removable)
    assert first.producers[0] == "conv_0"
    surgery = shrink(network, {first.name: range(1, len(first.slots))})
    assert len(surgery.values["conv_0"].kept) < 4
    assert check_surgery(network, surgery.kept, surgery, inputs_of(network)) < 1e-12


@laws
@given(data=st.data())
def test_keeping_everything_changes_nothing(recipes, data):
    network = data.draw(recipes).network()
    everything = {g.name: range(len(g.slots)) for g in channel_groups(network)}
    surgery = shrink(network, everything)
    assert surgery.compact.digest() == network.digest() == masked(network, everything).digest()
    assert surgery.channels == {"version": 1, "values": {}}
    assert not surgery.parameters


@laws
@given(data=st.data())
def test_shrinking_twice_is_shrinking_once(recipes, data):
    """The groups of a compact network are the original's, less what has left."""
    network = data.draw(recipes).network()
    group = next(g for g in channel_groups(network) if g.removable)
    first, last = shrink(network, {group.name: range(len(group.slots) - 1)}), len(group.slots) - 1
    if last > 1 and not group.depthwise:
        twice = shrink(first.compact, {group.name: range(1, last)})
        assert twice.compact.digest() == shrink(network, {group.name: range(1, last)}).compact.digest()


def test_parameters_keep_their_bits_and_dtype(sketch):
    s = sketch((3, 4, 4), dtype="float16")
    x = s.add("relu", s.norm(s.conv("x", 6, 3)))
    network = s.network(s.linear(s.flat(x), 2))
    surgery = shrink(network, {"conv_0": [1, 4]})
    weight = surgery.compact.parameters["conv_0.weight"]
    assert weight.dtype == np.float16
    assert weight.tobytes() == network.parameters["conv_0.weight"][[1, 4]].tobytes()
    columns = [c * 16 + p for c in (1, 4) for p in range(16)]
    compact_columns = surgery.compact.parameters["linear_4.weight"]
    assert compact_columns.tobytes() == network.parameters["linear_4.weight"][:, columns].tobytes()


def test_masking_acts_on_the_output(sketch):
    """The law above is not satisfied by doing nothing."""
    s = sketch((3, 4, 4))
    network = s.network(s.linear(s.flat(s.add("sigmoid", s.conv("x", 6, 3))), 2))
    changed = evaluate(masked(network, {"conv_0": [0]}), inputs_of(network))
    assert np.abs(changed - evaluate(network, inputs_of(network))).max() > 1e-3


def test_removing_zero_channels_is_free(sketch):
    """Where removed channels are zero for every input, the shrunken network is the original itself."""
    s = sketch((3, 8, 8))
    x = s.add("relu", s.conv("x", 4, 3))
    x = s.basic_block(x, 8)
    network = s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3))
    groups = {g.name: g for g in channel_groups(network)}
    stream = groups["conv_5"]
    assert len(stream.slots) == 4, "the channels that meet the zeros of the padded shortcut"
    rows = [p for slot in stream.slots[:2] for p in slot.positions["conv_5"]]
    silent = {}
    for key in ("conv_5.weight", "conv_5.bias", "batch_norm_6.weight", "batch_norm_6.bias", "batch_norm_6.mean"):
        silent[key] = network.parameters[key].copy()
        silent[key][rows] = 0.0
    network = network.with_parameters(silent)
    compact = shrink(network, {"conv_5": [2, 3]}).compact
    np.testing.assert_allclose(
        evaluate(compact, inputs_of(network)), evaluate(network, inputs_of(network)), rtol=1e-12, atol=1e-13
    )


def test_a_wrong_surgery_is_caught(sketch):
    s = sketch((3, 4, 4))
    network = s.network(s.linear(s.flat(s.add("relu", s.conv("x", 6, 3))), 2))
    wrong = shrink(network, {"conv_0": [0, 1, 2]})
    with pytest.raises(SurgeryError, match=r"at value '(conv_0|relu_1|reshape_2|linear_3)'"):
        check_surgery(network, {"conv_0": [0, 1, 3]}, wrong, inputs_of(network))


@pytest.mark.filterwarnings("ignore:overflow")
def test_infinite_values_and_empty_batches_prove_nothing(sketch):
    s = sketch((2,))
    x = s.add("scale", s.linear("x", 3), parameters={"value": np.array(1e200)})
    x = s.add("scale", x, parameters={"value": np.array(1e200)})
    network = s.network(s.linear(s.add("sigmoid", x), 2))
    surgery = shrink(network, {"linear_0": [0, 1]})
    with pytest.raises(SurgeryError, match="by inf"):
        check_surgery(network, surgery.kept, surgery, inputs_of(network))
    with pytest.raises(CalibrationError, match="at least one"):
        check_surgery(network, surgery.kept, surgery, np.empty((0, 2)))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv_9": [0]}, "no group named 'conv_9'; removable groups: conv_0"),
        ({"conv_0": []}, "nothing is kept"),
        ({"conv_0": [0, 6]}, "slots 0 to 5, got 6"),
        ({"conv_0": [-1]}, "slots 0 to 5, got -1"),
        ({"conv_0": [2, 1, 2]}, "slot 2 is named twice"),
        ({"conv_0": [True, False]}, "got True"),
        ({"conv_0": [1.0]}, "got 1.0"),
        ({"linear_3": [0]}, "must stay whole: 'linear_3' is the network's output"),
    ],
)
def test_impossible_selections_are_refused(sketch, kept, message):
    s = sketch((3, 4, 4))
    network = s.network(s.linear(s.flat(s.add("relu", s.conv("x", 6, 3))), 2))
    for act in (shrink, masked):
        with pytest.raises(SelectionError, match=message):
            act(network, kept)
