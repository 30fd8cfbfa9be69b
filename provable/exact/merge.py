"""Neurons that always fire and are affine functions of others that always fire: one computes what the other did.

For inputs of a domain on which neurons A of a layer are always active, relu(W_A x + b_A) = W_A x + b_A. With a basis
B of the rows of W_A, W_R = C W_B for the rest R, and

    V_B y_B + V_R y_R = (V_B + V_R C) y_B + V_R (b_R - C b_B).

So R leaves, its consumers take the change, and the function stays the same in real arithmetic; the consumers' new
weights are rounded to their dtype once. Reference: Serra, Kumar & Ramalingam 2020. Theory:
theory_notes/exact_pruning.md. Not claimed: that the rounding is zero; a certificate states what it costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from provable.channels import ChannelGroup
from provable.compensation.refit import moved, with_new_bias
from verify.network.graph import Network, Node

Matrix = NDArray[np.float64]

TOLERANCE = 1e-9  # relative size of what may count as linearly dependent
GROWTH = 100.0  # larger coefficients would magnify rounding: such neurons stay


@dataclass(frozen=True)
class Dependence:
    """``W_rest = coefficients W_basis`` and ``b_rest = coefficients b_basis + offset``, row indices into W."""

    basis: tuple[int, ...]
    rest: tuple[int, ...]
    coefficients: Matrix
    offset: Matrix


def dependence(weight: Matrix, bias: Matrix, rows: Sequence[int]) -> Dependence:
    """A basis of the given rows of a weight, by QR with column pivoting, and the other rows in terms of it."""
    if not rows:
        return Dependence((), (), np.zeros((0, 0)), np.zeros(0))
    order = np.asarray(rows)
    upper, pivots = scipy.linalg.qr(weight[order].T, mode="r", pivoting=True)
    diagonal = np.abs(np.diag(upper))
    rank = int(np.sum(diagonal > TOLERANCE * max(float(diagonal.max(initial=0.0)), np.finfo(float).tiny)))
    solved = scipy.linalg.solve_triangular(upper[:rank, :rank], upper[:rank, rank:]) if rank else upper[:0, rank:]
    tame = np.abs(solved).max(axis=0, initial=0.0) <= GROWTH
    basis, rest, coefficients = order[pivots[:rank]], order[pivots[rank:]][tame], solved.T[tame]
    return Dependence(
        tuple(basis.tolist()), tuple(rest.tolist()), coefficients, bias[rest] - coefficients @ bias[basis]
    )


def mergeable(network: Network, group: ChannelGroup) -> bool:
    """Whether the group is the neurons of a dense layer with its own ReLU, read by dense layers only."""
    producers, consumers = [network.node(name) for name in group.producers], [c.node for c in group.consumers]
    if not (group.inner and len(producers) == 1 and producers[0].op == "linear" and len(producers[0].shape) == 1):
        return False
    if any(slot.positions[producers[0].name] != (i,) for i, slot in enumerate(group.slots)):
        return False
    return all(_reads_relu_of(network, network.node(name), producers[0]) for name in consumers)


def _reads_relu_of(network: Network, consumer: Node, producer: Node) -> bool:
    source = next((n for n in network if n.name == consumer.inputs[0]), None)
    return consumer.op == "linear" and source is not None and source.op == "relu" and source.inputs == (producer.name,)


def merged(network: Network, group: ChannelGroup, active: Sequence[int]) -> tuple[Network, tuple[int, ...]]:
    """The network in which consumers read the dependent ones of the active neurons no more, and which those are."""
    producer = network.node(group.producers[0])
    weight = network.parameters[producer.parameters["weight"]].astype(np.float64)
    found = dependence(weight, _bias(network, producer), active)
    for consumer in group.consumers if found.rest else ():
        network = _redirected(network, network.node(consumer.node), found)
    return network, found.rest


def _bias(network: Network, node: Node) -> Matrix:
    rows = node.shape[-1]
    return (
        network.parameters[node.parameters["bias"]].astype(np.float64) if "bias" in node.parameters else np.zeros(rows)
    )


def _redirected(network: Network, consumer: Node, found: Dependence) -> Network:
    key = consumer.parameters["weight"]
    old = network.parameters[key]
    weight = old.astype(np.float64)
    leaving = weight[:, list(found.rest)]
    weight[:, list(found.basis)] += leaving @ found.coefficients
    weight[:, list(found.rest)] = 0.0
    network = network.with_parameters({key: weight.astype(old.dtype)})
    change = leaving @ found.offset
    if "bias" in consumer.parameters:
        return moved(network, consumer, "bias", change)
    return with_new_bias(network, consumer, change)
