"""Leaving weights as they are: the pruned layer of a published method without least squares, and its exact loss."""

from collections.abc import Mapping, Sequence

import numpy as np

from provable.channels import ChannelGroup
from provable.compensation.consumers import kept_coordinates, readings
from provable.compensation.least_squares import loss
from provable.compensation.patches import parts
from provable.compensation.sequential import Compensated, LayerFit
from provable.compensation.target import affine_map
from provable.observe import Statistics
from provable.selection.evidence import Choice
from verify.network.graph import Array, Network


def reweighted(network: Network, groups: Sequence[ChannelGroup], choices: Mapping[str, Choice]) -> Network:
    """The network with consumers' weights multiplied by the factors of reweighted choices, or merged."""
    changed: dict[str, Array] = {}
    for group in groups:
        choice = choices.get(group.name)
        if choice is None or (choice.factors is None and not choice.merged):
            continue
        for consumer in group.consumers:
            key = network.node(consumer.node).parameters["weight"]
            weight = changed.setdefault(key, network.parameters[key].copy())
            columns = [[p % weight.shape[1] for p in positions] for positions in consumer.positions]
            for slot, factor in zip(choice.kept, choice.factors or (), strict=False):
                weight[:, columns[slot]] *= weight.dtype.type(factor)
            for slot, into in choice.merged:
                weight[:, columns[into]] += network.parameters[key][:, columns[slot]]
    return network.with_parameters(changed) if changed else network


def uncompensated(
    network: Network, statistics: Statistics, groups: Sequence[ChannelGroup], choices: Mapping[str, Choice]
) -> Compensated:
    """The network with chosen slots masked at their consumers, nothing refitted.

    The loss of each consumer is exact for its own removed channels on the ORIGINAL's activations; errors from layers
    before it are not in it.
    """
    changed = reweighted(network, groups, choices)
    kept = {name: choice.kept for name, choice in choices.items()}
    layers, masked = [], dict[str, Array]()
    for node, read in readings(groups).items():
        known, key = statistics.consumers[node], network.node(node).parameters["weight"]
        weight, bias = affine_map(changed, known.target)
        raw = changed.parameters[key].reshape(len(weight), -1)
        left, error, count = np.zeros_like(raw), 0.0, 0
        for part, moments in zip(parts(network, network.node(node)), known.moments, strict=True):
            index = kept_coordinates(part, read, kept)
            left[part.rows, index] = raw[part.rows, index]
            error += loss(moments.centred(), index, weight[part.rows][:, index], bias[part.rows])
            count = max(count, len(index))
        masked[key] = left.reshape(changed.parameters[key].shape)
        layers.append(LayerFit(node, error, None, known.stream, None, known.moments[0].count, count))
    return Compensated(changed.with_parameters(masked), kept, tuple(layers))


def output_layers(network: Network) -> tuple[str, ...]:
    """The linear or conv node whose value is the network's output, if its weights are its own."""
    return tuple(
        node.name
        for node in network
        if node.name == network.output and node.op in ("linear", "conv") and unshared(network, node.name)
    )


def unshared(network: Network, name: str) -> bool:
    """Whether no other node reads the node's parameters."""
    keys = set(network.node(name).parameters.values())
    return not any(keys & set(node.parameters.values()) for node in network if node.name != name)
