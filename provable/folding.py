"""Batch norm folded into the layer before it: fewer operations, the same function up to rounding.

    gain = gamma / sqrt(variance + epsilon)
    gain (W x + b - mean) + beta  =  (gain W) x + (gain (b - mean) + beta)

Done where a convolution or linear layer is read by one batch norm alone, for measuring and for deployment. The
folded network's weights are rounded anew: a certificate about the network before folding is not one about this one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from verify.network.graph import Array, Network, Node


def fold_batch_norms(network: Network) -> Network:
    """The network without the batch norms that a layer in front of them can take over.

    A folded layer carries the name of its batch norm; names of all other values stay.
    """
    readers = network.consumers()
    nodes, parameters, gone = list[Node](), dict[str, Array](), set[str]()
    for node in network:
        layer = next((n for n in nodes if n.name == node.inputs[0]), None) if node.op == "batch_norm" else None
        if layer is None or not _foldable(network, layer, readers[layer.name]):
            nodes.append(node)
            parameters.update({key: network.parameters[key] for key in node.parameters.values()})
            continue
        gone.add(layer.name)
        own = {role: parameters[key] for role, key in layer.parameters.items()}  # perhaps folded once already
        roles = {role: f"{node.name}.folded_{role}" for role in ("weight", "bias")}
        nodes.append(replace(layer, name=node.name, parameters=roles))
        parameters.update(dict(zip(roles.values(), _folded(own, network, node), strict=True)))
    kept = tuple(node for node in nodes if node.name not in gone)
    used = {key for node in kept for key in node.parameters.values()}
    return replace(network, nodes=kept, parameters={key: parameters[key] for key in parameters if key in used})


def _foldable(network: Network, layer: Node, readers: tuple[Node, ...]) -> bool:
    rows_first = layer.op == "conv" or (layer.op == "linear" and len(layer.shape) == 1)
    return rows_first and len(readers) == 1 and layer.name != network.output


def _folded(own: Mapping[str, Array], network: Network, norm: Node) -> tuple[Array, Array]:
    p = {role: array.astype(np.float64) for role, array in network.parameters_of(norm).items()}
    gain = p["weight"] / np.sqrt(p["variance"] + cast(float, norm.attributes["epsilon"]))
    weight = own["weight"].astype(np.float64)
    bias = own["bias"].astype(np.float64) if "bias" in own else np.zeros(len(weight))
    kind = own["weight"].dtype
    scaled = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled.astype(kind), ((bias - p["mean"]) * gain + p["bias"]).astype(kind)
