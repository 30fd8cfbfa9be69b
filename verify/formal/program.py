"""Networks compiled once into the steps that bound them on any batch of sub-boxes.

compile_pair: the rule "pair_zonotope", three forms per value (needs a lift).
compile_separate: the rule "separate", each network on its own over the same input symbols; the difference is
formed at the output only. Theory: theory_notes/differential_zonotope.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import UnsupportedOperation
from verify.formal.arithmetic import PairArithmetic, SingleArithmetic
from verify.formal.form import BLOCKS, COMPACT, ORIGINAL, Form, constant, formed, with_fresh_written
from verify.formal.lift import Correspondence, Index, Lift
from verify.formal.memory import keep_freed_memory
from verify.formal.pair import Kept, Triple, plain_difference
from verify.formal.rounding import above
from verify.formal.rules import RULES
from verify.formal.rules.rule import Arithmetic, Compiled, Side, Site
from verify.formal.symbols import FEW_INPUTS, Ledger
from verify.network.graph import Network

EVERY_SYMBOL = 2**31  # more than any network has; the largest number a certificate may state


@dataclass(frozen=True)
class Bounds:
    """What holds for the difference of the outputs on each sub-box of a batch.

    Attributes:
        lower, upper: ``(batch, outputs)``, rounded outward; infinite where nothing could be shown.
        influence: ``(batch, inputs)``, the estimated part of each input in the widest bound, or None.
        direction: ``(batch, inputs)``, the sign in which each input moves that output, or None.
        bytes: memory of the largest value's generators.
    """

    lower: Tensor
    upper: Tensor
    influence: Tensor | None
    direction: Tensor | None
    bytes: int

    def deviation(self) -> Tensor:
        """Upper bound ``(batch,)`` of the max norm of the difference."""
        return torch.maximum(-self.lower, self.upper).amax(1)


@dataclass(frozen=True)
class Step:
    """One node: names of the values it reads, and the function that bounds it."""

    name: str
    inputs: tuple[str, ...]
    run: Compiled
    finished: tuple[str, ...]


class Program(ABC):
    """Bounds of the difference of two networks on batches of sub-boxes."""

    rule: str

    def bounds(
        self,
        lower: Tensor,
        upper: Tensor,
        *,
        symbols: int = EVERY_SYMBOL,
        bytes_limit: int = 2**31,
        deadline: float = math.inf,
    ) -> Bounds:
        """Bound the difference on the sub-boxes ``[lower, upper]``, both ``(batch, inputs)`` float64.

        Raises:
            MemoryLimit: the batch is too large for `bytes_limit`.
            TimeLimit: `deadline` (of `time.monotonic`) passed on the way.
        """
        ledger = Ledger(lower.shape[0], lower.shape[1], symbols, bytes_limit, deadline)
        with torch.inference_mode():
            difference, largest = self.difference(lower, upper, ledger)
            ledger.watch(difference)
            finite = ledger.finite()[:, None]
            low, high = difference.bounds()
            low, high = torch.where(finite, low, -torch.inf), torch.where(finite, high, torch.inf)
            worst = torch.maximum(-low, high).argmax(1)
            influence = influence_of(difference, worst, ledger)
            return Bounds(low, high, influence, _direction(difference, worst), largest)

    @abstractmethod
    def difference(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, int]:
        """Form of the difference of the outputs, nothing fresh, and the largest memory of a value."""

    @abstractmethod
    def outputs(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, ...]:
        """Forms of both networks' outputs and of their difference, nothing fresh."""


class PairProgram(Program):
    """The rule "pair_zonotope"."""

    rule = "pair_zonotope"

    def __init__(self, original: Network, compact: Network, lift: Lift) -> None:
        pairs = {c.original: c for c in lift}
        first, second = Side(original, _orders(original, pairs)), Side(compact, {})
        sites = [Site(first, a, second, b, pairs) for a, b in zip(original.nodes, compact.nodes, strict=True)]
        self.input, self.output = original.input, original.output
        self.steps = _steps(original, sites)

    def difference(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, int]:
        triple, largest = self._triple(lower, upper, ledger)
        return with_fresh_written(triple.d), largest

    def outputs(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, ...]:
        triple = self._triple(lower, upper, ledger)[0].written()
        return triple.z, triple.y, triple.d

    def _triple(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Triple, int]:
        size = lower.shape[1]
        z, y = (input_form(lower, upper, ledger, block) for block in (ORIGINAL, COMPACT))
        zero = constant(torch.zeros(size, dtype=torch.float64), ledger.batch, ledger.inputs)
        start = Triple(z, y, zero, Kept(torch.arange(size), size))
        triple: Triple
        triple, largest = _run(self.steps, self.input, start, self.output, PairArithmetic(ledger))
        return triple, largest


class SeparateProgram(Program):
    """The rule "separate"; with one network alone only its `outputs` can be bounded."""

    rule = "separate"

    def __init__(self, *networks: Network) -> None:
        self.networks = networks
        self.steps = [_steps(n, [Site(Side(n, {}), node) for node in n.nodes]) for n in self.networks]

    def difference(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, int]:
        outputs, largest = self._apart(lower, upper, ledger)
        return plain_difference(*outputs), largest

    def outputs(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[Form, ...]:
        outputs, _ = self._apart(lower, upper, ledger)
        return (*outputs, plain_difference(*outputs)) if len(outputs) == 2 else tuple(outputs)

    def _apart(self, lower: Tensor, upper: Tensor, ledger: Ledger) -> tuple[list[Form], int]:
        outputs, largest = [], 0
        for network, steps, block in zip(self.networks, self.steps, (ORIGINAL, COMPACT), strict=False):
            inputs = input_form(lower, upper, ledger, block)
            form, size = _run(steps, network.input, inputs, network.output, SingleArithmetic(ledger, block))
            outputs.append(with_fresh_written(form))
            largest = max(largest, size)
        return outputs, largest


def compile_pair(original: Network, compact: Network, lift: Lift | None) -> Program:
    """The pair program, or the separate one where there is no lift.

    Raises:
        UnsupportedOperation: a node has no rule.
    """
    keep_freed_memory()
    return SeparateProgram(original, compact) if lift is None else PairProgram(original, compact, lift)


def input_form(lower: Tensor, upper: Tensor, ledger: Ledger, block: int) -> Form:
    """The input as a form: one symbol per coordinate, or none at all where the budget is 0."""
    centre = 0.5 * (lower + upper)
    reach = torch.maximum(upper - centre, centre - lower)
    radius = torch.where(reach > 0.0, above(reach), reach)
    rows = [None if b != block or not ledger.inputs else _diagonal(radius) for b in BLOCKS]
    remainder = torch.zeros_like(radius) if ledger.inputs else radius
    return formed(centre, tuple(rows), remainder, ledger.inputs)


def _diagonal(values: Tensor) -> Tensor:
    return torch.diag_embed(values).transpose(0, 1).contiguous()


def _orders(network: Network, pairs: Mapping[str, Correspondence]) -> dict[str, Index]:
    """Kept channels first, for values that shrank along axis 0."""
    orders = {}
    for name, pair in pairs.items():
        shape = network.shape_of(name)
        if shape and pair.axis == 0 and len(pair.kept) < shape[0]:
            rest = np.setdiff1d(np.arange(shape[0]), pair.kept)
            orders[name] = np.concatenate([np.asarray(pair.kept, dtype=np.int64), rest])
    return orders


def _steps(network: Network, sites: Sequence[Site]) -> list[Step]:
    last = {source: i for i, node in enumerate(network.nodes) for source in node.inputs}
    steps = []
    for i, site in enumerate(sites):
        node = site.first
        if node.op not in RULES:
            raise UnsupportedOperation(node.op, node.name, RULES, "no bound propagation rule")
        finished = tuple(s for s in dict.fromkeys(node.inputs) if last[s] == i and s != network.output)
        steps.append(Step(node.name, node.inputs, RULES[node.op].compile(site), finished))
    return steps


def _run(steps: Sequence[Step], name: str, start: Any, output: str, arithmetic: Arithmetic[Any]) -> tuple[Any, int]:
    values, largest = {name: start}, 0
    for step in steps:
        value = step.run(arithmetic, [values[s] for s in step.inputs])
        values[step.name] = value
        largest = max(largest, _bytes(value))
        for source in step.finished:
            del values[source]
    return values[output], largest


def _bytes(value: Form | Triple) -> int:
    forms = (value.z, value.y, value.d) if isinstance(value, Triple) else (value,)
    return sum(form.bytes() for form in forms)


def _at(rows: Tensor, output: Tensor) -> Tensor:
    """``(k, batch)`` generators of one output per sub-box."""
    return rows.gather(2, output[None, :, None].expand(rows.shape[0], -1, 1))[..., 0]


def influence_of(form: Form, output: Tensor, ledger: Ledger) -> Tensor | None:
    """Estimated part of each input in the radius of the worst output: its own symbol, and its share of errors."""
    own = form.input_rows()
    if own is None:
        return None
    total = _at(own, output).abs().T.clone()
    if own.shape[0] > FEW_INPUTS:
        return total
    for block, rows in zip(BLOCKS, form.rows, strict=True):
        share = ledger.share(block)
        if rows is not None and share is not None:
            errors = _at(rows, output)[form.inputs if block in (ORIGINAL, COMPACT) else 0 :]
            total += (errors.abs()[..., None] * share[: errors.shape[0]]).sum(0)
    return total


def _direction(form: Form, output: Tensor) -> Tensor | None:
    own = form.input_rows()
    if own is None:
        return None
    centre = form.centre.gather(1, output[:, None])
    return torch.sign(_at(own, output).T) * torch.where(centre >= 0.0, 1.0, -1.0)
