"""Does a network satisfy a VNN-LIB property: is no input of the boxes unsafe?

A box is unsafe in the way d if all of d's inequalities hold for the outputs. A sub-box is proved if every way has an
inequality that surely fails:  ``c y <= b`` fails if c y > b, the strict ``c y < b`` already if c y >= b.

Inequalities are scaled to integer coefficients, so that the appended rows are exact; bounds are compared with the exact
b. Theory: theory_notes/questions.md, section 5.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.errors import MismatchError, SpecificationError
from verify.network.graph import Network
from verify.questions.outputs import ORIGINAL, Outputs, Ranges, float_above, float_below, with_rows
from verify.questions.search import Answer, Judgement, answer
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.spec.vnnlib import Inequality, Property

Ways = tuple[tuple[Inequality, ...], ...]


@dataclass(frozen=True)
class Unsafe:
    """The question for one network and one box.

    Attributes:
        ways: the ways of being unsafe, each a tuple of row numbers.
        fails_from: per row the smallest float from which on the inequality fails.
        holds_to: per row the largest float up to which it holds.
    """

    outputs: Outputs
    ways: tuple[tuple[int, ...], ...]
    fails_from: Tensor
    holds_to: Tensor

    def judge(self, ranges: Ranges) -> Judgement:
        """Proved where every way has an inequality that fails."""
        lower = ranges.lower[ORIGINAL]
        fails = lower >= self.fails_from
        gap = torch.nan_to_num(self.fails_from - lower, nan=torch.inf)
        best = [gap[:, list(way)].min(dim=1) for way in self.ways]
        rows = torch.stack(
            [torch.tensor(way)[b.indices] for way, b in zip(self.ways, best, strict=True)], dim=1
        )  # (batch, ways)
        excluded = torch.stack([fails[:, list(way)].any(1) for way in self.ways], dim=1)
        need = torch.where(excluded, -torch.inf, torch.stack([b.values for b in best], dim=1))
        worst = need.max(dim=1)
        row = rows.gather(1, worst.indices[:, None])[:, 0]
        return Judgement(excluded.all(1), worst.values.clamp(min=1e-300), torch.zeros_like(row), row)

    def violated(self, ranges: Ranges) -> bool:
        """All inequalities of some way surely hold."""
        holds = ranges.upper[ORIGINAL][0] <= self.holds_to
        return any(bool(holds[list(way)].all()) for way in self.ways)

    def score(self, values: Sequence[Tensor]) -> Tensor:
        """Slack of the way that is closest to unsafe."""
        slack = self.holds_to - values[0]
        return torch.stack([slack[:, list(way)].amin(1) for way in self.ways], dim=1).amax(1)


def unsafe(network: Network, ways: Ways) -> Unsafe:
    """The question for the ways of one box; every way has at least one inequality.

    Raises:
        MismatchError: an inequality names an output the network lacks.
        SpecificationError: coefficients that no integers below 2^53 represent.
        UnsupportedOperation: a node has no bound propagation rule.
    """
    size, limits, ways_rows = math.prod(network.output_shape), [], []
    rows: list[NDArray[np.float64]] = []
    for way in ways:
        ways_rows.append(tuple(range(len(rows), len(rows) + len(way))))
        for inequality in way:
            row, factor = _integers(inequality, size)
            rows.append(row)
            limits.append((inequality.bound * factor, inequality.strict))
    outputs = Outputs.of_one(with_rows(network, np.array(rows)))
    fails, holds = ([f(b, strict) for b, strict in limits] for f in (_fails_from, _holds_to))
    return Unsafe(outputs, tuple(ways_rows), *(torch.tensor(v, dtype=torch.float64) for v in (fails, holds)))


def prove_property(
    network: Network, wanted: Property, *, seconds: float = 60.0, generator: np.random.Generator | None = None
) -> Answer:
    """Decide a property: PROVED if no input is unsafe, REFUTED with an unsafe input, else UNKNOWN.

    The boxes of the property are worked on one after the other, each with an equal share of the time that is left.

    Raises:
        MismatchError: numbers of inputs or outputs differ.
        SpecificationError, UnsupportedOperation: as `unsafe` and `answer`.
    """
    if wanted.inputs != math.prod(network.input_shape) or wanted.outputs > math.prod(network.output_shape):
        raise MismatchError(
            f"the property has {wanted.inputs} inputs and {wanted.outputs} outputs, the network "
            f"{network.input_shape} and {network.output_shape}"
        )
    started, found = time.monotonic(), []
    for count, box in enumerate(wanted.boxes):
        left = max(seconds - (time.monotonic() - started), 1e-3) / (len(wanted.boxes) - count)
        found.append(_one_box(network, wanted, box, left, generator))
        if found[-1].verdict is Verdict.REFUTED:
            break
    return replace(_together(found, len(wanted.boxes)), seconds=time.monotonic() - started)


def _one_box(
    network: Network, wanted: Property, box: Box, seconds: float, generator: np.random.Generator | None
) -> Answer:
    ways = tuple(d.outputs for d in wanted.disjuncts if d.box == box)
    if not all(ways):  # no condition on the outputs: every input of the box is unsafe
        return Answer(Verdict.REFUTED, box.lower, 0.0, 1, 1, 0, "separate", 0.0, "")
    return answer(unsafe(network, ways), [box], seconds=seconds, generator=generator)


def _together(found: Sequence[Answer], boxes: int) -> Answer:
    """One answer for all boxes."""
    order = (Verdict.REFUTED, Verdict.UNKNOWN, Verdict.PROVED)
    verdict = next(v for v in order if any(a.verdict is v for a in found))
    share = 1.0 if verdict is Verdict.PROVED else min(sum(a.share for a in found) / boxes, 1.0 - 2.0**-53)
    return Answer(
        verdict, found[-1].witness, share, sum(a.leaves for a in found), sum(a.open for a in found),
        sum(a.bounded for a in found), found[0].rule, 0.0,
        next((a.reason for a in found if a.verdict is verdict), ""),
    )  # fmt: skip


def _integers(inequality: Inequality, size: int) -> tuple[NDArray[np.float64], Fraction]:
    """A row of integers and the positive factor that makes it of the inequality's coefficients."""
    values = [value for _, value in inequality.coefficients]
    scale = math.lcm(*(v.denominator for v in values))
    shrink = math.gcd(*(int(v * scale) for v in values))
    factor, row = Fraction(scale, shrink), np.zeros(size)
    for index, value in inequality.coefficients:
        if index >= size:
            raise MismatchError(f"the property speaks of Y_{index}, the network has {size} outputs")
        if abs(value * factor) > 2**53:
            raise SpecificationError(f"coefficients {[str(v) for v in values[:4]]} need integers beyond 2^53")
        row[index] = float(value * factor)
    return row, factor


def _fails_from(bound: Fraction, strict: bool) -> float:
    """The smallest float v such that ``y >= v`` excludes ``y <= bound`` (``y < bound`` where strict)."""
    return float_above(bound) if strict else math.nextafter(float_below(bound), math.inf)


def _holds_to(bound: Fraction, strict: bool) -> float:
    """The largest float v such that ``y <= v`` implies ``y <= bound`` (``y < bound`` where strict)."""
    return math.nextafter(float_above(bound), -math.inf) if strict else float_below(bound)
