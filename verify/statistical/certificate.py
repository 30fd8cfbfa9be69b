"""A statistical certificate: what fresh inputs establish about two networks, with a stated confidence.

    d_i = max_j |original(x_i) - compact(x_i)|_j + margin + 2^-40 (|original(x_i)| + |compact(x_i)|)      i = 1..n

are n independent values of one function of the input, so the bounds of `verify.statistical.claims` hold for them.
The added terms make every claim hold as well for any run of the two networks whose outputs stay within
margin/2 + 2^-40 |output| of the float64 ones. An arg max counts as equal only if it leads by as much.

Several claims on one sample: each gets (1 - confidence) / claims as its own probability of error (Bonferroni), so
that all hold together with the stated confidence.

Theory notes: theory_notes/clopper_pearson.md, tolerance.md, mean_bounds.md.
Not claimed: anything about single inputs, about inputs from another distribution, or if the compact network was
chosen by looking at these very inputs.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verify.empirical.measure import Comparison, Engine, compare, rows_for
from verify.errors import SpecificationError
from verify.network.graph import Array, Network
from verify.statistical.claims import (
    Claim,
    Question,
    answer,
    decimal_text,
    disagreement,
    exceedance,
    mean,
    quantile,
)
from verify.statistical.clopper_pearson import rate_upper
from verify.statistical.confidence import Level, error_share, exact, number
from verify.statistical.disjoint import Disjointness, check_disjoint, row_hashes

RELATIVE = 2.0**-40
Number = str | int | float | Fraction

NOT_CLAIMED = (
    "nothing is said about any single input, or about inputs drawn otherwise than the sample (shifted, adversarial)",
    "the claims are void if the compact network, or which sample to use, was chosen by looking at these inputs",
    "near-duplicates of calibration inputs (not equal to float32 precision) are not detected",
    "runs whose outputs leave the stated margin around the float64 outputs are not covered",
)


@dataclass(frozen=True)
class StatisticalCertificate:
    """Claims about two networks that hold together with the stated confidence.

    Attributes:
        original, compact: digests of the networks (`Network.digest`).
        samples: number of fresh inputs n.
        confidence: joint confidence of all claims, exact.
        claims: the claims, each with its share of the error.
        margin: absolute part of the rounding margin, exact.
        engine: what computed the outputs in float64, "numpy" or "torch".
        data: SHA-256 of the inputs as little-endian float64, in order.
        rows: what the row hashes showed: repeats, calibration rows compared with.
        deviations: SHA-256 of the n padded deviations as little-endian float64, in order.
        largest: the largest padded deviation of the sample.
        population: the distribution the claims speak about, in the caller's words.
    """

    original: str
    compact: str
    samples: int
    confidence: Fraction
    claims: tuple[Claim, ...]
    margin: Fraction
    engine: str
    data: str
    rows: Disjointness
    deviations: str
    largest: float
    population: str

    @property
    def not_claimed(self) -> tuple[str, ...]:
        """What the certificate does not say."""
        none = ("that calibration and test inputs are disjoint: no calibration rows were given to compare with",)
        return NOT_CLAIMED if self.rows.calibration_rows else (*NOT_CLAIMED, *none)

    @property
    def assumption(self) -> str:
        """What has to be true of the sample, in words."""
        repeats = f"; {len(self.rows.duplicates)} of them repeat an earlier one" if self.rows.duplicates else ""
        return (
            f"the {self.samples} inputs are independent draws from {self.population}{repeats}, were not used to make "
            f"or to choose the compact network (none equals one of the {self.rows.calibration_rows} calibration rows "
            "given), and serve no other claim"
        )

    @property
    def statement(self) -> str:
        """All of it in words."""
        lines = [f"With confidence {decimal_text(100 * self.confidence)} %, all of the following hold together:"]
        lines += [f"- {claim.statement};" for claim in self.claims]
        lines += [f"provided that {self.assumption}.", "Not claimed:"]
        return "\n".join([*lines, *(f"- {text}." for text in self.not_claimed)])


def certify_sample(
    original: Network,
    compact: Network,
    inputs: Array,
    *,
    calibration_rows: Collection[str],
    epsilon: Number | None = None,
    coverage: Level | None = None,
    cap: Number | None = None,
    metrics: Collection[str] | None = None,
    confidence: Level = "0.999",
    margin: Number = "1e-9",
    population: str = "the distribution that the inputs were drawn from",
    batch_size: int = 256,
    engine: Engine = "numpy",
) -> StatisticalCertificate:
    """Certify what `inputs` show.

    Args:
        inputs: ``(n, *input_shape)`` fresh inputs in the network's format; never used for calibration or selection.
        calibration_rows: hashes of all inputs used to make the compact network (`row_hashes`,
            `read_calibration_rows`); empty only if there were none.
        epsilon: bound the share of inputs that deviate by more.
        coverage: bound the deviation of that share of inputs. Without `epsilon`, `coverage` and `cap` the largest
            share is taken for which the largest deviation of the sample is a bound.
        cap: bound the mean of ``min(deviation, cap)``.
        metrics: "argmax", "deviation" or both (default: both, without "argmax" for a single output).
        confidence: of all claims together; a float is read as the decimal it prints as.
        margin: rounding margin, see the head of this file; 1e-5 or so covers ordinary float32 runs.
        population: the distribution the claims speak about, for the certificate's words.
        engine: see `verify.empirical.compare`.

    Raises:
        DataError: bad inputs, rows used for calibration, or too few samples for the coverage.
        MismatchError: the networks do not fit together.
        SpecificationError: a number out of range.
    """
    rows = rows_for(original, inputs)
    chosen = _metrics(metrics, int(np.prod(original.output_shape, dtype=int)))
    questions = _questions(chosen, epsilon, coverage, cap)
    if "deviation" in chosen and all(q.kind == "disagreement" for q in questions):
        share = error_share(confidence, len(questions) + 1)
        questions.append(quantile(_largest_coverage(len(rows), share)))
    return certify_questions(
        original, compact, rows, questions, calibration_rows=calibration_rows, confidence=confidence, margin=margin,
        population=population, batch_size=batch_size, engine=engine,
    )  # fmt: skip


def certify_questions(
    original: Network,
    compact: Network,
    inputs: Array,
    questions: Sequence[Question],
    *,
    calibration_rows: Collection[str],
    confidence: Level,
    margin: Number,
    population: str,
    batch_size: int = 256,
    engine: Engine = "numpy",
) -> StatisticalCertificate:
    """As `certify_sample`, for questions that were fixed before the inputs were looked at."""
    pad, share = number(margin, "margin"), error_share(confidence, len(questions))
    if pad < 0:
        raise SpecificationError(f"margin must not be negative, got {margin}")
    x = rows_for(original, inputs)
    rows = check_disjoint(row_hashes(x), calibration_rows)
    padded, agrees = _padded(compare(original, compact, x, batch_size=batch_size, engine=engine), pad)
    return StatisticalCertificate(
        original=original.digest(), compact=compact.digest(), samples=len(x), confidence=exact(confidence),
        claims=tuple(answer(question, padded, agrees, share) for question in questions), margin=pad, engine=engine,
        data=_sha256(x), rows=rows, deviations=_sha256(padded), largest=float(padded.max()), population=population,
    )  # fmt: skip


def _metrics(metrics: Collection[str] | None, outputs: int) -> tuple[str, ...]:
    if metrics is None:
        return ("argmax", "deviation") if outputs > 1 else ("deviation",)
    unknown = set(metrics) - {"argmax", "deviation"}
    if unknown or not metrics or isinstance(metrics, str):
        raise SpecificationError(f'metrics are a collection of "argmax" and "deviation", got {metrics!r}')
    return tuple(m for m in ("argmax", "deviation") if m in metrics)


def _questions(
    metrics: tuple[str, ...], epsilon: Number | None, coverage: Level | None, cap: Number | None
) -> list[Question]:
    questions = [disagreement()] if "argmax" in metrics else []
    about_deviation = []
    if epsilon is not None:
        about_deviation.append(exceedance(number(epsilon, "epsilon")))
    if coverage is not None:
        about_deviation.append(quantile(coverage))
    if cap is not None:
        about_deviation.append(mean(number(cap, "cap")))
    if about_deviation and "deviation" not in metrics:
        raise SpecificationError('epsilon, coverage and cap need "deviation" among the metrics')
    return questions + about_deviation


def _largest_coverage(samples: int, delta: Fraction) -> Fraction:
    """The largest share, to six digits, that the largest of n values covers; it depends on n alone."""
    missed = Fraction(rate_upper(0, samples, 1 - delta))
    coverage = 1 - Fraction(-(-missed * 10**6 // 1), 10**6)
    if coverage <= 0:
        raise SpecificationError(f"{samples} samples are too few for any share of inputs at this confidence")
    return coverage


def _padded(comparison: Comparison, margin: Fraction) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Deviations plus margin (rounded up), and where the arg max agrees beyond it."""
    sizes = np.abs(comparison.original).max(axis=1) + np.abs(comparison.compact).max(axis=1)
    extra = np.nextafter(float(margin), np.inf) + RELATIVE * sizes if margin else RELATIVE * sizes
    return np.nextafter(comparison.deviations + extra, np.inf), comparison.agrees(extra)


def _sha256(array: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f8").tobytes()).hexdigest()
