"""What a network costs, counted on the network and predicted without building it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.channels import channel_groups
from provable.cost import cost_model, count_bytes, count_flops, count_parameters, flops_by_node, parameters_by_node
from provable.errors import SelectionError
from provable.surgery import shrink


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_model_predicts_the_cost_of_the_shrunken_network(recipes, data):
    network = data.draw(recipes).network()
    groups = channel_groups(network)
    model = cost_model(network, groups)
    assert (model.flops({}), model.parameters({})) == (count_flops(network), count_parameters(network))
    kept = {g.name: range(data.draw(st.integers(1, len(g.slots)))) for g in groups if g.removable}
    counts = {name: len(slots) for name, slots in kept.items()}
    compact = shrink(network, kept).compact
    assert model.flops(counts) == count_flops(compact)
    assert model.parameters(counts) == count_parameters(compact)
    assert (model.bytes({}), model.bytes(counts)) == (count_bytes(network), count_bytes(compact))


def test_multiply_adds_by_hand(sketch):
    s = sketch((3, 8, 8))
    a = s.conv("x", 6, 3, stride=2)
    d = s.conv(a, 6, 3, groups=6)
    network = s.network(s.linear(s.flat(s.norm(d)), 5, bias=False))
    assert flops_by_node(network) == {a: 4 * 4 * 6 * 3 * 9, d: 4 * 4 * 6 * 9, "linear_4": 96 * 5}
    assert parameters_by_node(network) == {
        a: 6 * 27 + 6, d: 6 * 9 + 6, "batch_norm_2": 12, "reshape_3": 0, "linear_4": 480,
    }  # fmt: skip


def test_a_linear_layer_on_tokens_counts_every_token(sketch):
    s = sketch((7, 4))
    network = s.network(s.linear(s.linear("x", 5), 2))
    assert count_flops(network) == 7 * (4 * 5 + 5 * 2)


def test_a_shared_parameter_counts_once(sketch):
    s = sketch((4,))
    a = s.linear(s.linear("x", 4), 4)
    s.steps[1] = (a, "linear", s.steps[1][2], dict(s.steps[0][3]), {})
    for role in ("weight", "bias"):
        del s.parameters[f"{a}.{role}"]
    network = s.network(a)
    assert count_parameters(network) == 20
    assert count_flops(network) == 32


def test_costs_of_many_selections_at_once(sketch):
    s = sketch((4,))
    network = s.network(s.linear(s.add("relu", s.linear("x", 5)), 2))
    model = cost_model(network, channel_groups(network))
    counts = model.counts({}) - [[0, 0], [4, 0]]
    assert model.flop_terms.value(counts).tolist() == [30, 6]


@pytest.mark.parametrize("kept", [{"linear_0": 0}, {"linear_0": 6}, {"nothing": 1}])
def test_impossible_counts_are_refused(sketch, kept):
    s = sketch((4,))
    network = s.network(s.linear(s.add("relu", s.linear("x", 5)), 2))
    with pytest.raises(SelectionError, match="cannot keep"):
        cost_model(network, channel_groups(network)).flops(kept)
