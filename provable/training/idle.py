"""Zeros that structure can use: channels that nobody reads, or that are 0 for every input, leave exactly.

An element is zero by weights if its row, its bias and its norm are, or if everything it is computed from is. A slot is
idle if every consumer reads it with zero weights or as zero. Rows of an idle slot count as zero in the next round, so
that whole chains leave. Theory: theory_notes/training.md. Not claimed: that sparse layers become small; only whole
channels leave.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from provable.channels import ChannelGroup, channel_groups
from provable.errors import SurgeryError
from provable.exact.zeros import PASSING, Mask
from provable.records import Compression
from provable.surgery import check_surgery, masked, shrink
from provable.training.result import as_compression, traced
from verify.network.evaluate import evaluate
from verify.network.graph import Array, Network, Node
from verify.network.operations import OPERATIONS

ZERO_AT_ZERO = frozenset({"relu", "leaky_relu", "tanh", "erf", "gelu", "silu", "hardswish", "divide"})
SAMPLES, EQUAL = 4, 1e-9


def remove_idle(model: nn.Module | Network, example: Tensor | None = None, *, method: str = "idle") -> Compression:
    """The network without idle channels: the same function.

    Args:
        model: masks and gates already baked in; a module needs `example`, one input with a batch axis of 1.
        method: the name for the record.

    Raises:
        TrainingError: a module without an example.
        GroupingError: the network has no channels that may leave.
        SurgeryError: the smaller network computes something else.
    """
    network = model if isinstance(model, Network) else traced(model, example)
    groups = channel_groups(network)
    kept = _staying(network, [g for g in groups if g.removable and g.consumers])
    surgery = shrink(network, kept, groups=groups)
    samples = np.random.default_rng(0).normal(size=(SAMPLES, *network.input_shape))
    error = check_surgery(network, kept, surgery, samples)
    expected, found = evaluate(network, samples), evaluate(surgery.compact, samples)
    if not np.abs(found - expected).max() <= EQUAL * (1 + np.abs(expected).max()):
        raise SurgeryError("a channel that was not idle left; the smaller network is not kept")
    settings = {"idle": {name: surgery.removed[name] for name in kept}}
    return as_compression(method, network, surgery, [g for g in groups if g.name in kept], error, settings, model)


def zero_by_weights(network: Network) -> dict[str, Mask]:
    """Value -> True where the element is 0 for every input, as far as weights alone show it."""
    zeros: dict[str, Mask] = {network.input: np.zeros(network.input_shape, dtype=np.bool_)}
    for node in network:
        zeros[node.name] = _zeros(network, node, [zeros[name] for name in node.inputs])
    return zeros


def _zeros(network: Network, node: Node, inputs: list[Mask]) -> Mask:
    if node.op in ("linear", "conv"):
        return np.broadcast_to(_layer(network, node, inputs[0]), node.shape)
    if node.op == "batch_norm":
        roles = network.parameters_of(node)
        own = (roles["weight"] == 0) & (roles["bias"] == 0) if {"weight", "bias"} <= roles.keys() else np.array([False])
        return np.broadcast_to(own.reshape(-1, *[1] * (len(node.shape) - 1)), node.shape)
    if node.op in ZERO_AT_ZERO:
        return inputs[0]
    if node.op in ("multiply", "scale"):
        value = network.parameters_of(node).get("value", np.ones(()))
        return np.broadcast_to(np.logical_or.reduce(np.broadcast_arrays(*inputs, value == 0)), node.shape)
    if node.op == "subtract":
        return np.broadcast_to(inputs[0] & inputs[1], node.shape)
    if node.op not in PASSING and not (node.op == "pad" and node.attributes["value"] == 0):
        return np.zeros(node.shape, dtype=np.bool_)
    indicators: list[NDArray[np.float64]] = [np.where(zero, 0.0, 1.0)[None] for zero in inputs]
    return np.asarray(OPERATIONS[node.op].evaluate(node, indicators, {})[0] == 0.0)


def _layer(network: Network, node: Node, zero_input: Mask) -> Mask:
    """Rows that are 0: no bias, and every weight is 0 or meets an input that is."""
    roles = network.parameters_of(node)
    weight = np.asarray(roles["weight"] != 0)
    free = np.asarray(roles["bias"] == 0) if "bias" in roles else np.ones(len(weight), dtype=np.bool_)
    if node.op == "linear":
        live: NDArray[np.int64] = (~zero_input).astype(np.int64) @ weight.T.astype(np.int64)
        return np.asarray((live == 0) & free)
    channels = zero_input.reshape(len(zero_input), -1).all(axis=1).reshape(int(str(node.attributes["groups"])), -1)
    seen = np.repeat(~channels, len(weight) // len(channels), axis=0)  # (out, in / groups)
    reads = weight.reshape(*weight.shape[:2], -1).any(axis=2) & seen
    return np.asarray(~reads.any(axis=1) & free).reshape(-1, *[1] * (len(node.shape) - 1))


def _staying(network: Network, groups: Sequence[ChannelGroup]) -> dict[str, tuple[int, ...]]:
    """Slots that are not idle, at least one per group; found round by round."""
    stays = {g.name: tuple(range(len(g.slots))) for g in groups}
    current, before = network, -1
    while before != (count := sum(map(len, stays.values()))):
        before, zeros = count, zero_by_weights(current)
        for group in groups:
            slots = stays[group.name]
            stays[group.name] = tuple(s for s in slots if not _idle(current, group, s, zeros)) or slots[:1]
        current = _silenced(masked(network, stays), groups, stays)
    return stays


def _silenced(network: Network, groups: Sequence[ChannelGroup], stays: Mapping[str, tuple[int, ...]]) -> Network:
    """Rows of producers that nobody reads any more are 0: what they read may become idle in turn."""
    changed: dict[str, Array] = {}
    for group in groups:
        leaving = sorted(set(range(len(group.slots))) - set(stays[group.name]))
        for name in group.producers if leaving else ():
            key = network.node(name).parameters["weight"]
            weight = changed.setdefault(key, network.parameters[key].copy())
            weight[[p for slot in leaving for p in group.slots[slot].positions[name]]] = 0.0
    return network.with_parameters(changed)


def _idle(network: Network, group: ChannelGroup, slot: int, zeros: dict[str, Mask]) -> bool:
    return all(_ignores(network, group, i, slot, zeros) for i in range(len(group.consumers)))


def _ignores(network: Network, group: ChannelGroup, consumer: int, slot: int, zeros: dict[str, Mask]) -> bool:
    node = network.node(group.consumers[consumer].node)
    source = node.inputs[0]
    weight = network.parameters_of(node)["weight"]
    columns = [p for p in group.consumers[consumer].positions[slot] if p < weight.shape[1]]
    if not weight[:, columns].any():
        return True
    return bool(zeros[source].take(group.slots[slot].positions[source], axis=group.axes[source]).all())
