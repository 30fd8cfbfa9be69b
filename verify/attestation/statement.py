"""A certificate and the auditor's verdict on it as an in-toto Statement v1.

    subject        the files of both networks, by SHA-256
    predicateType  urn:provable-pruning:audit-verdict:v0
    predicate      certificate (name, SHA-256), verdict, claim in words, bound, what was not established, auditor

The statement holds what an audit found at one time. Not claimed: that the verdict in a statement is right; whoever has
the files can audit again, and `matches` says whether that gives the same.
Reference: in-toto Attestation Framework, Statement v1.
"""

import json
from pathlib import Path
from typing import Any

from verify.audit.__main__ import own_sources, upward
from verify.audit.check import AuditReport, Verdict, audit, network_files
from verify.audit.files import read_file, read_json, sha256
from verify.errors import CertificateError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:provable-pruning:audit-verdict:v0"


def statement(certificate: Path, original: Path, compact: Path) -> dict[str, Any]:
    """Audit a certificate and state the outcome; nothing is taken from elsewhere."""
    report = audit(certificate, original, compact)
    files = [*network_files(original, None), *network_files(compact, None)]
    lines, digest = own_sources()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f.name, "digest": {"sha256": sha256(read_file(f))}} for f in files],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "certificate": {"name": certificate.name, "sha256": sha256(read_file(certificate))},
            "verdict": report.verdict.value,
            **_found(report),
            "auditor": {"lines": lines, "sha256": digest},
        },
    }


def _found(report: AuditReport) -> dict[str, Any]:
    if report.verdict is not Verdict.ACCEPT or report.bound is None:
        return {"reason": report.reason}
    return {
        "claim": report.claim_words, "bound": upward(report.bound), "leaves": report.leaves,
        "notEstablished": report.limits,
    }  # fmt: skip


def encode(content: dict[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys and no blanks."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def decode(payload: bytes) -> dict[str, Any]:
    """A statement of this kind, read strictly.

    Raises:
        CertificateError: it is something else.
    """
    try:
        content = read_json(payload)
    except Exception as error:
        raise CertificateError(f"the payload is no statement: {error}") from None
    keys = {"_type", "subject", "predicateType", "predicate"}
    if not isinstance(content, dict) or set(content) != keys or content["_type"] != STATEMENT_TYPE:
        raise CertificateError("the payload is no in-toto Statement v1")
    if content["predicateType"] != PREDICATE_TYPE:
        raise CertificateError(f"the statement is about {str(content['predicateType'])[:80]!r}, not {PREDICATE_TYPE!r}")
    return content


def matches(content: dict[str, Any], certificate: Path, original: Path, compact: Path) -> bool:
    """Whether auditing these files now gives this statement, up to the files' names and the auditor's version."""
    return bool(_essence(content) == _essence(statement(certificate, original, compact)))


def _essence(content: dict[str, Any]) -> Any:
    subject, predicate = content["subject"], content["predicate"]
    if not isinstance(subject, list) or not isinstance(predicate, dict):
        return None
    digests = [s.get("digest") if isinstance(s, dict) else None for s in subject]
    certificate = predicate.get("certificate")
    digest = certificate.get("sha256") if isinstance(certificate, dict) else None
    return digests, digest, predicate.get("verdict"), predicate.get("bound"), predicate.get("leaves")
