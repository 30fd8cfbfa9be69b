"""Removing channels, seen by all who do it or judge it: surgery, the plain slicing of the test tools, the lift.

Surgery works from channel groups over the whole graph, the slicing along one chain; where both apply they must agree
bit by bit. Every map kept -> original that surgery writes must be understood by the verifier's lift.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from provable.channels import channel_groups
from provable.errors import GroupingError
from provable.pipeline import compress
from provable.surgery import masked, shrink
from verify.empirical.measure import compare
from verify.errors import UnsupportedOperation
from verify.formal.lift import align
from verify.network.graph import Network
from verify.testing import assert_networks_equal, calibration_batches, networks
from verify.testing.slicing import removable_layers, without_channels

law = settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
CHAINS = {
    "dense": ["linear", "relu", "linear", "tanh", "batch_norm", "shift", "scale"],
    "conv": ["conv", "relu", "batch_norm", "max_pool", "average_pool", "conv", "shift"],
}


@pytest.mark.parametrize("kind", CHAINS)
@law
@given(data=st.data())
def test_surgery_and_slicing_agree(kind: str, data: st.DataObject) -> None:
    network = data.draw(networks(kind, ops=CHAINS[kind], outputs=2))
    layers = removable_layers(network)
    assume(layers)
    name = data.draw(st.sampled_from(layers))
    groups = [g for g in channel_groups(network) if g.removable and name in g.producers]
    assume(groups and len(groups[0].slots) == network.shape_of(name)[0])
    kept = sorted(data.draw(st.sets(st.integers(0, network.shape_of(name)[0] - 1), min_size=1)))
    surgery = shrink(network, {groups[0].name: kept})
    compact, channels = without_channels(network, name, kept)
    assert_networks_equal(surgery.compact, compact)
    values = {n: entry for n, entry in channels["values"].items() if len(kept) < network.shape_of(name)[0]}
    assert {n: (e["axis"], list(e["kept"])) for n, e in surgery.channels["values"].items()} == {
        n: (e["axis"], e["kept"]) for n, e in values.items()
    }


def some_kept(data: st.DataObject, network: Network) -> dict[str, list[int]]:
    try:
        groups = [g for g in channel_groups(network) if g.removable and len(g.slots) > 1]
    except GroupingError:
        groups = []
    assume(groups)
    chosen = data.draw(st.lists(st.sampled_from(groups), min_size=1, unique_by=lambda g: g.name))
    return {g.name: sorted(data.draw(st.sets(st.integers(0, len(g.slots) - 1), min_size=1))) for g in chosen}


@pytest.mark.parametrize("kind", ["dense", "conv", "residual", "transformer", "any"])
@law
@given(data=st.data())
def test_shrunken_equals_masked_and_the_lift_understands_the_map(kind: str, data: st.DataObject) -> None:
    network = data.draw(networks(kind, outputs=2))
    kept = some_kept(data, network)
    surgery = shrink(network, kept)
    x = np.random.default_rng(0).standard_normal((3, *network.input_shape))
    both = compare(masked(network, kept), surgery.compact, x)
    assert both.deviation <= 1e-9 * (1.0 + float(np.abs(both.original).max()))
    if not rows_cut_before_linear(network, surgery.channels):
        assert align(network, surgery.compact, surgery.channels) is not None


def rows_cut_before_linear(network: Network, channels: Mapping[str, Any]) -> bool:
    """A linear layer that acts on the last axis of a value cut along another one: the lift refuses that."""
    cut = {name: entry["axis"] for name, entry in channels["values"].items()}
    return any(
        node.op == "linear"
        and node.inputs[0] in cut
        and cut[node.inputs[0]] != len(network.shape_of(node.inputs[0])) - 1
        for node in network
    )


@pytest.mark.parametrize("recipe", ["greedy", "pfp"])
@settings(law, max_examples=5)
@given(data=st.data())
def test_compression_of_any_network_fits_its_original(recipe: str, data: st.DataObject) -> None:
    """Whatever the calibration inputs, the result has the right shapes, finite values and a map that fits."""
    network = data.draw(networks(data.draw(st.sampled_from(["dense", "conv", "residual"])), outputs=2))
    assume(network.nodes and some_kept(data, network))
    batches = data.draw(calibration_batches(network))
    try:
        result = compress(network, batches, keep={"channels": 0.5}, recipe=recipe)
    except (GroupingError, UnsupportedOperation):
        return
    compact = result.compact
    assert compact.output_shape == network.output_shape
    assert compare(network, compact, batches[0]).deviation < float("inf")
    if not rows_cut_before_linear(network, result.channels):
        assert align(network, compact, result.channels) is not None
