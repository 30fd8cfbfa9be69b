"""Branch and bound on the inputs for any question that rigorous ranges can decide on a small enough sub-box.

    ranges of a sub-box ─► Question.judge: proved there, or how far from it and which input matters
    ranges of a point   ─► Question.violated: a counterexample, rigorously

Anytime and sound: PROVED when every leaf is proved, REFUTED when a point of the domain violates, UNKNOWN otherwise,
with the share of the domain that is proved. Theory: theory_notes/questions.md, section 2. Not claimed: that every
question ends; on a boundary that the question allows but bounds cannot tell apart, the search runs until its time.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from verify.errors import MismatchError, SpecificationError
from verify.formal.forest import REMEMBERED, Forest, Found, Index
from verify.formal.program import EVERY_SYMBOL
from verify.formal.symbols import MemoryLimit, TimeLimit
from verify.network.module import NetworkModule
from verify.questions.outputs import Outputs, Ranges
from verify.spec.box import Box
from verify.spec.deviation import Verdict

BATCH = 512
MEMORY_LIMIT = 2**31
SAMPLES = 2000
CLIMBS, STEPS = 32, 25
PROBES = 32  # sub-boxes per round whose middle is tried


@dataclass(frozen=True)
class Judgement:
    """What ranges say about a batch of sub-boxes.

    Attributes:
        proved: ``(batch,)`` bool, the claim holds at every point.
        excess: ``(batch,)`` how far from proved, for the order of the search alone.
        form, row: ``(batch,)`` the range that stands in the way most.
    """

    proved: Tensor
    excess: Tensor
    form: Tensor
    row: Tensor


class Question(Protocol):
    """A claim about every point of a domain."""

    @property
    def outputs(self) -> Outputs:
        """The networks, with the question's rows appended."""

    def judge(self, ranges: Ranges) -> Judgement:
        """Which sub-boxes are proved."""

    def violated(self, ranges: Ranges) -> bool:
        """Whether the ranges at a single point show that the claim fails there."""

    def score(self, values: Sequence[Tensor]) -> Tensor:
        """``(batch,)``, positive where the claim seems to fail; `values` of the networks, ``(batch, rows)`` each."""


@dataclass(frozen=True)
class Answer:
    """What a search established.

    Attributes:
        verdict: about the claim on the whole domain.
        witness: an exact point of the domain at which the claim fails, for REFUTED.
        share: part of the domain's volume that is proved, an estimate in float64 (1.0 only for PROVED).
        leaves, open: sub-boxes at the end, and those among them that are not proved.
        bounded: sub-boxes bounded on the way.
        rule: "pair_zonotope" or "separate".
        seconds: time taken.
        reason: why the search stopped without a verdict, else empty.
    """

    verdict: Verdict
    witness: tuple[Fraction, ...] | None
    share: float
    leaves: int
    open: int
    bounded: int
    rule: str
    seconds: float
    reason: str


def answer(
    question: Question,
    boxes: Sequence[Box],
    *,
    seconds: float = 60.0,
    generator: np.random.Generator | None = None,
    symbols: int = EVERY_SYMBOL,
    memory_limit: int = MEMORY_LIMIT,
    batch: int = BATCH,
) -> Answer:
    """Decide a question on the union of some boxes.

    Args:
        seconds: time after which no further work is begun.
        generator: random numbers of the search for counterexamples; a fixed one by default.
        symbols: budget of error symbols per sub-box; 0 gives intervals.
        memory_limit: bytes of generators that one step may hold; beyond it fewer sub-boxes at once.
        batch: sub-boxes between two choices of what to split.

    Raises:
        MismatchError: a box does not fit the networks.
        SpecificationError: no box, or no time.
    """
    size = math.prod(question.outputs.networks[0].input_shape)
    if not boxes or not seconds > 0:
        raise SpecificationError(f"need at least one box and a positive time, got {len(boxes)} and {seconds}")
    for box in boxes:
        if box.dimension != size:
            raise MismatchError(f"a box has {box.dimension} coordinates, the networks take {size}")
    search = _Search(question, tuple(boxes), time.monotonic(), seconds, symbols, memory_limit, batch)
    search.run(generator or np.random.default_rng(0))
    return search.result()


@dataclass
class _Search:
    question: Question
    boxes: tuple[Box, ...]
    started: float
    seconds: float
    symbols: int
    memory_limit: int
    batch: int
    chunk: int = 64
    bounded: int = 0
    witness: tuple[Fraction, ...] | None = None
    reason: str = ""
    forest: Forest = field(init=False)
    modules: tuple[NetworkModule, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.forest = Forest(self.boxes, 1)
        networks = self.question.outputs.networks
        self.modules = tuple(NetworkModule(n, torch.float64).requires_grad_(False) for n in networks)

    def run(self, generator: np.random.Generator) -> None:
        """Bound the boxes, look for counterexamples, split until the question is settled or time is up."""
        self._bound(np.arange(len(self.boxes)))
        self._sample(generator)
        while self.witness is None and not self.reason:
            nodes = self.forest.worst_open(0.0, max(1, self.batch // 2))
            if not len(nodes):
                break
            done, lows = self.forest.split(nodes)
            fresh = nodes[~done & np.isinf(self.forest.own[nodes])]
            self._bound(np.sort(np.concatenate([lows, lows + 1, fresh])))

    def _late(self) -> bool:
        return time.monotonic() - self.started >= self.seconds

    def _bound(self, nodes: Index) -> None:
        """Judge nodes in batches that fit the memory; a single one that does not is left open."""
        start = 0
        while start < len(nodes) and self.witness is None:
            if self._late():
                self.reason = f"the time of {self.seconds:g} s is over"
                return
            part = nodes[start : start + self.chunk]
            try:
                self._judge(part)
            except TimeLimit:
                self.reason = f"the time of {self.seconds:g} s is over"
                return
            except (MemoryLimit, MemoryError, RuntimeError) as error:
                start += self._smaller(error, part)
            else:
                start += len(part)
                self.chunk = min(2 * self.chunk, self.batch)

    def _smaller(self, error: Exception, part: Index) -> int:
        """After a lack of memory: how many nodes to skip."""
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise error
        if self.chunk > 1:
            self.chunk = max(1, min(self.chunk, len(part)) // 2)
            return 0
        self.forest.stuck[part] = True
        return len(part)

    def _judge(self, part: Index) -> None:
        low, high = (torch.from_numpy(a[part]) for a in (self.forest.lower, self.forest.upper))
        deadline = self.started + self.seconds
        ranges = self.question.outputs.ranges(
            low, high, symbols=self.symbols, bytes_limit=self.memory_limit, deadline=deadline
        )
        found = self.question.judge(ranges)
        influence = ranges.influence(found.form, found.row, high - low)
        self.forest.record(part, _found(found, influence))
        self.bounded += len(part)
        self._probe(low, high, found)

    def _probe(self, low: Tensor, high: Tensor, found: Judgement) -> None:
        """Try the middles of the worst sub-boxes."""
        hard = (~found.proved).nonzero()[:, 0]
        if len(hard):
            hard = hard[found.excess[hard].argsort(descending=True)[:PROBES]]
            self._try(0.5 * (low[hard] + high[hard]))

    def _sample(self, generator: np.random.Generator) -> None:
        """Random and corner points of every box that is not proved, then climbs from the best of them."""
        for number, box in enumerate(self.boxes):
            if self.witness is not None or self._late() or self.forest.effective[number] <= 0.0:
                continue
            low, high = (torch.from_numpy(v) for v in box.inner())
            count = max(CLIMBS, SAMPLES // len(self.boxes))
            share = torch.from_numpy(generator.random((count, box.dimension)))
            share[: count // 2] = share[: count // 2].round()
            points = torch.clamp(low + share * (high - low), low, high)
            score = self._score(points)
            best = points[score.argsort(descending=True)[:CLIMBS]]
            self._try(torch.cat([best[:4], self._climbed(best, low, high)]))

    def _score(self, points: Tensor) -> Tensor:
        shapes = [n.input_shape for n in self.question.outputs.networks]
        values = [m(points.reshape(-1, *s)).reshape(len(points), -1) for m, s in zip(self.modules, shapes, strict=True)]
        return torch.nan_to_num(self.question.score(values), nan=-math.inf)

    def _climbed(self, points: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Signed-gradient ascent of the score; every row halves its step when it gets no better."""
        step, best = torch.full((len(points), 1), 0.5, dtype=torch.float64), points.clone()
        value = self._score(best).detach()
        for _ in range(STEPS):
            if self._late() or bool((value > 0.0).any()):
                break
            x = best.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._score(x).sum(), x, allow_unused=True)
            if gradient is None:
                break
            trial = torch.clamp(best + step * (high - low) * gradient.sign(), low, high)
            scored = self._score(trial).detach()
            better = scored > value
            best[better], value[better] = trial[better], scored[better]
            step[~better] *= 0.5
        return best

    def _try(self, points: Tensor) -> None:
        """Replay the most promising points rigorously until one violates the claim."""
        with torch.no_grad():
            score = self._score(points)
        for i in score.argsort(descending=True)[:4].tolist():
            if self.witness is None and float(score[i]) >= 0.0:
                self._replay(points[i].numpy())

    def _replay(self, point: np.ndarray) -> None:
        inside = min(
            (box.nearest(point) for box in self.boxes),
            key=lambda p: max(abs(a - Fraction(float(b))) for a, b in zip(p, point, strict=True)),
        )
        low, high = (torch.from_numpy(v)[None] for v in Box(inside, inside).outward())
        if self.question.violated(self.question.outputs.ranges(low, high, symbols=0)):
            self.witness = inside

    def result(self) -> Answer:
        """The record of what is established now."""
        leaves = self.forest.leaves()
        opened = leaves[~(self.forest.effective[leaves] <= 0.0)]
        verdict, reason = Verdict.UNKNOWN, self.reason
        if self.witness is not None:
            verdict, reason = Verdict.REFUTED, ""
        elif not len(opened):
            verdict, reason = Verdict.PROVED, ""
        elif not reason:
            reason = "the remaining sub-boxes cannot be split or bounded (too thin, too much memory, or not finite)"
        return Answer(
            verdict, self.witness, _share(self.forest, opened), len(leaves), len(opened), self.bounded,
            self.question.outputs.program.rule, time.monotonic() - self.started, reason,
        )  # fmt: skip


def _found(found: Judgement, influence: Tensor) -> Found:
    excess = torch.where(found.proved, 0.0, found.excess.clamp(min=1e-300).nan_to_num(nan=math.inf))
    own = excess.numpy()
    top = influence.topk(min(REMEMBERED, influence.shape[1]), dim=1)
    pad = (0, REMEMBERED - top.values.shape[1])
    return Found(
        own,
        own[:, None],
        torch.nn.functional.pad(top.indices, pad).numpy(),
        torch.nn.functional.pad(torch.nan_to_num(top.values), pad).numpy(),
    )


def _share(forest: Forest, opened: Index) -> float:
    """Part of the roots' volume outside the open leaves; coordinates without width are left out, roots count alike."""
    if not len(opened):
        return 1.0
    parent = np.zeros(forest.count, dtype=np.int64)
    for node in np.flatnonzero(forest.child[: forest.count]):
        low = forest.child[node]
        parent[[low, low + 1]] = parent[node] if node >= forest.roots else node
    roots = np.where(opened < forest.roots, opened, parent[opened])
    width = forest.upper[roots] - forest.lower[roots]
    ratio = np.where(
        width > 0.0, (forest.upper[opened] - forest.lower[opened]) / np.where(width > 0.0, width, 1.0), 1.0
    )
    return float(min(max(0.0, 1.0 - ratio.prod(axis=1).sum() / forest.roots), 1.0 - 2.0**-53))
