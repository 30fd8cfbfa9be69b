"""Points outside the bounds would be seen; none are."""

from types import ModuleType

import numpy as np
import pytest

from tests.scripts.loading import load_script
from verify import evaluate


@pytest.fixture(scope="module")
def soundness() -> ModuleType:
    return load_script("bench_soundness")


@pytest.mark.parametrize("seed", range(8))
def test_no_point_is_outside(soundness: ModuleType, seed: int) -> None:
    _, wrong, _ = soundness.judge(seed + 1, 100)
    assert len(wrong) >= 5
    assert not any(wrong.values())


@pytest.mark.slow
def test_no_point_is_outside_for_many_pairs(soundness: ModuleType) -> None:
    for seed in range(1000, 1100):
        assert not any(soundness.judge(seed, 400)[1].values())


def test_a_bound_that_is_too_small_is_seen(soundness: ModuleType) -> None:
    """Bounds just inside what the points attain, by one unit in the last place."""
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        case = soundness.dense(rng)
        box = soundness.box_of(rng, case.original.input_shape[0])
        x = soundness.points_in(rng, case, box, 100)
        difference = evaluate(case.original, x) - evaluate(case.compact, x)
        if not np.ptp(difference, axis=0).all():
            continue
        exact = [max(float(case.exact(x[i])[j]) for i in range(len(x))) for j in range(difference.shape[1])]
        high = np.nextafter(np.array(exact), -np.inf)
        low = np.full_like(high, -np.inf)
        assert soundness.outside(case, x, low, high, difference, 0.0) > 0
        seen += 1
    assert seen > 3


def test_exact_values_are_those_of_the_network(soundness: ModuleType) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        case = soundness.dense(rng)
        x = rng.normal(size=(3, *case.original.input_shape))
        expected = evaluate(case.original, x) - evaluate(case.compact, x)
        scale = np.abs(evaluate(case.original, x)).max() + np.abs(evaluate(case.compact, x)).max()
        for row, point in zip(expected, x, strict=True):
            np.testing.assert_allclose([float(v) for v in case.exact(point)], row, rtol=1e-9, atol=1e-9 * scale)
