"""One pass over a consumer's cached inputs and targets: its moments, part by part and fold by fold."""

import math
from collections.abc import Iterator

import numpy as np

from provable.compensation.moments import Moments, total
from provable.compensation.offset_moments import is_same_3x3, offset_moments
from provable.compensation.patches import Part, outputs, parts, unfold
from provable.compensation.row_offsets import applies, row_moments
from provable.compensation.target import Target
from provable.execution import Run
from verify.network.graph import Array, Network, Node

FOLDS = 2
"""Calibration images are dealt to folds by index: the ridge is judged on the fold that a fit did not see."""

CELLS = 1 << 23
"""Unfolded numbers held at a time: bounds memory, changes nothing else."""

SINGLE_FROM = 1 << 13
"""Patches in a fold from which 3 x 3 products run in single precision: their rounding (relative 1e-7) is then far below
the sampling error of the moments themselves (relative 1 / sqrt(patches))."""

Folds = tuple[Moments, ...]


def sequential_moments(
    network: Network, target: Target, original: Run, compact: Run
) -> tuple[tuple[Folds, ...], float]:
    """Moments of (compact network's input, target), and the variance of the target's value in the original.

    Returns:
        Per part of the consumer the moments of each fold; the variance summed over channels.
    """
    node = network.node(target.consumer)
    x = compact.take(node.inputs[0]).numpy()
    aim, value = aim_of(target, original, compact)
    moments = tuple(by_fold(network, node, part, x, aim) for part in parts(network, node))
    return moments, variance(value, channel_axis(node))


def aim_of(target: Target, original: Run, compact: Run) -> tuple[Array, Array]:
    """What the consumer should give for every sample, and the target's value in the original."""
    value = original.take(target.value).numpy()
    if target.sum is None:
        return value, value
    return target.sum.sign * (value - target.sum.other_sign * compact.take(target.sum.other).numpy()), value


def by_fold(network: Network, node: Node, part: Part, x: Array, aim: Array | None) -> Folds:
    """Moments of one part, one per fold; without an aim the targets are left out."""
    folds = min(FOLDS, len(x))
    return tuple(
        total(_chunks(network, node, part, x[k::folds], None if aim is None else aim[k::folds])) for k in range(folds)
    )


def _chunks(network: Network, node: Node, part: Part, x: Array, aim: Array | None) -> Iterator[Moments]:
    kernel = network.parameters[node.parameters["weight"]].shape[2:]
    single = len(x) * math.prod(node.shape[1:]) >= SINGLE_FROM
    step = images_at_a_time(network, node, part)
    for start in range(0, len(x), step):
        chunk = slice(start, start + step)
        if single and is_same_3x3(node, kernel):
            yield offset_moments(part, x[chunk], None if aim is None else aim[chunk])
            continue
        if applies(node, kernel):
            yield row_moments(node, part, kernel, x[chunk], None if aim is None else aim[chunk])
            continue
        patches = unfold(node, part, kernel, x[chunk])
        values = np.zeros((0, patches.shape[1])) if aim is None else outputs(node, part, aim[chunk])
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
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return float(sum(np.var(row, dtype=np.float64) for row in rows))
