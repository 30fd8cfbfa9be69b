"""Search for an input of a box on which two networks deviate most. A find is a fact; no find proves nothing.

random and corner points ─► best starts for every output and sign ─► signed-gradient ascent in one batch
    ─► hops: the best points disturbed and climbed from again ─► coordinate search
    ─► rounded to float32 inside the box ─► replayed in float64

The reported deviation is the one that `verify.network.evaluate` computes at the reported input alone.
Not claimed: that no larger deviation exists, or that a float32 run shows the same one. The replay is rounded: a
deviation of the size of float64 rounding (1e-15 of the outputs) may be nothing else.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.empirical.ascent import Deadline, Objective, Pair, ascend, disturbed, polish, random_points
from verify.empirical.measure import check_comparable, compare
from verify.errors import MismatchError, SpecificationError
from verify.network.graph import Network
from verify.spec.box import Box

Floats = NDArray[np.float64]
OBJECTIVES = 32  # outputs and signs worked on, those with the largest sampled deviations
PART = 256  # samples evaluated between two looks at the clock
HOPPING = 24  # points that are disturbed together
POLISH_ROUNDS = 30
POLISH_EVALUATIONS = 12_000


@dataclass(frozen=True)
class Attack:
    """The largest deviation found.

    Attributes:
        deviation: ``max_i |original(input) - compact(input)|_i``, replayed in float64.
        output: the output that deviates most; `sign` is +1 if the original is the larger one there.
        input: ``(dimension,)`` flat float64; every coordinate is a float32 number wherever the box holds one.
        inside: the input lies in the exact box (false only if some coordinate's interval holds no float64).
        per_output: ``(m,)`` largest replayed deviation of every output, over all candidates.
        evaluations: pairs of outputs computed.
        seconds: time taken.
    """

    deviation: float
    output: int
    sign: int
    input: Floats
    inside: bool
    per_output: Floats
    evaluations: int
    seconds: float


def attack_deviation(
    original: Network,
    compact: Network,
    box: Box,
    *,
    generator: np.random.Generator,
    samples: int = 1000,
    steps: int = 25,
    restarts: int = 4,
    hops: int = 6,
    seconds: float | None = None,
    dtype: torch.dtype | None = None,
) -> Attack:
    """Largest deviation found in `box`.

    Args:
        box: domain over the flattened input.
        generator: source of the random points.
        samples: random and corner points tried first, at least 1.
        steps: gradient steps per start; 0 for random search only.
        restarts: starts for every output and sign.
        hops: times the best points are disturbed and climbed from again.
        seconds: stop searching after that time (the replay comes on top); None for no limit.
        dtype: of the search, by default float32 for convolutions and float64 otherwise; the replay is float64.

    Raises:
        MismatchError: networks and box do not fit together.
        SpecificationError: a count is out of range.
    """
    began, deadline = time.monotonic(), Deadline.after(seconds)
    plan = _Plan(samples, steps, restarts, hops)
    _check(original, compact, box)
    dtype = dtype or _search_dtype(original)
    bounds = box.inner()
    low, high = (torch.from_numpy(bound).to(dtype) for bound in bounds)
    pair, soft = Pair.of(original, compact, dtype), Pair.softened(original, compact, dtype)
    search = _Search(pair, soft, low, high, deadline)
    found, evaluations = search.run(plan, generator)
    points = np.clip(found.to(torch.float64).numpy().astype(np.float32).astype(np.float64), *bounds)
    attack = _replayed(original, compact, box, points)
    return replace(attack, evaluations=evaluations + len(points), seconds=time.monotonic() - began)


def attack_batch(
    pair: Pair, low: Tensor, high: Tensor, *, generator: np.random.Generator, samples: int = 8, steps: int = 8
) -> tuple[Tensor, Tensor]:
    """One quick search in each of many boxes, all at once.

    Args:
        low, high: ``(boxes, inputs)`` in the pair's dtype.
        samples: random and corner points per box.
        steps: gradient steps, on the output that deviates most among the samples.

    Returns:
        Points ``(boxes, inputs)`` inside their boxes and the deviations there ``(boxes,)``, not replayed.
    """
    rows = len(low)
    trials = torch.cat([random_points(generator, low, high, samples), (0.5 * (low + high))[None]])
    differences = pair.differences(trials.reshape(-1, low.shape[1])).reshape(len(trials), rows, -1)
    top = differences.abs().permute(1, 0, 2).reshape(rows, -1).argmax(dim=1)
    sample, output = top // differences.shape[2], top % differences.shape[2]
    row = torch.arange(rows)
    sign = torch.where(differences[sample, row, output] < 0, -1.0, 1.0).to(low.dtype)
    return ascend(pair, trials[sample, row], low, high, Objective(output, sign), steps=steps, deadline=Deadline(None))


@dataclass(frozen=True)
class _Plan:
    """How much to search, as in `attack_deviation`."""

    samples: int
    steps: int
    restarts: int
    hops: int

    def __post_init__(self) -> None:
        if self.samples < 1 or self.steps < 0 or self.restarts < 1 or self.hops < 0:
            raise SpecificationError(f"need samples, restarts >= 1 and steps, hops >= 0; got {self}")


@dataclass(frozen=True)
class _Climb:
    """Points ``(rows, inputs)``, their values ``(rows,)`` and objectives, and what they cost."""

    points: Tensor
    values: Tensor
    objective: Objective
    evaluations: int

    def best(self, count: int) -> "_Climb":
        top = self.values.argsort(descending=True)[:count]
        return _Climb(self.points[top], self.values[top], self.objective.rows(top), self.evaluations)


@dataclass(frozen=True)
class _Search:
    """One box of one pair."""

    pair: Pair
    soft: Pair
    low: Tensor
    high: Tensor
    deadline: Deadline

    def run(self, plan: _Plan, generator: np.random.Generator) -> tuple[Tensor, int]:
        """Candidates ``(rows, inputs)`` for the replay, and the number of evaluations (an upper bound)."""
        points = random_points(generator, self.low[None], self.high[None], plan.samples)[:, 0]
        points = torch.cat([points, (0.5 * (self.low + self.high))[None]])
        differences = torch.cat(list(self._evaluated(points)))
        points = points[: len(differences)]
        sampled = points[differences.abs().amax(dim=1).argmax()][None]
        if not plan.steps or self.deadline.passed:
            return sampled, len(points)
        climb = self._climbed(*_starts(points, differences, plan.restarts), plan.steps)
        for _ in range(plan.hops):
            if self.deadline.passed:
                break
            climb = self._hopped(climb.best(HOPPING), generator, plan.steps)
        polished = self._polished(climb)
        return torch.cat([sampled, climb.points, polished.points]), len(points) + polished.evaluations

    def _evaluated(self, points: Tensor) -> Iterator[Tensor]:
        """Differences in parts; at least the first part, then until the deadline."""
        for i in range(0, len(points), PART):
            if i and self.deadline.passed:
                return
            yield self.pair.differences(points[i : i + PART])

    def _ascended(self, pair: Pair, start: Tensor, objective: Objective, steps: int) -> _Climb:
        low, high = self.low.expand_as(start), self.high.expand_as(start)
        points, values = ascend(pair, start, low, high, objective, steps=steps, deadline=self.deadline)
        return _Climb(points, values, objective, len(start) * (steps + 1))

    def _climbed(self, starts: Tensor, objective: Objective, steps: int) -> _Climb:
        """From the starts, and from where the softened pair leads the starts."""
        led = self._ascended(self.soft, starts, objective, steps // 2)
        both = objective.rows(torch.arange(len(starts)).repeat(2))
        climb = self._ascended(self.pair, torch.cat([starts, led.points]), both, steps)
        return replace(climb, evaluations=climb.evaluations + led.evaluations)

    def _hopped(self, climb: _Climb, generator: np.random.Generator, steps: int) -> _Climb:
        """Every point, or what a disturbance of it climbs to if that is better."""
        moved = disturbed(generator, climb.points, self.low, self.high)
        new = self._ascended(self.pair, moved, climb.objective, (steps + 1) // 2)
        better = new.values > climb.values
        points = torch.where(better[:, None], new.points, climb.points)
        values = torch.where(better, new.values, climb.values)
        return _Climb(points, values, climb.objective, climb.evaluations + new.evaluations)

    def _polished(self, climb: _Climb) -> _Climb:
        """Coordinate search from the best rows, as many as a fixed number of evaluations allows."""
        moves = 4 * climb.points.shape[1]
        rows = max(1, POLISH_EVALUATIONS // (POLISH_ROUNDS * moves))
        rounds = min(POLISH_ROUNDS, POLISH_EVALUATIONS // (rows * moves))
        if not rounds or self.deadline.passed:
            return climb
        best = climb.best(rows)
        points, values = polish(
            self.pair, best.points, self.low, self.high, best.objective, rounds=rounds, deadline=self.deadline
        )
        return _Climb(points, values, best.objective, climb.evaluations + len(points) * rounds * moves)


def _starts(points: Tensor, differences: Tensor, restarts: int) -> tuple[Tensor, Objective]:
    """The best sampled points for each of the most promising outputs and signs."""
    outputs = differences.shape[1]
    signed = torch.cat([differences, -differences], dim=1)  # (samples, 2 outputs)
    chosen = signed.amax(dim=0).argsort(descending=True)[:OBJECTIVES]
    count = min(restarts, len(points))
    rows = signed[:, chosen].topk(count, dim=0).indices.T.reshape(-1)
    kinds = chosen.repeat_interleave(count)
    sign = torch.where(kinds < outputs, 1.0, -1.0).to(points.dtype)
    return points[rows], Objective(kinds % outputs, sign)


def _replayed(original: Network, compact: Network, box: Box, points: Floats) -> Attack:
    """The best point, evaluated once more alone: in a batch the last bits can differ."""
    together = compare(original, compact, points)
    point = points[together.worst]
    alone = compare(original, compact, point[None])
    gap = (alone.original - alone.compact)[0]
    output = int(np.abs(gap).argmax())
    return Attack(
        deviation=alone.deviation,
        output=output,
        sign=1 if gap[output] >= 0 else -1,
        input=point,
        inside=box.contains(point),
        per_output=together.per_output,
        evaluations=0,
        seconds=0.0,
    )


def _search_dtype(network: Network) -> torch.dtype:
    """Convolutions are several times faster in float32."""
    return torch.float32 if any(node.op == "conv" for node in network.nodes) else torch.float64


def _check(original: Network, compact: Network, box: Box) -> None:
    check_comparable(original, compact)
    inputs = int(np.prod(original.input_shape, dtype=int))
    if box.dimension != inputs:
        raise MismatchError(f"the box has {box.dimension} coordinates, the networks take {inputs} inputs")
