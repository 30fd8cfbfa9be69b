"""The 18 algorithms of "Algorithms for Verifying Deep Neural Networks" (Liu et al., arXiv 1903.06758), corrected.

    Problem(network, input set, output set)  ─►  algorithm(name).solve(problem, timeout)  ─►  Result

Reference implementations in float64 with solver tolerances: to compare and to learn from. A claim that must be
trusted goes through `verify.formal` and the auditor. Theory: theory_notes/survey.md.
"""

from verify.survey.algorithm import Algorithm, Facts
from verify.survey.network import Layer, ReluNetwork, difference, from_graph
from verify.survey.problem import Problem
from verify.survey.registry import ALGORITHMS, algorithm, solve, supporting
from verify.survey.result import Result, Status
from verify.survey.sets import AffineImage, Complement, HalfSpace, Hyperrectangle, Polytope

__all__ = [
    "ALGORITHMS", "AffineImage", "Algorithm", "Complement", "Facts", "HalfSpace", "Hyperrectangle", "Layer",
    "Polytope", "Problem", "ReluNetwork", "Result", "Status", "algorithm", "difference", "from_graph", "solve",
    "supporting",
]  # fmt: skip
