"""Multi-layer basis pursuit: ML-ISTA, ML-FISTA, and how far their answer can be from the optimum.

    F(gamma_L) = (1/2) || y - D_1 gamma_1 ||^2 + sum_i lam_i || gamma_i ||_1      with gamma_{i-1} = D_i gamma_i

One pass from z, with z_i = D_(i+1,L) z, gamma_0 = y, thresholds tau_i = lam_i mu_1 ... mu_i:

    gamma_i <- T_{tau_i}( z_i - mu_i D_i^T ( D_i z_i - gamma_{i-1} ) ),      i = 1 ... L

The product of ALL step sizes up to the layer is what makes the thresholds those of F: layer i moves by mu_1 ... mu_i
times the gradient. With tau_i = mu_i lam_i, as the scheme is often written, another problem is solved for i > 1.

Reference: Sulam, Aberdam, Beck, Elad, "On Multi-Layer Basis Pursuit, Efficient Algorithms and Convolutional Neural
Networks", 2018, arXiv 1806.00701. Proofs, the gap included: theory_notes/sparse_coding.md. Not claimed: convergence to
the optimum; near-fixed points are near-optimal, the closer the smaller mu_1, and `gap_upper` says how near.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provable.method import Method
from provable.sparse_coding.dictionary import Dictionary
from verify.errors import DataError


@dataclass(frozen=True, eq=False)
class Problem:
    """The objective.

    Attributes:
        signals: (batch, *signal_shape) y.
        dictionaries: D_1 ... D_L, each reading the code of the one behind it.
        penalties: lam_1 ... lam_L > 0.
    """

    signals: Tensor
    dictionaries: tuple[Dictionary, ...]
    penalties: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.dictionaries or len(self.dictionaries) != len(self.penalties):
            raise DataError(
                f"{len(self.dictionaries)} dictionaries need as many penalties, at least one; got {len(self.penalties)}"
            )
        if not all(0.0 < penalty < float("inf") for penalty in self.penalties):
            raise DataError(f"penalties must be positive and finite; got {self.penalties}")

    def zero(self) -> Tensor:
        """The deepest code that is zero everywhere."""
        return self.signals.new_zeros((len(self.signals), *self.dictionaries[-1].code_shape))

    def codes(self, deepest: Tensor) -> list[Tensor]:
        """gamma_1 ... gamma_L that the deepest code implies."""
        found = [deepest]
        for dictionary in reversed(self.dictionaries[1:]):
            found.append(dictionary.synthesis(found[-1]))
        return found[::-1]

    def steps(self, first: float = 1.0) -> tuple[float, ...]:
        """Step sizes mu_i = 1 / || D_i ||^2, the first one times `first` (smaller: closer to the optimum, slower)."""
        safe = [1.0 / d.norm_upper**2 if d.norm_upper > 0.0 else 1.0 for d in self.dictionaries]
        return (first * safe[0], *safe[1:])


@dataclass(frozen=True, eq=False)
class Pursuit:
    """An answer.

    Attributes:
        code: (batch, *code_shape) the deepest code gamma_L.
        objectives: (iterations + 1, batch) F at the start and after every iteration.
    """

    code: Tensor
    objectives: Tensor


def objective(problem: Problem, deepest: Tensor) -> Tensor:
    """F for every signal of the batch, (batch,)."""
    codes = problem.codes(deepest)
    residual = problem.signals - problem.dictionaries[0].synthesis(codes[0])
    value = residual.square().flatten(1).sum(1) / 2.0
    for code, penalty in zip(codes, problem.penalties, strict=True):
        value = value + penalty * code.abs().flatten(1).sum(1)
    return value


def ml_ista(
    problem: Problem, iterations: int, *, steps: Sequence[float] | None = None, start: Tensor | None = None
) -> Pursuit:
    """Iterative soft thresholding over all layers.

    Args:
        problem: what to solve.
        iterations: how many passes.
        steps: mu_1 ... mu_L; default 1 / || D_i ||^2.
        start: the deepest code to begin with; default 0.
    """
    mu = _checked(problem, steps)
    code = problem.zero() if start is None else start
    values = [objective(problem, code)]
    for _ in range(iterations):
        code = _pass(problem, code, mu)[0][-1]
        values.append(objective(problem, code))
    return Pursuit(code, torch.stack(values))


def ml_fista(
    problem: Problem, iterations: int, *, steps: Sequence[float] | None = None, start: Tensor | None = None
) -> Pursuit:
    """The same with Nesterov's momentum on the deepest code; arguments as for `ml_ista`."""
    mu = _checked(problem, steps)
    before = code = problem.zero() if start is None else start
    values, t = [objective(problem, code)], 1.0
    ahead = code
    for _ in range(iterations):
        code = _pass(problem, ahead, mu)[0][-1]
        following = (1.0 + (1.0 + 4.0 * t * t) ** 0.5) / 2.0
        ahead = code + (t - 1.0) / following * (code - before)
        before, t = code, following
        values.append(objective(problem, code))
    return Pursuit(code, torch.stack(values))


def gap_upper(problem: Problem, deepest: Tensor, *, steps: Sequence[float] | None = None) -> Tensor:
    """Upper bound on F(deepest) - min F for every signal (batch,), up to float rounding.

    One pass gives subgradients s_i of the norms at the codes it reaches. With the codes z_i that `deepest` implies,
    v = D_(1,L)^T (D_1 z_1 - y) + sum lam_i D_(i+1,L)^T s_i and e = sum lam_i ( ||z_i||_1 - <s_i, z_i> ):

        F(deepest) - min F <= e + <v, deepest> + ||v||_inf F(deepest) / lam_L

    Smaller first steps make it tighter at near-fixed points.
    """
    mu = _checked(problem, steps)
    _, signs = _pass(problem, deepest, mu)
    codes = problem.codes(deepest)
    slope = problem.dictionaries[0].adjoint(problem.dictionaries[0].synthesis(codes[0]) - problem.signals)
    slack = torch.zeros_like(objective(problem, deepest))
    for i, (code, sign, penalty) in enumerate(zip(codes, signs, problem.penalties, strict=True)):
        slope = slope + penalty * sign
        slack = slack + penalty * (code.abs() - sign * code).flatten(1).sum(1)
        if i + 1 < len(codes):
            slope = problem.dictionaries[i + 1].adjoint(slope)
    steepest = slope.abs().flatten(1).amax(1)
    along = (slope * deepest).flatten(1).sum(1)
    return slack + along + steepest * objective(problem, deepest) / problem.penalties[-1]


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """sign(x) max(|x| - threshold, 0)."""
    return x.sign() * (x.abs() - threshold).clamp(min=0.0)


def _pass(problem: Problem, deepest: Tensor, steps: Sequence[float]) -> tuple[list[Tensor], list[Tensor]]:
    """All layers' codes after one pass, and the subgradients (before - after) / tau_i of their norms."""
    codes, found, signs, below, product = problem.codes(deepest), list[Tensor](), list[Tensor](), problem.signals, 1.0
    for dictionary, code, step, penalty in zip(problem.dictionaries, codes, steps, problem.penalties, strict=True):
        product *= step
        before = code - step * dictionary.adjoint(dictionary.synthesis(code) - below)
        below = soft_threshold(before, product * penalty)
        found.append(below)
        signs.append(((before - below) / (product * penalty)).clamp(-1.0, 1.0))
    return found, signs


def _checked(problem: Problem, steps: Sequence[float] | None) -> tuple[float, ...]:
    chosen = problem.steps() if steps is None else tuple(steps)
    if len(chosen) != len(problem.dictionaries) or not all(0.0 < step < float("inf") for step in chosen):
        raise DataError(f"steps are one positive number per layer ({len(problem.dictionaries)}); got {chosen}")
    return chosen


METHODS = tuple(
    Method(
        name=name, summary=summary, granularity="none", when="any time", criterion="sparse representation",
        data="unlabelled", recovery="none", guarantee=guarantee,
        reference="Sulam, Aberdam, Beck, Elad 2018, arXiv 1806.00701", cost=cost, use=use,
    )
    for name, summary, guarantee, cost, use in (
        ("ml-ista", "multi-layer basis pursuit by iterative soft thresholding", "deterministic bound",
         "two passes through the dictionaries per iteration", "provable.sparse_coding.ml_ista"),
        ("ml-fista", "the same with momentum", "deterministic bound",
         "two passes through the dictionaries per iteration", "provable.sparse_coding.ml_fista"),
    )
)  # fmt: skip
