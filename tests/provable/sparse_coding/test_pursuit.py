"""Laws of multi-layer basis pursuit, against cvxpy."""

from itertools import pairwise

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.sparse_coding import Convolution, Dense, Problem, gap_upper, layered_basis_pursuit, ml_fista, ml_ista
from provable.sparse_coding.pursuit import objective, soft_threshold
from verify.errors import DataError


def random_problem(sizes: tuple[int, ...], seed: int, batch: int = 1) -> Problem:
    """Normal dictionaries with unit columns, signals with sparse codes, noise."""
    random = np.random.default_rng(seed)
    matrices = []
    for rows, columns in pairwise(sizes):
        matrix = random.normal(size=(rows, columns))
        matrices.append(matrix / np.linalg.norm(matrix, axis=0))
    code = random.normal(size=(batch, sizes[-1])) * (random.random((batch, sizes[-1])) < 0.3)
    for matrix in reversed(matrices):
        code = code @ matrix.T
    y = code + 0.05 * random.normal(size=code.shape)
    penalties = tuple(0.05 / (i + 1) for i in range(len(matrices)))
    return Problem(torch.from_numpy(y), tuple(Dense(torch.from_numpy(m)) for m in matrices), penalties)


def optimum(problem: Problem, row: int = 0) -> float:
    """Minimum of F by an independent solver."""
    matrices = [d.matrix.numpy() for d in problem.dictionaries]
    deepest = cvxpy.Variable(matrices[-1].shape[1])
    codes = [deepest]
    for matrix in reversed(matrices[1:]):
        codes.append(matrix @ codes[-1])
    value = cvxpy.sum_squares(problem.signals[row].numpy() - matrices[0] @ codes[-1]) / 2
    for code, penalty in zip(reversed(codes), problem.penalties, strict=True):
        value = value + penalty * cvxpy.norm1(code)
    return float(cvxpy.Problem(cvxpy.Minimize(value)).solve(solver=cvxpy.CLARABEL))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_one_layer_is_ista_and_fista(seed: int) -> None:
    problem = random_problem((8, 12), seed)
    matrix, y, penalty = problem.dictionaries[0].matrix, problem.signals, problem.penalties[0]
    step = 1.0 / np.linalg.norm(matrix.numpy(), 2) ** 2
    x = ahead = previous = torch.zeros(1, 12, dtype=torch.float64)
    t = 1.0
    for count in range(1, 20):
        x = soft_threshold(x - step * (x @ matrix.T - y) @ matrix, step * penalty)
        now = soft_threshold(ahead - step * (ahead @ matrix.T - y) @ matrix, step * penalty)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead, previous, t = now + (t - 1) / following * (now - previous), now, following
        assert torch.allclose(ml_ista(problem, count).code, x, rtol=0, atol=1e-12)
        assert torch.allclose(ml_fista(problem, count).code, now, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "seed", "allowed"), [((10, 14, 12), 0, 3e-3), ((10, 14, 12), 1, 3e-3), ((9, 12, 12, 10), 2, 2e-2)]
)
def test_near_the_optimum_and_nearer_with_a_smaller_first_step(sizes, seed, allowed) -> None:
    """Two layers: within 0.3 % at mu_1 = 1 / ||D_1||^2; three need a smaller first step for that."""
    problem = random_problem(sizes, seed)
    best = optimum(problem)
    gaps = []
    for first, iterations in ((1.0, 500), (0.1, 1500)):
        found = ml_fista(problem, iterations, steps=problem.steps(first))
        gaps.append(float(found.objectives[-1]) / best - 1.0)
    assert -1e-7 <= gaps[0] <= allowed
    assert -1e-7 <= gaps[1] <= max(0.5 * gaps[0], 1e-6)
    assert gaps[1] <= 3e-3


def test_thresholds_without_the_product_solve_another_problem() -> None:
    """tau_i = mu_i lam_i: the objective gets worse as the first step shrinks."""
    problem = random_problem((10, 14, 12), 0)
    best = optimum(problem)
    for first, least in ((1.0, 0.01), (0.1, 0.1)):
        mu = problem.steps(first)
        wrong = Problem(problem.signals, problem.dictionaries, (problem.penalties[0], problem.penalties[1] / mu[0]))
        code = ml_fista(wrong, 500, steps=mu).code
        assert float(objective(problem, code)) > (1 + least) * best


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 3, 300]), st.sampled_from([(6, 8), (6, 8, 7), (5, 7, 8, 6)]))
def test_the_gap_bound_is_never_below_the_gap(seed: int, iterations: int, sizes: tuple[int, ...]) -> None:
    problem = random_problem(sizes, seed)
    steps = problem.steps(0.1)
    code = ml_fista(problem, iterations, steps=steps).code
    gap = float(objective(problem, code)) - optimum(problem)
    assert float(gap_upper(problem, code, steps=steps)) >= gap - 1e-7


def test_the_gap_bound_becomes_small() -> None:
    """Where the bound is small, optimality is known without another solver."""
    problem = random_problem((9, 12, 12, 10), 2)
    steps = problem.steps(0.3)
    bounds = [
        float(gap_upper(problem, ml_fista(problem, n, steps=steps).code, steps=steps)) / optimum(problem)
        for n in (10, 100, 1500)
    ]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 3e-3


def test_momentum_needs_fewer_iterations() -> None:
    problem = random_problem((20, 30, 30), 4, batch=5)
    steps = problem.steps(0.1)
    plain, fast = (solve(problem, 200, steps=steps).objectives.mean(1) for solve in (ml_ista, ml_fista))
    reached = float(plain[-1])
    assert int((fast <= reached).nonzero()[0]) < 100


def test_a_batch_is_its_rows() -> None:
    problem = random_problem((8, 10, 9), 3, batch=4)
    together = ml_ista(problem, 30).code
    for row in range(4):
        alone = Problem(problem.signals[row : row + 1], problem.dictionaries, problem.penalties)
        assert torch.allclose(ml_ista(alone, 30).code[0], together[row], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9))
def test_convolutions_are_adjoint_to_their_transposes_and_bounded(seed, kernel, stride, height, width) -> None:
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(4, 2, kernel, kernel, generator=generator, dtype=torch.float64)
    dictionary = Convolution(filters, (2, height, width), stride)
    x = torch.randn(1, 2, height, width, generator=generator, dtype=torch.float64)
    code = torch.randn(1, *dictionary.code_shape, generator=generator, dtype=torch.float64)
    assert float((dictionary.adjoint(x) * code).sum()) == pytest.approx(float((x * dictionary.synthesis(code)).sum()))
    columns = torch.stack([dictionary.synthesis(unit[None])[0].flatten() for unit in _units(dictionary.code_shape)])
    assert float(torch.linalg.matrix_norm(columns, 2)) <= dictionary.norm_upper * (1 + 1e-12)


def _units(shape: tuple[int, ...]) -> torch.Tensor:
    size = int(np.prod(shape))
    return torch.eye(size, dtype=torch.float64).reshape(size, *shape)


def test_layered_pursuit_solves_each_layer_and_not_the_whole() -> None:
    problem = random_problem((10, 14, 12), 0)
    codes = layered_basis_pursuit(problem, 1000)
    below = problem.signals
    for code, dictionary, penalty in zip(codes, problem.dictionaries, problem.penalties, strict=True):
        layer = Problem(below, (dictionary,), (penalty,))
        assert float(objective(layer, code)) <= optimum(layer) * (1 + 1e-6)
        below = code
    together = ml_fista(problem, 1000, steps=problem.steps(0.1)).code
    assert float(objective(problem, together)) < float(objective(problem, codes[-1]))


@pytest.mark.parametrize("penalties", [(0.1,), (0.1, 0.0), (0.1, float("nan"))])
def test_bad_problems_are_refused(penalties: tuple[float, ...]) -> None:
    problem = random_problem((6, 8, 7), 0)
    with pytest.raises(DataError, match="penalties"):
        Problem(problem.signals, problem.dictionaries, penalties)
    with pytest.raises(DataError, match="steps"):
        ml_ista(problem, 1, steps=(0.1,))
    with pytest.raises(DataError, match="finite matrix"):
        Dense(torch.full((2, 2), torch.nan))
    with pytest.raises(DataError, match="do not read"):
        Convolution(torch.ones(3, 2, 2, 2), (1, 5, 5))
