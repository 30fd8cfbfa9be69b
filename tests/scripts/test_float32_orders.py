"""Float32 executions in any order stay within the audited float32 bound, and the table would show it if not."""

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts.loading import load_script


@pytest.fixture(scope="module")
def orders() -> ModuleType:
    return load_script("float32_orders")


def check(orders: ModuleType, folder: Path, pairs: int, seed: int) -> None:
    rng, apart = np.random.default_rng(seed), []
    for i in range(pairs):
        bound, worst, difference = orders.judge(rng, folder, cancelling=i % 4 == 3)
        assert len(worst) >= 8
        assert all(Fraction(deviation) <= bound for deviation in worst.values())
        apart.append(difference)
    assert sum(d > 0 for d in apart) > pairs // 2


def test_every_order_stays_inside(orders: ModuleType, tmp_path: Path) -> None:
    check(orders, tmp_path, 8, 0)


@pytest.mark.slow
def test_every_order_stays_inside_for_many_pairs(orders: ModuleType, tmp_path: Path) -> None:
    check(orders, tmp_path, 250, 1)


def test_the_orders_are_sums(orders: ModuleType) -> None:
    """Every order adds the same summands: exact where nothing is rounded, and different where it is."""
    rng = np.random.default_rng(2)
    x, w, b = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((5, 21), (3, 21), (3,)))
    for name, product in orders.ORDERS.items():
        assert np.array_equal(product(x, w, b), x @ w.T + b), name
    x, w = np.ones((1, 3), np.float32), np.array([[2.0**24, 1.0, -(2.0**24)]], np.float32)
    found = {float(product(x, w, np.zeros(1, np.float32))[0, 0]) for product in orders.ORDERS.values()}
    assert {0.0, 1.0} <= found
