"""This project's own engine (`verify.formal`) on a problem of the survey, for comparison.

The engine bounds ``|original - compact|``. A convex output set's rows ``level_i(f(x)) >= 0`` become a deviation of 1
from the constant 0: with U_i twice an upper bound of level_i (linear pass), ``level_i >= 0`` iff
``|2 level_i / U_i - 1| <= 1``. Engine: symbolic pairs with input splitting; its float64 error terms are
rigorous, but the scaled last layer is computed in float64, so here too the answer is no certificate.
"""

from fractions import Fraction

import numpy as np

from verify.formal.deviation import verify_deviation
from verify.network.graph import Network, build
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.survey.algorithm import Facts
from verify.survey.bounds import linear_bounds
from verify.survey.network import Layer, ReluNetwork
from verify.survey.problem import Problem
from verify.survey.result import Result, Status

FACTS = Facts(
    "verify.formal", "search + reachability", ("hyperrectangle",), ("hyperrectangle", "polytope", "half-space"), False,
    "this project", "symbolic pass per box; boxes exponential in the inputs",
)  # fmt: skip


SPARE = 2.0  # the upper side must not be the one that is hard to prove


def formal_engine(problem: Problem, timeout: float = 60.0) -> Result:
    """Decide a problem with `verify_deviation`; the sets must be those of `FACTS`."""
    rows = Layer(
        np.vstack([v.normals for v in problem.violations]), -np.concatenate([v.offsets for v in problem.violations])
    )
    levels = ReluNetwork((*problem.network.layers[:-1], rows.after(problem.network.layers[-1])))
    upper = linear_bounds(levels, problem.box).upper[-1] * SPARE
    if (upper <= 0).any():
        return problem.replay(problem.middle) or Result(Status.UNKNOWN, "a violation everywhere, within the margin")
    scaled = Layer(np.diag(2 / upper), -np.ones(len(upper))).after(levels.layers[-1])
    original = ReluNetwork((*levels.layers[:-1], scaled)).as_graph()
    box = Box.from_floats(problem.box.lower, problem.box.upper)
    margin = Fraction(1, 10**9)
    found = verify_deviation(
        original, _zero(problem.network.inputs, len(upper)), [box], epsilon=1 - margin, timeout=timeout
    )
    if found.verdict is Verdict.PROVED:
        return Result(Status.HOLDS)
    witness = None if found.witness is None else np.array([float(v) for v in found.witness])
    return problem.replay(witness) or Result(Status.UNKNOWN, found.words)


def _zero(inputs: int, outputs: int) -> Network:
    weights = {"w": np.zeros((outputs, inputs)), "b": np.zeros(outputs)}
    return build("x", (inputs,), [("out", "linear", ("x",), {"weight": "w", "bias": "b"}, {})], "out", weights)
