"""Branch and bound for `|original(x) - compact(x)| <= epsilon` on every input of some boxes.

    bound every sub-box ─► split the worst ones in two at the input that matters most ─► bound the halves ─► ...

Anytime: at every moment it holds a proved upper bound (the worst leaf) and an attained lower bound (the best
attack, enclosed rigorously). It stops when epsilon is decided, when the two are within `ratio`, or in time.
Theory: theory_notes/branch_and_bound.md. Not claimed: that the search ends in finite time for every question.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from verify.empirical.attack import attack_deviation
from verify.errors import MismatchError, SpecificationError
from verify.formal.backward.leaves import RULE as BACKWARD
from verify.formal.backward.leaves import leaf_bounds
from verify.formal.backward.roots import backward_upper
from verify.formal.lift import Lift, align
from verify.formal.program import EVERY_SYMBOL, compile_pair
from verify.formal.search import MANY_INPUTS, Attacker, Goal, Progress, Search
from verify.network.graph import Network
from verify.spec.box import Box, Number, exact
from verify.spec.deviation import Sign, Tree, Verdict, count_leaves

MEMORY_LIMIT = 2**31
BACKWARD_SHARE = 0.25  # of the time
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
        rule, parameters: how a leaf is bounded ("pair_zonotope", "pair_backward" or "separate").
        seconds: time taken.
        lift: the correspondence used, None for "separate".
        words: what was and what was not established.
        backward_upper: a backward bound for all boxes with searched slopes, None if it was not computed. It is proved,
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
    part: Sequence[Sign] = (),
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
            None: when there are many inputs and few boxes, and the search itself cannot.
        part: signs of arguments of ReLUs: only those inputs of the (single) box are searched that have them. The bound
            and the tree are then those of the part.

    Raises:
        MismatchError: networks, boxes and channels do not fit together.
        SpecificationError: a number is out of range.
        UnsupportedOperation: a node has no bound propagation rule.
    """
    limit = None if epsilon is None else exact(epsilon, "epsilon")
    _check(original, compact, boxes, limit, timeout, ratio)
    lift = align(original, compact, channels)
    program = compile_pair(original, compact, lift)
    goal = Goal(limit, ratio, floor)
    search = Search(original, compact, tuple(boxes), program, goal, symbols, memory_limit, batch_size)
    search.sharper = leaf_bounds(original, compact, lift)
    search.part = tuple(part)
    if part and (len(boxes) != 1 or search.sharper is None):
        raise SpecificationError("a part is one of a single box, and of networks whose bounds can be computed backward")
    search.begin(timeout, progress)
    if backward is None:
        backward = boxes[0].dimension >= MANY_INPUTS and len(boxes) <= FEW_BOXES and search.sharper is None
    whole = backward_upper(original, compact, lift, boxes, seconds=BACKWARD_SHARE * timeout) if backward else None
    search.run(attack, generator or np.random.default_rng(0))
    return _result(search, lift, whole)


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


def _result(search: Search, lift: Lift | None, whole: float | None) -> DeviationResult:
    """The record of what is established now."""
    cover = search.forest.cover()
    upper = float(cover[: search.forest.roots].max())
    trees, leaves = search.evidence(upper)
    per_output = np.minimum(search.forest.per_output[leaves].max(axis=0), upper)
    verdict = Verdict.REFUTED if search.goal.refuted(search.lower) else Verdict.UNKNOWN
    if verdict is Verdict.UNKNOWN and search.goal.proved(upper):
        verdict = Verdict.PROVED
    return DeviationResult(
        verdict=verdict,
        epsilon=search.goal.epsilon,
        upper=upper,
        lower=search.lower,
        witness=search.witness,
        output=search.output,
        per_output_upper=tuple(float(v) for v in per_output),
        trees=trees,
        leaves=sum(map(count_leaves, trees)),
        boxes_bounded=search.bounded,
        rule=search.rule,
        parameters={"symbols": search.symbols},
        seconds=search.elapsed(),
        lift=lift,
        words=_words(verdict, upper, search.lower, search.goal.epsilon, search.rule, search.symbols),
        backward_upper=whole,
    )


def _words(verdict: Verdict, upper: float, lower: float, epsilon: Fraction | None, rule: str, symbols: int) -> str:
    how = "each network bounded on its own" if rule == "separate" else "the difference propagated layer by layer"
    how += ", by intervals only" if symbols == 0 else ", by affine forms over shared symbols"
    how += ", and backward from the outputs" if rule == BACKWARD else ""
    asked = "" if epsilon is None else f" Asked: at most {float(epsilon):.6g}: {verdict.value}."
    return (
        f"For every input of the domain the outputs differ by at most {upper:.6g} ({how}); a deviation of {lower:.6g} "
        f"is attained.{asked} This is about real arithmetic, not about rounding on a device, nor about other inputs."
    )
