"""From a search's result to a certificate that the auditor has accepted, or to none.

The prover and the auditor choose slopes with different arithmetic, so the auditor's own bound may lie a little
above the prover's. When a bound was asked for, it is that bound or nothing; leaves that the auditor refuses are halved.
When the tightest bound was wanted, the certificate states what the auditor itself can show: never less than it proved.
"""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from verify.audit.check import AuditReport, Verdict, audit
from verify.certificate.emit import emit_certificate
from verify.certificate.mend import STRICTER, mended
from verify.formal.backward.leaves import RULE as BACKWARD
from verify.formal.deviation import DeviationResult
from verify.spec.box import Box
from verify.spec.deviation import Tree
from verify.spec.deviation import Verdict as SearchVerdict

DIGITS = 4
WORTHWHILE = Fraction(9, 10)  # a second audit is run for a bound that is smaller by this factor
ROUNDING_SYMBOLS = 1024  # for roundings, so that they cancel and shrink like any other error; beyond it they add up
VACUOUS = Fraction(10**30)  # a claim that says nothing, to learn what the auditor can show
LARGER = tuple(Fraction(n, 100) for n in (100, 101, 105, 120, 150, 200, 400, 1600))  # times the bound that was proved


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

    def attempt(epsilon: Fraction, boxes: Sequence[Box] = boxes, trees: Sequence[Tree] = result.trees) -> AuditReport:
        emit_certificate(
            candidate, original=original, compact=compact, boxes=boxes, epsilon=epsilon, lift=result.lift,
            rule=result.rule, parameters=parameters, trees=trees, arithmetic=arithmetic,
        )  # fmt: skip
        return audit(candidate, original, compact)

    def accepts(box: Box, tree: Tree) -> bool:
        return attempt(STRICTER * claim, [box], [tree]).verdict is Verdict.ACCEPT

    try:
        asked = result.epsilon
        for claim in [asked] if asked is not None else _claims(result, arithmetic):
            report = attempt(claim)
            if report.verdict is not Verdict.REJECT:
                break
        if asked is not None and report.verdict is Verdict.REJECT:
            trees = [mended(tree, box, accepts) for tree, box in zip(result.trees, boxes, strict=True)]
            report = attempt(claim, boxes, [t for t in trees if t is not None]) if None not in trees else report
        if asked is None and report.bound is not None and round_up(report.bound) <= WORTHWHILE * claim:
            tighter = attempt(round_up(report.bound))
            accepted = tighter.verdict is Verdict.ACCEPT
            claim, report = (round_up(report.bound), tighter) if accepted else (claim, attempt(claim))
        if report.verdict is not Verdict.ACCEPT:
            return report
        os.replace(candidate, path)
        return claim, report
    finally:
        candidate.unlink(missing_ok=True)


def _claims(result: DeviationResult, arithmetic: str) -> list[Fraction]:
    """Claims to try, smallest first, where the tightest bound is wanted.

    With the rule "pair_backward" the auditor does as much as a claim needs, so a vacuous one teaches little; with the
    others its report on a vacuous claim holds the best bound it has.
    """
    proved = Fraction(result.upper)
    if result.rule == BACKWARD:
        return [*dict.fromkeys(round_up(proved * larger) for larger in LARGER), VACUOUS]
    return [VACUOUS] if arithmetic == "float32" else [round_up(proved), VACUOUS]


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
