"""The smallest network within a limit on fresh data, with a confidence that survives the search.

    shares of the budget in a fixed falling order: compress on calibration data ─► count violations on held-out data
    ─► exact binomial test; stop at the first refusal, answer with the last accepted one

    violation      disagreement          original and compact network decide differently            (no labels)
                   accuracy-drop         the original is right, the compact network is wrong
                   class-accuracy-drop   the same, within every class

Theory: theory_notes/learn_then_test.md. Not claimed: that no smaller network meets the limit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from provable.answers import Answers, same
from provable.calibration import as_batches
from provable.errors import BudgetError, InputError
from provable.journal import run_key
from provable.pipeline import compress, traced
from provable.records import Compression, Cost
from verify.empirical.measure import Comparison, compare
from verify.network.graph import Array, Network
from verify.statistical.confidence import Level, exact
from verify.statistical.disjoint import Disjointness, check_disjoint, row_hashes
from verify.statistical.learn_then_test import Count, Decision, FixedSequence

LIMITS = ("disagreement", "accuracy-drop", "class-accuracy-drop")
SHARES = tuple(Fraction(k, 20) for k in range(19, 0, -1))
"""Shares of the budget in the order in which they are tested: fixed, whatever the data say."""
MARGIN = 1e-9


@dataclass(frozen=True)
class Trial:
    """One size that was tested.

    Attributes:
        share: of the budget's cost that was allowed to stay.
        cost: of the compact network.
        decision: counts, p-value, verdict.
    """

    share: Fraction
    cost: Cost
    decision: Decision

    def as_json(self) -> dict[str, Any]:
        """A row of search.json."""
        counts = [asdict(count) for count in self.decision.counts]
        return {
            "share": str(self.share), **asdict(self.cost), "counts": counts,
            "p_value_upper": float(self.decision.p_value_upper), "accepted": self.decision.accepted,
        }  # fmt: skip


@dataclass(frozen=True)
class WithinLimit:
    """The answer.

    Attributes:
        result: the smallest accepted compression; None if not even the first one was accepted.
        trials: every size that was tested, in order.
        limit: kind and rate.
        confidence: of the statement.
        data: what is known of the held-out rows.
        earlier: how many of the sizes an interrupted search had tested.
    """

    result: Compression | None
    trials: tuple[Trial, ...]
    limit: tuple[str, Fraction]
    confidence: Fraction
    data: Disjointness
    earlier: int = 0

    @property
    def sentence(self) -> str:
        """The claim in words."""
        kind, rate = self.limit
        if self.result is None:
            return f"UNKNOWN: no size was shown to keep {kind} within {float(rate):g} on {self.data.rows} inputs"
        meaning = {
            "disagreement": "the two networks decide differently",
            "accuracy-drop": "the original is right and the compact network is wrong (so accuracy drops by no more)",
            "class-accuracy-drop": "the original is right and the compact network is wrong, within every class",
        }[kind]
        return (
            f"With confidence {float(self.confidence):g}, on inputs drawn like the {self.data.rows} held-out ones, the "
            f"probability that {meaning} is at most {float(rate):g}; the confidence accounts for the choice among "
            f"{len(self.trials)} sizes."
        )

    def as_json(self) -> dict[str, Any]:
        """search.json."""
        return {
            "version": 1, "method": "fixed-sequence testing, exact binomial p-values", "limit": self.limit[0],
            "rate": str(self.limit[1]), "confidence": str(self.confidence), "sentence": self.sentence,
            "held_out": {"rows": self.data.rows, "sha256": self.data.digest, "repeated": len(self.data.duplicates)},
            "trials": [trial.as_json() for trial in self.trials],
        }  # fmt: skip


def smallest_within(
    model: nn.Module | Network,
    calibration: Array | Tensor,
    held_out: Array,
    labels: Array | None = None,
    *,
    limit: tuple[str, Level],
    confidence: Level = "0.99",
    budget: str = "flops",
    shares: Sequence[Fraction] = SHARES,
    progress: Callable[[Trial], object] = lambda trial: None,
    options: Mapping[str, Any] | None = None,
    journal: Path | None = None,
) -> WithinLimit:
    """Search for the smallest network within a limit.

    Args:
        model: the original, a classifier: its largest output is its decision.
        calibration: unlabelled inputs to compress with.
        held_out: (n, *input shape) independent inputs, none of them used for calibration or anything else before.
        labels: (n,) class indices of the held-out inputs; "disagreement" needs none.
        limit: one of `LIMITS`, and the rate that is allowed, in (0, 1).
        confidence: of the statement about the network that is returned.
        budget: what the shares are shares of: a kind of budget.
        shares: order of the tests; must not depend on the held-out inputs.
        progress: told of every size.
        options: further arguments of `provable.pipeline.compress`.
        journal: folder in which the search keeps what it found out, so that the same call after an interruption
            continues there and gives the identical result. The caller removes it when all is done.

    Raises:
        InputError: an unknown kind of limit, missing labels, or labels that do not fit.
        verify.errors.DataError: a held-out input was used for calibration, or is no input of the network.
        verify.errors.SpecificationError: the rate or the confidence lies outside (0, 1).
    """
    kind, rate = limit
    strata = _strata(kind, held_out, labels)
    sequence = FixedSequence(rate, confidence)
    names = row_hashes(held_out)
    data = check_disjoint(names, row_hashes(_numpy(calibration)))
    answers = Answers.at(journal, _key(model, calibration, held_out, labels, limit, budget, options or {}))
    made: Compression | None = None
    trials: list[Trial] = []

    def compressed(share: Fraction) -> Compression:
        return compress(
            model, calibration, keep={budget: float(share)}, **(options or {}), journal=answers.candidate()
        )  # fmt: skip

    for share in shares:
        if str(share) not in answers.known:
            try:
                result = compressed(share)
            except BudgetError:
                if not trials:
                    raise
                break  # no network is that small
            answers.keep(str(share), _counted(result, held_out, labels, kind, strata))
        answer = answers.known[str(share)]
        decision = sequence.test([Count(**count) for count in answer["counts"]])
        trials.append(Trial(share, Cost(**answer["cost"]), decision))
        progress(trials[-1])
        if not decision.accepted:
            break
        made = None if len(trials) <= answers.earlier else result
    if made is None and any(trial.decision.accepted for trial in trials):
        last = [trial for trial in trials if trial.decision.accepted][-1].share
        made = compressed(last)
        same(made.compact, answers.known[str(last)])
    level = exact(confidence, "confidence")
    return WithinLimit(made, tuple(trials), (kind, exact(rate, "limit")), level, data, answers.earlier)


def _counted(
    result: Compression, held_out: Array, labels: Array | None, kind: str, strata: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """What the held-out inputs say about a candidate."""
    violates = _violations(kind, compare(result.original, result.compact, held_out, engine="torch"), labels)
    counts = [{"violations": int(violates[rows].sum()), "samples": int(rows.sum())} for rows in strata]
    return {"counts": counts, "cost": asdict(result.after), "digest": result.compact.digest()}


def _key(
    model: nn.Module | Network, calibration: Array | Tensor, held_out: Array, labels: Array | None,
    limit: tuple[str, Level], budget: str, options: Mapping[str, Any],
) -> str:  # fmt: skip
    """What the counts depend on; the confidence, which only decides about them, may change."""
    given = _numpy(calibration)
    parts = (given, held_out, np.zeros(0) if labels is None else np.asarray(labels))
    asked = {"limit": limit[0], "budget": budget, "options": {name: repr(value) for name, value in options.items()}}
    return run_key(traced(model, as_batches(given)).digest(), parts, asked, np.random.default_rng(0))


def _numpy(calibration: Array | Tensor) -> Array:
    return calibration.detach().cpu().numpy() if isinstance(calibration, Tensor) else np.asarray(calibration)


def _strata(kind: str, held_out: Array, labels: Array | None) -> list[NDArray[np.bool_]]:
    if kind not in LIMITS:
        raise InputError(f"unknown limit {kind!r}; known: {', '.join(LIMITS)}")
    if labels is None:
        if kind != "disagreement":
            raise InputError(
                f"a limit on {kind} needs the labels of the held-out inputs; without labels bound the disagreement "
                "with the original: disagreement=X bounds the accuracy drop, too"
            )
        return [np.ones(len(held_out), dtype=bool)]
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or found.shape != (len(held_out),):
        raise InputError(
            f"labels have shape {found.shape} and dtype {found.dtype}; expected one class index, an integer, for each "
            f"of the {len(held_out)} held-out inputs"
        )
    return (
        [found == c for c in np.unique(found)] if kind == "class-accuracy-drop" else [np.ones(len(found), dtype=bool)]
    )


def _violations(kind: str, comparison: Comparison, labels: Array | None) -> NDArray[np.bool_]:
    """Per held-out input; outputs within `MARGIN` of a tie count as violations."""
    if kind == "disagreement" or labels is None:
        return ~comparison.agrees(MARGIN)
    classes = comparison.original.shape[1]
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"labels: row {row} is {labels[row]}, the network has outputs 0 to {classes - 1}")
    rows = np.arange(len(labels))
    maybe_right = comparison.original[rows, labels] >= comparison.original.max(axis=1) - MARGIN
    others = comparison.compact.copy()
    others[rows, labels] = -np.inf
    surely_right = comparison.compact[rows, labels] > others.max(axis=1) + MARGIN
    result: NDArray[np.bool_] = maybe_right & ~surely_right
    return result
