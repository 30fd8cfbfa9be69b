"""Which widths a group may take: from its floor to all of its slots, in steps that suit the machine.

    multiple 1      floor, floor + 1, ..., size
    multiple N      the multiples of N from the floor on, and size itself

Kernels work on blocks of 8 or 16 channels: 33 channels cost as much as 40, so 32 or 40 is what one wants. A group that
is no wider than N has no smaller multiple to offer; it may take any width.

Not claimed: that a multiple is faster on every machine; a latency budget measures it.
"""

import math
from collections.abc import Mapping

from provable.errors import InputError

Widths = tuple[int, ...]
Floor = int | float | Mapping[str, int | float]


def allowed(size: int, floor: int = 1, multiple: int = 1) -> Widths:
    """Widths a group of `size` slots may take, ascending; the last one is `size`.

    Args:
        size: slots of the group, >= 1.
        floor: slots it keeps at least; more than `size` means that it stays whole.
        multiple: step, >= 1.
    """
    floor = min(max(floor, 1), size)
    step = 1 if size <= multiple else multiple
    first = -(-floor // step) * step
    return (*range(first, size, step), size)


def allowed_widths(sizes: Mapping[str, int], floor: Floor, multiple: int) -> dict[str, Widths]:
    """Group -> widths it may take.

    Args:
        sizes: group -> slots.
        floor: slots every group keeps at least, a share of each group's slots in (0, 1), or slots per group
            (groups that are not named: 1).
        multiple: see `allowed`.

    Raises:
        InputError: a floor or the multiple makes no sense, or names no group.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise InputError(f"round_to is the number that kept widths are multiples of, an integer >= 1; got {multiple!r}")
    if isinstance(floor, Mapping):
        unknown = sorted(set(floor) - set(sizes))
        if unknown:
            raise InputError(f"floor: no group {unknown[0]!r} in the scope; groups: {', '.join(sizes)}")
    for given in floor.values() if isinstance(floor, Mapping) else (floor,):
        _check(given)
    return {name: allowed(size, _slots(name, size, floor), multiple) for name, size in sizes.items()}


def _check(floor: int | float) -> None:
    share = isinstance(floor, float) and 0.0 < floor < 1.0
    if isinstance(floor, bool) or not (share or (isinstance(floor, int) and floor >= 1)):
        raise InputError(
            "floor is what every group keeps at least: a number of channels, an integer >= 1, or a share of them "
            f"between 0 and 1; got {floor!r}"
        )


def _slots(name: str, size: int, floor: Floor) -> int:
    given = floor.get(name, 1) if isinstance(floor, Mapping) else floor
    return given if isinstance(given, int) else math.ceil(given * size)
