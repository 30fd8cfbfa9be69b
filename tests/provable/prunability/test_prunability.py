"""Laws of prunability: nested masks, the documented rule, zeros that cost nothing, ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.errors import InputError
from provable.prunability import Curve, bisected, prunability, pruned, rank_correlation
from provable.prunability.measure import GRID, loss_curve, weight_keys
from verify.network.evaluate import evaluate
from verify.network.graph import Network


def perceptron(sketch, seed: int = 0) -> Network:
    s = sketch((5,), seed=seed, dtype="float32")
    return s.network(s.linear(s.add("relu", s.linear("x", 20)), 3))


def distance_to(network: Network):
    """A loss that is 1 for the network itself and grows with the squared distance of the outputs."""
    x = np.random.default_rng(0).normal(size=(50, 5))
    aim = evaluate(network, x)
    return lambda other: 1.0 + float(np.square(evaluate(other, x) - aim).mean())


def remaining(network: Network) -> float:
    """A loss that is monotone in the share: the squared weights that are gone."""
    return 1.0 + sum(float(np.square(network.parameters[k]).sum()) for k in weight_keys(network))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.floats(0.1, 10))
def test_the_rule_decides_every_curve(losses: list[float], limit: float) -> None:
    shares = tuple(1.0 / (i + 1) for i in range(len(losses)))
    curve = Curve(shares, tuple(losses))
    assert list(curve.repaired) == sorted(curve.repaired)
    found = curve.smallest(limit)
    passing = [i for i in range(len(losses)) if all(loss <= limit for loss in losses[: i + 1])]
    assert found == (shares[passing[-1]] if passing else 1.0)


def test_everything_always_passes_and_nested_masks(sketch) -> None:
    network = perceptron(sketch)
    for kind in ("magnitude", "random"):
        found = prunability(network, distance_to(network), kind=kind, tolerance=0.0, absolute=0.0)
        assert 0.0 < found.relative <= 1.0
        assert found.curve.losses[0] == found.loss == 1.0
        assert prunability(network, distance_to(network), kind=kind, tolerance=1e9).relative == min(GRID)
    order = np.argsort(np.random.default_rng(0).random(160))
    keys = weight_keys(network)
    small, large = (pruned(network, share, order.astype(float)) for share in (0.25, 0.6))
    for key in keys:
        assert np.all((large.parameters[key] != 0) | (small.parameters[key] == 0))
    assert sum(np.count_nonzero(small.parameters[key]) for key in keys) == 40


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_weights_that_are_zero_need_not_be_kept(sketch, share: float) -> None:
    network = perceptron(sketch)
    random, changed = np.random.default_rng(0), {}
    for key in weight_keys(network):
        array = network.parameters[key].copy()
        array.ravel()[random.permutation(array.size)[: int(share * array.size)]] = 0.0
        changed[key] = array
    network = network.with_parameters(changed)
    found = prunability(network, distance_to(network), tolerance=0.0, absolute=0.0)
    assert found.relative <= 1.0 - share + 1e-9
    assert prunability(network, distance_to(network), kind="random", tolerance=0.0).relative > found.relative


@pytest.mark.parametrize("kind", ["magnitude", "random"])
def test_bisection_and_scan_agree_where_the_loss_is_monotone(sketch, kind: str) -> None:
    network = perceptron(sketch)

    def loss(other: Network) -> float:
        return remaining(network) - remaining(other) + 1.0

    fine = tuple(np.linspace(0.01, 1.0, 100))
    curve = loss_curve(network, loss, kind=kind, grid=fine, generator=np.random.default_rng(3))
    limit = 1.0 + 0.3 * (remaining(network) - 1.0)
    found = bisected(network, loss, limit, kind=kind, generator=np.random.default_rng(3))
    assert abs(found - curve.smallest(limit)) <= 0.01 + 1e-9


def test_magnitude_needs_fewer_weights_than_chance(sketch) -> None:
    network = perceptron(sketch)
    loss = distance_to(network)
    large, chance = (prunability(network, loss, kind=kind).relative for kind in ("magnitude", "random"))
    assert large < chance


def test_ranks() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=30)
    found = rank_correlation(x, np.exp(x), random)
    assert (found.tau, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert found.p_value < 1e-6
    assert rank_correlation(x, -x, random).tau == pytest.approx(-1.0)
    noisy = rank_correlation(x, x + random.normal(size=30), random)
    assert -1 <= noisy.low <= noisy.tau <= noisy.high <= 1
    constant = rank_correlation(x, np.ones(30), random)
    assert (constant.tau, constant.p_value) == (0.0, 1.0)


def test_bad_questions_are_refused(sketch) -> None:
    network = perceptron(sketch)
    for arguments, words in (
        ({"kind": "luck"}, "magnitude or random"),
        ({"tolerance": -0.1}, "negative"),
        ({"grid": (0.0,)}, r"\(0, 1\]"),
        ({"grid": (1.5,)}, r"\(0, 1\]"),
    ):
        with pytest.raises(InputError, match=words):
            prunability(network, lambda n: 1.0, **arguments)
    with pytest.raises(InputError, match="not finite"):
        prunability(network, lambda n: float("nan"))
    s = sketch((5,))
    with pytest.raises(InputError, match="nothing to prune"):
        prunability(s.network(s.add("relu", "x")), lambda n: 1.0)
    for pair in (([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0]), ([1.0, 2.0, np.nan], [1.0, 2.0, 3.0])):
        with pytest.raises(InputError, match="at least three"):
            rank_correlation(*pair, np.random.default_rng(0))
