"""Branch and bound for `|original(x) - compact(x)| <= epsilon` on every input of some boxes.

    bound every sub-box ─► split the worst ones in two at the input that matters most ─► bound the halves ─► ...

Anytime: at every moment it holds a proved upper bound (the worst leaf) and an attained lower bound (the best
attack, enclosed rigorously). It stops when epsilon is decided, when the two are within `ratio`, or in time.
Theory: theory_notes/branch_and_bound.md. Not claimed: that the search ends in finite time for every question.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.empirical.ascent import Pair
from verify.empirical.attack import Attack, attack_deviation
from verify.errors import MismatchError, SpecificationError
from verify.formal.backward.roots import MANY_INPUTS, backward_upper
from verify.formal.forest import REMEMBERED, Floats, Forest, Found, Index
from verify.formal.lift import Lift, align
from verify.formal.program import EVERY_SYMBOL, Bounds, Program, compile_pair
from verify.formal.symbols import MemoryLimit, TimeLimit
from verify.network.graph import Network
from verify.spec.box import Box, Number, exact
from verify.spec.deviation import Tree, Verdict

Progress = Callable[[float, float, float, int], None]
Attacker = Callable[..., Attack]

MEMORY_LIMIT = 2**31
CACHE_BYTES = 2**24  # generators of one value that a batch may hold: far beyond the cache everything is slower
LARGEST_CHUNK = 512
ROUND_SECONDS = 1.0  # of work between two choices of what to split
RESERVE = 2.0**-16  # leaves are pushed this far below epsilon, so that an auditor's own rounding fits in between
ATTACK_SHARE = 0.15  # of the time
BACKWARD_SHARE = 0.25  # likewise
FEW_BOXES = 4  # with more of them, whole boxes are not bounded backward unasked


@dataclass(frozen=True)
class DeviationResult:
    """What a search established.

    Attributes:
        verdict: PROVED: the deviation is at most epsilon (without epsilon: at most `upper`, which is finite).
            REFUTED: `lower` exceeds epsilon. UNKNOWN: neither.
        epsilon: what was asked, None for the tightest bound.
        upper: proved bound of ``|original - compact|`` over all boxes and outputs, rounded up; may be infinite.
        lower: a deviation attained at `witness`, rounded down.
        witness: an exact point of the domain, or None if no attack was made.
        output: flat index of the output that deviates there.
        per_output_upper: proved bound for every output.
        trees: one tree of splits per box; on every leaf the rule shows `upper`.
        leaves: number of leaves of `trees`; boxes_bounded: sub-boxes that were bounded on the way.
        rule, parameters: how a leaf is bounded ("pair_zonotope" or "separate").
        seconds: time taken.
        lift: the correspondence used, None for "separate".
        words: what was and what was not established.
        backward_upper: a bound for all boxes by the rule "pair_backward", None if it was not computed. It is proved,
            but no auditor re-does it: it is not in `upper`, nor in the verdict, the trees or a certificate.
    """

    verdict: Verdict
    epsilon: Fraction | None
    upper: float
    lower: float
    witness: tuple[Fraction, ...] | None
    output: int | None
    per_output_upper: tuple[float, ...]
    trees: tuple[Tree, ...]
    leaves: int
    boxes_bounded: int
    rule: str
    parameters: Mapping[str, int]
    seconds: float
    lift: Lift | None
    words: str
    backward_upper: float | None = None


def verify_deviation(
    original: Network,
    compact: Network,
    boxes: Sequence[Box],
    *,
    epsilon: Number | None = None,
    channels: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
    attack: Attacker | None = attack_deviation,
    batch_size: int = 1024,
    generator: np.random.Generator | None = None,
    progress: Progress | None = None,
    ratio: float = 1.2,
    floor: float = 0.0,
    symbols: int = EVERY_SYMBOL,
    memory_limit: int = MEMORY_LIMIT,
    backward: bool | None = None,
) -> DeviationResult:
    """Bound the deviation of two networks on the union of some boxes.

    Args:
        boxes: the domain, over the flattened input.
        epsilon: the bound to decide; None for the tightest bound.
        channels: content of ``channels.json`` where the compact network has fewer channels.
        timeout: seconds after which no further work is begun.
        attack: search for large deviations, called per box; None for no attack.
        batch_size: sub-boxes bounded between two choices of what to split.
        generator: random numbers of the attack; a fixed one by default.
        progress: called after every round with seconds, upper, lower, leaves.
        ratio, floor: without epsilon, stop when ``upper <= max(ratio * lower, floor)``.
        symbols: budget of error symbols per sub-box; 0 gives interval propagation.
        memory_limit: bytes of generators that one step may hold; beyond it fewer sub-boxes, then intervals.
        backward: whether to bound whole boxes backward as well (see `backward_upper`), within a quarter of the time;
            None: when there are many inputs and few boxes.

    Raises:
        MismatchError: networks, boxes and channels do not fit together.
        SpecificationError: a number is out of range.
        UnsupportedOperation: a node has no bound propagation rule.
    """
    limit = None if epsilon is None else exact(epsilon, "epsilon")
    _check(original, compact, boxes, limit, timeout, ratio)
    lift = align(original, compact, channels)
    program = compile_pair(original, compact, lift)
    goal = _Goal(limit, ratio, floor)
    search = _Search(original, compact, tuple(boxes), program, goal, symbols, memory_limit, batch_size)
    search.started, search.timeout, search.progress = time.monotonic(), timeout, progress
    if backward is None:
        backward = boxes[0].dimension >= MANY_INPUTS and len(boxes) <= FEW_BOXES
    if backward:
        search.backward = backward_upper(original, compact, lift, boxes, seconds=BACKWARD_SHARE * timeout)
    search.run(attack, generator or np.random.default_rng(0))
    return search.result(lift)


def _check(
    original: Network, compact: Network, boxes: Sequence[Box], epsilon: Fraction | None, timeout: float, ratio: float
) -> None:
    for what, first, second in (
        ("input", original.input_shape, compact.input_shape),
        ("output", original.output_shape, compact.output_shape),
    ):
        if math.prod(first) != math.prod(second):
            raise MismatchError(f"the networks have {what} shapes {first} and {second}; they cannot be compared")
    if not boxes:
        raise SpecificationError("the domain has no box")
    for box in boxes:
        if box.dimension != math.prod(original.input_shape):
            raise MismatchError(f"a box has {box.dimension} coordinates, the networks take {original.input_shape}")
    if epsilon is not None and epsilon < 0:
        raise SpecificationError(f"epsilon must not be negative, got {float(epsilon)}")
    if not timeout > 0 or not ratio >= 1:
        raise SpecificationError(f"need timeout > 0 and ratio >= 1, got {timeout} and {ratio}")


@dataclass(frozen=True)
class _Goal:
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
class _Search:
    """A search under way."""

    original: Network
    compact: Network
    boxes: tuple[Box, ...]
    program: Program
    goal: _Goal
    symbols: int
    memory_limit: int
    batch_size: int
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
    backward: float | None = None
    forest: Forest = field(init=False)
    pair: Pair = field(init=False)

    def __post_init__(self) -> None:
        self.forest = Forest(self.boxes, math.prod(self.original.output_shape))
        self.pair = Pair.of(self.original, self.compact)

    def run(self, attack: Attacker | None, generator: np.random.Generator) -> None:
        """Bound the boxes, then split until the question is settled or time is up."""
        self._bound_roots()
        if attack is not None:
            self._attack(attack, generator)
        while not self._settled():
            nodes = self._next_nodes()
            if nodes is None:
                break
            began = time.monotonic()
            self._bound(nodes)
            self.speed = max(1.0, len(nodes) / max(time.monotonic() - began, 1e-6))
            if self.progress is not None:
                self.progress(self._elapsed(), self.forest.bound(), self.lower, len(self.forest.leaves()))

    def _bound_roots(self) -> None:
        """Bound the boxes themselves, all of them with symbols or all of them without."""
        symbols = None
        while symbols != self.symbols:
            symbols, self.bounded = self.symbols, 0
            self._bound(np.arange(len(self.boxes)))

    @property
    def _rooted(self) -> bool:
        """Every box has been bounded."""
        return self.bounded >= len(self.boxes)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _settled(self) -> bool:
        late = self._rooted and self._elapsed() >= self.timeout
        return late or self.exhausted or self.goal.refuted(self.lower)

    def _attack(self, attack: Attacker, generator: np.random.Generator) -> None:
        share = ATTACK_SHARE * self.timeout / len(self.boxes)
        for box in self.boxes:
            if self._elapsed() >= 2 * ATTACK_SHARE * self.timeout:
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
        depth, ready = self._depth(nodes, target), []
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
        room = math.log2(max(1.0, min(self.batch_size, self.speed * ROUND_SECONDS) / len(nodes)))
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
        trials = torch.cat(points).clamp(low.amin(0), high.amax(0))
        values = self.pair.differences(trials).abs().amax(1)
        best = int(values.argmax())
        if float(values[best]) > self.lower * (1.0 + 2.0**-20):
            point = trials[best].numpy()
            home = next((b for b in self.boxes if b.contains(point)), None)
            if home is not None:
                self._witness(home, point)

    def result(self, lift: Lift | None) -> DeviationResult:
        """The record of what is established now."""
        cover = self.forest.cover()
        upper = float(cover[: self.forest.roots].max())
        trees, leaves = self.forest.trees(upper)
        per_output = np.minimum(self.forest.per_output[leaves].max(axis=0), upper)
        verdict = Verdict.REFUTED if self.goal.refuted(self.lower) else Verdict.UNKNOWN
        if verdict is Verdict.UNKNOWN and self.goal.proved(upper):
            verdict = Verdict.PROVED
        return DeviationResult(
            verdict=verdict,
            epsilon=self.goal.epsilon,
            upper=upper,
            lower=self.lower,
            witness=self.witness,
            output=self.output,
            per_output_upper=tuple(float(v) for v in per_output),
            trees=trees,
            leaves=len(leaves),
            boxes_bounded=self.bounded,
            rule=self.program.rule,
            parameters={"symbols": self.symbols},
            seconds=self._elapsed(),
            lift=lift,
            words=_words(verdict, upper, self.lower, self.goal.epsilon, self.program.rule, self.symbols),
            backward_upper=self.backward,
        )


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


def _words(verdict: Verdict, upper: float, lower: float, epsilon: Fraction | None, rule: str, symbols: int) -> str:
    how = "each network bounded on its own" if rule == "separate" else "the difference propagated layer by layer"
    how += ", by intervals only" if symbols == 0 else ", by affine forms over shared symbols"
    asked = "" if epsilon is None else f" Asked: at most {float(epsilon):.6g}: {verdict.value}."
    return (
        f"For every input of the domain the outputs differ by at most {upper:.6g} ({how}); a deviation of {lower:.6g} "
        f"is attained.{asked} This is about real arithmetic, not about rounding on a device, nor about other inputs."
    )
