"""Which filters are to become identical: clusters of channel slots, and what that says about every parameter.

A cluster of slots of a channel group is a set of rows in *every* parameter that holds those channels: the filters of
all producers (in a residual stage, of the pacesetter and of its followers), their biases, batch norm's scale and shift,
depthwise kernels. The pacesetter is the group's first producer; its flattened filters are clustered, the others follow.

Reference: Ding et al., Centripetal SGD, CVPR 2019. Theory: theory_notes/training.md. Not claimed: that k-means finds
the clusters of least variance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.cluster.vq
from numpy.typing import NDArray

from provable.channels import ChannelGroup
from provable.errors import TargetError
from provable.parameter_axes import followed
from verify.network.graph import Network

Clusters = tuple[tuple[int, ...], ...]
STATISTICS = ("mean", "variance")  # of batch norm: they follow the activations, no optimiser moves them


@dataclass(frozen=True)
class Collapse:
    """One parameter's part.

    Attributes:
        group: the channel group it belongs to (the last one, if its axis holds several).
        axis: the axis that holds the channels.
        labels: per position along the axis; positions with one label become identical.
        trained: whether an optimiser moves it; batch norm's running statistics follow by themselves.
    """

    group: str
    axis: int
    labels: tuple[int, ...]
    trained: bool


@dataclass(frozen=True)
class CollapsePlan:
    """Which slots become one.

    Attributes:
        clusters: group name -> its clusters, each ascending; the first member is the one that stays.
        collapses: parameter key -> its rows; parameters not named are free.
    """

    clusters: Mapping[str, Clusters]
    collapses: Mapping[str, Collapse]


def collapse_plan(
    network: Network,
    groups: Sequence[ChannelGroup],
    keep: float | Mapping[str, int],
    *,
    generator: np.random.Generator,
    even: bool = False,
) -> CollapsePlan:
    """Clusters for every group.

    Args:
        network: the network before training.
        groups: those that may lose channels.
        keep: share of each group's slots that stay (rounded up), or group name -> number of clusters.
        generator: starts k-means.
        even: clusters of consecutive slots instead of k-means.

    Raises:
        TargetError: a share or number that the group cannot have.
    """
    clusters = {}
    for group in groups:
        count = _count(group, keep)
        rows = _pacesetter(network, group)
        labels = np.arange(len(rows)) * count // len(rows) if even else _k_means(rows, count, generator)
        clusters[group.name] = tuple(tuple(np.flatnonzero(labels == i).tolist()) for i in range(count))
    return plan_of(network, groups, clusters)


def plan_of(network: Network, groups: Sequence[ChannelGroup], clusters: Mapping[str, Clusters]) -> CollapsePlan:
    """The plan of clusters chosen by the caller: a partition of the slots of every group named.

    Raises:
        TargetError: the clusters are not a partition of the group's slots.
    """
    collapses: dict[str, Collapse] = {}
    for group in groups:
        if group.name in clusters:
            _check_partition(group, clusters[group.name])
            _collapse(network, group, clusters[group.name], collapses)
    return CollapsePlan(dict(clusters), collapses)


def _count(group: ChannelGroup, keep: float | Mapping[str, int]) -> int:
    size = len(group.slots)
    if isinstance(keep, Mapping):
        count = keep.get(group.name, size)
    elif 0 < keep <= 1:
        count = math.ceil(keep * size)
    else:
        raise TargetError(f"keep is a share in (0, 1], got {keep!r}")
    if not 1 <= count <= size:
        raise TargetError(f"group {group.name!r} has {size} slots and cannot end in {count} clusters")
    return count


def _pacesetter(network: Network, group: ChannelGroup) -> NDArray[np.float64]:
    """(slots, numbers of all rows of the slot in the first producer's weight)."""
    node = network.node(group.producers[0])
    weight = network.parameters[node.parameters["weight"]].astype(np.float64)
    return np.stack([weight[list(slot.positions[node.name])].ravel() for slot in group.slots])


def _k_means(rows: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Labels with exactly `count` clusters: one that k-means left empty takes the row farthest from its own centre."""
    labels: NDArray[np.int64]
    centres, labels = scipy.cluster.vq.kmeans2(rows, count, minit="++", rng=generator, missing="warn", iter=20)
    labels = np.asarray(labels, dtype=np.int64)
    for empty in sorted(set(range(count)) - set(labels.tolist())):
        alone = np.bincount(labels, minlength=count)[labels] == 1
        distance = np.where(alone, -1.0, ((rows - centres[labels]) ** 2).sum(axis=1))
        labels[int(distance.argmax())] = empty
    return labels


def _check_partition(group: ChannelGroup, clusters: Clusters) -> None:
    members = sorted(slot for cluster in clusters for slot in cluster)
    if members != list(range(len(group.slots))) or not all(clusters):
        raise TargetError(
            f"clusters of group {group.name!r} must hold each of its {len(group.slots)} slots once, got {clusters!r}"
        )
    if len(clusters) < len(group.slots) and not group.removable:
        raise TargetError(f"group {group.name!r} must stay whole: {group.reason}")


def _collapse(network: Network, group: ChannelGroup, clusters: Clusters, found: dict[str, Collapse]) -> None:
    for name in group.axes:
        node = network.node(name) if name != network.input else None
        for role, axes in (followed(network, node, group.axes) if node else {}).items():
            key = node.parameters[role] if node else ""
            for axis in (a for a, value in enumerate(axes) if value == name):
                size = network.parameters[key].shape[axis]
                old = found[key].labels if key in found else range(size)
                labels = _labels(np.array(old), [[_held(group, s, name, size) for s in c] for c in clusters])
                found[key] = Collapse(group.name, axis, labels, role not in STATISTICS)


def _held(group: ChannelGroup, slot: int, value: str, size: int) -> list[int]:
    return [p for p in group.slots[slot].positions[value] if p < size]


def _labels(labels: NDArray[np.int64], clusters: Sequence[Sequence[Sequence[int]]]) -> tuple[int, ...]:
    for first, *others in clusters:
        for other in others:
            labels[list(other)] = labels[list(first)]
    return tuple(labels.tolist())
