"""Every compensation of the table: constraints hold exactly, no worse than weights before, closeness where promised."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.batch_norm import reestimated
from provable.compensation.constrained import Constrained
from provable.compensation.least_squares import fit, loss
from provable.compensation.minimax import chebyshev
from provable.compensation.moments import Moments, total
from provable.compensation.near_ridge import NearRidge
from provable.compensation.ridge import fit_held_out
from provable.compensation.strategies import STRATEGIES
from provable.errors import InputError
from provable.pipeline import compress
from verify.network.evaluate import evaluate
from verify.network.graph import Network

CONSTRAINTS = [Constrained(change=0.3), Constrained(signs=True), Constrained(norm=1.0), Constrained(0.2, True)]
FEW = settings(max_examples=6, deadline=None)


def problem(seed: int, d: int = 5, n: int = 3) -> tuple[list[Moments], np.ndarray]:
    """Two folds of data, and weights before."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, d)) @ random.normal(size=(d, d))
    t = x @ random.normal(size=(d, n)) + 0.3 * random.normal(size=(60, n))
    return [Moments.of(x[k::2], t[k::2]) for k in range(2)], random.normal(size=(n, d))


def holds(solver: Constrained, weight: np.ndarray, prior: np.ndarray) -> bool:
    size = np.linalg.norm(prior, axis=1) * (1 + 1e-12)
    near = solver.change is None or (np.linalg.norm(weight - prior, axis=1) <= solver.change * size).all()
    small = solver.norm is None or (np.linalg.norm(weight, axis=1) <= solver.norm * size).all()
    return bool(near and small and (not solver.signs or (weight * prior >= 0.0).all()))


@pytest.mark.parametrize("solver", CONSTRAINTS, ids=str)
@FEW
@given(seed=st.integers(0, 10**6))
def test_constraints_hold_and_the_fit_lies_between_free_and_before(solver: Constrained, seed: int) -> None:
    folds, prior = problem(seed)
    kept = np.arange(5)
    found, whole = solver(folds, kept, prior=prior), total(folds).centred()
    assert holds(solver, found.fit.weight, prior)
    assert found.fit.loss == pytest.approx(loss(whole, kept, found.fit.weight, found.fit.intercept))
    before = whole.mean_t - prior @ whole.mean_x
    assert found.fit.loss <= loss(whole, kept, prior, before) + 1e-9
    assert found.fit.loss >= fit(whole, kept).loss - 1e-9


def test_a_constraint_that_does_not_bind_changes_nothing() -> None:
    folds, prior = problem(1)
    free = fit(total(folds).centred(), np.arange(5))
    found = Constrained(change=1e3)(folds, np.arange(5), prior=prior).fit
    np.testing.assert_allclose(found.weight, free.weight, rtol=1e-3, atol=1e-4)


def test_constraints_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="not both"):
        Constrained(change=0.5, norm=0.5)


@FEW
@given(seed=st.integers(0, 10**6), slack=st.sampled_from([0.0, 0.1, 1.0]))
def test_near_ridge_is_close_at_a_bounded_price(seed: int, slack: float) -> None:
    folds, prior = problem(seed)
    best, near = fit_held_out(folds, np.arange(5), prior=prior), NearRidge(slack)(folds, np.arange(5), prior=prior)
    assert near.held_out <= (1.0 + slack) * best.held_out * (1 + 1e-12)
    assert np.linalg.norm(near.fit.weight - prior) <= np.linalg.norm(best.fit.weight - prior) + 1e-9


@FEW
@given(seed=st.integers(0, 10**6))
def test_no_affine_map_has_a_smaller_largest_deviation(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, t = random.normal(size=(3, 40)), random.normal(size=40)
    weight, offset = chebyshev(x, t)
    best = np.abs(t - weight @ x - offset).max()
    others = weight + 0.1 * random.normal(size=(200, 3))
    shifts = offset + 0.1 * random.normal(size=200)
    assert best <= np.abs(t - others @ x - shifts[:, None]).max(axis=1).min() + 1e-7


def small(sketch) -> Network:
    s = sketch((2, 5, 5), seed=2)
    x = s.add("relu", s.norm(s.conv("x", 6, 3)))
    x = s.add("relu", s.norm(s.conv(x, 4, 3)))
    return s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 2))


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"refine", "two_sided"}))
def test_every_strategy_runs_end_to_end(sketch, name: str) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2, 5, 5)).astype(np.float32)
    network = small(sketch)
    result = compress(network, x, keep={"flops": 0.5}, compensation=name)
    assert result.surgery_error <= 1e-5
    assert np.isfinite(evaluate(result.compact, x)).all()
    assert result.settings["compensation"] == name


def test_minimax_lowers_the_largest_deviation_of_the_layer(sketch) -> None:
    s = sketch((6,), seed=3)
    network = s.network(s.linear(s.add("relu", s.linear("x", 10)), 2))
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    largest = {}
    for name in ("least_squares", "minimax"):
        result = compress(network, x, keep={"channels": 0.6}, compensation=name)
        largest[name] = np.abs(evaluate(result.compact, x) - evaluate(network, x)).max()
    assert largest["minimax"] < largest["least_squares"]
    (before, after) = result.layers[-1].refined
    assert after <= before


def test_reestimated_norms_normalise(sketch) -> None:
    network = small(sketch)
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 2, 5, 5)).astype(np.float32)
    again = reestimated(network, torch.from_numpy(x))
    norms = [node for node in again if node.op == "batch_norm"]
    values = evaluate(Network(again.input, again.input_shape, again.nodes[:5], norms[1].name, again.parameters), x)
    roles = again.parameters_of(norms[1])
    np.testing.assert_allclose(values.mean((0, 2, 3)), roles["bias"], atol=1e-4)
    np.testing.assert_allclose(values.std((0, 2, 3)), np.abs(roles["weight"]), rtol=1e-3)
