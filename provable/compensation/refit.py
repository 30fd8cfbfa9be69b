"""Writing a fit of a consumer's target back into the network's parameters.

With gain and offset of the affine ops behind the consumer (target.py) and the fit (M, m) of the value behind them:

    weight' = M / gain    (row by row, zero at removed coordinates; rows with gain 0 keep their weights)
    the change of intercept goes into the consumer's own bias, else into the first batch norm or shift behind it, else
    into a new bias of the consumer

Theory: theory_notes/compensation.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from provable.compensation.least_squares import Fit
from provable.compensation.moments import Matrix
from provable.compensation.patches import Part
from provable.compensation.target import Target, row_affine
from verify.network.graph import Array, Network, Node


def refitted(
    network: Network,
    target: Target,
    fits: Sequence[tuple[Part, NDArray[np.intp], Fit]],
) -> Network:
    """The network with the consumer's weights and intercept replaced by the fits of its parts.

    Args:
        network: the network to change.
        target: the consumer's aim.
        fits: per part of the consumer: the part, its kept coordinates, the fit of gain z + offset.
    """
    node = network.node(target.consumer)
    old = network.parameters[node.parameters["weight"]]
    weight = np.zeros((old.shape[0], fits[0][0].dimension))
    intercept = np.zeros(old.shape[0])
    for part, kept, found in fits:
        weight[part.rows, kept] = found.weight
        intercept[part.rows] = found.intercept
    live = target.gain != 0.0
    masked = _masked(old.reshape(old.shape[0], -1).astype(np.float64), fits)
    safe = np.where(live, target.gain, 1.0)
    weight = np.where(live[:, None], weight / safe[:, None], masked)
    change = np.where(live, intercept - target.offset, 0.0)  # in the units of the target
    changed = network.with_parameters({node.parameters["weight"]: weight.reshape(old.shape).astype(old.dtype)})
    return _shifted(changed, target, change, safe)


def _masked(weight: Matrix, fits: Sequence[tuple[Part, NDArray[np.intp], Fit]]) -> Matrix:
    result = np.zeros_like(weight)
    for part, kept, _ in fits:
        result[part.rows, kept] = weight[part.rows, kept]
    return result


def _shifted(network: Network, target: Target, change: Matrix, total_gain: Matrix) -> Network:
    """The target moves by `change` (relative to a consumer without bias)."""
    node = network.node(target.consumer)
    if "bias" in node.parameters:
        return _set(network, node.parameters["bias"], change / total_gain, absolute=True)
    remaining = total_gain
    for name in target.chain:
        step = network.node(name)
        axis = 0 if node.op == "conv" else len(node.shape) - 1
        gain, _ = row_affine(network, step, axis, len(change)) or (1.0, 0.0)
        remaining = remaining / np.where(gain == 0.0, 1.0, gain)
        key = step.parameters.get("bias" if step.op == "batch_norm" else "value")
        if step.op in ("batch_norm", "shift") and key and network.parameters[key].size == len(change):
            return _set(network, key, change / remaining, absolute=False)
    return _with_new_bias(network, node, change / total_gain)


def _set(network: Network, key: str, value: Matrix, *, absolute: bool) -> Network:
    old = network.parameters[key]
    moved = value.reshape(old.shape) + (0.0 if absolute else old.astype(np.float64))
    return network.with_parameters({key: moved.astype(old.dtype)})


def _with_new_bias(network: Network, node: Node, bias: Matrix) -> Network:
    weight_key = node.parameters["weight"]
    key = weight_key[: -len("weight")] + "bias" if weight_key.endswith("weight") else f"{node.name}.bias"
    while key in network.parameters:
        key += "_"
    dtype = network.parameters[weight_key].dtype
    roles: Mapping[str, str] = {**node.parameters, "bias": key}
    nodes = tuple(replace(n, parameters=roles) if n.name == node.name else n for n in network)
    parameters: dict[str, Array] = {**network.parameters, key: bias.astype(dtype)}
    return replace(network, nodes=nodes, parameters=parameters)
