"""The table of the survey's algorithms: adding one is one file and one line here."""

from verify.errors import SpecificationError
from verify.survey.ai2 import Ai2
from verify.survey.algorithm import Algorithm, Facts
from verify.survey.certify import Certify
from verify.survey.conv_dual import ConvDual
from verify.survey.duality import Duality
from verify.survey.exact_reach import ExactReach
from verify.survey.fast_lin import FastLin
from verify.survey.fast_lip import FastLip
from verify.survey.ilp import ILP
from verify.survey.max_sens import MaxSens
from verify.survey.mipverify import MIPVerify
from verify.survey.nsverify import NSVerify
from verify.survey.problem import Problem
from verify.survey.relu_val import ReluVal
from verify.survey.result import Result

ALGORITHMS: dict[str, type[Algorithm]] = {
    kind.facts.name: kind
    for kind in (
        ExactReach,
        Ai2,
        MaxSens,
        NSVerify,
        MIPVerify,
        ILP,
        Duality,
        ConvDual,
        Certify,
        FastLin,
        FastLip,
        ReluVal,
    )
}


def supporting(problem: Problem) -> tuple[Facts, ...]:
    """Facts of the algorithms that take a problem's network and sets."""
    return tuple(kind.facts for kind in ALGORITHMS.values() if kind.facts.refusal(problem) is None)


def algorithm(name: str) -> Algorithm:
    """An algorithm by its published name (in any case), with its published defaults where these are sound.

    Raises:
        SpecificationError: no such algorithm.
    """
    found = {known.lower(): kind for known, kind in ALGORITHMS.items()}.get(name.lower())
    if found is None:
        raise SpecificationError(f"unknown algorithm {name!r}; known: {', '.join(ALGORITHMS)}")
    return found()


def solve(name: str, problem: Problem, timeout: float = 60.0) -> Result:
    """Decide a problem with an algorithm of the survey, by name; see `Algorithm.solve`."""
    return algorithm(name).solve(problem, timeout)
