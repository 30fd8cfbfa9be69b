"""One pass over a consumer's cached inputs and targets: its moments, part by part and fold by fold."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from provable.compensation.moments import Matrix, Moments, total
from provable.compensation.patches import Part, outputs, parts, unfold
from provable.compensation.row_offsets import applies, row_moments
from provable.compensation.target import Sum, Target
from provable.execution import Run
from provable.room import pieces
from verify.network.graph import Array, Network, Node

FOLDS = 2
"""Calibration images are dealt to folds by index: the ridge is judged on the fold that a fit did not see."""

CELLS = 1 << 23
"""Unfolded numbers held at a time: bounds memory, changes nothing else."""

Folds = tuple[Moments, ...]


@dataclass(frozen=True)
class Aim:
    """What a consumer should give, worked out for the images that are asked for.

    Attributes:
        value: (images, *shape) the target's value in the original.
        sum: the residual sum that the consumer feeds, or None.
        other: the compact network's other operand of the sum.
    """

    value: Array
    sum: Sum | None = None
    other: Array | None = None

    def __getitem__(self, images: slice) -> Array:
        if self.sum is None or self.other is None:
            return self.value[images]
        result: Array = self.sum.sign * (self.value[images] - self.sum.other_sign * self.other[images])
        return result


def sequential_moments(
    network: Network, target: Target, original: Run, compact: Run
) -> tuple[tuple[Folds, ...], float]:
    """Moments of (compact network's input, target), and the variance of the target's value in the original.

    Returns:
        Per part of the consumer the moments of each fold; the variance summed over channels.
    """
    node = network.node(target.consumer)
    x = compact.take(node.inputs[0]).numpy()
    aim = aim_of(target, original, compact)
    moments = tuple(by_fold(network, node, part, x, aim) for part in parts(network, node))
    return moments, variance(aim.value, channel_axis(node))


def aim_of(target: Target, original: Run, compact: Run) -> Aim:
    """What the consumer should give."""
    value = original.take(target.value).numpy()
    if target.sum is None:
        return Aim(value)
    return Aim(value, target.sum, compact.take(target.sum.other).numpy())


def by_fold(network: Network, node: Node, part: Part, x: Array, aim: Aim | None) -> Folds:
    """Moments of one part, one per fold; without an aim the targets are left out."""
    folds = min(FOLDS, len(x))
    return tuple(total(_chunks(network, node, part, x, aim, k, folds)) for k in range(folds))


def _chunks(
    network: Network, node: Node, part: Part, x: Array, aim: Aim | None, fold: int, folds: int
) -> Iterator[Moments]:
    kernel = network.parameters[node.parameters["weight"]].shape[2:]
    by_rows, step = applies(node, kernel), images_at_a_time(network, node, part)
    for piece in pieces(len(x), max(x.shape[1:], node.shape, key=math.prod), folds):
        own = slice(piece.start + fold, piece.stop, folds)
        inputs, targets = x[own], None if aim is None else aim[own]
        if by_rows:
            yield row_moments(node, part, kernel, inputs, targets)
            continue
        for start in range(0, len(inputs), step):
            chunk = slice(start, start + step)
            patches = unfold(node, part, kernel, inputs[chunk])
            values = np.zeros((0, patches.shape[1])) if targets is None else outputs(node, part, targets[chunk])
            yield Moments.of(patches.T, values.T)


def images_at_a_time(network: Network, node: Node, part: Part) -> int:
    """How many images' patches fit into `CELLS`, at least one."""
    positions = math.prod(node.shape[1:] if node.op == "conv" else node.shape[:-1])
    return max(1, CELLS // (part.dimension * positions))


def channel_axis(node: Node) -> int:
    """Axis of the output channels in a batch of the node's values."""
    return 1 if node.op == "conv" else len(node.shape)


def variance(values: Array, axis: int) -> float:
    """Variance over samples and positions of every channel, summed over channels."""
    return float(mean_and_variance(values, axis)[1].sum())


def mean_and_variance(values: Array, axis: int) -> tuple[Matrix, Matrix]:
    """Of every channel over samples and positions; pieces' deviations add up about their joint mean.

    Args:
        values: (samples, *shape).
        axis: of the channels.
    """
    count, mean, deviation = 0, np.zeros(values.shape[axis]), np.zeros(values.shape[axis])
    for piece in pieces(len(values), values.shape[1:]):
        rows = np.moveaxis(values[piece], axis, 0).reshape(values.shape[axis], -1)
        size, here = rows.shape[1], rows.mean(1, dtype=np.float64)
        shift, joint = here - mean, count + size
        deviation += rows.var(1, dtype=np.float64) * size + shift**2 * (count * size / joint)
        mean += shift * (size / joint)
        count = joint
    return mean, deviation / count
