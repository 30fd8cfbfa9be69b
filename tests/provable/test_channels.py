"""Which channels leave together: laws over random networks, the textbook cases, and a second opinion."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.channel_rules import CHANNEL_RULES
from provable.channels import channel_groups
from provable.cost import count_flops
from provable.errors import GroupingError
from provable.surgery import check_surgery, shrink
from verify.network.graph import Network
from verify.network.operations import OPERATIONS

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def by_name(network: Network) -> dict:
    return {group.name: group for group in channel_groups(network)}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_groups_never_overlap_and_cover_every_removable_value(recipes, data):
    network = data.draw(recipes).network()
    groups = channel_groups(network)
    assert len({g.name for g in groups}) == len(groups)
    for node in network:
        here = [g for g in groups if node.name in g.axes]
        filled = [p for g in here for slot in g.slots for p in slot.positions[node.name]]
        assert len(filled) == len(set(filled))
        assert len({g.axes[node.name] for g in here}) <= 1
        assert all(p < node.shape[g.axes[node.name]] for g in here for s in g.slots for p in s.positions[node.name])
    for group in groups:
        sizes = [{value: len(positions) for value, positions in slot.positions.items()} for slot in group.slots]
        assert all(size == sizes[0] for size in sizes), "slots of a group are interchangeable"
        assert group.removable == (group.reason == "")
        assert all(len(consumer.positions) == len(group.slots) for consumer in group.consumers)


def test_dense_layers(sketch):
    s = sketch((4,))
    s.linear(s.add("relu", s.linear(s.add("relu", s.linear("x", 5)), 6)), 2)
    groups = by_name(s.network("linear_4"))
    assert [(n, len(g.slots), g.inner, g.removable) for n, g in groups.items()] == [
        ("linear_0", 5, True, True), ("linear_2", 6, True, True), ("linear_4", 2, True, False),
    ]  # fmt: skip
    assert groups["linear_0"].consumers[0].node == "linear_2"
    assert groups["linear_0"].consumers[0].positions == ((0,), (1,), (2,), (3,), (4,))
    assert groups["linear_4"].reason == "'linear_4' is the network's output"


def test_flatten_gives_every_channel_its_pixels(sketch):
    s = sketch((1, 3, 2))
    network = s.network(s.linear(s.flat(s.add("relu", s.norm(s.conv("x", 3)))), 2))
    group = by_name(network)["conv_0"]
    assert group.norms == ("batch_norm_1",)
    assert group.consumers[0].positions == tuple(tuple(range(6 * c, 6 * c + 6)) for c in range(3))


def test_flatten_after_channels_last_gives_every_channel_a_stride(sketch):
    s = sketch((1, 3, 2))
    network = s.network(s.linear(s.flat(s.transpose(s.conv("x", 4), 1, 2, 0)), 2))
    assert by_name(network)["conv_0"].consumers[0].positions[1] == tuple(range(1, 24, 4))


def test_residual_stream_is_one_group_and_its_branch_another(sketch):
    s = sketch((3, 4, 4))
    x = s.basic_block(s.add("relu", s.conv("x", 5, 3)))
    network = s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 2))
    stream, branch = by_name(network)["conv_0"], by_name(network)["conv_2"]
    assert stream.producers == ("conv_0", "conv_5")
    assert not stream.inner
    assert [c.node for c in stream.consumers] == ["conv_2", "linear_10"]
    assert branch.inner
    assert branch.producers == ("conv_2",)


def test_padded_shortcut_couples_only_the_channels_that_meet(sketch):
    """A network that a popular library returns broken, without an error."""
    s = sketch((3, 8, 8))
    x = s.basic_block(s.add("relu", s.conv("x", 4, 3)), 10)
    network = s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 2))
    groups = by_name(network)
    narrow, wide = groups["conv_0"], groups["conv_5"]
    assert [slot.positions["conv_5"] for slot in narrow.slots] == [(3,), (4,), (5,), (6,)]
    assert [slot.positions["conv_5"] for slot in wide.slots] == [(0,), (1,), (2,), (7,), (8,), (9,)]
    compact = shrink(network, {"conv_0": [1], "conv_5": [2, 3, 4]}).compact
    pad = next(node for node in compact if node.op == "pad")
    assert pad.attributes["padding"] == (1, 0, 0, 2, 0, 0)
    assert pad.shape[0] == 4


def test_a_shortcut_from_the_input_pins_only_what_it_meets(sketch):
    s = sketch((3, 4, 4))
    network = s.network(s.linear(s.flat(s.add("add", s.pad("x", 0, 2, 1), s.conv("x", 6, 3))), 2))
    group = next(g for g in channel_groups(network) if g.removable)
    assert [slot.positions["conv_1"] for slot in group.slots] == [(0,), (1,), (5,)]


def test_concatenation_is_read_at_shifted_positions(sketch):
    s = sketch((3, 4, 4))
    a = s.conv("x", 4)
    b = s.conv(a, 3)
    network = s.network(s.linear(s.flat(s.conv(s.add("concat", a, b, axis=0), 2)), 2))
    groups = by_name(network)
    assert [c.positions for c in groups[a].consumers] == [((0,), (1,), (2,), (3,)), ((0,), (1,), (2,), (3,))]
    assert [c.positions for c in groups[b].consumers] == [((4,), (5,), (6,))]
    assert groups[a].inner
    assert groups[b].inner


def test_depthwise_convolution_carries_channels(sketch):
    s = sketch((3, 4, 4))
    a = s.conv("x", 4)
    d = s.conv(a, 8, 3, groups=4)
    network = s.network(s.linear(s.flat(d), 2))
    group = by_name(network)[a]
    assert group.producers == (a,)
    assert group.depthwise == (d,)
    assert group.slots[1].positions[d] == (2, 3)
    assert not group.inner
    smaller = shrink(network, {a: [0, 2, 3]}).compact
    assert smaller.node(d).attributes["groups"] == 3
    assert smaller.parameters[f"{d}.weight"].shape == (6, 1, 3, 3)


def test_grouped_convolution_shrinks_all_its_groups_alike(sketch):
    s = sketch((3, 4, 4))
    a = s.conv("x", 6)
    g = s.conv(a, 4, 3, groups=2)
    network = s.network(s.linear(s.flat(g), 2))
    groups = by_name(network)
    assert [slot.positions[a] for slot in groups[a].slots] == [(0, 3), (1, 4), (2, 5)]
    assert [slot.positions[g] for slot in groups[g].slots] == [(0, 2), (1, 3)]
    smaller = shrink(network, {a: [0, 2], g: [1]}).compact
    assert smaller.node(g).attributes["groups"] == 2
    assert smaller.parameters[f"{g}.weight"].shape == (2, 2, 3, 3)


def test_attention_heads_leave_whole(sketch):
    """Queries, keys and values of a head, and the columns that read it; nothing else in attention may leave."""
    s = sketch((7, 6))
    tokens = s.linear("x", 6)
    q, k, v = (s.transpose(s.reshape(s.linear(tokens, 12), 7, 3, 4), 1, 0, 2) for _ in range(3))
    mixed = s.reshape(s.transpose(s.add("attention", q, k, v, scale=0.5), 1, 0, 2), 7, 12)
    network = s.network(s.linear(mixed, 2))
    heads = by_name(network)["linear_1"]
    assert heads.producers == ("linear_1", "linear_4", "linear_7")
    assert [slot.positions["linear_4"] for slot in heads.slots] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert heads.consumers[0].positions[2] == (8, 9, 10, 11)


def test_one_attention_head_stays_whole(sketch):
    s = sketch((7, 6))
    q, k, v = (s.linear("x", 4) for _ in range(3))
    network = s.network(
        s.linear(s.add("gelu", s.linear(s.add("attention", q, k, v, scale=0.5), 5), approximate="none"), 2)
    )
    groups = by_name(network)
    assert not any(groups[name].removable for name in (q, k, v))
    assert "attention at node" in groups[q].reason
    assert groups["linear_4"].removable


def test_channel_shuffle_leaves_in_step(sketch):
    s = sketch((3, 4, 4))
    a = s.conv("x", 6)
    shuffled = s.reshape(s.transpose(s.reshape(a, 2, 3, 4, 4), 1, 0, 2, 3), 6, 4, 4)
    network = s.network(s.linear(s.flat(shuffled), 2))
    assert [slot.positions[a] for slot in by_name(network)[a].slots] == [(0, 3), (1, 4), (2, 5)]


@pytest.mark.parametrize("op", ["layer_norm", "softmax", "mean"])
def test_a_statistic_over_channels_pins_them(sketch, op):
    s = sketch((7, 6))
    a = s.linear("x", 5)
    if op == "layer_norm":
        y = s.add(op, a, parameters={"weight": s.normal(5)}, epsilon=1e-5)
    else:
        y = s.add(op, a, axis=1) if op == "softmax" else s.add(op, a, axes=(1,), keepdims=True)
    with pytest.raises(GroupingError, match=f"no channel.*{op} at node '{y}' (normalises|averages) over channels"):
        channel_groups(s.network(s.linear(y, 2)))


def test_a_shared_weight_pins_both_layers(sketch):
    s = sketch((4,))
    a = s.linear(s.linear("x", 4), 4)
    s.steps[1] = (a, "linear", s.steps[1][2], dict(s.steps[0][3]), {})
    groups = by_name(s.network(s.linear(s.add("relu", s.linear(a, 3)), 2)))
    assert not groups[a].removable
    assert "shares parameter" in groups[a].reason
    assert groups["linear_2"].removable


def test_a_network_without_hidden_channels_is_refused(sketch):
    s = sketch((4,))
    with pytest.raises(GroupingError, match="'linear_0' is the network's output"):
        channel_groups(s.network(s.linear("x", 3)))


def test_every_op_has_a_rule():
    assert set(CHANNEL_RULES) == set(OPERATIONS)


def test_an_op_without_a_rule_is_named(sketch, monkeypatch):
    s = sketch((4,))
    network = s.network(s.linear(s.add("relu", s.linear("x", 3)), 2))
    monkeypatch.delitem(CHANNEL_RULES, "relu")
    with pytest.raises(GroupingError, match="op 'relu' at node 'relu_1' has no rule"):
        channel_groups(network)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "resnet").is_dir(), reason="real networks are not in ../shared/data")
def test_resnet_56_has_27_inner_groups_and_three_streams():
    from verify.network.read_onnx import read_onnx

    network = read_onnx(DATA / "resnet" / "resnet56_cifar10.onnx")
    groups = [g for g in channel_groups(network) if g.removable]
    streams = [g for g in groups if not g.inner]
    assert len(groups) - len(streams) == 27
    assert [len(g.slots) for g in streams] == [16, 16, 32]
    assert [len(g.producers) for g in streams] == [28, 18, 9]
    assert count_flops(network) == 125_485_696
    kept = {g.name: range(0, len(g.slots), 3) for g in groups}
    sample = np.random.default_rng(0).normal(size=(1, *network.input_shape))
    assert check_surgery(network, kept, shrink(network, kept), sample) < 1e-9


def _positions(network: Network, name: str, row: int) -> dict[tuple[str, str], list[int]]:
    """What leaves with a row of a layer: (layer, side) -> indices."""
    for group in channel_groups(network):
        for i, slot in enumerate(group.slots):
            if row in slot.positions.get(name, ()):
                out = {(n, "out"): slot.positions[n] for n in (*group.producers, *group.norms, *group.depthwise)}
                read = {(c.node, "in"): c.positions[i] for c in group.consumers}
                return {key: sorted(value) for key, value in {**out, **read}.items()}
    raise AssertionError(f"no group holds row {row} of {name}")


def test_torch_pruning_finds_the_same_groups_where_it_is_right():
    """Convolutions, batch norm, depthwise, residual sums, concatenation, flatten: slot by slot."""
    tp = pytest.importorskip("torch_pruning")
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional as F

    from verify.network.read_export import trace

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.depth, self.point = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1)
            self.wide, self.hidden, self.head = nn.Conv2d(8, 6, 3), nn.Linear(96, 5), nn.Linear(5, 3)

        def forward(self, x):
            x = F.relu(self.stem_norm(self.stem(x)))
            y = self.point(F.relu(self.depth(x))) + x
            z = F.relu(self.wide(torch.cat([x, y], 1)))
            return self.head(F.relu(self.hidden(F.max_pool2d(z, 1).flatten(1))))

    module, example = Mixed().eval(), torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    network = trace(module, example)
    graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
    prune = {
        "stem": tp.prune_conv_out_channels,
        "wide": tp.prune_conv_out_channels,
        "hidden": tp.prune_linear_out_channels,
    }
    for name, function in prune.items():
        layer = getattr(module, name)
        for row in range(layer.weight.shape[0]):
            expected: dict[tuple[str, str], set[int]] = {}
            for dependency, indices in graph.get_pruning_group(layer, function, idxs=[row]):
                target = dependency.target.name.split(" ")[0]
                side = "in" if "in_channels" in dependency.handler.__name__ else "out"
                if not target.startswith("_"):
                    expected.setdefault((target, side), set()).update(indices)
            assert _positions(network, name, row) == {key: sorted(value) for key, value in expected.items()}


def test_a_traced_transformer_loses_heads_and_hidden_units():
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional as F

    from verify.network.read_export import trace

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.token = nn.Linear(5, 12), nn.Parameter(torch.ones(1, 1, 12))
            self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
            self.qkv, self.project = nn.Linear(12, 36), nn.Linear(12, 12)
            self.up, self.down, self.head = nn.Linear(12, 10), nn.Linear(10, 12), nn.Linear(12, 3)

        def forward(self, x):
            x = torch.cat([self.token, self.embed(x)], 1)
            q, k, v = self.qkv(self.norm1(x)).reshape(1, 7, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 7, 12)
            x = x + self.project(y)
            x = x + self.down(F.gelu(self.up(self.norm2(x))))
            return self.head(x[:, 0])

    network = trace(Block().double().eval(), torch.ones(1, 6, 5, dtype=torch.float64))
    groups = {g.name: g for g in channel_groups(network) if g.removable}
    assert sorted(len(g.slots) for g in groups.values()) == [4, 10]
    heads = next(g for g in groups.values() if len(g.slots) == 4)
    assert len(heads.slots[0].positions[heads.producers[0]]) == 9, "three rows each of queries, keys and values"
    kept = {name: [0, 2] for name in groups}
    sample = np.random.default_rng(0).normal(size=(2, *network.input_shape))
    assert check_surgery(network, kept, shrink(network, kept), sample) < 1e-12
    assert math.prod(shrink(network, kept).compact.output_shape) == 3
