"""What every algorithm of the survey declares, and how it is called."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from verify.errors import SpecificationError
from verify.survey.deadline import Deadline, OutOfTime
from verify.survey.problem import Problem
from verify.survey.result import Result, Status


@dataclass(frozen=True)
class Facts:
    """One line of the catalogue.

    Attributes:
        name: published name.
        kind: "reachability", "primal optimisation", "dual optimisation", "search + reachability" or
            "search + optimisation", as in the survey.
        inputs, outputs: kinds of sets it takes (`sets.INPUT_KINDS`, `sets.OUTPUT_KINDS`).
        complete: whether it always decides, given time and a margin (see `problem`).
        reference: where it was published.
        cost: how its time grows.
        one_output: whether the network must have one output.
        hidden_layers: number of hidden layers that the network must have, None for any.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    complete: bool
    reference: str
    cost: str
    one_output: bool = False
    hidden_layers: int | None = None

    def refusal(self, problem: Problem) -> str | None:
        """Why the algorithm cannot take a problem, None if it can."""
        if problem.input.kind not in self.inputs:
            return f"{self.name} takes no {problem.input.kind} as input set, only {' or '.join(self.inputs)}"
        if problem.output.kind not in self.outputs:
            return f"{self.name} takes no {problem.output.kind} as output set, only {' or '.join(self.outputs)}"
        if self.one_output and problem.network.outputs != 1:
            return f"{self.name} takes networks with one output, not {problem.network.outputs}"
        hidden = len(problem.network.hidden)
        if self.hidden_layers is not None and hidden != self.hidden_layers:
            return f"{self.name} takes networks with {self.hidden_layers} hidden layer, not {hidden}"
        return None


@dataclass(frozen=True)
class Algorithm(ABC):
    """An algorithm with its parameters; every one is a frozen record with the verb `solve`."""

    facts: ClassVar[Facts]

    def solve(self, problem: Problem, timeout: float = 60.0) -> Result:
        """Decide a problem within some seconds; UNKNOWN if they do not suffice.

        Raises:
            SpecificationError: a set or a network that the algorithm does not take (the message names those that
                do), an empty or unbounded input polytope, or a time limit that is no positive number.
        """
        if math.isnan(timeout) or timeout <= 0:
            raise SpecificationError(f"timeout must be a positive number of seconds, got {timeout}")
        refusal = self.facts.refusal(problem)
        if refusal is not None:
            from verify.survey.registry import supporting  # the registry imports every algorithm

            others = ", ".join(a.name for a in supporting(problem)) or "no algorithm"
            raise SpecificationError(f"{refusal}; supported by: {others}")
        try:
            return self.run(problem, Deadline.after(timeout))
        except OutOfTime:
            return Result(Status.UNKNOWN, f"no answer within {timeout:g} s")

    @abstractmethod
    def run(self, problem: Problem, deadline: Deadline) -> Result:
        """The algorithm itself, on a problem that it takes."""
