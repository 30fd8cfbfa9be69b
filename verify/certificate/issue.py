"""From a search's result to a certificate that the auditor has accepted, or to none.

The prover and the auditor choose slopes with different arithmetic, so the auditor's own bound may lie a little
above the prover's: leaves that the auditor refuses are halved. When a bound was asked for, it is that bound or nothing.
When the tightest bound was wanted, the certificate states what the auditor itself can show: never less than it proved.
"""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from verify.audit.check import AuditReport, Verdict, audit
from verify.certificate.emit import emit_certificate
from verify.certificate.mend import audited
from verify.formal.backward.leaves import RULE as BACKWARD
from verify.formal.deviation import DeviationResult
from verify.spec.box import Box
from verify.spec.deviation import Tree
from verify.spec.deviation import Verdict as SearchVerdict

DIGITS = 4
WORTHWHILE = Fraction(97, 100)  # a second audit is run for a bound that is smaller by this factor
ROUNDING_SYMBOLS = 1024  # for roundings, so that they cancel and shrink like any other error; beyond it they add up
VACUOUS = Fraction(10**30)  # a claim that says nothing, to learn what the auditor can show
NEARLY = Fraction(101, 100)  # times the bound that was proved: worth mending for
LARGER = tuple(Fraction(n, 100) for n in (105, 120, 150, 200, 400, 1600))  # where mending does not help

Ask = Callable[[Fraction], AuditReport]


def issue_certificate(
    path: Path,
    result: DeviationResult,
    *,
    original: Path,
    compact: Path,
    boxes: Sequence[Box],
    arithmetic: str = "real",
) -> tuple[Fraction, AuditReport] | AuditReport | None:
    """Write an accepted certificate to `path`.

    Args:
        path: the file to write; it appears only when the auditor accepted it, whatever was there before is replaced.
        result: of `verify.verify_deviation` on the networks in these files and on `boxes`.
        arithmetic: "real", or "float32": the search's proof is in real arithmetic either way, and the auditor adds what
            float32 executions of both networks may round.

    Returns:
        The certified bound with the auditor's report; the report alone when the auditor did not accept;
        None when the search proved nothing to certify. Only in the first case a file is written.

    Raises:
        CertificateError, ModelError: as `emit_certificate`.
    """
    if result.verdict is not SearchVerdict.PROVED or not result.upper < float("inf"):
        return None
    parameters = dict(result.parameters)
    if arithmetic == "float32":
        parameters["symbols"] = min(2**31, parameters["symbols"] + ROUNDING_SYMBOLS)
    candidate = path.with_name(f".{path.name}.unaudited")

    def attempt(epsilon: Fraction, domain: Sequence[Box], trees: Sequence[Tree]) -> AuditReport:
        emit_certificate(
            candidate, original=original, compact=compact, boxes=domain, epsilon=epsilon, lift=result.lift,
            rule=result.rule, parameters=parameters, trees=trees, arithmetic=arithmetic,
        )  # fmt: skip
        return audit(candidate, original, compact)

    def as_found(epsilon: Fraction) -> AuditReport:
        return attempt(epsilon, boxes, result.trees)

    def mended(epsilon: Fraction) -> AuditReport:
        return audited(attempt, epsilon, boxes, result.trees)

    try:
        if result.epsilon is not None:
            claim, report = result.epsilon, mended(result.epsilon)
        else:
            claim, report = _tightest(_attempts(result, arithmetic, as_found, mended))
        if report.verdict is not Verdict.ACCEPT:
            return report
        os.replace(candidate, path)
        return claim, report
    finally:
        candidate.unlink(missing_ok=True)


def _tightest(attempts: Sequence[tuple[Fraction, Ask]]) -> tuple[Fraction, AuditReport]:
    """The first claim that is not refused, or what the auditor then shows where that is worth a second audit."""
    for claim, ask in attempts:
        report = ask(claim)
        if report.verdict is not Verdict.REJECT:
            break
    if report.bound is None or round_up(report.bound) > WORTHWHILE * claim:
        return claim, report
    tighter = ask(round_up(report.bound))
    if tighter.verdict is Verdict.ACCEPT:
        return round_up(report.bound), tighter
    return claim, ask(claim)


def _attempts(result: DeviationResult, arithmetic: str, as_found: Ask, mended: Ask) -> list[tuple[Fraction, Ask]]:
    """Claims to try, smallest first, where the tightest bound is wanted, and how to ask for them.

    With the rule "pair_backward" the auditor does as much as a claim needs, so a vacuous one teaches little; with the
    others its report on a vacuous claim holds the best bound it has. Nothing is mended for float32: what roundings add
    is not known before.
    """
    proved, real = Fraction(result.upper), arithmetic == "real"
    exact = (round_up(proved), as_found)
    nearly = (round_up(proved * NEARLY), mended if real else as_found)
    if result.rule == BACKWARD:
        larger = [(claim, as_found) for claim in dict.fromkeys(round_up(proved * factor) for factor in LARGER)]
        return [exact, nearly, *larger, (VACUOUS, as_found)]
    return [exact, nearly, (VACUOUS, as_found)] if real else [(VACUOUS, as_found)]


def round_up(value: Fraction, digits: int = DIGITS) -> Fraction:
    """A decimal of `digits` significant digits above `value`; 0 stays 0."""
    if value <= 0:
        return Fraction(0)
    unit = Fraction(1)
    while value / unit >= 10**digits:
        unit *= 10
    while value / unit < 10 ** (digits - 1):
        unit /= 10
    return (value // unit + 1) * unit
