"""The oracle: every activation pattern of a small network, each an affine function on a polytope, by linear programs.

A depth-first walk over the units' signs that drops a branch only when its linear program is infeasible. It shares no
code with the algorithms but the program's rows, uses no bounds of units, and is exponential in their number.
Float64 with HiGHS's tolerances. Theory: theory_notes/survey.md.
"""

from collections.abc import Iterator

import numpy as np

from verify.survey.linear_program import Model, Outcome
from verify.survey.network import Layer
from verify.survey.problem import Problem, Violation
from verify.survey.sets import Floats

MOST_UNITS = 24


def regions(problem: Problem) -> Iterator[tuple[Layer, Floats, Floats]]:
    """(affine map of the output, rows A, b of the region ``A x <= b``) for every pattern that some input has.

    Raises:
        ValueError: more than `MOST_UNITS` hidden units.
    """
    if sum(problem.network.hidden) > MOST_UNITS:
        raise ValueError(f"enumeration is for at most {MOST_UNITS} hidden units, got {sum(problem.network.hidden)}")
    a, b = problem.input.rows()
    yield from _walk(problem, 0, 0, Layer(np.eye(problem.network.inputs), np.zeros(problem.network.inputs)), None, a, b)


def _walk(
    problem: Problem, i: int, j: int, values: Layer, phase: list[float] | None, a: Floats, b: Floats
) -> Iterator[tuple[Layer, Floats, Floats]]:
    """`values`: the input of layer i as an affine map; `phase`: signs of its units before j."""
    before = problem.network.layers[i].after(values)
    if i == len(problem.network.hidden):
        yield before, a, b
        return
    signs = phase or []
    if j == len(before.bias):
        mask = np.array(signs)
        yield from _walk(problem, i + 1, 0, Layer(mask[:, None] * before.weight, mask * before.bias), None, a, b)
        return
    for sign in (1.0, -1.0):
        more, limit = np.vstack([a, -sign * before.weight[j]]), np.append(b, sign * before.bias[j])
        if least(np.zeros((1, a.shape[1])), np.zeros(1), more, limit)[0] < np.inf:
            yield from _walk(problem, i, j + 1, values, [*signs, max(sign, 0.0)], more, limit)


def least(rows: Floats, offsets: Floats, a: Floats, b: Floats) -> tuple[float, Floats | None]:
    """Minimum and minimiser of ``max_i (rows x + offsets)_i`` over ``A x <= b``; infinity where that is empty."""
    model = Model()
    x, t = model.variables(a.shape[1]), model.variables(1)
    model.rows([(x, a)], upper=b)
    model.rows([(x, rows), (t, -np.ones((len(rows), 1)))], upper=-offsets)
    found = model.minimise(t, np.ones(1))
    if found.outcome is Outcome.INFEASIBLE:
        return np.inf, None
    return found.value, None if found.point is None else found.point[x]


def least_level(problem: Problem, violation: Violation) -> tuple[float, Floats | None]:
    """The least level of a violation over all inputs, and an input where it is attained."""
    best: tuple[float, Floats | None] = (np.inf, None)
    for out, a, b in regions(problem):
        found = least(violation.normals @ out.weight, violation.normals @ out.bias - violation.offsets, a, b)
        best = min(best, found, key=lambda pair: pair[0])
    return best
