"""Laws of forward selection: every gain is a change of explained variance, twins cost nothing, constants fold away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.moments import Moments
from provable.pipeline import compress
from provable.selection.evidence import relative_loss
from provable.selection.forward_selection import rank
from provable.selection.greedy_elimination import View, eliminate
from verify.network.evaluate import evaluate


def view(seed: int, channels: int, size: int, targets: int, extra: int = 0, samples: int = 200) -> View:
    random = np.random.default_rng(seed)
    d = channels * size + extra
    x = random.normal(size=(samples, d)) @ random.normal(size=(d, d)) + random.normal(size=d)
    weight = random.normal(size=(targets, d))
    regression = Moments.of(x, x @ weight.T + random.normal(size=targets)).centred()
    blocks = random.permutation(d)[: channels * size].reshape(channels, size)
    return View(regression, blocks, 1.0 / regression.total, weight)


sizes = {
    "seed": st.integers(0, 500),
    "channels": st.integers(1, 6),
    "size": st.integers(1, 3),
    "extra": st.integers(0, 2),
}


@settings(max_examples=25, deadline=None)
@given(**sizes, consumers=st.integers(1, 2))
def test_every_gain_is_the_change_of_the_loss(seed, channels, size, extra, consumers) -> None:
    views = [view(seed + i, channels, size, 3, extra) for i in range(consumers)]
    found = rank(views, ridge=1e-10)
    assert sorted(found.order) == list(range(channels))
    assert np.all(np.diff(found.losses) <= 1e-12)
    for count in range(channels + 1):
        exact = relative_loss(views, found.kept(count), ridge=1e-12)
        assert found.losses[count] == pytest.approx(exact, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(**sizes)
def test_the_first_channel_is_the_best_single_one_and_the_end_meets_elimination(seed, channels, size, extra) -> None:
    one = view(seed, channels, size, 2, extra)
    found = rank([one], ridge=1e-10)
    alone = [relative_loss([one], [c]) for c in range(channels)]
    assert alone[found.order[0]] == pytest.approx(min(alone), abs=1e-5)
    assert found.losses[-1] == pytest.approx(eliminate([one]).losses[-1], abs=1e-5)


def test_a_twin_comes_last_at_no_loss() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4))
    x = np.c_[x, x[:, 1]]
    regression = Moments.of(x, x @ random.normal(size=(3, 5)).T).centred()
    found = rank([View(regression, np.arange(5)[:, None], 1.0 / regression.total, None)])
    assert found.order[-1] in (1, 4)
    assert relative_loss([View(regression, np.arange(5)[:, None], 1.0 / regression.total, None)], found.kept(4)) < 1e-9


def test_a_constant_channel_folds_into_the_bias(sketch) -> None:
    """Weights 0 and bias 0.7: the unit is constant, leaves first, and its contribution moves into the next bias."""
    s = sketch((5,), seed=3, dtype="float64")
    network = s.network(s.linear(s.add("relu", s.linear("x", 6)), 3))
    first = next(k for k in network.parameters if k.endswith("weight"))
    weight, bias = network.parameters[first].copy(), network.parameters[first.replace("weight", "bias")].copy()
    weight[2], bias[2] = 0.0, 0.7
    network = network.with_parameters({first: weight, first.replace("weight", "bias"): bias})
    x = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    result = compress(network, x, keep={"channels": 5 / 6}, recipe="cap")
    hidden = x @ weight.T + bias
    assert np.all((hidden > 0).any(axis=0)), "no unit is dead, which would be constant, too"
    assert next(iter(result.kept.values())) == (0, 1, 3, 4, 5)
    np.testing.assert_allclose(evaluate(result.compact, x), evaluate(network, x), atol=1e-5)
