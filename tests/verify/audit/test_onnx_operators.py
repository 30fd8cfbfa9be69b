"""Every operator of the auditor's ONNX reader, in every form that it takes, against ONNX's own reference evaluation.

Weights and inputs are small integers, so both sides are exact; forms that the reader does not know are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.verify.audit.exact_semantics import exact_values
from verify.audit import program
from verify.audit.onnx_file import read_onnx
from verify.audit.onnx_operators import OPERATORS, Call, Value
from verify.audit.onnx_tensor import Constant
from verify.audit.program import Malformed, Unsupported

Nodes = Sequence[tuple[str, Sequence[str], dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A chain of nodes from "x" to "y": (operator, inputs, attributes); results are called t0, t1, ... and y."""

    shape: tuple[int, ...]
    nodes: Nodes
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 13


def integers(*shape: int, seed: int = 0, low: int = -3) -> np.ndarray:
    return np.random.default_rng([*shape, seed]).integers(low, 5, shape).astype(np.float32)


def longs(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def model(case: Case) -> onnx.ModelProto:
    last = len(case.nodes) - 1
    nodes = [
        helper.make_node(op, list(inputs), ["y" if i == last else f"t{i}"], **attributes)
        for i, (op, inputs, attributes) in enumerate(case.nodes)
    ]
    kinds = {"x": case.shape, "y": None}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in kinds.items()]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in case.constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)


W, B = integers(4, 3), integers(4)
IMAGE = (1, 2, 5, 4)
CASES = {
    "matmul": Case((1, 3), [("MatMul", ["x", "w"], {})], {"w": W.T}),
    "matmul from the left": Case((3,), [("MatMul", ["w", "x"], {})], {"w": W}),
    "matmul of a sequence": Case((1, 2, 3), [("MatMul", ["x", "w"], {})], {"w": W.T}),
    "matmul and its bias": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {})], {"w": W.T, "b": B}),
    "a bias first": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["b", "t0"], {})], {"w": W.T, "b": B}),
    "a bias of rank two": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {})],
                               {"w": W.T, "b": B[None]}),
    "a sequence and its bias": Case((1, 2, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {})],
                                    {"w": W.T, "b": B}),
    "a bias of one number": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {})],
                                 {"w": W.T, "b": B[:1]}),
    "a bias per row": Case((1, 4, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {})],
                           {"w": W.T, "b": B[:, None]}),
    "a product used twice": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["t0", "b"], {}),
                                          ("Add", ["t0", "t1"], {})], {"w": W.T, "b": B}),
    "gemm": Case((1, 3), [("Gemm", ["x", "w"], {})], {"w": W.T}),
    "gemm transposed": Case((1, 3), [("Gemm", ["x", "w", "b"], {"transB": 1})], {"w": W, "b": B}),
    "gemm with a bias of rank two": Case((1, 3), [("Gemm", ["x", "w", "b"], {})], {"w": W.T, "b": B[None]}),
    "gemm with a scalar": Case((1, 3), [("Gemm", ["x", "w", "b"], {"alpha": 1.0, "beta": 1.0})],
                               {"w": W.T, "b": np.float32(3)}),
    "gemm with one number": Case((1, 3), [("Gemm", ["x", "w", "b"], {"transB": 0})], {"w": W.T, "b": B[:1]}),
    "gemm with one number of rank two": Case((1, 3), [("Gemm", ["x", "w", "b"], {})], {"w": W.T, "b": B[:1, None]}),
    "conv": Case(IMAGE, [("Conv", ["x", "w"], {"kernel_shape": [3, 2]})], {"w": integers(3, 2, 3, 2)}),
    "conv with everything": Case(
        (1, 4, 6, 5), [("Conv", ["x", "w", "b"], {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2],
                                                  "group": 2})], {"w": integers(4, 2, 3, 2), "b": B}),
    "conv that asks for no padding": Case(IMAGE, [("Conv", ["x", "w"], {"auto_pad": "VALID"})],
                                          {"w": integers(3, 2, 2, 2)}),
    "conv along one axis": Case((1, 2, 6), [("Conv", ["x", "w"], {"pads": [1, 1]})], {"w": integers(3, 2, 3)}),
    "batch norm": Case(
        IMAGE, [("BatchNormalization", ["x", "g", "s", "m", "v"], {"epsilon": 0.25, "momentum": 0.5})],
        {"g": integers(2), "s": integers(2, seed=1), "m": integers(2, seed=2), "v": np.array([3.75, 0.75], np.float32)},
        14),
    "batch norm of a row": Case((1, 2), [("BatchNormalization", ["x", *"gsmv"], {"epsilon": 0.25})],
                                {"g": B[:2], "s": B[2:], "m": W[0, :2], "v": np.array([3.75, 0.75], np.float32)}, 14),
    "max pool": Case(IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [2, 1]})]),
    "max pool with a border": Case(IMAGE, [("MaxPool", ["x"], {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0],
                                                               "dilations": [1, 2]})]),
    "average pool": Case(IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2], "strides": [2, 2]})]),
    "average pool with a border": Case(IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 1]})]),
    "average pool that counts it": Case(IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1],
                                                                        "count_include_pad": 1})]),
    "global average pool": Case((1, 3, 2, 4), [("GlobalAveragePool", ["x"], {})]),
    "mean": Case((1, 2, 4, 2), [("ReduceMean", ["x"], {"axes": [2, -1], "keepdims": 0})]),
    "mean that keeps axes": Case((1, 2, 4, 2), [("ReduceMean", ["x"], {"axes": [1]})]),
    "mean of all": Case((1, 2, 4), [("ReduceMean", ["x"], {"keepdims": 0})]),
    "mean since 18": Case((1, 4, 3), [("ReduceMean", ["x", "a"], {"keepdims": 1})], {"a": longs(-2)}, 18),
    "mean of all since 18": Case((1, 2, 4), [("ReduceMean", ["x"], {"noop_with_empty_axes": 0})], {}, 18),
    "mean of the first axis": Case((1, 4, 3), [("ReduceMean", ["x"], {"axes": [-3, 2], "keepdims": 0})]),
    "relu": Case((1, 5), [("Relu", ["x"], {})]),
    "add": Case((1, 3), [("Relu", ["x"], {}), ("Add", ["x", "t0"], {})]),
    "sub": Case((1, 3), [("Relu", ["x"], {}), ("Sub", ["x", "t0"], {})]),
    "add a constant": Case((1, 2, 3), [("Add", ["x", "c"], {})], {"c": integers(2, 1)}),
    "a constant added to": Case((1, 2, 3), [("Add", ["c", "x"], {})], {"c": integers(3)}),
    "sub a constant": Case((1, 3), [("Sub", ["x", "c"], {})], {"c": integers(3)}),
    "from a constant": Case((1, 3), [("Sub", ["c", "x"], {})], {"c": integers(1, 3)}),
    "add one number": Case((1, 3), [("Add", ["x", "c"], {})], {"c": np.float32(2)}),
    "one number minus": Case((1, 3), [("Sub", ["c", "x"], {})], {"c": np.float32(2)}),
    "minus one number": Case((1, 3), [("Sub", ["x", "c"], {})], {"c": np.float32([2])}),
    "mul by more axes of length 1": Case((1, 2, 3), [("Mul", ["x", "c"], {})], {"c": integers(1, 1, 3)}),
    "mul": Case((1, 2, 3), [("Mul", ["x", "c"], {})], {"c": integers(2, 3)}),
    "mul first": Case((1, 2, 3), [("Mul", ["c", "x"], {})], {"c": np.float32([3])}),
    "div": Case((1, 2, 2), [("Div", ["x", "c"], {})], {"c": np.float32([[2, 4], [-8, 1]])}),
    "div by one number": Case((1, 3), [("Div", ["x", "c"], {})], {"c": np.float32(4)}),
    "flatten": Case((1, 2, 3), [("Flatten", ["x"], {})]),
    "flatten at another axis": Case((1, 2, 3, 2), [("Flatten", ["x"], {"axis": -1})]),
    "flatten at the end": Case((1, 2, 3), [("Flatten", ["x"], {"axis": 3})]),
    "flatten at the front": Case((1, 2, 3), [("Flatten", ["x"], {"axis": 0})]),
    "flatten at the first axis from behind": Case((1, 2, 3), [("Flatten", ["x"], {"axis": -3})]),
    "reshape to fewer axes": Case((1, 2, 6), [("Reshape", ["x", "s"], {})], {"s": longs(-1, 0)}),
    "reshape of all": Case((1, 2, 6), [("Reshape", ["x", "s"], {"allowzero": 0})], {"s": longs(-1)}, 14),
    "reshape to more axes": Case((1, 2, 6), [("Reshape", ["x", "s"], {})], {"s": longs(0, 0, 3, -1, 1)}),
    "reshape": Case((1, 2, 6), [("Reshape", ["x", "s"], {})], {"s": longs(0, -1, 3)}),
    "reshape to a size": Case((1, 2, 6), [("Reshape", ["x", "s"], {"allowzero": 1})], {"s": longs(1, 12)}, 14),
    "squeeze": Case((1, 3, 1, 2), [("Squeeze", ["x", "a"], {})], {"a": longs(-2)}),
    "squeeze all": Case((1, 3, 1, 2), [("Squeeze", ["x"], {})]),
    "squeeze before 13": Case((1, 3, 1, 2), [("Squeeze", ["x"], {"axes": [2]})], {}, 11),
    "unsqueeze": Case((1, 3), [("Unsqueeze", ["x", "a"], {})], {"a": longs(1, -1)}),
    "unsqueeze before 13": Case((1, 3), [("Unsqueeze", ["x"], {"axes": [0, 2]})], {}, 11),
    "transpose": Case((1, 2, 3), [("Transpose", ["x"], {"perm": [0, 2, 1]})]),
    "transpose to the reverse": Case((1, 2, 3), [("Transpose", ["x"], {})]),
    "transpose in a circle": Case((1, 2, 3), [("Transpose", ["x"], {"perm": [1, 2, 0]})]),
    "a constant transposed in a circle": Case(
        (1, 3, 4, 2), [("Transpose", ["c"], {"perm": [1, 2, 0]}), ("Add", ["x", "t0"], {})], {"c": integers(2, 3, 4)}),
    "a constant transposed": Case((1, 3), [("Transpose", ["w"], {"perm": [1, 0]}), ("MatMul", ["x", "t0"], {})],
                                  {"w": W}),
    "a constant transposed to the reverse": Case((1, 3), [("Transpose", ["w"], {}), ("MatMul", ["x", "t0"], {})],
                                                 {"w": W}),
    "pad": Case((1, 2, 3), [("Pad", ["x", "p", "v"], {})], {"p": longs(0, 1, 0, 0, 0, 2), "v": np.float32(7)}),
    "pad with nothing": Case((1, 2, 3), [("Pad", ["x", "p"], {"mode": "constant"})], {"p": longs(0, 0, 1, 0, 1, 0)}),
    "pad since 18": Case((1, 2, 3), [("Pad", ["x", "p", "v", "a"], {})],
                         {"p": longs(1, 2), "v": np.float32(-2), "a": longs(-1)}, 18),
    "pad of two axes": Case((1, 2, 3), [("Pad", ["x", "p", "", "a"], {})],
                            {"p": longs(1, 2, 0, 3), "a": longs(2, 1)}, 18),
    "pad of the first axis": Case((1, 2, 3), [("Pad", ["x", "p", "v"], {})],
                                  {"p": longs(1, 0, 2, 0, 3, 0), "v": np.float32([5])}),
    "slice of two axes": Case((1, 4, 5), [("Slice", ["x", "s", "e", "a"], {})],
                              {"s": longs(1, -3), "e": longs(3, -1), "a": longs(1, -1)}),
    "slice to one": Case((1, 4, 5), [("Slice", ["x", "s", "e", "a"], {})],
                         {"s": longs(1, 2), "e": longs(2, 3), "a": longs(1, 2)}),
    "slice with steps": Case((1, 4, 5), [("Slice", ["x", "s", "e", "", "d"], {})],
                             {"s": longs(0, 1, 0), "e": longs(1, 4, 5), "d": longs(1, 2, 3)}),
    "slice": Case((1, 4, 5), [("Slice", ["x", "s", "e", "a", "d"], {})],
                  {"s": longs(-4, 1), "e": longs(2**40, 3), "a": longs(-1, 1), "d": longs(2, 1)}),
    "slice of the first axes": Case((1, 4, 5), [("Slice", ["x", "s", "e"], {})], {"s": longs(0, 1), "e": longs(1, -1)}),
    "slice before 10": Case((1, 4, 5), [("Slice", ["x"], {"starts": [1], "ends": [3], "axes": [2]})], {}, 9),
    "concat": Case((1, 2, 3), [("Relu", ["x"], {}), ("Concat", ["x", "t0", "x"], {"axis": 1})]),
    "concat along the last": Case((1, 2, 3), [("Relu", ["x"], {}), ("Concat", ["t0", "x"], {"axis": -1})]),
    "concat along the first": Case((1, 2, 3), [("Relu", ["x"], {}), ("Concat", ["t0", "x", "t0"], {"axis": -3})]),
    "concat of one": Case((1, 2, 3), [("Concat", ["x"], {"axis": 2})]),
    "concat of other lengths": Case((1, 3), [("MatMul", ["x", "w"], {}), ("Concat", ["t0", "x"], {"axis": 1})],
                                    {"w": W.T}),
    "dropout with all it may have": Case((1, 3), [("Relu", ["x"], {}), ("Dropout", ["t0", "r", ""], {"seed": 3})],
                                         {"r": np.float32(0.5)}),
    "dropout as it once was": Case((1, 3), [("Relu", ["x"], {}), ("Dropout", ["t0"], {"ratio": 0.5})], {}, 8),
    "identity": Case((1, 3), [("Relu", ["x"], {}), ("Identity", ["t0"], {}), ("Add", ["x", "t1"], {})]),
    "identity of a constant": Case((1, 3), [("Identity", ["w"], {}), ("MatMul", ["x", "t0"], {})], {"w": W.T}),
    "a constant": Case((1, 3), [("Constant", [], {"value": numpy_helper.from_array(B[:3])}),
                                ("Add", ["x", "t0"], {})]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_the_standard_says(name: str) -> None:
    case = CASES[name]
    made = model(case)
    program = read_onnx(made.SerializeToString())
    reference = ReferenceEvaluator(made)
    for seed in range(2):
        x = integers(*case.shape, seed=seed + 7, low=-6)
        (wanted,) = reference.run(None, {"x": x})
        found = exact_values(program, [Fraction(float(v)) for v in x.ravel()])[-1]
        assert [float(v) for v in found] == pytest.approx(wanted.ravel().tolist(), abs=1e-6)
        assert program.shape_of(program.output) == wanted.shape
    assert program.batch is (len(case.shape) >= 2)


def test_dropout_and_casts_change_nothing() -> None:
    """What only training does, and constants in a wider type; with these no claim is one about float32 networks."""
    plain = read_onnx(model(Case((1, 3), [("MatMul", ["x", "w"], {})], {"w": W.T})).SerializeToString())
    dropped = Case((1, 3), [("MatMul", ["x", "w"], {}), ("Dropout", ["t0"], {"seed": 3})], {"w": W.T})
    assert (
        exact_values(read_onnx(model(dropped).SerializeToString()), [Fraction(i) for i in range(3)])[-1]
        == (exact_values(plain, [Fraction(i) for i in range(3)])[-1])
    )
    cast = Case((1, 3), [("Cast", ["w"], {"to": 11}), ("MatMul", ["x", "t0"], {})], {"w": W.T})
    read = read_onnx(model(cast).SerializeToString())
    assert exact_values(read, [Fraction(2)] * 3)[-1] == exact_values(plain, [Fraction(2)] * 3)[-1]
    assert plain.float32
    assert not read.float32


MANY = {"w": W.T, "b": B, "i": integers(2, 2, 3, 3), "s": longs(0, 2), "n": np.float32([1, 2])}
REFUSED: dict[str, tuple[tuple[int, ...], Nodes]] = {
    "a product of two values": ((1, 3), [("Relu", ["x"], {}), ("MatMul", ["x", "t0"], {})]),
    "a matrix of rank three": ((1, 3), [("Reshape", ["w", "s"], {}), ("MatMul", ["x", "t0"], {})]),
    "gemm that scales": ((1, 3), [("Gemm", ["x", "w"], {"alpha": 2.0})]),
    "gemm that scales its bias": ((1, 3), [("Gemm", ["x", "w", "b"], {"beta": 0.5})]),
    "gemm of the transposed": ((3, 1), [("Gemm", ["x", "w"], {"transA": 1})]),
    "gemm of rank three": ((1, 2, 3), [("Gemm", ["x", "w"], {})]),
    "gemm without weights": ((1, 3), [("Gemm", ["x"], {})]),
    "gemm with a bias per row": ((1, 3), [("Gemm", ["x", "w", "n"], {})]),
    "gemm with a wrong attribute": ((1, 3), [("Gemm", ["x", "w"], {"transB": 1.0})]),
    "conv with same padding": (IMAGE, [("Conv", ["x", "i"], {"auto_pad": "SAME_UPPER"})]),
    "conv of another kernel": (IMAGE, [("Conv", ["x", "i"], {"kernel_shape": [2, 2]})]),
    "conv with another bias": (IMAGE, [("Conv", ["x", "i", "b"], {})]),
    "conv of rank three": ((1, 2, 5), [("Conv", ["x", "i"], {})]),
    "conv of a row": ((1, 3), [("Conv", ["x", "i"], {})]),
    "batch norm in training": (IMAGE, [("BatchNormalization", ["x", "n", "n", "n", "n"], {"training_mode": 1})]),
    "batch norm with too little": (IMAGE, [("BatchNormalization", ["x", "n", "n", "n"], {})]),
    "max pool by columns": (IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2, 2], "storage_order": 1})]),
    "max pool that rounds up": (IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2, 2], "ceil_mode": 1})]),
    "max pool without a kernel": (IMAGE, [("MaxPool", ["x"], {})]),
    "mean of no axes": ((1, 3), [("ReduceMean", ["x"], {"noop_with_empty_axes": 1})]),
    "mean of an axis that is not there": ((1, 3), [("ReduceMean", ["x"], {"axes": [2]})]),
    "add of other shapes": ((1, 3), [("MatMul", ["x", "w"], {}), ("Add", ["x", "t0"], {})]),
    "add of three": ((1, 3), [("Add", ["x", "x", "x"], {})]),
    "a constant that enlarges": ((1, 3), [("Add", ["x", "m"], {})]),
    "a constant that does not fit": ((1, 3), [("Mul", ["x", "n"], {})]),
    "div by zero": ((1, 3), [("Div", ["x", "z"], {})]),
    "div of a constant": ((1, 3), [("Div", ["b", "x"], {})]),
    "reshape to nothing": ((1, 3), [("Reshape", ["x"], {})]),
    "reshape to more": ((1, 3), [("Reshape", ["x", "s"], {})]),
    "reshape twice open": ((1, 4), [("Reshape", ["x", "o"], {})]),
    "reshape to a value": ((1, 3), [("Reshape", ["x", "x"], {})]),
    "squeeze of a width": ((1, 3), [("Squeeze", ["x", "s1"], {})]),
    "unsqueeze nowhere": ((1, 3), [("Unsqueeze", ["x"], {})]),
    "unsqueeze twice": ((1, 3), [("Unsqueeze", ["x", "s11"], {})]),
    "transpose that repeats": ((1, 3), [("Transpose", ["x"], {"perm": [0, 0]})]),
    "transpose of a constant that repeats": ((1, 3), [("Transpose", ["w"], {"perm": [0, 0]}),
                                                      ("MatMul", ["x", "t0"], {})]),
    "pad by reflection": ((1, 3), [("Pad", ["x", "s0000"], {"mode": "reflect"})]),
    "pad of one side": ((1, 3), [("Pad", ["x", "s"], {})]),
    "pad that cuts": ((1, 3), [("Pad", ["x", "minus"], {})]),
    "pad with several numbers": ((1, 3), [("Pad", ["x", "s0000", "n"], {})]),
    "slice backwards": ((1, 3), [("Slice", ["x", "s1", "s0", "s1", "back"], {})]),
    "slice to nothing": ((1, 3), [("Slice", ["x", "s1", "s1"], {})]),
    "slice with too few ends": ((1, 3), [("Slice", ["x", "s", "s1"], {})]),
    "slice of an axis twice": ((1, 3), [("Slice", ["x", "s", "s", "s11"], {})]),
    "concat of other shapes": ((1, 3), [("MatMul", ["x", "w"], {}), ("Concat", ["x", "t0"], {"axis": 0})]),
    "concat without an axis": ((1, 3), [("Concat", ["x", "x"], {})]),
    "dropout in training": ((1, 3), [("Dropout", ["x", "n1", "yes"], {})]),
    "cast of a value": ((1, 3), [("Cast", ["x"], {"to": 11})]),
    "cast to less": ((1, 3), [("Cast", ["b"], {"to": 10}), ("Add", ["x", "t0"], {})]),
    "a constant of one number": ((1, 3), [("Constant", [], {"value_float": 1.0}), ("Add", ["x", "t0"], {})]),
    "an identity of nothing": ((1, 3), [("Identity", [""], {}), ("Relu", ["x"], {})]),
    "an operator that is not known": ((1, 3), [("Tanh", ["x"], {})]),
    "an attribute that no one knows": ((1, 3), [("Relu", ["x"], {"slope": 1})]),
    "a value that is not there": ((1, 3), [("Relu", ["q"], {})]),
    "an output of constants": ((1, 3), [("Identity", ["w"], {})]),
}  # fmt: skip
REFUSED |= {
    "gemm with a bias of integers": ((1, 3), [("Gemm", ["x", "w", "s"], {})]),
    "gemm with a bias per column of rank two": ((1, 3), [("Gemm", ["x", "w", "col"], {})]),
    "gemm with a bias of rank three": ((1, 3), [("Gemm", ["x", "w", "b3"], {})]),
    "gemm with a vector": ((1, 3), [("Gemm", ["x", "v3"], {})]),
    "gemm of rank one": ((3,), [("Gemm", ["x", "w"], {})]),
    "a product with a vector": ((1, 3), [("MatMul", ["x", "v3"], {})]),
    "a product with matrices": ((1, 3), [("MatMul", ["x", "m3"], {})]),
    "a matrix times a row": ((1, 4), [("MatMul", ["w", "x"], {})]),
    "a matrix times rows": ((1, 3), [("MatMul", ["w", "x"], {})]),
    "squeeze of axes that are no integers": ((1, 3), [("Squeeze", ["x", "zero"], {})]),
    "mean of an axis in front": ((1, 3), [("ReduceMean", ["x"], {"axes": [-3]})]),
    "mean of an axis, not of a list": ((1, 3), [("ReduceMean", ["x"], {"axes": 1})]),
    "flatten behind the end": ((1, 3), [("Flatten", ["x"], {"axis": 3})]),
    "flatten before the front": ((1, 3), [("Flatten", ["x"], {"axis": -3})]),
    "conv of a kernel of other rank": (IMAGE, [("Conv", ["x", "i1"], {})]),
    "conv of two images": ((1, 4, 3, 3), [("Reshape", ["x", "two"], {}), ("Conv", ["t0", "i"], {})]),
    "max pool of a row": ((1, 3), [("MaxPool", ["x"], {"kernel_shape": [1]})]),
    "max pool of two images": ((1, 4, 3, 3), [
        ("Reshape", ["x", "two"], {}), ("MaxPool", ["t0"], {"kernel_shape": [1, 1]})]),
    "max pool of other rank": (IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2]})]),
    "average pool of other rank": (IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2, 2]})]),
    "average pool of a row": ((1, 3), [("AveragePool", ["x"], {"kernel_shape": [1]})]),
    "global average pool of a row": ((1, 3), [("GlobalAveragePool", ["x"], {})]),
    "global average pool of two images": ((1, 4, 3, 3), [
        ("Reshape", ["x", "two"], {}), ("GlobalAveragePool", ["t0"], {})]),
    "batch norm of one axis": ((2,), [("BatchNormalization", ["x", "n", "n", "n", "n"], {})]),
    "batch norm of one number": ((1,), [("BatchNormalization", ["x", "n1", "n1", "n1", "n1"], {})]),
    "batch norm of a sequence": ((1, 4), [
        ("Reshape", ["x", "square"], {}), ("BatchNormalization", ["t0", "n", "n", "n", "n"], {})]),
    "batch norm per element": (IMAGE, [("BatchNormalization", ["x", "n", "n", "n", "n"], {"spatial": 0})]),
    "batch norm of nothing": (IMAGE, [("BatchNormalization", ["", "n", "n", "n", "n"], {})]),
    "add of one": ((1, 3), [("Add", ["x"], {})]), "sub of one": ((1, 3), [("Sub", ["x", ""], {})]),
    "sub of other shapes": ((1, 3), [("Reshape", ["x", "long"], {}), ("Sub", ["x", "t0"], {})]),
    "add of shapes that broadcast": ((1, 3), [("ReduceMean", ["x"], {}), ("Add", ["x", "t0"], {})]),
    "sum of constants": ((1, 3), [("Add", ["b", "b"], {}), ("Add", ["x", "t0"], {})]),
    "a constant of more axes": ((1, 3), [("Mul", ["x", "b3"], {})]),
    "a constant longer than its axis": ((1, 1, 3), [("Mul", ["x", "col"], {})]),
    "a constant of integers": ((1, 3), [("Mul", ["x", "s"], {})]),
    "mul of values": ((1, 3), [("Mul", ["x", "x"], {})]), "div of values": ((1, 3), [("Div", ["x", "x"], {})]),
    "reshape to a length of -2": ((1, 4), [("Reshape", ["x", "minus2"], {})]),
    "reshape to two lengths of -2": ((1, 4), [("Reshape", ["x", "minus22"], {})]),
    "reshape to lengths of 1 and -2": ((1, 4), [("Reshape", ["x", "minus122"], {})]),
    "reshape of one number to nothing": ((1, 1), [("Reshape", ["x"], {})]),
    "reshape of one, twice open": ((1, 1), [("Reshape", ["x", "o"], {})]),
    "reshape to a length of nothing": ((1, 4), [("Reshape", ["x", "nothing"], {"allowzero": 1})]),
    "reshape that keeps too little": ((1, 4), [("Reshape", ["x", "zero_open"], {"allowzero": 1})]),
    "reshape that copies too many": ((1, 4), [("Reshape", ["x", "zeros"], {})]),
    "reshape with a length that does not divide": ((1, 4), [("Reshape", ["x", "open3"], {})]),
    "reshape to nothing known": ((1, 4), [("Reshape", ["x", "s1"], {}), ("Relu", ["t0"], {})]),
    "unsqueeze behind the end": ((1, 3), [("Unsqueeze", ["x", "s3"], {})]),
    "squeeze of a width and more": ((1, 3), [("Squeeze", ["x", "s01"], {})]),
    "squeeze behind the end": ((1, 3), [("Squeeze", ["x", "s3"], {})]),
    "unsqueeze of no axes": ((1, 3), [("Unsqueeze", ["x", "none"], {})]),
    "transpose of fewer axes": ((1, 3), [("Transpose", ["x"], {"perm": [0]})]),
    "transpose of integers": ((1, 3), [("Transpose", ["s"], {}), ("Add", ["x", "t0"], {})]),
    "transpose of nothing": ((1, 3), [("Transpose", [], {})]),
    "pad without pads": ((1, 3), [("Pad", ["x"], {})]),
    "pad with axes as an attribute": ((1, 3), [("Pad", ["x", "s11"], {"axes": [1]})]),
    "pad with a list of axes": ((1, 3), [("Pad", ["x", "s0000", "", "s11"], {})]),
    "pad with integers": ((1, 3), [("Pad", ["x", "s0000", "s0"], {})]),
    "slice without ends": ((1, 3), [("Slice", ["x", "s1"], {})]),
    "slice without starts": ((1, 3), [("Slice", ["x", "", "s1"], {})]),
    "slice of an axis that is not there": ((1, 3), [("Slice", ["x", "s0", "s1", "s3"], {})]),
    "slice with more axes": ((1, 3), [("Slice", ["x", "s0", "s1", "s11"], {})]),
    "slice with more steps": ((1, 3), [("Slice", ["x", "s0", "s1", "s1", "s11"], {})]),
    "slice with a step of nothing": ((1, 3), [("Slice", ["x", "s0", "s1", "s1", "s0"], {})]),
    "slice with one step backwards": ((1, 3), [("Slice", ["x", "s", "s10", "s01", "back2"], {})]),
    "slice of an axis twice, from both ends": ((1, 3), [("Slice", ["x", "s11", "s33", "ends"], {})]),
    "concat with a constant": ((1, 3), [("Concat", ["x", "row"], {"axis": 0})]),
    "concat of other ranks": ((1, 3), [("Unsqueeze", ["x", "s0"], {}), ("Concat", ["x", "t0"], {"axis": 0})]),
    "concat of other ranks, alike but for the axis": ((1, 3), [
        ("Reshape", ["x", "long"], {}), ("Squeeze", ["t0", "s1"], {}), ("Concat", ["t0", "t1"], {"axis": 1})]),
    "concat behind the end": ((1, 3), [("Concat", ["x", "x"], {"axis": 2})]),
    "concat of nothing": ((1, 3), [("Concat", [], {"axis": 0})]),
    "dropout of a constant": ((1, 3), [("Dropout", ["b"], {}), ("Add", ["x", "t0"], {})]),
    "cast of integers": ((1, 3), [("Cast", ["s13"], {"to": 11}), ("Reshape", ["x", "t0"], {})]),
    "cast to nothing": ((1, 4), [("Cast", ["b"], {}), ("Add", ["x", "t0"], {})]),
    "cast to a type of 12": ((1, 4), [("Cast", ["b"], {"to": 12}), ("Add", ["x", "t0"], {})]),
    "a constant of words": ((1, 3), [("Constant", [], {"value": "one"}), ("Add", ["x", "t0"], {})]),
    "an identity without operand": ((1, 3), [("Identity", [], {}), ("Relu", ["t0"], {})]),
    "a relu of a constant": ((1, 3), [("Relu", ["b"], {}), ("Add", ["x", "t0"], {})]),
}  # fmt: skip
MORE = {
    "m": integers(2, 1, 3), "z": np.float32(0), "o": longs(-1, -1), "s1": longs(1), "s0": longs(0), "s11": longs(1, 1),
    "s0000": longs(0, 0, 0, 0), "minus": longs(0, 0, 0, -1), "back": longs(-1), "n1": np.float32(0.5),
    "yes": np.array(1, np.int64), "col": integers(4, 1), "b3": B[None, None], "v3": B[:3], "m3": integers(1, 3, 4),
    "zero": np.float32([0]), "i1": integers(2, 2, 3), "two": longs(2, 2, 3, 3), "square": longs(2, 2),
    "long": longs(3, 1),
    "minus2": longs(2, -2), "minus22": longs(-2, -2), "minus122": longs(1, -2, -2),
    "s01": longs(0, 1), "s10": longs(1, 0), "s13": longs(1, 3), "back2": longs(1, -1), "nothing": longs(0, 4),
    "zero_open": longs(0, -1),
    "zeros": longs(0, 0, 0), "open3": longs(3, -1), "s3": longs(3), "none": longs(),
    "s33": longs(3, 3), "ends": longs(-1, 1), "row": integers(1, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_forms_of_an_operator_are_refused(name: str) -> None:
    shape, nodes = REFUSED[name]
    with pytest.raises((Malformed, Unsupported)):
        read_onnx(model(Case(shape, nodes, MANY | MORE)).SerializeToString())


def test_a_pad_before_opset_11_has_its_number_as_an_attribute() -> None:
    case = Case((1, 3), [("Pad", ["x"], {"pads": [0, 1, 0, 2], "value": 7.5})], {}, 10)
    found = exact_values(read_onnx(model(case).SerializeToString()), [Fraction(i) for i in (1, 2, 3)])[-1]
    assert found == [Fraction(15, 2), 1, 2, 3, Fraction(15, 2), Fraction(15, 2)]


def test_an_input_without_a_shape_is_refused() -> None:
    made = model(Case((1, 3), [("Relu", ["x"], {})]))
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(Malformed, match="no shape"):
        read_onnx(made.SerializeToString())


# what operators ask for, at which opset

LISTS = {
    "a": longs(1),
    "s": longs(3, 1),
    "p": longs(0, 1, 0, 2),
    "one": longs(1),
    "three": longs(3),
    "n": np.float32(2),
}
# name -> shape, operator, attributes of the old form, operands of the new form, first opset of the new form
FORMS: dict[str, tuple[tuple[int, ...], str, dict[str, Any], list[str], int]] = {
    "mean": ((1, 3), "ReduceMean", {"axes": [1]}, ["a"], 18),
    "squeeze": ((1, 1, 3), "Squeeze", {"axes": [1]}, ["a"], 13),
    "unsqueeze": ((1, 3), "Unsqueeze", {"axes": [1]}, ["a"], 13),
    "pad": ((1, 3), "Pad", {"pads": [0, 1, 0, 2], "value": 2.0}, ["p", "n"], 11),
    "slice": ((1, 3), "Slice", {"starts": [1], "ends": [3], "axes": [1]}, ["one", "three", "a", "one"], 10),
}


@pytest.mark.parametrize("name", FORMS)
def test_lists_are_attributes_first_and_operands_later(name: str) -> None:
    """Both forms are the same step; at another opset a form is refused, and so is one next to the other."""
    shape, op, attributes, operands, since = FORMS[name]

    def digest(opset: int, given: dict[str, Any], reads: list[str]) -> str:
        case = Case(shape, [(op, ["x", *reads], given)], LISTS, opset)
        return read_onnx(model(case).SerializeToString()).digest

    old = {digest(opset, attributes, []) for opset in range(8, since)}
    new = {digest(opset, {}, operands) for opset in range(since, 24)}
    assert len(old) == 1
    assert old == new
    for opset in (since - 1, since):
        wrong = [(attributes, operands)]
        wrong += [({}, operands)] if opset < since else [(attributes, [])]
        wrong += [(attributes, ["", operands[-1]])] if opset < since else [({**attributes}, operands)]
        for given, reads in wrong:
            with pytest.raises((Malformed, Unsupported)):
                digest(opset, given, reads)


@pytest.mark.parametrize(
    ("case", "plain"),
    [
        (Case(IMAGE, [("Conv", ["x", "w"], {"auto_pad": "VALID", "pads": [1, 1, 1, 1]})], {"w": integers(3, 2, 2, 2)}),
         Case(IMAGE, [("Conv", ["x", "w"], {"auto_pad": "NOTSET"})], {"w": integers(3, 2, 2, 2)})),
        (Case(IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2, 2]})]),
         Case(IMAGE, [("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0] * 4,
                                          "dilations": [1, 1], "ceil_mode": 0, "storage_order": 0})])),
        (Case(IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2], "pads": [1] * 4})]),
         Case(IMAGE, [("AveragePool", ["x"], {"kernel_shape": [2, 2], "pads": [1] * 4, "count_include_pad": 0})])),
        (Case(IMAGE, [("BatchNormalization", ["x", *"nnnn"], {})], {"n": B[:2] + 9}),
         Case(IMAGE, [("BatchNormalization", ["x", *"nnnn"], {"epsilon": 1e-5, "momentum": 0.5, "training_mode": 0})],
              {"n": B[:2] + 9}, 14)),
        (Case(IMAGE, [("BatchNormalization", ["x", *"nnnn"], {"spatial": 1, "momentum": 0.25})], {"n": B[:2] + 9}, 8),
         Case(IMAGE, [("BatchNormalization", ["x", *"nnnn"], {})], {"n": B[:2] + 9}, 14)),
        (Case((1, 3, 2), [("ReduceMean", ["x"], {"axes": [1, -2]})]),
         Case((1, 3, 2), [("ReduceMean", ["x"], {"axes": [1]})])),
        (Case((1, 6), [("Reshape", ["x", "s"], {}), ("Flatten", ["t0"], {})], {"s": longs(2, 3)}),
         Case((1, 6), [("Reshape", ["x", "s"], {}), ("Flatten", ["t0"], {"axis": 1})], {"s": longs(2, 3)})),
        (Case((1, 3), [("Pad", ["x", "n", "", "n"], {})], {"n": longs()}, 18),
         Case((1, 3), [("Pad", ["x", "p"], {})], {"p": longs(0, 0, 0, 0)})),
        (Case((1, 3), [("Pad", ["x"], {"pads": [0, 1, 0, 0]})], {}, 10),
         Case((1, 3), [("Pad", ["x"], {"pads": [0, 1, 0, 0], "value": 0.0, "mode": "constant"})], {}, 10)),
        (Case((1, 3), [("Gemm", ["x", "w"], {})], {"w": W.T}),
         Case((1, 3), [("Gemm", ["x", "w"], {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0})], {"w": W.T})),
        (Case((1, 3), [("ReduceMean", ["x", "none"], {})], {"none": longs()}, 18),
         Case((1, 3), [("ReduceMean", ["x"], {})])),
        (Case((1, 2, 3), [("Pad", ["x", "p"], {})], {"p": longs(0, 1, 0, 0, 0, 1)}),
         Case((1, 2, 3), [("Pad", ["x", "p", ""], {"mode": "constant"})], {"p": longs(0, 1, 0, 0, 0, 1)})),
        (Case((1, 3), [("Relu", ["x", "", ""], {})]), Case((1, 3), [("Relu", ["x"], {})])),
        (Case((1, 3), [("Dropout", ["x"], {}), ("Relu", ["x"], {})]), Case((1, 3), [("Relu", ["x"], {})])),
    ],
)  # fmt: skip
def test_what_is_left_out_has_its_default(case: Case, plain: Case) -> None:
    one, other = (read_onnx(model(c).SerializeToString()) for c in (case, plain))
    assert [s.taps.tolist() for s in one.steps] == [s.taps.tolist() for s in other.steps]
    assert one.digest == other.digest


@pytest.mark.parametrize("opset", [13, 14])
def test_an_average_without_axes_may_mean_none(opset: int) -> None:
    """Since opset 18 an attribute says that without axes nothing is averaged: that form is refused."""
    for nodes in (
        [("ReduceMean", ["x"], {"noop_with_empty_axes": 1})],
        [("ReduceMean", ["x", "none"], {"noop_with_empty_axes": 1})],
    ):
        for version in (opset, 18):
            with pytest.raises((Malformed, Unsupported)):
                read_onnx(model(Case((1, 3), nodes, {"none": longs()}, version)).SerializeToString())
    named = Case((1, 3), [("ReduceMean", ["x", "a"], {"noop_with_empty_axes": 1})], {"a": longs(1)}, 18)
    plain = Case((1, 3), [("ReduceMean", ["x", "a"], {})], {"a": longs(1)}, 18)
    assert read_onnx(model(named).SerializeToString()).digest == read_onnx(model(plain).SerializeToString()).digest


@pytest.mark.parametrize(
    ("op", "attributes", "opset"),
    [
        ("Pad", {"pads": [0, 1], "axes": [1]}, 10), ("Pad", {"axes": [1]}, 13), ("Pad", {"axes": [1]}, 17),
        ("Slice", {"starts": [0], "ends": [3], "axes": [1], "steps": [2]}, 9),
    ],
)  # fmt: skip
def test_attributes_of_no_opset_are_refused(op: str, attributes: dict[str, Any], opset: int) -> None:
    operands = ["x"] if opset < 11 else ["x", "s"]
    case = Case((1, 3), [(op, operands, attributes)], {"s": longs(0, 1)}, opset)
    with pytest.raises((Malformed, Unsupported)):
        read_onnx(model(case).SerializeToString())


def test_pads_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of that size is made; places that read nothing are -1."""
    call = Call("Pad", "y", (Value("x", (2, 3)), Constant((4,), integers=(1, 2, 3, 1))), {}, 13)
    for limit, fits in ((36, True), (35, False)):
        monkeypatch.setattr(program, "LARGEST_TENSOR", limit)
        if fits:
            found = OPERATORS["Pad"](call)
            assert isinstance(found, program.Step)
            assert sorted(found.taps.tolist()) == [-1] * 30 + list(range(6))
        else:
            with pytest.raises(Unsupported):
                OPERATORS["Pad"](call)


@pytest.mark.parametrize("op", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_factor_is_one_weight(op: str, shape: tuple[int, ...]) -> None:
    case = Case((1, 3), [(op, ["x", "c"], {})], {"c": np.full(shape, 4, np.float32)})
    (step,) = read_onnx(model(case).SerializeToString()).steps
    assert step.weight is not None
    assert step.weight.mantissa.shape == (1, 1, 1)


def test_a_pad_names_its_axes_since_opset_18() -> None:
    given = {"p": longs(1, 2), "v": np.float32(2), "a": longs(1)}
    for opset in (11, 17, 18, 23):
        case = Case((1, 3), [("Pad", ["x", "p", "v", "a"], {})], given, opset)
        if opset < 18:
            with pytest.raises((Malformed, Unsupported)):
                read_onnx(model(case).SerializeToString())
        else:
            found = exact_values(read_onnx(model(case).SerializeToString()), [Fraction(i) for i in (5, 6, 7)])[-1]
            assert found == [2, 5, 6, 7, 2, 2]


@pytest.mark.parametrize("name", [n for n in CASES if "concat" not in n])
def test_operands_that_no_one_asks_for_are_refused(name: str) -> None:
    """Every operator takes as many as it names; one more, constant or value, is one that it does not know."""
    case = CASES[name]
    op, inputs, attributes = case.nodes[-1]
    most = {
        "Gemm": 3,
        "Conv": 3,
        "Pad": 4,
        "Slice": 5,
        "Squeeze": 2,
        "Unsqueeze": 2,
        "Reshape": 2,
        "ReduceMean": 2,
        "Dropout": 3,
    }
    filled = [*inputs, *[""] * (most.get(op, len(inputs)) - len(inputs))]
    for extra in ("x", "extra"):
        nodes = [*case.nodes[:-1], (op, [*filled, extra], attributes)]
        with pytest.raises((Malformed, Unsupported)):
            read_onnx(model(Case(case.shape, nodes, {**case.constants, "extra": B}, case.opset)).SerializeToString())
