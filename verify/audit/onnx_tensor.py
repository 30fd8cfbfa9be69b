"""Tensors in ONNX files, with the exact numbers in them."""

from dataclasses import dataclass
from math import prod

import numpy as np

from verify.audit import program as p
from verify.audit.exact import Real
from verify.audit.program import Shape, require, supported
from verify.audit.protobuf import Message

FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_BYTES = {1: 4, 10: 2, 11: 8, 16: 2, 7: 8, 6: 4}


@dataclass(frozen=True)
class Constant:
    """A tensor in the file: numbers, or integers that say shapes and axes; `kind` is the type of the numbers."""

    shape: Shape
    numbers: Real | None = None
    integers: tuple[int, ...] | None = None
    kind: str = ""


def read_tensor(tensor: Message) -> Constant:
    """The exact content of a tensor in the file."""
    supported(not tensor.data_location, f"tensor {tensor.name!r} lies outside the file")
    supported(tensor.data_type in _BYTES, f"tensor {tensor.name!r} has element type {tensor.data_type}")
    require(all(d >= 0 for d in tensor.dims), f"tensor {tensor.name!r} has shape {tensor.dims}")
    shape, kind = tuple(tensor.dims), tensor.data_type
    count = p.bounded(prod(shape))
    stores = [s for s in ("float_data", "int32_data", "int64_data", "double_data") if tensor.values[s]]
    typed = {1: "float_data", 11: "double_data", 7: "int64_data", 6: "int32_data"}.get(kind)
    require(len(stores) + (tensor.raw_data is not None) <= 1, f"tensor {tensor.name!r} has its data twice")
    supported(stores in ([], [typed]), f"tensor {tensor.name!r} keeps its data in {stores}")
    if stores and kind in (6, 7):
        require(len(tensor.values[stores[0]]) == count, f"tensor {tensor.name!r} has the wrong number of elements")
        return Constant(shape, integers=tuple(tensor.values[stores[0]]))
    raw = b"".join(tensor.values[stores[0]]) if stores else bytes(tensor.raw_data or b"")
    require(len(raw) == count * _BYTES[kind], f"tensor {tensor.name!r} has {len(raw)} bytes for shape {shape}")
    if kind in FLOATS:
        return Constant(shape, numbers=p.from_bits(raw, FLOATS[kind]).reshape(*shape), kind=FLOATS[kind])
    return Constant(shape, integers=tuple(np.frombuffer(raw, dtype=f"<i{_BYTES[kind]}").tolist()))
