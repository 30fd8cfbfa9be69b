"""ReLU outputs that are zero for every input of a domain, and those that are positive for every input.

Serra, Kumar & Ramalingam, Lossless compression of deep neural networks, 2020. The bounds are those of the backward
pass over one network on pieces that cover each box, so both facts are proved in real arithmetic. Nothing is claimed
outside the domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.formal.backward.bound import analyse
from verify.formal.backward.tape import record_separate
from verify.network.graph import Network
from verify.spec.box import Box

TOGETHER = 64  # pieces bounded at a time


@dataclass(frozen=True)
class Stable:
    """What is known of one ReLU's elements, arrays of the value's shape.

    Attributes:
        inactive: the output is 0 for every input of the domain.
        active: the output is above 0 for every input of the domain.
    """

    inactive: NDArray[np.bool_]
    active: NDArray[np.bool_]


def stable_elements(network: Network, boxes: Sequence[Box], *, pieces: int = 1) -> dict[str, Stable]:
    """ReLU node -> its elements that do not change side on the union of the boxes.

    Args:
        pieces: into how many parts each box is cut (rounded down to a power of two); more parts decide more elements.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    tape, _ = record_separate(network, network)
    nodes = {node.name: node for node in network.nodes if node.op == "relu"}
    everything = {name: np.ones(node.shape, dtype=np.bool_) for name, node in nodes.items()}
    inactive, active = dict(everything), dict(everything)
    for box in boxes:
        for low, high in _batches(*_pieces(box, pieces)):
            known = analyse(tape, low, high)
            for name, node in nodes.items():
                z = known[tape.names[name]].z
                inactive[name] = inactive[name] & (z.upper <= 0.0).all(0).numpy().reshape(node.shape)
                active[name] = active[name] & (z.lower > 0.0).all(0).numpy().reshape(node.shape)
    return {name: Stable(inactive[name], active[name]) for name in nodes}


def inactive_elements(network: Network, box: Box) -> dict[str, NDArray[np.bool_]]:
    """ReLU node -> array of the value's shape, True where the output is zero on the whole box.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    return {name: stable.inactive for name, stable in stable_elements(network, [box]).items()}


def _pieces(box: Box, count: int) -> tuple[Tensor, Tensor]:
    """Lower and upper ends (pieces, inputs) of parts that cover the box: halved along the longest side."""
    low, high = (torch.from_numpy(end)[None] for end in box.outward())
    while 2 * len(low) <= count and bool((high > low).any()):
        longest = int((high - low)[0].argmax())
        middle = (low[:, longest] + high[:, longest]) / 2
        left, right = high.clone(), low.clone()
        left[:, longest], right[:, longest] = middle, middle
        low, high = torch.cat([low, right]), torch.cat([left, high])
    return low, high


def _batches(low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(low[i : i + TOGETHER], high[i : i + TOGETHER]) for i in range(0, len(low), TOGETHER)]
