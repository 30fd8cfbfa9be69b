"""One streaming pass over the calibration inputs: everything later stages know of the data.

For every consumer of a prunable group, over its unfolded input x (theory_notes/compensation.md):

    n, sum x, sum x x^T            float64, from which every loss after compensation follows
    variance of the stream it feeds, the unit in which losses of different layers compare
    sensitivity s_j                largest relative importance of each channel (theory_notes/sensitivity_sampling.md)

and the digests of the inputs, so that later evidence can prove that it used other inputs. The statistics do not depend
on how the inputs were cut into batches.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provable.channels import ChannelGroup
from provable.compensation.collect import by_fold, channel_axis, images_at_a_time, variance
from provable.compensation.consumers import Reading, readings
from provable.compensation.moments import Matrix, Moments, total
from provable.compensation.patches import Part, parts, unfold
from provable.compensation.target import Target, affine_map, target_of
from provable.execution import Run
from provable.sensitivity.record import Sensitivity
from provable.sensitivity.relative_importance import relative_importance_per_image
from verify.network.graph import Array, Network, Node
from verify.statistical.disjoint import row_hashes


@dataclass(frozen=True)
class ConsumerStatistics:
    """What one consumer reads and feeds, in the original network.

    Attributes:
        target: the value behind the consumer and the affine ops between.
        moments: per part of the consumer, moments of (x, gain (W x + b) + offset).
        stream: variance of the target's value, summed over its channels.
    """

    target: Target
    moments: tuple[Moments, ...]
    stream: float


@dataclass(frozen=True)
class Statistics:
    """What one pass over the calibration inputs leaves behind.

    Attributes:
        samples: number of inputs.
        digest: SHA-256 over the inputs' bits, in order.
        rows: SHA-256 of every input.
        consumers: node name -> statistics.
        sensitivities: group name -> sensitivity of its slots, the maximum over its consumers.
    """

    samples: int
    digest: str
    rows: tuple[str, ...]
    consumers: Mapping[str, ConsumerStatistics]
    sensitivities: Mapping[str, Sensitivity]


def observe(
    network: Network,
    inputs: Tensor,
    groups: Sequence[ChannelGroup],
    *,
    sensitivity_images: int | None = None,
    progress: Callable[[str], None] = lambda node: None,
) -> Statistics:
    """Statistics of every consumer of the groups.

    Args:
        network: the original.
        inputs: (samples, *input_shape) float32, as `provable.calibration` returns them.
        groups: the groups that may lose channels.
        sensitivity_images: measure relative importances on that many of the inputs, the first ones (the slowest
            part of the pass). None: on all.
        progress: called with each consumer's name when it is done.
    """
    read = readings(groups)
    names = [node.name for node in network if node.name in read]
    targets = {name: target_of(network, name) for name in names}
    run = Run(network, inputs, [v for name in names for v in (network.node(name).inputs[0], targets[name].value)])
    consumers, found = {}, dict[str, Sensitivity]()
    for name in names:
        node = network.node(name)
        x = run.take(node.inputs[0]).numpy()
        for reading in read[name] if sensitivity_images != 0 else ():
            seen = _sensitivity(network, node, reading, x[:sensitivity_images])
            found[reading.group] = _larger(found[reading.group], seen) if reading.group in found else seen
        consumers[name] = _statistics(network, node, targets[name], x, run)
        progress(name)
    return Statistics(len(inputs), *fingerprints(inputs), consumers, found)


def fingerprints(inputs: Tensor) -> tuple[str, tuple[str, ...]]:
    """SHA-256 over the inputs' bits, in order, and of every input."""
    data = inputs.numpy()
    return hashlib.sha256(np.ascontiguousarray(data, dtype="<f4").data).hexdigest(), tuple(row_hashes(data))


def _statistics(network: Network, node: Node, target: Target, x: Array, run: Run) -> ConsumerStatistics:
    weight, bias = affine_map(network, target)
    moments = []
    for part in parts(network, node):
        data = total(by_fold(network, node, part, x, None))
        moments.append(Moments.linear(data.count, data.sum_x, data.gram, weight[part.rows], bias[part.rows]))
    return ConsumerStatistics(target, tuple(moments), variance(run.take(target.value).numpy(), channel_axis(node)))


def _sensitivity(network: Network, node: Node, reading: Reading, x: Array) -> Sensitivity:
    """Sensitivity of one group's slots at one consumer; coordinates of other channels count, each on its own."""
    weight = network.parameters[node.parameters["weight"]].astype(np.float64)
    scores = Sensitivity.empty(len(reading.positions))
    members = parts(network, node)
    step = images_at_a_time(network, node, members[0])
    for start in range(0, len(x), step):
        images = x[start : start + step]
        importance = np.zeros((len(images), len(reading.positions)))
        for part in members:
            flat = weight[part.rows].reshape(len(weight[part.rows]), -1)
            patches = unfold(node, part, weight.shape[2:], images)
            importance = np.maximum(importance, _importance(part, reading, flat, patches, len(images)))
        scores = scores.then(Sensitivity.of(importance))
    return scores


def _importance(part: Part, reading: Reading, weight: Matrix, patches: Matrix, images: int) -> Matrix:
    """Relative importance per image (images, slots); patches (d, images x positions)."""
    index = _padded_blocks(part, reading)
    w = np.concatenate([weight, np.zeros((len(weight), 1))], axis=1)[:, index]  # (n, slots + rest, size)
    x = np.concatenate([patches, np.zeros((1, patches.shape[1]))])[index]  # (slots + rest, size, images x positions)
    x = x.reshape(*x.shape[:2], images, -1).transpose(2, 0, 1, 3)
    g = relative_importance_per_image(torch.from_numpy(w), torch.from_numpy(np.ascontiguousarray(x)))
    return g[:, : len(reading.positions)].numpy()


def _padded_blocks(part: Part, reading: Reading) -> NDArray[np.intp]:
    """Coordinates per slot, then every other coordinate alone, padded with the index of a zero column."""
    owned = [part.coordinates(positions) for positions in reading.positions]
    rest = np.setdiff1d(np.arange(part.dimension), np.concatenate(owned))
    size = max(len(block) for block in owned) or 1
    index = np.full((len(owned) + len(rest), size), part.dimension, dtype=np.intp)
    for row, block in enumerate([*owned, *rest[:, None]]):
        index[row, : len(block)] = block
    return index


def _larger(first: Sensitivity, second: Sensitivity) -> Sensitivity:
    """Maximum over two consumers that saw the same images."""
    rises = second.scores > first.scores
    return Sensitivity(
        np.where(rises, second.scores, first.scores), first.images, np.where(rises, second.holders, first.holders)
    )
