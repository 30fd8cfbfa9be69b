"""What a network costs: multiply-adds, parameters and bytes, and all as functions of how many channels stay.

Multiply-adds are those of linear and conv nodes for one sample, one per weight and output position; biases,
norms, activations and products of two values are not counted. Parameters are all stored numbers except the
running statistics of batch norm, shared ones once. Bytes are those of all stored numbers, running statistics included.

    cost(kept) = sum over terms of coefficient * product of widths,   width = constant + sum_g multiplicity_g kept_g

which is bilinear in the widths of a layer's input and output. All integers, exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provable.channels import ChannelGroup
from provable.errors import SelectionError
from provable.parameter_axes import followed
from verify.network.graph import Network, Node

Counts = NDArray[np.int64]


def count_flops(network: Network) -> int:
    """Multiply-adds of linear and conv nodes for one sample."""
    return sum(flops_by_node(network).values())


def flops_by_node(network: Network) -> dict[str, int]:
    """Linear or conv node name -> its multiply-adds for one sample."""
    return {
        node.name: network.parameters_of(node)["weight"].size * math.prod(_positions(node))
        for node in network
        if node.op in ("linear", "conv")
    }


def count_parameters(network: Network) -> int:
    """Stored numbers, running statistics of batch norm aside; shared parameters count once."""
    return sum(parameters_by_node(network).values())


def parameters_by_node(network: Network) -> dict[str, int]:
    """Node name -> its stored numbers; a shared parameter counts at the first node that reads it."""
    return {node.name: sum(network.parameters[key].size for key in keys) for node, keys in _owned(network)}


def count_bytes(network: Network) -> int:
    """Bytes of all stored numbers, running statistics included; shared parameters count once."""
    read = {key for node in network for key in node.parameters.values()}
    return sum(network.parameters[key].nbytes for key in read)


@dataclass(frozen=True)
class Terms:
    """A sum of products of widths.

    Attributes:
        coefficient: ``(terms,)``.
        widths: ``(terms, factors, groups + 1)``: multiplicity of every group in each width; last the constant.
    """

    coefficient: Counts
    widths: Counts

    def value(self, counts: Counts) -> Counts:
        """The sum for ``(..., groups)`` kept slots, as ``(...,)``."""
        ones = np.ones((*counts.shape[:-1], 1), dtype=np.int64)
        widths = np.concatenate([counts, ones], -1) @ self.widths.reshape(-1, counts.shape[-1] + 1).T
        products = widths.reshape(*counts.shape[:-1], *self.widths.shape[:2]).prod(-1)
        total: Counts = products @ self.coefficient
        return total


@dataclass(frozen=True)
class CostModel:
    """Cost of the shrunken network from the number of slots each group keeps, without building it.

    Attributes:
        names: group names, the order of the last axis of counts.
        full: number of slots of every group.
        flop_terms, parameter_terms, byte_terms: the costs.
    """

    names: tuple[str, ...]
    full: tuple[int, ...]
    flop_terms: Terms
    parameter_terms: Terms
    byte_terms: Terms

    def flops(self, kept: Mapping[str, int]) -> int:
        """Multiply-adds when each named group keeps that many slots; the others stay whole."""
        return int(self.flop_terms.value(self.counts(kept)))

    def parameters(self, kept: Mapping[str, int]) -> int:
        """Stored numbers when each named group keeps that many slots; the others stay whole."""
        return int(self.parameter_terms.value(self.counts(kept)))

    def bytes(self, kept: Mapping[str, int]) -> int:
        """Stored bytes when each named group keeps that many slots; the others stay whole."""
        return int(self.byte_terms.value(self.counts(kept)))

    def counts(self, kept: Mapping[str, int]) -> Counts:
        """Kept slots as an array ``(groups,)`` in the order of `names`, for `Terms.value`.

        Raises:
            SelectionError: an unknown group, or a count outside 1 to the group's size.
        """
        full = dict(zip(self.names, self.full, strict=True))
        for name, count in kept.items():
            if not 1 <= count <= full.get(name, 0):
                raise SelectionError(f"group {name!r} cannot keep {count} of {full.get(name, 0)} slots")
        return np.array([kept.get(name, size) for name, size in full.items()], dtype=np.int64)


def cost_model(network: Network, groups: Sequence[ChannelGroup]) -> CostModel:
    """The cost of every network that `shrink` can make of this one."""
    axes = {value: axis for group in groups for value, axis in group.axes.items()}
    flops = [_flop_factors(network, node, axes) for node in network if node.op in ("linear", "conv")]
    parameters = [f for node, keys in _owned(network) for f in _parameter_factors(network, node, keys, axes)]
    stored = [
        [(network.parameters[key].itemsize, None), *factors]
        for node, keys in _owned(network, statistics=True)
        for key, factors in zip(keys, _parameter_factors(network, node, keys, axes), strict=True)
    ]
    names, full = tuple(group.name for group in groups), tuple(len(group.slots) for group in groups)
    return CostModel(names, full, *(_terms(t, groups) for t in (flops, parameters, stored)))


Factor = tuple[int, str | None]  # size of an axis, and the value whose channels it holds


def _flop_factors(network: Network, node: Node, axes: Mapping[str, int]) -> list[Factor]:
    weight = network.parameters_of(node)["weight"].shape
    sizes = [*zip(weight, followed(network, node, axes)["weight"], strict=True)]
    passed = axes.get(node.name) if node.op == "linear" and axes.get(node.name) != len(node.shape) - 1 else None
    return sizes + [(n, node.name if axis == passed else None) for axis, n in enumerate(_positions(node))]


def _parameter_factors(
    network: Network, node: Node, keys: Sequence[str], axes: Mapping[str, int]
) -> list[list[Factor]]:
    follows = followed(network, node, axes)
    roles = {key: role for role, key in node.parameters.items()}
    return [[*zip(network.parameters[key].shape, follows[roles[key]], strict=True)] for key in keys]


def _terms(products: Sequence[Sequence[Factor]], groups: Sequence[ChannelGroup]) -> Terms:
    moving = [[factor for factor in product if factor[1] is not None] for product in products]
    fixed = [math.prod(n for n, value in product if value is None) for product in products]
    widths = np.zeros((len(products), max(map(len, moving), default=0), len(groups) + 1), dtype=np.int64)
    widths[:, :, -1] = 1
    for term, factors in enumerate(moving):
        for i, (size, value) in enumerate(factors):
            widths[term, i, :-1] = [_multiplicity(group, value, size) for group in groups]
            widths[term, i, -1] = size - widths[term, i, :-1] @ [len(group.slots) for group in groups]
    return Terms(np.array(fixed, dtype=np.int64), widths)


def _multiplicity(group: ChannelGroup, value: str | None, size: int) -> int:
    """Positions below `size` that one slot fills in the value: the same for all slots of a group."""
    return sum(p < size for p in group.slots[0].positions.get(value or "", ()))


def _positions(node: Node) -> tuple[int, ...]:
    """Axes of the node's value that do not hold its output channels."""
    return node.shape[1:] if node.op == "conv" else node.shape[:-1]


def _owned(network: Network, statistics: bool = False) -> list[tuple[Node, list[str]]]:
    seen: set[str] = set()
    owned = []
    for node in network:
        left_out = _STATISTICS if node.op == "batch_norm" and not statistics else ()
        keys = [key for role, key in node.parameters.items() if role not in left_out]
        owned.append((node, [key for key in dict.fromkeys(keys) if key not in seen]))
        seen.update(keys)
    return owned


_STATISTICS = ("mean", "variance")
