"""The deviation of two networks on a domain cut in pieces: on several workers, and across restarts.

    whole boxes, briefly ─► pieces that are not decided are cut where their own search cut first ─► searched ─► cut ...

Each piece is one `verify_deviation` with a slice of the time. A finished piece is kept, in the checkpoint too, so that
a killed run loses at most what was under way. The bound of all is cover(root), where a cut piece has the better of its
own bound and the worse of its halves (theory_notes/branch_and_bound.md); the trees of the halves are grafted under it.

Not claimed: that the leaves are those of one undivided search; the verdict and the bounds hold all the same.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from verify.errors import SpecificationError
from verify.formal.backward.leaves import RULE as BACKWARD
from verify.formal.deviation import DeviationResult, verify_deviation
from verify.formal.forest import dyadic_between
from verify.formal.lift import align
from verify.formal.program import PairProgram
from verify.network.graph import Network
from verify.parallel.checkpoint import PieceResult, Pieces, load, question_hash, save
from verify.parallel.workers import Here, Workers, WorkersLost
from verify.spec.box import Box, Number, exact
from verify.spec.deviation import Decision, Leaf, Sign, Split, Tree, Verdict, count_leaves, preorder

FIRST_SLICE, SLICE = 2.0, 10.0  # seconds
PIECES_PER_WORKER = 4
FORWARD = PairProgram.rule
SEVERAL = "several rules"  # in the place of a rule: there is no certificate
SAVE_SECONDS = 1.0  # between two writes of the checkpoint


@dataclass(frozen=True)
class Task:
    """One piece to search; everything a worker needs."""

    original: Network
    compact: Network
    channels: Mapping[str, Any] | None
    box: Box
    part: tuple[Sign, ...]
    epsilon: Fraction | None
    seconds: float
    ratio: float
    floor: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """What is asked: as in `verify_deviation`."""

    epsilon: Fraction | None
    ratio: float
    floor: float

    def reached(self, upper: float, lower: float) -> bool:
        """Whether a piece with this bound needs no further work."""
        if self.epsilon is None:
            return upper <= max(self.ratio * lower, self.floor)
        return upper < math.inf and Fraction(upper) <= self.epsilon

    def refuted(self, lower: float) -> bool:
        """Whether an attained deviation settles the question."""
        return self.epsilon is not None and Fraction(lower) > self.epsilon


def verify_in_pieces(
    original: Network,
    compact: Network,
    boxes: Sequence[Box],
    *,
    epsilon: Number | None = None,
    channels: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    ratio: float = 1.2,
    floor: float = 0.0,
    workers: Workers | None = None,
    checkpoint: Path | None = None,
    slice_seconds: float = SLICE,
    seed: int = 0,
    **options: Any,
) -> DeviationResult:
    """As `verify_deviation`, on several workers, and continued from a checkpoint where there is one.

    Args:
        workers: where the pieces are searched; this process by default.
        checkpoint: file that keeps the state; if it exists the search continues from it. Left in place at the end.
        slice_seconds: time of one search on a piece.
        seed: of the attacks.
        options: further arguments of `verify_deviation` (`symbols`, `memory_limit`, `backward`, `attack`).

    Raises:
        MismatchError, SpecificationError, UnsupportedOperation: as `verify_deviation`.
        DataError: the checkpoint is damaged or about another question.
    """
    started = time.monotonic()
    if not boxes or not timeout > 0 or not slice_seconds > 0:
        raise SpecificationError(f"need a box and positive times, got {len(boxes)}, {timeout} and {slice_seconds}")
    goal = Goal(None if epsilon is None else exact(epsilon, "epsilon"), ratio, floor)
    align(original, compact, channels)
    question = question_hash(original, compact, boxes, channels, goal.epsilon)
    known = checkpoint is not None and checkpoint.exists()
    pieces = load(checkpoint, question, boxes) if checkpoint and known else Pieces(question, tuple(boxes))
    run = _Run(original, compact, channels, pieces, goal, workers or Here(), checkpoint, started, timeout)
    run.options, run.slice_seconds, run.seed = options, slice_seconds, seed
    run.work()
    return run.result()


def search_piece(task: Task) -> PieceResult:
    """One search on one piece; runs on a worker."""
    options = dict(task.options)
    generator = np.random.default_rng(options.pop("seed", 0))
    found = verify_deviation(
        task.original, task.compact, [task.box], epsilon=task.epsilon, channels=task.channels, timeout=task.seconds,
        ratio=task.ratio, floor=task.floor, generator=generator, part=task.part, **options,
    )  # fmt: skip
    return PieceResult(
        found.upper, found.lower, found.witness, found.output, found.per_output_upper, found.trees[0],
        found.boxes_bounded, found.rule, int(found.parameters["symbols"]), found.seconds,
    )  # fmt: skip


@dataclass
class _Run:
    original: Network
    compact: Network
    channels: Mapping[str, Any] | None
    pieces: Pieces
    goal: Goal
    workers: Workers
    checkpoint: Path | None
    started: float
    timeout: float
    options: Mapping[str, Any] | None = None
    slice_seconds: float = SLICE
    seed: int = 0
    saved: float = -math.inf
    lost: bool = False

    def work(self) -> None:
        """Search the open pieces, cut those that stay open, until the question is settled or time is up."""
        while not self.settled():
            names = self.open()
            if not names:
                break
            if all(name in self.pieces.results for name in names):
                self.cut(names)
                names = self.open()
            fresh = [name for name in names if name not in self.pieces.results]
            if not fresh:
                break
            try:
                self.search(sorted(fresh, key=self.pieces.upper, reverse=True))
            except WorkersLost:
                self.lost = True
        self.save(force=True)

    def settled(self) -> bool:
        """Refuted, out of time, or without workers."""
        return self.lost or self.left() <= 0.0 or self.goal.refuted(self.lower())

    def left(self) -> float:
        return self.timeout - (time.monotonic() - self.started)

    def lower(self) -> float:
        return max((r.lower for r in self.pieces.results.values()), default=0.0)

    def open(self) -> list[str]:
        """Pieces that are not decided."""
        lower = self.lower()
        return [name for name in self.pieces.leaves() if not self.goal.reached(self.pieces.upper(name), lower)]

    def search(self, names: Sequence[str]) -> None:
        """One round: every named piece gets a slice, in parallel; stops early when the question is settled."""
        rounds = -(-len(names) // self.workers.count)
        first = any(name.rstrip("lh") == name for name in names)
        most = min(FIRST_SLICE, self.slice_seconds) if first else self.slice_seconds
        seconds = max(min(most, self.left() / (rounds if first else min(rounds, 4))), 1e-3)
        tasks = [self.task(name, seconds) for name in names]
        with closing(self.workers.each(search_piece, tasks)) as results:
            for position, found in results:
                self.pieces.results[names[position]] = found
                self.save()
                if self.settled():
                    return

    def task(self, name: str, seconds: float) -> Task:
        floor = max(self.goal.floor, self.goal.ratio * self.lower())
        options = {**(self.options or {}), "seed": [self.seed, len(name), *name.encode()]}
        box, part = self.pieces.box(name), self.pieces.part(name)
        epsilon, ratio = self.goal.epsilon, self.goal.ratio
        return Task(self.original, self.compact, self.channels, box, part, epsilon, seconds, ratio, floor, options)

    def cut(self, names: Sequence[str]) -> None:
        """Cut open pieces until there are enough of them for all workers, each at least once."""
        wanted = max(2 * len(names), PIECES_PER_WORKER * self.workers.count)
        trees = {name: self.pieces.results[name].tree for name in names}
        queue = list(names)
        while queue and len(queue) < wanted:
            queue.sort(key=lambda n: len(preorder(trees[n])) / (1 + len(n)), reverse=True)
            name = queue.pop(0)
            cut = _cut_of(self.pieces, name, trees[name])
            if cut is None:
                wanted -= 1
                continue
            self.pieces.splits[name] = replace(cut, low=Leaf(), high=Leaf())
            trees[name + "l"], trees[name + "h"] = cut.low, cut.high
            queue += [name + "l", name + "h"]

    def save(self, force: bool = False) -> None:
        """Write the checkpoint, at most once per `SAVE_SECONDS` unless forced."""
        now = time.monotonic()
        if self.checkpoint is not None and (force or now - self.saved >= SAVE_SECONDS):
            save(self.checkpoint, self.pieces)
            self.saved = now

    def result(self) -> DeviationResult:
        """What all pieces prove together."""
        pieces, upper = self.evidence()
        chosen = _chosen(pieces, upper)
        best = max(self.pieces.results.values(), key=lambda r: r.lower, default=None)
        lower = 0.0 if best is None else best.lower
        trees = tuple(_grafted(pieces, str(i), chosen) for i in range(len(pieces.boxes)))
        used = [pieces.results[name] for name in chosen if name in pieces.results]
        verdict = Verdict.UNKNOWN
        if self.goal.refuted(lower):
            verdict = Verdict.REFUTED
        elif upper < math.inf and (self.goal.epsilon is None or Fraction(upper) <= self.goal.epsilon):
            verdict = Verdict.PROVED
        per_output = [r.per_output_upper for r in used] if len(used) == len(chosen) else []
        outputs = math.prod(self.original.output_shape)
        rule, symbols = _common_rule(used)
        return DeviationResult(
            verdict=verdict, epsilon=self.goal.epsilon, upper=upper, lower=lower,
            witness=None if best is None else best.witness, output=None if best is None else best.output,
            per_output_upper=tuple(np.max(per_output, axis=0).tolist()) if per_output else (math.inf,) * outputs,
            trees=trees, leaves=sum(map(count_leaves, trees)),
            boxes_bounded=sum(r.bounded for r in self.pieces.results.values()), rule=rule,
            parameters={"symbols": symbols}, seconds=time.monotonic() - self.started,
            lift=align(self.original, self.compact, self.channels), words=self.words(verdict, upper, lower),
        )  # fmt: skip

    def evidence(self) -> tuple[Pieces, float]:
        """The results to rest on and their bound: those of one rule where they suffice, for a certificate."""
        kinds: dict[tuple[str, int], dict[str, PieceResult]] = {}
        for name, result in self.pieces.results.items():
            rule = FORWARD if result.rule == BACKWARD else result.rule  # the backward rule shows what that one shows
            kinds.setdefault((rule, result.symbols), {})[name] = result
        upper = _bound(self.pieces)
        for results in kinds.values():
            alone = replace(self.pieces, results=results)
            bound = _bound(alone)
            if bound <= upper or (self.goal.epsilon is not None and self.goal.reached(bound, 0.0)):
                return alone, bound
        return self.pieces, upper

    def words(self, verdict: Verdict, upper: float, lower: float) -> str:
        lost = " Workers were lost again and again; the search stopped early." if self.lost else ""
        return (
            f"For every input of the domain the outputs differ by at most {upper:.6g} (searched in "
            f"{len(self.pieces.leaves())} pieces); a deviation of {lower:.6g} is attained. {verdict.value}.{lost} "
            "This is about real arithmetic, not about rounding on a device, nor about other inputs."
        )


def _cut_of(pieces: Pieces, name: str, tree: Tree) -> Split | Decision | None:
    """How to cut: as the piece's own search did, else the widest input in the middle; None where that cannot be."""
    if not isinstance(tree, Leaf):
        return tree
    if pieces.part(name):
        return None
    box, root = pieces.box(name), pieces.boxes[int(name.rstrip("lh"))]
    widths = [
        (high - low) / (most - least) if most > least else Fraction(0)
        for low, high, least, most in zip(box.lower, box.upper, root.lower, root.upper, strict=True)
    ]
    dimension = max(range(len(widths)), key=widths.__getitem__)
    low, high = (v[dimension : dimension + 1] for v in box.outward())
    at = Fraction(float(dyadic_between(low, high)[0]))
    if not box.lower[dimension] < at < box.upper[dimension]:
        return None
    return Split(dimension, at, Leaf(), Leaf())


def _bound(pieces: Pieces) -> float:
    """The largest cover of a root: per piece the best bound that its own result or those of its halves show."""
    cover: dict[str, float] = {}
    for name in sorted({*pieces.leaves(), *pieces.splits}, key=len, reverse=True):
        own = pieces.results[name].upper if name in pieces.results else math.inf
        halves = max(cover[name + "l"], cover[name + "h"]) if name in pieces.splits else math.inf
        cover[name] = min(own, halves)
    return max(cover[str(i)] for i in range(len(pieces.boxes)))


def _chosen(pieces: Pieces, bound: float) -> list[str]:
    """The pieces whose own trees together show a bound, the largest ones that do."""
    chosen, pending = [], [str(i) for i in range(len(pieces.boxes))]
    while pending:
        name = pending.pop()
        own = pieces.results.get(name)
        if name in pieces.splits and not (own is not None and own.upper <= bound):
            pending += [name + "l", name + "h"]
        else:
            chosen.append(name)
    return chosen


def _grafted(pieces: Pieces, root: str, chosen: Sequence[str]) -> Tree:
    """One tree for a root: cuts down to the chosen pieces, then their own trees."""
    final, trees = set(chosen), dict[str, Tree]()
    pending = [(root, False)]
    while pending:
        name, closing_now = pending.pop()
        if name in final:
            trees[name] = pieces.results[name].tree if name in pieces.results else Leaf()
        elif closing_now:
            trees[name] = replace(pieces.splits[name], low=trees.pop(name + "l"), high=trees.pop(name + "h"))
        else:
            pending += [(name, True), (name + "l", False), (name + "h", False)]
    return trees[root]


def _common_rule(used: Sequence[PieceResult]) -> tuple[str, int]:
    """A rule that shows every leaf, or `SEVERAL` where there is none."""
    rules, symbols = {r.rule for r in used}, {r.symbols for r in used}
    if rules == {FORWARD, BACKWARD}:
        rules = {BACKWARD}
    if len(rules) != 1 or len(symbols) != 1:
        return SEVERAL, min(symbols, default=0)
    return rules.pop(), symbols.pop()
