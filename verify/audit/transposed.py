"""A pair of networks to be read backward: its steps, and the transposed linear maps of its affine ones.

    sum_o c_o (M x)_o = sum_i (M' c)_i x_i

Theory note: exact_audit.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from verify.audit.exact import LARGEST, LIMB, Index, Resource, largest, power
from verify.audit.lift import Affine, Stage
from verify.audit.linear import LinearMap, linear_map
from verify.audit.planes import Inconsistent

LARGEST_MAP = 2**23  # entries


def transposed(affine: Affine | None, outputs: int, inputs: int) -> LinearMap | None:
    """The matrix of a map, rows and columns exchanged: coefficients of its results to coefficients of its inputs."""
    if affine is None or outputs * inputs > LARGEST_MAP:
        return None
    linear = affine.linear
    groups, positions, window = linear.taps.shape
    shape = (groups, linear.rows, positions, window)
    weights = linear.both[:, : linear.rows] * power(LIMB) + linear.both[:, linear.rows :]
    errors = np.broadcast_to(linear.loss[:, :, None], weights.shape)
    read = np.broadcast_to(linear.taps[:, None], shape).reshape(-1)  # -1, no element, is the row that is dropped
    result = np.broadcast_to(np.arange(outputs).reshape(shape[:3])[..., None], shape).reshape(-1)
    matrix, radius = np.zeros((inputs + 1, outputs)), np.zeros((inputs + 1, outputs))
    np.add.at(matrix, (read, result), np.broadcast_to(weights[:, :, None], shape).reshape(-1))
    np.add.at(radius, (read, result), np.broadcast_to(errors[:, :, None], shape).reshape(-1))
    if affine.place is not None:
        matrix, radius = matrix[:, affine.place], radius[:, affine.place]
    if not max(largest(np.abs(matrix)), largest(radius)) < LARGEST:
        raise Resource("a transposed map leaves the exact range")
    taps = np.arange(outputs, dtype=np.int64)[None, None]
    return linear_map(matrix[None, :-1], radius[None, :-1], linear.exponent, taps, outputs)


@dataclass(frozen=True)
class Transposed:
    """The transposed maps of an affine stage, None where there is none or it is too large."""

    own: LinearMap | None
    compact: LinearMap | None
    cross: LinearMap | None


class Pair:
    """Two networks step by step, with the transposed maps of their affine steps."""

    def __init__(self, stages: Sequence[Stage], inputs: int, float32: bool = False) -> None:
        self.stages, self.float32 = stages, float32
        self.sizes = [(inputs, inputs)]
        for stage in stages:
            compact = stage.compact or stage.step
            self.sizes.append((int(np.prod(stage.step.shape)), int(np.prod(compact.shape))))

    @cached_property
    def maps(self) -> list[Transposed]:
        """One per stage; steps that are not affine have none."""
        found = []
        for n, stage in enumerate(self.stages, start=1):
            (a, b), (c, d) = self.sizes[stage.inputs[0]], self.sizes[n]
            own, compact = transposed(stage.own, c, a), transposed(stage.compact_own, d, b)
            found.append(Transposed(own, compact, transposed(stage.cross, d, a)))
        return found

    @cached_property
    def straight(self) -> list[bool]:
        """Which values are affine functions of the input: forms bound them exactly."""
        flags = [True]
        for stage in self.stages:
            flags.append(stage.step.kind in ("affine", "sum", "gather") and all(flags[i] for i in stage.inputs))
        return flags

    def kept(self, position: int) -> Index:
        """The elements of the original's value that the compact value stands for."""
        kept = self.stages[position - 1].kept if position else np.arange(self.sizes[0][0])
        if kept is None:
            raise Inconsistent("a difference of values that do not belong together")
        return kept
