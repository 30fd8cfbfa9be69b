"""Which weights of which consumers the channel groups own: the bridge from groups to least-squares coordinates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provable.channels import ChannelGroup
from provable.compensation.moments import Regression
from provable.compensation.patches import Part, parts
from provable.compensation.target import Target, affine_map
from provable.selection.greedy_elimination import View
from verify.network.graph import Network


@dataclass(frozen=True)
class Reading:
    """How one consumer node reads one group.

    Attributes:
        group: the group's name.
        positions: per slot, positions along the channel axis of the node's input.
    """

    group: str
    positions: tuple[tuple[int, ...], ...]


def readings(groups: Iterable[ChannelGroup]) -> dict[str, tuple[Reading, ...]]:
    """Consumer node -> the groups it reads."""
    found: dict[str, tuple[Reading, ...]] = {}
    for group in groups:
        for consumer in group.consumers:
            reading = Reading(group.name, consumer.positions)
            found[consumer.node] = (*found.get(consumer.node, ()), reading)
    return found


def kept_coordinates(part: Part, read: Sequence[Reading], kept: Mapping[str, Sequence[int]]) -> NDArray[np.intp]:
    """Coordinates of a part's patch that stay when each group in `kept` keeps those slots (other groups stay whole)."""
    stays = np.ones(part.dimension, dtype=bool)
    for reading in read:
        if reading.group in kept:
            staying = set(kept[reading.group])
            for slot, positions in enumerate(reading.positions):
                stays[part.coordinates(positions)] = slot in staying
    return np.flatnonzero(stays)


def blocks(part: Part, reading: Reading) -> NDArray[np.intp] | None:
    """(slots, size) coordinates per slot, or None where slots differ in size within this part."""
    per_slot = [part.coordinates(positions) for positions in reading.positions]
    if len({len(block) for block in per_slot}) != 1 or not len(per_slot[0]):
        return None
    return np.stack(per_slot)


def views(
    network: Network, target: Target, reading: Reading, problems: Sequence[Regression], scale: float
) -> list[View]:
    """What selection sees of a group at one consumer: one view per part that reads all of its slots alike."""
    found = []
    weight, _ = affine_map(network, target)
    for part, problem in zip(parts(network, network.node(target.consumer)), problems, strict=True):
        index = blocks(part, reading)
        if index is not None:
            found.append(View(problem, index, scale, weight[part.rows]))
    return found
