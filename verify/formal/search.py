"""Branch and bound over sub-boxes: the worst ones are split in two at the input that matters most, then bounded.

Sub-boxes are bounded by forward zonotopes. A search that does not end quickly turns to the rule "pair_backward" where
the auditor knows it: what is still open is bounded once more, backward, before it is split. The rule takes the better
of both, so sub-boxes that zonotopes settled stay settled. With many inputs halving one of them gains next to nothing:
there the signs of arguments of ReLUs are decided instead. Theory: theory_notes/branch_and_bound.md, relu_splits.md.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from verify.empirical.ascent import Pair
from verify.empirical.attack import Attack
from verify.formal.backward.leaves import RULE, LeafBounds
from verify.formal.backward.phases import Parts, Phases
from verify.formal.forest import REMEMBERED, Floats, Forest, Found, Index
from verify.formal.program import Bounds, Program
from verify.formal.symbols import MemoryLimit, TimeLimit
from verify.network.graph import Network
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Sign, Tree

Progress = Callable[[float, float, float, int], None]
Attacker = Callable[..., Attack]

CACHE_BYTES = 2**23  # generators of one value that a batch may hold: far beyond the cache everything is slower
LARGEST_CHUNK = 512
ROUND_SECONDS = 1.0  # of work between two choices of what to split
RESERVE = 0.04  # leaves are pushed this far below epsilon: an auditor's other roundings choose other slopes
SPARE = 1.25, 1.0  # how long for, once epsilon is proved: times the time that took, and seconds
ATTACK_SHARE = 0.15  # of the time
MANY_INPUTS = 64  # from here on splitting gains little, and boxes are bounded backward at once
PATIENCE = 256  # sub-boxes bounded by zonotopes before the search turns to backward bounds
WORTH = 2.5  # backward bounds cost what splitting does that improves zonotopes by about this factor
MOST_GAIN = 100.0
REMEMBERED_BOXES = 16
ASK_AGAIN = 8  # rounds between two trials of backward bounds where they were not worth their time


@dataclass(frozen=True)
class Goal:
    """When the search is over."""

    epsilon: Fraction | None
    ratio: float
    floor: float

    def refuted(self, lower: float) -> bool:
        return self.epsilon is not None and Fraction(lower) > self.epsilon

    def proved(self, upper: float) -> bool:
        return upper < math.inf and (self.epsilon is None or Fraction(upper) <= self.epsilon)

    def target(self, lower: float) -> float:
        """Leaves with a bound up to this need no split."""
        if self.epsilon is None:
            return max(self.ratio * lower, self.floor)
        return float(self.epsilon) * (1.0 - RESERVE)


@dataclass
class Search:
    """A search under way."""

    original: Network
    compact: Network
    boxes: tuple[Box, ...]
    program: Program
    goal: Goal
    symbols: int
    memory_limit: int
    batch_size: int
    sharper: LeafBounds | None = None
    part: tuple[Sign, ...] = ()  # of the only box, which is searched alone
    started: float = 0.0
    timeout: float = 0.0
    progress: Progress | None = None
    lower: float = 0.0
    witness: tuple[Fraction, ...] | None = None
    output: int | None = None
    bounded: int = 0
    chunk: int = 1
    speed: float = 64.0
    exhausted: bool = False
    gain: float = math.inf  # zonotope over backward bound, median of late
    rounds: int = 0
    proved_after: float = math.inf  # seconds
    phases: dict[int, Phases] = field(default_factory=dict)  # of the boxes last used
    forest: Forest = field(init=False)
    pair: Pair = field(init=False)

    def __post_init__(self) -> None:
        self.forest = Forest(self.boxes, math.prod(self.original.output_shape))
        self.pair = Pair.of(self.original, self.compact)

    def run(self, attack: Attacker | None, generator: np.random.Generator) -> None:
        """Bound the boxes, then split until the question is settled or time is up."""
        self._bound_roots()
        if self.part:
            self._begin_part()
        if attack is not None:
            self._attack(attack, generator)
        while not self._settled():
            nodes = self._next_nodes()
            if nodes is None:
                break
            began = time.monotonic()
            self._bound(nodes[np.isinf(self.forest.own[nodes]) & ~self.forest.decides(nodes)])
            if self._turned:
                decided = self.forest.decides(nodes)
                self._sharpen(nodes[~decided])
                self._decide(nodes[decided])
            self.rounds += 1
            if self.goal.epsilon is not None and self.goal.proved(self.forest.bound()):
                self.proved_after = min(self.proved_after, self.elapsed())
            self.speed = max(1.0, len(nodes) / max(time.monotonic() - began, 1e-6))
            if self.progress is not None:
                self.progress(self.elapsed(), self.forest.bound(), self.lower, len(self.forest.leaves()))

    def _bound_roots(self) -> None:
        """Bound the boxes themselves, all of them with symbols or all of them without."""
        symbols = None
        while symbols != self.symbols:
            symbols, self.bounded = self.symbols, 0
            self._bound(np.arange(len(self.boxes)))

    def _begin_part(self) -> None:
        """Go down to the part that is searched; bounds of the whole box hold on it as well."""
        phases, node = self._phases(0), 0
        self._sharpen(np.array([node]))
        for sign in self.part:
            self.forest.wish[node] = phases.number(sign)
            low = int(self.forest.decide(np.array([node]))[0])
            node, other = (low + 1, low) if sign.positive else (low, low + 1)
            self.forest.leave(other)

    def evidence(self, bound: float) -> tuple[tuple[Tree, ...], Index]:
        """Trees whose leaves show a bound, and the numbers of their nodes: of every box, or of the part."""
        trees, leaves = self.forest.trees(bound, self.name)
        for sign in self.part:
            (tree,) = trees
            if isinstance(tree, Leaf):
                break
            trees = (tree.high if sign.positive else tree.low,)
        return trees, leaves

    @property
    def rule(self) -> str:
        """How the leaves are bounded."""
        return RULE if self.forest.sharp.any() else self.program.rule

    @property
    def _turned(self) -> bool:
        """The search bounds backward what zonotopes leave open."""
        if self.sharper is None or self.symbols == 0:
            return False
        if self._many:
            return True
        return self.bounded >= PATIENCE and (self.gain >= WORTH or self.rounds % ASK_AGAIN == 0)

    @property
    def _many(self) -> bool:
        """Too many inputs to halve one after the other."""
        return self.boxes[0].dimension >= MANY_INPUTS

    @property
    def _rooted(self) -> bool:
        """Every box has been bounded."""
        return self.bounded >= len(self.boxes)

    def begin(self, timeout: float, progress: Progress | None) -> None:
        """Start the clock."""
        self.started, self.timeout, self.progress = time.monotonic(), timeout, progress

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def _settled(self) -> bool:
        late = self.elapsed() >= min(self.timeout, SPARE[0] * self.proved_after + SPARE[1])
        return (late and self._rooted) or self.exhausted or self.goal.refuted(self.lower)

    def _attack(self, attack: Attacker, generator: np.random.Generator) -> None:
        share = ATTACK_SHARE * self.timeout / len(self.boxes)
        for box in self.boxes:
            if self.elapsed() >= 2 * ATTACK_SHARE * self.timeout:
                return
            found = attack(self.original, self.compact, box, generator=generator, seconds=share)
            self._witness(box, found.input)

    def _witness(self, box: Box, point: Floats) -> None:
        """Enclose the deviation at a point of the box rigorously, and keep it if it is the largest so far."""
        inside = box.nearest(point)
        low, high = Box(inside, inside).outward()
        bounds = self.program.bounds(torch.from_numpy(low)[None], torch.from_numpy(high)[None], symbols=0)
        attained = torch.maximum(bounds.lower, -bounds.upper)[0]
        output = int(attained.argmax())
        value = float(attained[output])
        if value > self.lower or self.witness is None:
            self.lower, self.witness, self.output = max(value, 0.0), inside, output

    def _next_nodes(self) -> Index | None:
        """Split the worst leaves; the new leaves to bound, or None when no leaf needs or allows a split."""
        target = self.goal.target(self.lower)
        at_once = min(self.batch_size, int(self.speed * ROUND_SECONDS))
        nodes = self.forest.worst_open(target, max(1, at_once // 2))
        if not len(nodes):
            return None
        blunt = ~self.forest.sharp[nodes] & self._turned
        ready = [nodes[blunt]]  # these are bounded once more before they are split
        nodes = nodes[~blunt]
        if self._turned and self._many:
            self._decide(nodes[(self.forest.wish[nodes] == 0) & ~self.forest.decides(nodes)])  # what to begin with
        wishes = self.forest.wish[nodes] > 0
        lows = self.forest.decide(nodes[wishes])
        ready.append(np.stack([lows, lows + 1], axis=1).ravel())
        nodes = nodes[~wishes]
        spent = self.forest.decides(nodes)  # nothing is left to decide
        self.forest.stuck[nodes[spent]] = True
        nodes = nodes[~spent]
        depth = self._depth(nodes, target)
        while len(nodes):
            done, lows = self.forest.split(nodes)
            halves = np.stack([lows, lows + 1], axis=1).ravel()
            left = np.repeat(depth[done] - 1, 2)
            ready += [halves[left == 0], nodes[~done & np.isinf(self.forest.own[nodes])]]
            nodes, depth = halves[left > 0], left[left > 0]
        return np.sort(np.concatenate(ready))

    def _depth(self, nodes: Index, target: float) -> Index:
        """How many times to halve at once: bounds far above the target will not get there in one step."""
        excess = self.forest.effective[nodes] / max(target, 1e-300)
        room = math.log2(max(1.0, min(self.batch_size, self.speed * ROUND_SECONDS) / max(1, len(nodes))))
        deep = np.where(excess > 16.0, 3, np.where(excess > 4.0, 2, 1))
        return np.minimum(deep, max(1, int(room)))

    def _bound(self, nodes: Index) -> None:
        """Bound nodes in batches that fit the cache; beyond the memory limit in smaller ones."""
        start, symbols = 0, self.symbols
        while start < len(nodes) and symbols == self.symbols:
            part = nodes[start : start + self.chunk]
            low, high = (torch.from_numpy(a[part]) for a in (self.forest.lower, self.forest.upper))
            try:
                bounds = self._bounds(low, high)
            except (MemoryLimit, TimeLimit, MemoryError, RuntimeError) as error:
                self._give_way(error, part)
                start += self.chunk if self.forest.stuck[part].all() else 0
            else:
                self.forest.record(part, _found(bounds, high - low))
                self._probe(low, high, bounds)
                self.bounded += len(part)
                start += len(part)
                self.chunk = int(np.clip(CACHE_BYTES * len(part) / max(bounds.bytes, 1), 1, LARGEST_CHUNK))
            if self._settled():
                return

    def _sharpen(self, nodes: Index) -> None:
        """Bound backward those nodes that are still above the target."""
        assert self.sharper is not None
        nodes = nodes[(self.forest.effective[nodes] > self.goal.target(self.lower)) & ~self.forest.sharp[nodes]]
        for start in range(0, len(nodes), self.sharper.together):
            left = self.started + self.timeout - time.monotonic()
            if left <= 0.0 or self._settled():
                return
            part = nodes[start : start + self.sharper.together]
            low, high = (torch.from_numpy(a[part]) for a in (self.forest.lower, self.forest.upper))
            self.forest.sharp[part] = True
            try:
                lower, upper = self.sharper.bounds(low, high, seconds=left, started=time.monotonic())
            except (MemoryError, OverflowError):
                continue
            found = torch.maximum(-lower, upper).numpy()
            self._learn(self.forest.own[part], found.max(axis=1))
            self.forest.sharpen(part, found)

    def _decide(self, nodes: Index) -> None:
        """Bound parts of boxes on which signs are decided, and find out what to decide next."""
        target = self.goal.target(self.lower)
        base = np.array([self.forest.base.get(int(node), int(node)) for node in nodes], dtype=np.int64)
        for box in np.unique(base).tolist():
            own = nodes[base == box]
            try:
                phases = self._phases(box)
            except (MemoryError, OverflowError):
                self.forest.sharp[own] = True
                continue
            for start in range(0, len(own), phases.together):
                part = own[start : start + phases.together]
                if self._settled() or self.elapsed() >= self.timeout:
                    return
                decided, known = self._decisions(part)
                found = phases.bounds(decided, target, multipliers=known)
                self._note(part, box, found)
                self._try(found.worst)

    def _phases(self, box: int) -> Phases:
        """The analysis of a box, of which the last few are kept."""
        assert self.sharper is not None
        if box not in self.phases:
            low, high = (torch.from_numpy(a[box : box + 1]) for a in (self.forest.lower, self.forest.upper))
            while len(self.phases) >= REMEMBERED_BOXES:
                self.phases.pop(next(iter(self.phases)))
            left = max(self.started + self.timeout - time.monotonic(), 1e-3)
            self.phases[box] = self.sharper.phases(low, high, seconds=left, started=time.monotonic())
        return self.phases[box]

    def name(self, number: int) -> tuple[str, bool, int]:
        """Of a value whose sign was decided: its name, whether it is the compact network's, and the element."""
        return next(iter(self.phases.values())).name(number)  # all boxes number values alike

    def _decisions(self, nodes: Index) -> tuple[Tensor, Tensor]:
        """Decisions ``(parts, depth)``, and the multipliers of the parts that they are halves of."""
        decided = [self.forest.decided.get(int(node), ()) for node in nodes]
        rows, depth = 2 * self.forest.per_output.shape[1], max(map(len, decided))
        signs, known = np.zeros((len(nodes), depth), dtype=np.int64), np.zeros((len(nodes), rows, depth))
        for i, (node, own) in enumerate(zip(nodes.tolist(), decided, strict=True)):
            signs[i, : len(own)] = own
            whole = self.forest.multipliers.get(self.forest.whole.get(node, node))
            if whole is not None:
                known[i, :, : whole.shape[1]] = whole
        return torch.from_numpy(signs), torch.from_numpy(known)

    def _note(self, nodes: Index, box: int, found: Parts) -> None:
        """Keep what was found; the bounds of the box hold on all of its parts."""
        highs = found.upper.numpy()
        per_output = np.minimum(np.maximum(*np.split(highs, 2, axis=1)), self.forest.per_output[box])
        self.forest.sharpen(nodes, per_output)
        self.forest.sharp[nodes], self.forest.wish[nodes] = True, found.wish.numpy()
        for i, node in enumerate(nodes.tolist()):
            if node in self.forest.decided:
                depth = len(self.forest.decided[node])
                self.forest.multipliers[node] = found.multipliers[i, :, :depth].numpy().copy()
        self.bounded += int(self.forest.decides(nodes).sum())

    def _learn(self, before: Floats, after: Floats) -> None:
        """How much better backward bounds are, a moving average of medians; beyond 100 it does not matter."""
        with np.errstate(all="ignore"):
            gain = float(np.median(np.nan_to_num(before / after, nan=MOST_GAIN).clip(0.0, MOST_GAIN)))
        self.gain = gain if self.gain == math.inf else 0.5 * (self.gain + gain)

    def _bounds(self, low: Tensor, high: Tensor) -> Bounds:
        deadline = self.started + self.timeout if self.symbols else math.inf  # intervals are quick
        limit = self.memory_limit
        return self.program.bounds(low, high, symbols=self.symbols, bytes_limit=limit, deadline=deadline)

    def _give_way(self, error: Exception, part: Index) -> None:
        """Fewer sub-boxes at once; a root that is still too much is bounded by intervals, another node left as it is.

        Bounds with and without symbols are never mixed: one rule must show every leaf.
        """
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise error
        if isinstance(error, TimeLimit) and self._rooted:
            self.exhausted = True
        elif self.chunk > 1 and not isinstance(error, TimeLimit):
            self.chunk //= 2
        elif self._rooted or self.symbols == 0:
            self.forest.stuck[part] = True
        else:
            self.symbols, self.chunk = 0, 1

    def _probe(self, low: Tensor, high: Tensor, bounds: Bounds) -> None:
        """Try the corner of each sub-box to which its worst output grows, and its centre."""
        centre = 0.5 * (low + high)
        points = [centre]
        if bounds.direction is not None:
            points.append(centre + 0.5 * bounds.direction * (high - low))
        self._try(torch.cat(points).clamp(low.amin(0), high.amax(0)))

    def _try(self, trials: Tensor) -> None:
        """Keep the point ``(.., inputs)`` with the largest deviation, moved into its box, if it is a new record."""
        values = self.pair.differences(trials).abs().amax(1)
        best = int(values.argmax())
        if float(values[best]) > self.lower * (1.0 + 2.0**-20):
            point = trials[best].numpy()
            roots = slice(0, self.forest.roots)  # boxes rounded outward
            inside = (self.forest.lower[roots] <= point) & (point <= self.forest.upper[roots])
            homes = np.flatnonzero(inside.all(axis=1))
            if len(homes):
                self._witness(self.boxes[homes[0]], point)


def _found(bounds: Bounds, width: Tensor) -> Found:
    per_output = torch.maximum(-bounds.lower, bounds.upper)
    influence = bounds.influence if bounds.influence is not None else width
    top = influence.topk(min(REMEMBERED, influence.shape[1]), dim=1)
    pad = (0, REMEMBERED - top.values.shape[1])
    return Found(
        per_output.amax(1).numpy(),
        per_output.numpy(),
        torch.nn.functional.pad(top.indices, pad).numpy(),
        torch.nn.functional.pad(torch.nan_to_num(top.values), pad).numpy(),
    )
