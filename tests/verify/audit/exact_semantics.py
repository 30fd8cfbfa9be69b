"""What a program computes, in exact rational arithmetic, for the tests of the auditor's rules."""

from fractions import Fraction

import numpy as np

from verify.audit.lift import Correspondence
from verify.audit.onnx_file import read_onnx
from verify.audit.program import Program, Step, fractions
from verify.network.write_onnx import onnx_bytes


def exact_values(program: Program, x: list[Fraction]) -> list[list[Fraction]]:
    """Every value of a program in exact rational arithmetic (means within their enclosure: see `slack`)."""
    values = {program.input: x}
    for step in program.steps:
        values[step.name] = run_step(step, [values[n] for n in step.inputs])
    return [values[n] for n in [program.input, *(s.name for s in program.steps)]]


def run_step(step: Step, inputs: list[list[Fraction]]) -> list[Fraction]:
    if step.kind == "relu":
        return [max(v, Fraction(0)) for v in inputs[0]]
    if step.kind == "sum":
        return [sum(s * v for s, v in zip(step.signs, row, strict=True)) for row in zip(*inputs, strict=True)]
    if step.kind == "max":
        return [max(inputs[0][i] for i in row if i >= 0) for row in step.taps.tolist()]
    if step.kind == "gather":
        joined = [v for one in inputs for v in one]
        fill = fractions(step.bias)[0] if step.bias is not None else Fraction(0)
        return [joined[i] if i >= 0 else fill for i in step.taps.tolist()]
    return affine_step(step, inputs[0])


def affine_step(step: Step, x: list[Fraction]) -> list[Fraction]:
    assert step.weight is not None
    weights = np.array(fractions(step.weight), dtype=object).reshape(step.weight.mantissa.shape)
    padded = np.array([*x, Fraction(0)], dtype=object)
    flat = []
    for group, taps in zip(weights, step.taps, strict=True):
        flat += [sum(row * padded[at]) for row in group for at in taps]
    placed = [flat[i] for i in step.place] if step.place is not None else flat
    bias = fractions(step.bias) if step.bias is not None else [Fraction(0)] * len(placed)
    return [a + b for a, b in zip(placed, bias, strict=True)]


def read(network: object) -> Program:
    return read_onnx(onnx_bytes(network))  # type: ignore[arg-type]


def correspondences(lift: tuple) -> tuple[Correspondence, ...]:
    return tuple(Correspondence(c.original, c.compact, c.axis, c.kept) for c in lift)


def region(rng: np.random.Generator, scale: int) -> list[int]:
    """Bounds lz, uz, ly, uy, dl, du of a region that is not empty."""
    z, y = rng.integers(-scale, scale + 1, 2)
    wide = rng.integers(0, scale + 1, 6) * rng.integers(0, 2, 6)
    return [int(v) for v in (z - wide[0], z + wide[1], y - wide[2], y + wide[3], z - y - wide[4], z - y + wide[5])]
