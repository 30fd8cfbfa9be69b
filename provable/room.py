"""Room for the values of all calibration inputs, and the order in which they are gone through.

Memory must not grow with the number of inputs. So an array of more than `IN_MEMORY` bytes lives in a file of the
system's temporary folder (TMPDIR), mapped: its pages belong to the operating system, which writes them out and drops
them as it needs to. The file has no name once it is mapped, so a killed run leaves nothing behind. And whoever goes
through an array takes `pieces` of it.

What is computed depends on the pieces, whose sizes depend on shapes alone, and not on where the array lives: results
are the same to the bit.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from provable.errors import OutputError

IN_MEMORY = 128 << 20
"""Bytes up to which an array stays in memory."""
PIECE = 16 << 20
"""Bytes of an array that are gone through at a time."""


def room(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, in_memory: int | None = None) -> Tensor:
    """An array with arbitrary content.

    Args:
        shape: of the array.
        dtype: of its numbers.
        in_memory: bytes up to which it stays in memory; None: `IN_MEMORY`.

    Raises:
        OutputError: the temporary folder has no room for it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size == 0 or size <= (IN_MEMORY if in_memory is None else in_memory):
        return torch.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(prefix="provable-") as file:
            _reserve(file.fileno(), size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: no room for {size / 2**20:.0f} MB of a layer's values ({error}); set TMPDIR to "
            "a folder with more, or give fewer calibration inputs"
        ) from error
    return torch.frombuffer(mapped, dtype=dtype).view(shape)


def _reserve(file: int, size: int) -> None:
    """Blocks on the disk now: a mapped page without one would kill the process later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


def pieces(count: int, shape: tuple[int, ...], multiple: int = 1) -> Iterator[slice]:
    """Slices of `count` samples of this shape, each of about `PIECE` bytes in single precision.

    Args:
        count: how many samples.
        shape: of one.
        multiple: all slices but the last hold a multiple of this many samples.
    """
    size = max(1, PIECE // (4 * max(1, math.prod(shape)) * multiple)) * multiple
    return (slice(a, b) for a, b in pairwise([*range(0, count, size), count]))
