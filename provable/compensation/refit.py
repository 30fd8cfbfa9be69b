"""Writing a fit of a consumer's target back into the network's parameters.

With gain and offset of the affine ops behind the consumer (target.py) and the fit (M, m) of the value behind them:

    weight' = M / gain    (row by row, zero at removed coordinates; rows with gain 0 keep their weights)
    the change of intercept goes into the consumer's own bias, else into the first batch norm or shift behind it,
    else into a new bias of the consumer

Theory: theory_notes/compensation.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from provable.compensation.moments import Matrix
from provable.compensation.patches import Part
from provable.compensation.ridge import Chosen
from provable.compensation.target import Target, affine_map, row_affine
from verify.network.graph import Array, Network, Node


@dataclass(frozen=True)
class PartFit:
    """The fit of one part of a consumer.

    Attributes:
        part: which rows and input channels.
        kept: coordinates of the part's patch that stay.
        chosen: the fit of gain z + offset on them.
    """

    part: Part
    kept: NDArray[np.intp]
    chosen: Chosen


def refitted(network: Network, target: Target, fits: Sequence[PartFit]) -> Network:
    """The network with the consumer's weights and intercept replaced by the fits of its parts.

    A part whose fit has no ridge keeps its weights and its bias; only removed coordinates become zero.
    """
    node = network.node(target.consumer)
    old = network.parameters[node.parameters["weight"]]
    weight = np.zeros((old.shape[0], fits[0].part.dimension))
    _, before = affine_map(network, target)
    change = np.zeros(old.shape[0])  # of the intercept, in the units of the target
    for found in fits:
        rows, gain = found.part.rows, target.gain[found.part.rows]
        weight[rows, found.kept] = old.reshape(old.shape[0], -1)[rows, found.kept]
        if found.chosen.fit.ridge is not None:
            live = np.flatnonzero(gain) + rows.start
            weight[np.ix_(live, found.kept)] = (found.chosen.fit.weight / _safe(gain)[:, None])[gain != 0.0]
            change[live] = (found.chosen.fit.intercept - before[rows])[gain != 0.0]
    changed = network.with_parameters({node.parameters["weight"]: weight.reshape(old.shape).astype(old.dtype)})
    return _shifted(changed, target, change) if change.any() else changed


def _safe(gain: Matrix) -> Matrix:
    return np.where(gain == 0.0, 1.0, gain)


def _shifted(network: Network, target: Target, change: Matrix) -> Network:
    """The network with the target moved by `change`."""
    node = network.node(target.consumer)
    if "bias" in node.parameters:
        return moved(network, node, "bias", change / _safe(target.gain))
    remaining, axis = _safe(target.gain), 0 if node.op == "conv" else len(node.shape) - 1
    for name in target.chain:
        step = network.node(name)
        gain, _ = row_affine(network, step, axis, len(change)) or (np.ones(1), None)
        remaining = remaining / _safe(gain)
        role = {"batch_norm": "bias", "shift": "value"}.get(step.op)
        if role and network.parameters[step.parameters[role]].size == len(change):
            return moved(network, step, role, change / remaining)
    return with_new_bias(network, node, change / _safe(target.gain))


def moved(network: Network, node: Node, role: str, change: Matrix) -> Network:
    """One parameter of one node changed; a parameter that other nodes read, too, is copied first."""
    key = node.parameters[role]
    value = network.parameters[key]
    value = (value.astype(np.float64) + change.reshape(value.shape)).astype(value.dtype)
    if sum(key in n.parameters.values() for n in network) == 1:
        return network.with_parameters({key: value})
    return _with_parameter(network, node, role, f"{node.name}.{role}", value)


def with_new_bias(network: Network, node: Node, bias: Matrix) -> Network:
    """The network with a bias at a node that has none."""
    key = node.parameters["weight"]
    name = key[: -len("weight")] + "bias" if key.endswith("weight") else f"{node.name}.bias"
    return _with_parameter(network, node, "bias", name, bias.astype(network.parameters[key].dtype))


def _with_parameter(network: Network, node: Node, role: str, name: str, value: Array) -> Network:
    while name in network.parameters:
        name += "_"
    roles = {**node.parameters, role: name}
    nodes = tuple(replace(n, parameters=roles) if n.name == node.name else n for n in network)
    return replace(network, nodes=nodes, parameters={**network.parameters, name: value})
