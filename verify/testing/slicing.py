"""Remove channels of one layer, the plain way: along a chain of ops that pass channels through.

    linear or conv ─► activations, constants, batch norm, pooling, flattening ─► linear or conv (no groups)

A layer whose value reaches anything else (a sum, a concatenation, the output) is not removable here. This is a test
tool and shares no code with compression methods, so that each can check the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.network.graph import Array, Network, Node, build
from verify.network.operations import OPERATIONS

_THROUGH = frozenset({"batch_norm", "max_pool", "average_pool", "scale", "shift", "divide"})
Index = NDArray[np.int64]


def removable_layers(network: Network) -> list[str]:
    """Layers with at least two channels on the first axis, which is where they can be removed."""
    layers = [n for n in network if n.op in ("linear", "conv") and n.shape[0] >= 2 and _produces(n, network)]
    return [node.name for node in layers if _chain(network, node) is not None]


def without_channels(network: Network, layer: str, kept: Sequence[int]) -> tuple[Network, dict[str, Any]]:
    """The network with only the channels `kept` of a removable layer, and the content of ``channels.json``."""
    producer = network.node(layer)
    index = np.array(kept, dtype=np.int64)
    chain = _chain(network, producer) or ()
    parameters = {**network.parameters, **_of_producer(network, producer, index)}
    channels = {layer: index}
    flat: dict[str, Index] = {}
    for node in chain:
        source = node.inputs[0]
        if node.op == "reshape":
            channels[node.name] = flat[node.name] = _flattened(index, network.shape_of(source))
        elif node.op in ("linear", "conv"):
            parameters |= _of_consumer(network, node, channels[source])
        else:
            channels[node.name] = channels[source]
            parameters |= _of_passage(network, node, channels[source])
    compact = build(network.input, network.input_shape, _steps(network, flat), network.output, parameters)
    values = {name: {"axis": 0, "kept": kept.tolist()} for name, kept in channels.items()}
    return compact, {"version": 1, "values": values}


def _chain(network: Network, producer: Node) -> tuple[Node, ...] | None:
    """All nodes that the layer's channels reach, in order; None if one of them cannot lose channels."""
    readers, reached, frontier = network.consumers(), {producer.name}, {producer.name}
    if network.output in reached:
        return None
    chain = []
    for node in network.nodes:
        if not frontier.intersection(node.inputs):
            continue
        chain.append(node)
        ends = node.op in ("linear", "conv")
        if not (_consumes(node, network) if ends else _passes(node, network)):
            return None
        if not ends:
            frontier.add(node.name)
            if node.name == network.output:
                return None
    return tuple(chain) if readers[producer.name] else None


def _produces(node: Node, network: Network) -> bool:
    """Whether the first axis of the value is the one its weight makes, each parameter used by this node alone."""
    own = len(node.shape) == 1 if node.op == "linear" else node.attributes["groups"] == 1
    return own and _private(node, network)


def _consumes(node: Node, network: Network) -> bool:
    """Whether channels on the first axis of its input are columns of its weight."""
    rank = len(network.shape_of(node.inputs[0]))
    fits = rank == 1 if node.op == "linear" else node.attributes["groups"] == 1
    return fits and _private(node, network)


def _passes(node: Node, network: Network) -> bool:
    """Whether the value's first axis is the input's, channel by channel."""
    shape = network.shape_of(node.inputs[0])
    if node.op == "reshape":
        return len(node.shape) == 1 and len(shape) > 1
    activation = OPERATIONS[node.op].elementwise and len(node.inputs) == 1
    return (activation or node.op in _THROUGH) and _private(node, network)


def _private(node: Node, network: Network) -> bool:
    """Whether no other node uses its parameters."""
    users = [key for other in network for key in other.parameters.values()]
    return all(users.count(key) == 1 for key in node.parameters.values())


def _flattened(kept: Index, shape: tuple[int, ...]) -> Index:
    inner = int(np.prod(shape[1:], dtype=int))
    return (kept[:, None] * inner + np.arange(inner)).reshape(-1)


def _of_producer(network: Network, node: Node, kept: Index) -> dict[str, Array]:
    return {key: network.parameters[key][kept] for key in node.parameters.values()}


def _of_consumer(network: Network, node: Node, kept: Index) -> dict[str, Array]:
    key = node.parameters["weight"]
    return {key: network.parameters[key][:, kept]}


def _of_passage(network: Network, node: Node, kept: Index) -> dict[str, Array]:
    """Parameters per channel lose entries; a constant that does not reach to the first axis stays."""
    rank = len(node.shape)
    found = {key: network.parameters[key] for key in node.parameters.values()}
    if node.op == "batch_norm":
        return {key: array[kept] for key, array in found.items()}
    return {key: a[kept] for key, a in found.items() if a.ndim == rank and a.shape[0] > 1}


def _steps(
    network: Network, flat: Mapping[str, Index]
) -> list[tuple[str, str, tuple[str, ...], Mapping[str, str], dict[str, Any]]]:
    return [
        (
            n.name,
            n.op,
            n.inputs,
            n.parameters,
            {**n.attributes} | ({"shape": (len(flat[n.name]),)} if n.name in flat else {}),
        )
        for n in network.nodes
    ]
