"""Freed memory stays with the process.

glibc maps every large block afresh and gives it back when it is freed, so that each use begins with a page fault per
4 KiB: a third of the time of bounding a batch, whose values are some megabytes each. It learns from the largest mapped
block freed so far (mallopt(3), M_MMAP_THRESHOLD): blocks up to that size then come from the heap, and twice as much
stays there. One block of the largest size it learns from is allocated and freed, untouched. Other C
libraries ignore it.
"""

import torch

LARGEST = 31 * 2**20  # just below glibc's DEFAULT_MMAP_THRESHOLD_MAX


def keep_freed_memory() -> None:
    """Make blocks up to `LARGEST` bytes cheap to allocate again; costs microseconds, changes no result."""
    torch.empty(LARGEST, dtype=torch.uint8)
