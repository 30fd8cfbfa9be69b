"""The file of a statistical certificate: JSON, written in one step, read strictly.

    {"format": "provable-pruning statistical certificate", "version": 0,
     "original": SHA-256, "compact": SHA-256, "confidence": "0.999",
     "sample": {"samples", "data", "rows", "duplicates", "calibration_rows", "population"},
     "evaluation": {"engine", "arithmetic": "float64", "margin", "deviations", "largest"},
     "claims": [{"kind", "parameter", "bound", "count", "measured", "delta"}, ...],
     "words": ["..."]}

Numbers that matter are strings: exact decimals, fractions p/q, or hexadecimal floats ("largest", "measured").
The words are written for people and never read back: they follow from the numbers. Reading recomputes the binomial
tail of every rate and quantile; a bound that its count does not support is refused.
Not claimed: that the counts are true; `recount` runs the networks on the data again.
"""

import json
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

from verify.errors import CertificateError
from verify.network.files import read_bytes, write_bytes
from verify.network.graph import Array, Network
from verify.statistical.binomial import binomial_tail_upper
from verify.statistical.certificate import StatisticalCertificate, certify_questions
from verify.statistical.claims import KINDS, Claim, Question, decimal_text
from verify.statistical.confidence import number
from verify.statistical.disjoint import Disjointness

FORMAT = "provable-pruning statistical certificate"
VERSION = 0
LARGEST_FILE = 1 << 26
LARGEST_COUNT = 1 << 53
MOST_TERMS = 1 << 19  # of all binomial tails together: seconds
SLACK = 1 + Fraction(1, 10**9)  # two float64 runs of one network differ in the last digits


def write_certificate(certificate: StatisticalCertificate, path: Path) -> None:
    """Write the file in one step (an existing one is replaced).

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    text = json.dumps(_record(certificate), indent=1, ensure_ascii=True) + "\n"
    write_bytes(Path(path), text.encode())


def read_certificate(path: Path) -> StatisticalCertificate:
    """The certificate in a file.

    Raises:
        CertificateError: it is missing, damaged, of another format, or its numbers contradict each other.
    """
    try:
        text = read_bytes(Path(path), "a statistical certificate", LARGEST_FILE).decode()
        record = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
        certificate = _certificate(record)
    except CertificateError:
        raise
    except Exception as error:
        raise CertificateError(f"{path}: no statistical certificate: {type(error).__name__}: {error}") from None
    _check(certificate, path)
    return certificate


def recount(
    certificate: StatisticalCertificate,
    original: Network,
    compact: Network,
    inputs: Array,
    *,
    calibration_rows: Collection[str],
) -> bool:
    """Whether running the networks again on `inputs` gives these claims or stronger ones.

    The reference float64 run is used, whatever engine the certificate names.

    Raises:
        CertificateError: the networks or the inputs are others than the certificate's.
        DataError: an input was used for calibration.
    """
    if len(inputs) != certificate.samples:
        raise CertificateError(f"the certificate is about other data: {certificate.samples} inputs, got {len(inputs)}")
    again = certify_questions(
        original, compact, inputs, [claim.question for claim in certificate.claims],
        calibration_rows=calibration_rows, confidence=certificate.confidence, margin=certificate.margin,
        population=certificate.population,
    )  # fmt: skip
    for what in ("original", "compact", "data"):
        if getattr(again, what) != getattr(certificate, what):
            raise CertificateError(f"the certificate is about another {what} (SHA-256 differs)")
    return all(new.bound <= old.bound * SLACK for new, old in zip(again.claims, certificate.claims, strict=True))


def _record(c: StatisticalCertificate) -> dict[str, Any]:
    return {
        "format": FORMAT, "version": VERSION,
        "original": c.original, "compact": c.compact, "confidence": decimal_text(c.confidence),
        "sample": {
            "samples": c.samples, "data": c.data, "rows": c.rows.digest, "duplicates": list(c.rows.duplicates),
            "calibration_rows": c.rows.calibration_rows, "population": c.population,
        },
        "evaluation": {
            "engine": c.engine, "arithmetic": "float64", "margin": decimal_text(c.margin),
            "deviations": c.deviations, "largest": c.largest.hex(),
        },
        "claims": [
            {
                "kind": claim.question.kind,
                "parameter": None if claim.question.parameter is None else decimal_text(claim.question.parameter),
                "bound": decimal_text(claim.bound), "count": claim.count,
                "measured": claim.measured.hex(), "delta": str(claim.delta),
            }
            for claim in c.claims
        ],
        "words": c.statement.splitlines(),
    }  # fmt: skip


def _certificate(record: Any) -> StatisticalCertificate:
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise CertificateError(f'expected "format": "{FORMAT}" and "version": {VERSION}')
    top = _fields(record, "format version original compact confidence sample evaluation claims words")
    sample = _fields(top["sample"], "samples data rows duplicates calibration_rows population")
    run = _fields(top["evaluation"], "engine arithmetic margin deviations largest")
    n = _count(sample["samples"])
    return StatisticalCertificate(
        original=_text(top["original"]), compact=_text(top["compact"]), samples=n,
        confidence=_number(top["confidence"]), claims=tuple(_claim(c, n) for c in top["claims"]),
        margin=_number(run["margin"]), engine=_text(run["engine"]), data=_text(sample["data"]),
        rows=Disjointness(
            n, tuple(_count(i) for i in sample["duplicates"]), _count(sample["calibration_rows"]), _text(sample["rows"])
        ),
        deviations=_text(run["deviations"]), largest=float.fromhex(_text(run["largest"])),
        population=_text(sample["population"]),
    )  # fmt: skip


def _claim(record: Any, samples: int) -> Claim:
    fields = _fields(record, "kind parameter bound count measured delta")
    parameter = None if fields["parameter"] is None else _number(fields["parameter"])
    question = Question(_text(fields["kind"]), parameter)
    if question.kind not in KINDS or (parameter is None) != (question.kind == "disagreement"):
        raise CertificateError(f"unknown claim {question}")
    return Claim(
        question, _number(fields["bound"]), samples, _count(fields["count"]),
        float.fromhex(_text(fields["measured"])), _number(fields["delta"]),
    )  # fmt: skip


def _check(certificate: StatisticalCertificate, path: Path) -> None:
    """Refuse numbers that contradict each other."""
    spent = sum((claim.delta for claim in certificate.claims), Fraction(0))
    if not certificate.claims or not 0 < certificate.confidence < 1 or spent > 1 - certificate.confidence:
        raise CertificateError(f"{path}: the claims spend more error probability than the confidence leaves")
    if certificate.samples < 1 or certificate.margin < 0:
        raise CertificateError(f"{path}: no samples, or a negative margin")
    if sum(min(claim.count, claim.samples - claim.count) for claim in certificate.claims) > MOST_TERMS:
        raise CertificateError(
            f"{path}: its counts need tails of more than {MOST_TERMS} terms; that is not checked here"
        )
    for claim in certificate.claims:
        if not (claim.delta > 0 and claim.bound >= 0 and _supported(claim)):
            raise CertificateError(f"{path}: the counts do not support the claim that {claim.statement}")


def _supported(claim: Claim) -> bool:
    """Whether the binomial tail of a rate or a quantile is small enough; a mean cannot be checked from here."""
    n, k = claim.samples, claim.count
    if claim.question.kind in ("disagreement", "exceedance"):
        return 0 <= k <= n and (claim.bound >= 1 or binomial_tail_upper(n, k, claim.bound) <= claim.delta)
    if claim.question.kind == "quantile":
        coverage = claim.question.parameter or Fraction(1)
        return 1 <= k <= n and 0 < coverage < 1 and binomial_tail_upper(n, k - 1, 1 - coverage) <= claim.delta
    return True


def _fields(record: Any, names: str) -> dict[str, Any]:
    if not isinstance(record, dict) or set(record) != set(names.split()):
        raise CertificateError(f"expected an object with exactly the keys {names}")
    return record


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 10_000:
        raise CertificateError(f"expected a string, got {value!r:.60}")
    return value


def _number(value: Any) -> Fraction:
    return number(_text(value), "a number")


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_COUNT:
        raise CertificateError(f"expected a count, got {value!r:.60}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise CertificateError("a key appears twice")
    return dict(pairs)


def _refuse(text: str) -> Any:
    raise CertificateError(f"numbers are strings or integers, got {text}")
