"""A machine whose float64 arithmetic is not that of IEEE 754 must not judge, whichever operation it gets wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from verify.audit.exact import Resource, self_test

RINT, MATMUL, ADD = np.rint, np.matmul, np.add
Operation = Callable[..., Any]


def of_floats(change: Operation) -> Operation:
    """Products of floats are changed, those of integers are right."""
    return lambda a, b: change(MATMUL(a, b)) if a.dtype.kind == "f" else MATMUL(a, b)


def one_entry_off(at: int) -> Operation:
    return of_floats(lambda c: c + (np.arange(c.size).reshape(c.shape) == at))


FAULTS: dict[str, tuple[str, Operation]] = {
    "halves go away from zero": ("rint", lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5)),
    "halves go up": ("rint", lambda x: np.floor(x + 0.5)),
    "halves go down": ("rint", lambda x: np.ceil(x - 0.5)),
    "halves go to zero": ("rint", lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5)),
    "halves go to odd numbers": ("rint", lambda x: 2 * RINT((x - 1) / 2) + 1 if (x % 1).any() else x),
    "nothing is rounded": ("rint", lambda x: x),
    "rounded down": ("rint", np.floor),
    "rounded up": ("rint", np.ceil),
    "cut": ("rint", np.trunc),
    "subnormal numbers are flushed": ("add", lambda a, b: np.where(np.abs(ADD(a, b)) < 2.0**-1022, 0.0, ADD(a, b))),
    "sums in single precision": (
        "add", lambda a, b: np.where(ADD(a, b) < 1, ADD(a, b), ADD(a, b).astype(np.float32))),
    "sums of 52 bits": ("add", lambda a, b: np.where(ADD(a, b) < 1, ADD(a, b), ADD(a, b) // 2 * 2)),
    "products in single precision": ("matmul", of_floats(lambda c: c.astype(np.float32))),
    "products lose their last bit": ("matmul", of_floats(lambda c: RINT(c / 2) * 2)),
    "large products lose their last bit": (
        "matmul", of_floats(lambda c: np.where(np.abs(c) < 2.0**50, c, RINT(c / 2) * 2))),
    "every product is off": ("matmul", lambda a, b: MATMUL(a, b) + 1),
    "the first entry is off": ("matmul", one_entry_off(0)),
    "an entry is off": ("matmul", one_entry_off(17)),
    "the last entry is off": ("matmul", one_entry_off(199)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_that_calculates_otherwise_does_not_judge(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    self_test()
    monkeypatch.setattr(np, *FAULTS[fault])
    with pytest.raises(Resource, match="self test"):
        self_test()
