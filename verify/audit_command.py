"""`verify audit`: check a certificate of either kind without trusting whoever made it.

A deviation certificate goes to `verify.audit`, which shares no code with the prover. A statistical certificate is
recounted: the networks run again on the very inputs it names, which have to be given.
"""

import argparse
import json
from pathlib import Path

from verify.audit.__main__ import main as audit_main
from verify.cli import PROVED, REFUTED
from verify.errors import CertificateError, InputError
from verify.network.load import load_network
from verify.statistical.certificate_file import FORMAT, LARGEST_FILE, read_certificate, recount
from verify.statistical.disjoint import read_calibration_rows
from verify.statistical_command import read_inputs


def run_audit(options: argparse.Namespace) -> int:
    """Print the verdict; returns the exit code."""
    if is_statistical(options.certificate):
        return _recount(options)
    if options.data is not None or options.calibration_rows is not None:
        raise InputError(
            f"{options.certificate} is no statistical certificate; a proof needs no --data and no --calibration-rows"
        )
    paths = [str(options.certificate), "--original", str(options.original), "--compact", str(options.compact)]
    return int(audit_main(paths))


def is_statistical(path: Path) -> bool:
    """Whether the file calls itself a statistical certificate; false for anything unreadable."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_FILE:
            return False
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def _recount(options: argparse.Namespace) -> int:
    certificate = read_certificate(options.certificate)
    if options.data is None:
        raise InputError(f"{options.certificate} is a statistical certificate: give the inputs it names with --data")
    rows = () if options.calibration_rows is None else read_calibration_rows(options.calibration_rows)
    if len(set(rows)) < certificate.rows.calibration_rows:
        raise InputError(
            f"{options.certificate} compared its inputs with {certificate.rows.calibration_rows} calibration "
            f"inputs; give their hashes with --calibration-rows"
        )
    networks = load_network(options.original), load_network(options.compact)
    try:
        holds = recount(certificate, *networks, read_inputs(options.data, options.key), calibration_rows=rows)
    except CertificateError as error:
        print(f"REJECT: {error}\nNothing was established.")
        return REFUTED
    if not holds:
        print("REJECT: running the networks again gives weaker claims.\nNothing was established.")
        return REFUTED
    print("ACCEPT: running the networks again on the same inputs gives these claims or stronger ones.")
    print(certificate.statement)
    print("Not established: that these inputs were drawn independently from the source named above.")
    return PROVED
