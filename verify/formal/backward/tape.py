"""The two networks as one list of elementary steps, written once and then read in both directions.

The rules of `verify.formal.rules` build every operation from affine maps, ReLU and differentiable element-wise
functions. A tape records these pieces instead of bounding them: leaky ReLU, clip and max pooling arrive here as
affine maps and ReLUs, so a backward pass has four kinds of steps to know, whatever the operation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.formal.lift import Lift
from verify.formal.pair import Kept
from verify.formal.program import PairProgram, SeparateProgram, Step
from verify.formal.rules.rule import AffineStep, Arithmetic, Curve
from verify.network.graph import Network


@dataclass(frozen=True)
class Start:
    """The input of both networks."""

    inputs: tuple[int, ...]
    kept: Kept | None
    sizes: tuple[int, int]


@dataclass(frozen=True)
class Linear(Start):
    """An affine step; `sizes` are the numbers of elements in the original and in the compact network."""

    step: AffineStep


@dataclass(frozen=True)
class Rectifier(Start):
    """``max(x, 0)`` of one earlier value."""


@dataclass(frozen=True)
class Curved(Start):
    """A differentiable element-wise function of one earlier value."""

    function: Curve


@dataclass(frozen=True)
class Fixed(Start):
    """A value that does not depend on the input, in the original and in the compact network."""

    first: Tensor
    second: Tensor | None


@dataclass(frozen=True)
class Tape:
    """Steps in order of computation; entry 0 is the input, `output` the index of the output.

    Attributes:
        names: value of the original -> its entry.
        paired: whether the steps describe a pair of networks or a single one.
    """

    entries: tuple[Start, ...]
    output: int
    names: Mapping[str, int]
    paired: bool

    def nonlinear(self) -> tuple[int, ...]:
        """Indices of the entries that are relaxed."""
        return tuple(i for i, entry in enumerate(self.entries) if isinstance(entry, Rectifier | Curved))

    def straight(self) -> tuple[bool, ...]:
        """Per entry whether it is an affine function of the input."""
        flags: list[bool] = []
        for entry in self.entries:
            flags.append(not isinstance(entry, Rectifier | Curved) and all(flags[i] for i in entry.inputs))
        return tuple(flags)


def record_pair(original: Network, compact: Network, lift: Lift) -> Tape:
    """The tape of a pair of networks with a lift."""
    program = PairProgram(original, compact, lift)
    size = _size(original)
    kept = Kept(torch.arange(size), size)
    return _record(program.steps, program.input, program.output, Start((), kept, (size, size)), paired=True)


def record_separate(original: Network, compact: Network) -> tuple[Tape, Tape]:
    """One tape for each network."""
    program = SeparateProgram(original, compact)
    tapes = [
        _record(steps, network.input, network.output, Start((), None, (_size(network), 0)), paired=False)
        for network, steps in zip(program.networks, program.steps, strict=True)
    ]
    return tapes[0], tapes[1]


def _size(network: Network) -> int:
    return int(torch.Size(network.input_shape).numel())


def _record(steps: Sequence[Step], name: str, output: str, start: Start, *, paired: bool) -> Tape:
    recorder = _Recorder(start)
    values = {name: 0}
    for step in steps:
        values[step.name] = step.run(recorder, [values[s] for s in step.inputs])
    return Tape(tuple(recorder.entries), values[output], values, paired)


class _Recorder(Arithmetic[int]):
    """Writes down what the rules ask for; a value is the index of its entry."""

    def __init__(self, start: Start) -> None:
        self.entries: list[Start] = [start]

    def affine(self, step: AffineStep, inputs: Sequence[int]) -> int:
        compact = 0 if step.second is None else step.second.maps[0].outputs
        return self._add(Linear(tuple(inputs), step.kept, (step.first.maps[0].outputs, compact), step))

    def relu(self, value: int) -> int:
        argument = self.entries[value]
        return self._add(Rectifier((value,), argument.kept, argument.sizes))

    def curve(self, function: Curve, value: int) -> int:
        argument = self.entries[value]
        return self._add(Curved((value,), argument.kept, argument.sizes, function))

    def constant(self, first: Tensor, second: Tensor | None, kept: Kept | None) -> int:
        return self._add(Fixed((), kept, (len(first), 0 if second is None else len(second)), first, second))

    def _add(self, entry: Start) -> int:
        self.entries.append(entry)
        return len(self.entries) - 1
