"""Is the deviation at most a share of the range of the original's outputs on the domain?

    claim:  |f_i - g_i| <= s (max f_i - min f_i)  for every output i

The range is attained from inside (values at points, enclosed rigorously) and bounded from outside (sub-boxes). The
claim is proved with the inner range and refuted with the outer one, so neither depends on how far apart they are.
Theory: theory_notes/questions.md, section 6.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verify.errors import SpecificationError
from verify.formal.forest import Forest, Found
from verify.network.evaluate import evaluate
from verify.network.graph import Network
from verify.questions.outputs import ORIGINAL, Outputs
from verify.questions.per_output import PerOutput
from verify.spec.box import Box, Number, exact

Floats = NDArray[np.float64]
POINTS = 4000
ROUND = 128  # sub-boxes
CLOSE = 0.01  # of the inner range; nearer than that the outer range is not refined


@dataclass(frozen=True)
class OutputRange:
    """Smallest and largest value of every output on a domain, from inside and outside, each ``(outputs,)``.

    Attributes:
        inner_lower, inner_upper: values attained, rounded towards each other.
        outer_lower, outer_upper: proved bounds.
    """

    inner_lower: Floats
    inner_upper: Floats
    outer_lower: Floats
    outer_upper: Floats

    def inner(self) -> tuple[Fraction, ...]:
        """Widths surely reached, at least 0."""
        pairs = zip(self.inner_lower.tolist(), self.inner_upper.tolist(), strict=True)
        return tuple(max(Fraction(0), Fraction(high) - Fraction(low)) for low, high in pairs)

    def outer(self) -> tuple[Fraction | None, ...]:
        """Widths surely not exceeded; None where nothing is proved."""
        pairs = zip(self.outer_lower.tolist(), self.outer_upper.tolist(), strict=True)
        return tuple(Fraction(b) - Fraction(a) if math.isfinite(b - a) else None for a, b in pairs)


def output_range(
    network: Network, boxes: Sequence[Box], *, seconds: float = 10.0, generator: np.random.Generator | None = None
) -> OutputRange:
    """Ranges of a network's outputs on the union of some boxes.

    Args:
        seconds: for the refinement of the outer range; every box is bounded once in any case.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    started, outputs = time.monotonic(), Outputs.of_one(network)
    low, high = _attained(outputs, network, boxes, generator or np.random.default_rng(0))
    forest = Forest(boxes, 2 * len(low))
    nodes = np.arange(len(boxes))
    while len(nodes):
        _bound(outputs, forest, nodes, low, high)
        if time.monotonic() - started >= seconds:
            break
        worst = forest.worst_open(CLOSE, ROUND)
        nodes = np.zeros(0, dtype=np.int64)
        while len(worst) and not len(nodes):
            _, lows = forest.split(worst)
            nodes = np.sort(np.concatenate([lows, lows + 1]))
            worst = forest.worst_open(CLOSE, ROUND)
    ends = forest.per_output[forest.leaves()].max(axis=0)
    return OutputRange(low, high, -ends[len(low) :], ends[: len(low)])


def _attained(
    outputs: Outputs, network: Network, boxes: Sequence[Box], generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Extremes over random and corner points, enclosed; the points of the sampled extremes alone are enclosed."""
    count = max(8, POINTS // len(boxes))
    points = np.concatenate([_points(box, generator, count) for box in boxes])
    values = evaluate(network, points.reshape(-1, *network.input_shape)).reshape(len(points), -1)
    owner = np.repeat(np.arange(len(boxes)), len(points) // len(boxes))
    chosen = np.unique(np.concatenate([values.argmin(axis=0), values.argmax(axis=0)]))
    exact_points = [boxes[owner[i]].nearest(points[i]) for i in chosen]
    ends = [Box(p, p).outward() for p in exact_points]
    low, high = (torch.from_numpy(np.stack([end[i] for end in ends])) for i in (0, 1))
    ranges = outputs.ranges(low, high, symbols=0)
    least, most = ranges.upper[ORIGINAL].amin(0).numpy(), ranges.lower[ORIGINAL].amax(0).numpy()
    return least, most


def _points(box: Box, generator: np.random.Generator, count: int) -> Floats:
    low, high = box.inner()
    share = generator.random((count, box.dimension))
    share[: count // 2] = share[: count // 2].round()
    return np.clip(low + share * (high - low), low, high)


def _bound(outputs: Outputs, forest: Forest, nodes: NDArray[np.int64], inner_low: Floats, inner_high: Floats) -> None:
    """Bound some nodes, recording upper bounds of ``(f, -f)`` and how far they exceed the inner range."""
    width = np.maximum(inner_high - inner_low, 1e-300)
    low, high = (torch.from_numpy(a[nodes]) for a in (forest.lower, forest.upper))
    ranges = outputs.ranges(low, high)
    above, below = ranges.upper[ORIGINAL].numpy(), ranges.lower[ORIGINAL].numpy()
    excess = np.concatenate([(above - inner_high) / width, (inner_low - below) / width], axis=1)
    row = torch.from_numpy(excess.argmax(axis=1) % len(width))
    influence = ranges.influence(torch.zeros_like(row), row, high - low)
    top = influence.topk(min(4, influence.shape[1]), dim=1)
    pad = (0, 4 - top.values.shape[1])
    dimension, weight = (torch.nn.functional.pad(t, pad).numpy() for t in (top.indices, top.values))
    forest.record(nodes, Found(excess.max(axis=1), np.concatenate([above, -below], axis=1), dimension, weight))


def relative(
    original: Network,
    compact: Network,
    share: Number,
    boxes: Sequence[Box],
    channels: Mapping[str, Any] | None = None,
    *,
    seconds: float = 10.0,
) -> tuple[PerOutput, OutputRange]:
    """The question, and the ranges it rests on; `seconds` go into the ranges.

    Raises:
        SpecificationError: the share is negative.
        MismatchError, UnsupportedOperation: as `Outputs.of_pair`.
    """
    s = exact(share, "share")
    if s < 0:
        raise SpecificationError(f"the share must not be negative, got {float(s)}")
    pair = Outputs.of_pair(original, compact, channels)
    found = output_range(original, boxes, seconds=seconds)
    refuting = tuple(None if width is None else s * width for width in found.outer())
    return PerOutput(pair, tuple(s * width for width in found.inner()), refuting), found
