"""Reading whole files with a limit, and writing them so that no reader ever sees half of one."""

import os
import tempfile
from pathlib import Path

from verify.errors import InputError, ModelError

MAX_BYTES = 1 << 31


def read_bytes(path: Path, expected: str, limit: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes; a link is refused.

    Raises:
        ModelError: it is missing, not a regular file, unreadable or too large; `expected` says what was wanted.
    """
    try:
        if path.is_symlink():
            raise ModelError(f"{path}: a link; give the file itself, {expected}")
        if not path.exists():
            raise ModelError(f"{path}: no such file; expected {expected}")
        if not path.is_file():
            raise ModelError(f"{path}: not a regular file; expected {expected}")
        with open(path, "rb", opener=_no_link) as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if len(data) > limit:
        raise ModelError(f"{path}: larger than the limit of {limit} bytes")
    return data


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step: a temporary file in the same folder, flushed to disk, then renamed.

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
