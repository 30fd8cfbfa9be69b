"""What a consumer's refit should aim at: the value that its output turns into before the next non-linearity.

A consumer z = W x + b is followed by per-channel affine ops (batch norm in evaluation mode, scale, shift, divide),
together z -> gain z + offset, and perhaps by one sum s + (gain z + offset) with another value s. Aim:

    a residual sum:   original's sum - compact's s      (the fit repairs the error of s, too)
    otherwise:        original's gain z + offset

Theory: theory_notes/compensation.md. Not claimed: optimality beyond this one layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from provable.compensation.moments import Matrix
from verify.network.graph import Network, Node


@dataclass(frozen=True)
class Sum:
    """A residual sum that a consumer feeds: value = sign * consumer's side + other_sign * other."""

    value: str
    other: str
    sign: float
    other_sign: float


@dataclass(frozen=True)
class Target:
    """The aim of a consumer.

    Attributes:
        consumer: its node.
        chain: affine nodes behind it, in order.
        gain, offset: (rows,) their joint effect on each output row.
        sum: the residual sum behind the chain, if any.
    """

    consumer: str
    chain: tuple[str, ...]
    gain: Matrix
    offset: Matrix
    sum: Sum | None

    @property
    def end(self) -> str:
        """The value gain z + offset."""
        return self.chain[-1] if self.chain else self.consumer

    @property
    def value(self) -> str:
        """The value whose variance is the natural unit of the consumer's error."""
        return self.sum.value if self.sum else self.end


def target_of(network: Network, consumer: str) -> Target:
    """The aim of a linear or conv node."""
    readers = network.consumers()
    node = network.node(consumer)
    rows = network.parameters[node.parameters["weight"]].shape[0]
    gain, offset, chain = np.ones(rows), np.zeros(rows), list[str]()
    end, axis = node, (0 if node.op == "conv" else len(node.shape) - 1)
    while (following := _only_reader(network, readers, end)) is not None:
        step = row_affine(network, following, axis, rows)
        if step is None:
            return Target(consumer, tuple(chain), gain, offset, _sum(following, end.name))
        gain, offset = gain * step[0], offset * step[0] + step[1]
        chain.append(following.name)
        end = following
    return Target(consumer, tuple(chain), gain, offset, None)


def affine_map(network: Network, target: Target) -> tuple[Matrix, Matrix]:
    """(weight (n, d), bias (n,)) of the value behind a consumer's affine ops."""
    roles = network.parameters_of(network.node(target.consumer))
    weight = roles["weight"].astype(np.float64).reshape(len(roles["weight"]), -1) * target.gain[:, None]
    bias = roles["bias"].astype(np.float64) if "bias" in roles else np.zeros(len(weight))
    return weight, bias * target.gain + target.offset


def _only_reader(network: Network, readers: Mapping[str, tuple[Node, ...]], node: Node) -> Node | None:
    found = readers[node.name]
    return found[0] if len(found) == 1 and node.name != network.output else None


def row_affine(network: Network, node: Node, axis: int, rows: int) -> tuple[Matrix, Matrix] | None:
    """(gain, offset) per channel along `axis` if the node is such a map, else None."""
    p = {role: array.astype(np.float64) for role, array in network.parameters_of(node).items()}
    if node.op == "batch_norm" and axis == 0:
        gain = p["weight"] / np.sqrt(p["variance"] + cast(float, node.attributes["epsilon"]))
        return gain, p["bias"] - p["mean"] * gain
    if node.op not in ("scale", "divide", "shift"):
        return None
    full = (1,) * (len(node.shape) - p["value"].ndim) + p["value"].shape
    if any(size != 1 for i, size in enumerate(full) if i != axis):
        return None
    constant = np.broadcast_to(p["value"].reshape(-1), (rows,))
    zero, one = np.zeros(rows), np.ones(rows)
    return {"scale": (constant, zero), "divide": (1.0 / constant, zero), "shift": (one, constant)}[node.op]


def _sum(node: Node, side: str) -> Sum | None:
    if node.op not in ("add", "subtract") or node.inputs[0] == node.inputs[1]:
        return None
    second = -1.0 if node.op == "subtract" else 1.0
    if node.inputs[0] == side:
        return Sum(node.name, node.inputs[1], 1.0, second)
    return Sum(node.name, node.inputs[0], second, 1.0)


def ancestors(network: Network, value: str) -> frozenset[str]:
    """Names of all values that `value` depends on, itself included."""
    wanted = {value}
    for node in reversed(network.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return frozenset(wanted)
