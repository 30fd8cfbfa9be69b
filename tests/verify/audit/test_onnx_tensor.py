"""Tensors of ONNX files: exact numbers from every store, written by ONNX's own library; other tensors are refused."""

import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from verify.audit.onnx_tensor import Constant, read_tensor
from verify.audit.program import Malformed, Unsupported, fractions
from verify.audit.protobuf import read_message


def read(proto: TensorProto) -> Constant:
    return read_tensor(read_message("TENSOR", memoryview(proto.SerializeToString())))


def tensor(kind: int, dims: list[int], **values: Any) -> TensorProto:
    made = TensorProto(data_type=kind, dims=dims, name="t")
    for key, value in values.items():
        if isinstance(value, list):
            getattr(made, key).extend(value)
        else:
            setattr(made, key, value)
    return made


NUMBERS = [0.75, -3.0, 0.0, 2.0**-20, 1.0, -0.5]
FLOATS = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("dims", [[6], [2, 3], [3, 1, 2], [1, 6]])
@pytest.mark.parametrize("raw", [True, False])
def test_floating_point_numbers_are_exact(kind: int, dims: list[int], raw: bool) -> None:
    store = {TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data"}.get(kind)
    if raw:
        bits = [np.float32(v).tobytes()[2:] for v in NUMBERS] if kind == TensorProto.BFLOAT16 else None
        data = b"".join(bits) if bits else np.array(NUMBERS, FLOATS[kind]).tobytes()
        made = tensor(kind, dims, raw_data=data)
    elif store:
        made = tensor(kind, dims, **{store: NUMBERS})
    else:
        with pytest.raises(Unsupported):  # 16 bits in a store of 32
            read(tensor(kind, dims, int32_data=[0] * 6))
        return
    found = read(made)
    assert found.numbers is not None
    assert (found.shape, found.kind, found.integers) == (tuple(dims), FLOATS[kind], None)
    assert found.numbers.mantissa.shape == tuple(dims)
    assert fractions(found.numbers) == [Fraction(v) for v in NUMBERS]
    assert not found.numbers.slack.any()


@pytest.mark.parametrize(
    ("kind", "type_", "store"),
    [(TensorProto.INT64, np.int64, "int64_data"), (TensorProto.INT32, np.int32, "int32_data")],
)
def test_integers_are_read_from_every_store(kind: int, type_: Any, store: str) -> None:
    ends = np.iinfo(type_)
    values = [-5, 0, 9, int(ends.max), int(ends.min), 1]
    for dims in ([6], [2, 3]):
        for made in (
            tensor(kind, dims, **{store: values}),
            numpy_helper.from_array(np.array(values, type_).reshape(dims)),
        ):
            assert read(made) == Constant(tuple(dims), integers=tuple(values))


def test_scalars_and_empty_tensors_are_read() -> None:
    one = read(numpy_helper.from_array(np.float32(2.5)))
    assert one.shape == ()
    assert one.numbers is not None
    assert one.numbers.mantissa.shape == ()
    assert read(numpy_helper.from_array(np.int64(7))) == Constant((), integers=(7,))
    assert read(tensor(TensorProto.INT64, [0])) == Constant((0,), integers=())
    for dims in ([0], [2, 0, 3]):
        empty = read(tensor(TensorProto.FLOAT, dims)).numbers
        assert empty is not None
        assert empty.mantissa.shape == tuple(dims)
    assert read(tensor(TensorProto.FLOAT, [1], raw_data=b"\0" * 4, data_location=0)).shape == (1,)


F, D, N, L = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64
FOUR = b"\0" * 4


@pytest.mark.parametrize(
    "made",
    [
        tensor(F, [2], raw_data=FOUR), tensor(F, [1], raw_data=FOUR * 2), tensor(F, [1], raw_data=b""), tensor(F, [1]),
        tensor(F, [], raw_data=b""), tensor(F, [-1], raw_data=b""), tensor(F, [-1, -1], raw_data=FOUR),
        tensor(F, [0], raw_data=FOUR), tensor(F, [1], raw_data=FOUR, float_data=[0.0]),
        tensor(F, [2], float_data=[0.0]), tensor(F, [0], float_data=[0.0], raw_data=b""),
        tensor(F, [1], float_data=[0.0], double_data=[0.0]),
        tensor(L, [2], int64_data=[1]), tensor(L, [1], int64_data=[1, 2]), tensor(N, [3], int32_data=[1, 2]),
        tensor(L, [1], int64_data=[1], raw_data=b"\1" + b"\0" * 7), tensor(N, [1], raw_data=FOUR * 2),
        tensor(L, [1], raw_data=FOUR), tensor(L, [2], raw_data=FOUR * 3),
        tensor(L, [1], int64_data=[1], int32_data=[1]),
        tensor(F, [1], raw_data=struct.pack("<f", float("nan"))), tensor(D, [1], double_data=[float("inf")]),
        tensor(L, [1]), tensor(F, [1], raw_data=FOUR, float_data=[0.0], int32_data=[0]),
    ],
)  # fmt: skip
def test_tensors_that_contradict_themselves_are_malformed(made: TensorProto) -> None:
    with pytest.raises(Malformed):
        read(made)


@pytest.mark.parametrize(
    "made",
    [
        tensor(F, [1], raw_data=FOUR, data_location=1), tensor(F, [2**20, 2**20]), tensor(F, [2**26 + 1]),
        tensor(F, [1], double_data=[0.0]), tensor(F, [1], int32_data=[0]), tensor(F, [1], int64_data=[0]),
        tensor(D, [1], float_data=[0.0]), tensor(L, [1], int32_data=[0]), tensor(N, [1], int64_data=[0]),
        tensor(L, [1], float_data=[0.0]), tensor(N, [0], int64_data=[1]),
        *(tensor(kind, [0]) for kind in range(25) if kind not in (1, 6, 7, 10, 11, 16)),
        helper.make_tensor("t", TensorProto.BOOL, [1], [True]),
    ],
)  # fmt: skip
def test_other_tensors_are_unsupported(made: TensorProto) -> None:
    with pytest.raises(Unsupported):
        read(made)


def test_a_tensor_without_a_type_is_refused() -> None:
    with pytest.raises(Unsupported):
        read(TensorProto(dims=[1], name="t"))
