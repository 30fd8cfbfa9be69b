"""`verify statistical`: what fresh inputs establish about two networks, with a stated confidence."""

import argparse
from collections.abc import Collection
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from verify.cli import PROVED, UNKNOWN
from verify.deviation_command import refuse_existing
from verify.errors import DataError
from verify.network.graph import Array
from verify.network.load import load_network
from verify.statistical.certificate import StatisticalCertificate, certify_sample
from verify.statistical.certificate_file import write_certificate
from verify.statistical.disjoint import read_calibration_rows


def run_statistical(options: argparse.Namespace) -> int:
    """Certify, print the claims in words, write the certificate where asked; returns the exit code.

    Exit code 0: claims were established; 2: the sample shows nothing at this confidence.
    """
    refuse_existing(options.certificate, options.force)
    original, compact = load_network(options.original), load_network(options.compact)
    certificate = certify_sample(
        original, compact, read_inputs(options.data, options.key),
        calibration_rows=_calibration_rows(options.calibration_rows), epsilon=options.epsilon,
        confidence=options.confidence, population=f"the distribution behind {options.data.name}",
    )  # fmt: skip
    print(certificate.statement)
    if options.certificate is not None:
        write_certificate(certificate, options.certificate)
        print(f"Certificate: {options.certificate}")
    return PROVED if _says_something(certificate) else UNKNOWN


def read_inputs(path: Path, key: str | None = None) -> Array:
    """The array in a .npy file, or one array of an .npz file; nothing is unpickled.

    Raises:
        DataError: missing, damaged, of another kind, or it is not clear which array is meant.
    """
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"{path}: expected a .npy or .npz file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as archive:
            return np.asarray(archive[_name(path, list(archive.keys()), key)])
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as numpy data: {error}") from None


def _name(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        wanted = "choose one with --key" if key is None else f"there is no {key!r}"
        raise DataError(f"{path}: holds arrays {', '.join(names) or 'none'}; {wanted}")
    return key


def _calibration_rows(path: Path | None) -> Collection[str]:
    return () if path is None else read_calibration_rows(path)


def _says_something(certificate: StatisticalCertificate) -> bool:
    return any(claim.question.kind in ("quantile", "mean") or claim.bound < 1 for claim in certificate.claims)
