"""The same share of every group: the allowed width nearest to fraction x slots, the wider one of two."""

from collections.abc import Mapping

from provable.allocation.budget import Allocation
from provable.allocation.widths import Widths


def uniform(widths: Mapping[str, Widths], fraction: float) -> Allocation:
    """Counts per group.

    Args:
        widths: group -> widths it may take; the last one is all of its slots.
        fraction: share to keep, in (0, 1].
    """
    counts = {name: _nearest(choices, fraction * choices[-1]) for name, choices in widths.items()}
    return Allocation(counts, fraction, "share of every group")


def _nearest(choices: Widths, wanted: float) -> int:
    return min(reversed(choices), key=lambda width: abs(width - wanted))
