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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from provable.errors import BudgetError, InputError
from provable.pipeline import compress
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
    """

    result: Compression | None
    trials: tuple[Trial, ...]
    limit: tuple[str, Fraction]
    confidence: Fraction
    data: Disjointness

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
            f" probability that {meaning} is at most {float(rate):g}; the confidence accounts for the choice among "
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

    Raises:
        InputError: an unknown kind of limit, missing labels, or labels that do not fit.
        verify.errors.DataError: a held-out input was used for calibration, or is no input of the network.
        verify.errors.SpecificationError: the rate or the confidence lies outside (0, 1).
    """
    kind, rate = limit
    strata = _strata(kind, held_out, labels)
    sequence = FixedSequence(rate, confidence)
    found: Compression | None = None
    trials: list[Trial] = []
    names = row_hashes(held_out)
    data = check_disjoint(names, row_hashes(_numpy(calibration)))
    for share in shares:
        try:
            result = compress(model, calibration, keep={budget: float(share)}, **(options or {}))
        except BudgetError:
            if not trials:
                raise
            break  # no network is that small
        comparison = compare(result.original, result.compact, held_out, engine="torch")
        violates = _violations(kind, comparison, labels)
        decision = sequence.test([Count(int(violates[rows].sum()), int(rows.sum())) for rows in strata])
        trials.append(Trial(share, result.after, decision))
        progress(trials[-1])
        if not decision.accepted:
            break
        found = result
    return WithinLimit(found, tuple(trials), (kind, exact(rate, "limit")), exact(confidence), data)


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
