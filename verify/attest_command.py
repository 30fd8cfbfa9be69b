"""`verify attest`: state the auditor's verdict for others, signed or not, and check such a statement.

Who signed and what is true are answered apart: the signature by --public-key, the truth by auditing the files again.
"""

import argparse
from pathlib import Path

from verify.attestation.envelope import LARGEST, payload_of, sign
from verify.attestation.statement import decode, encode, matches, statement
from verify.audit.files import read_file
from verify.cli import PROVED, REFUTED, UNKNOWN
from verify.deviation_command import refuse_existing
from verify.errors import CertificateError, InputError
from verify.network.files import write_bytes

EXIT_CODES = {"accept": PROVED, "reject": REFUTED, "malformed": 3}


def run_attest(options: argparse.Namespace) -> int:
    """Write a statement, or check one; returns the exit code."""
    return _check(options) if options.check is not None else _state(options)


def _state(options: argparse.Namespace) -> int:
    if options.out is None or options.public_key is not None:
        raise InputError("a new statement needs --out (and --key to be signed); --public-key goes with --check")
    refuse_existing(options.out, options.force)
    content = statement(*_files(options))
    payload = encode(content)
    write_bytes(options.out, payload + b"\n" if options.key is None else sign(payload, options.key))
    verdict = content["predicate"]["verdict"]
    print(f"Verdict stated: {verdict.upper()}. {content['predicate'].get('claim', 'Nothing was established.')}")
    print(f"{options.out}: {'not signed' if options.key is None else 'signed'}")
    return EXIT_CODES.get(verdict, UNKNOWN)


def _check(options: argparse.Namespace) -> int:
    data = read_file(options.check, LARGEST)
    try:
        signed = data.lstrip().startswith(b'{\n "payloadType"') or b'"payloadType"' in data[:200]
        if options.public_key is not None and not signed:
            raise CertificateError("the statement is not signed")
        content = decode(payload_of(data, options.public_key) if signed else data)
    except CertificateError as error:
        print(f"Signature: NOT VERIFIED: {error}")
        return REFUTED
    who = "verified" if options.public_key is not None else "not checked (give --public-key)" if signed else "none"
    print(f"Signature: {who}. It says who stands behind the statement, not whether it is true.")
    if not matches(content, *_files(options)):
        print("Truth: REJECT: auditing these files gives another verdict, or the statement is about other files.")
        return REFUTED
    verdict = str(content["predicate"]["verdict"])
    print(f"Truth: auditing the files again gives the verdict of the statement: {verdict.upper()}.")
    return EXIT_CODES.get(verdict, UNKNOWN)


def _files(options: argparse.Namespace) -> tuple[Path, Path, Path]:
    return options.certificate, options.original, options.compact
