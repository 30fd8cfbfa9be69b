"""The same share of every group: round(fraction x slots), at least the floor."""

import math
from collections.abc import Mapping

from provable.allocation.budget import Allocation


def uniform(sizes: Mapping[str, int], fraction: float, floors: Mapping[str, int]) -> Allocation:
    """Counts per group.

    Args:
        sizes: group -> slots.
        fraction: share to keep, in (0, 1].
        floors: group -> smallest count allowed.
    """
    counts = {name: max(floors[name], math.floor(fraction * size + 0.5)) for name, size in sizes.items()}
    return Allocation(counts, fraction, "share of every group")
