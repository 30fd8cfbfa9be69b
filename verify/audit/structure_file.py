"""structure.json + safetensors (format of `verify.network.structure`, version 1) as programs of the auditor.

Shapes in the file are those of one sample. Every node is rewritten as the ONNX operator that computes it at batch size
one, and translated by the same code as an ONNX file; both files of the same network give the same program. The digest
in structure.json is not used: a certificate names both files by their own hashes.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from verify.audit import program as p
from verify.audit.exact import Real
from verify.audit.files import array, fields, read_json, text, whole
from verify.audit.onnx_operators import OPERATORS, Call, Value
from verify.audit.onnx_tensor import Constant
from verify.audit.program import Malformed, Program, Shape, Step, require, supported

_TYPES = {"F16": ("float16", 2), "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8)}
_OPSET = 20
MAX_HEADER = 2**23


def read_structure(structure: bytes, weights: bytes) -> Program:
    """The network in a structure.json and its safetensors file.

    Raises:
        Malformed, Unsupported: as `onnx_file.read_onnx`.
    """
    names = "format version input output nodes parameters digest"
    kind, version, start, output, nodes, declared, _ = fields(read_json(structure), names, "the structure")
    require(kind == "provable-pruning structure", "not a structure file")
    supported(version == 1 and not isinstance(version, bool), f"structure version {version}")
    tensors = read_safetensors(weights)
    require(isinstance(declared, dict) and set(declared) == set(tensors), "the tensors are not those declared")
    for key, entry in declared.items():
        dtype, shape = fields(entry, "dtype shape", f"parameter {key!r}")
        require((dtype, _ints(shape, key)) == tensors[key][:2], f"parameter {key!r} is not as declared")
    name, shape = fields(start, "name shape", "input")
    values = {text(name, "input.name"): Value(name, (1, *_ints(shape, "input.shape", 1)))}
    p.bounded(prod(values[name].shape))
    steps = [_step(n, f"nodes[{i}]", values, tensors) for i, n in enumerate(array(nodes, "nodes", 100_000))]
    require(text(output, "output") in values, f"the output {output!r} is not defined")
    program = p.finish(name, values[name].shape, True, tuple(steps), output)
    kinds = {kind for kind, _, _ in tensors.values()}
    return replace(program, float32=kinds <= {"float32"} and all(map(_single, steps)))


def _single(step: Step) -> bool:
    """Whether the number that a pad fills its border with, which is no tensor, is one of float32."""
    values = p.fractions(step.bias) if step.kind == "gather" and step.bias is not None else []
    with np.errstate(over="ignore"):
        return all(float(np.float32(float(v))) == v for v in values)


def _ints(value: Any, place: str, low: int = 0) -> Shape:
    return tuple(whole(n, place, low, 2**31) for n in array(value, place, 10_000))


def _step(entry: Any, place: str, values: dict[str, Value], tensors: dict[str, tuple[str, Shape, Real]]) -> Step:
    """Translate one node and define its value."""
    name, op, inputs, shape, roles, attributes = fields(entry, "name op inputs shape parameters attributes", place)
    require(isinstance(roles, dict) and isinstance(attributes, dict), f"{place}: parameters and attributes")
    supported(text(op, place) in _REWRITES, f"op {op!r} at {name!r}; supported: {', '.join(sorted(_REWRITES))}")
    onnx, wanted, rewrite = _REWRITES[op]
    order = [*wanted.split(), *(["bias"] if op in ("linear", "conv") and "bias" in roles else [])]
    require(sorted(roles) == sorted(order), f"{place}: parameters {sorted(roles)}")
    require(all(isinstance(roles[r], str) and roles[r] in tensors for r in order), f"{place}: unknown parameter")
    sources = [text(s, place) for s in array(inputs, place, 10_000)]
    require(all(s in values for s in sources) and bool(sources), f"{place} reads a value not defined before it")
    require(len(sources) == (2 if op in ("add", "subtract") else 1) or op == "concat", f"{place}: inputs {sources}")
    constants = [Constant(tensors[roles[r]][1], tensors[roles[r]][2]) for r in order]
    translated, more = rewrite(_Attributes(attributes, place))
    operands: tuple[Constant | Value, ...] = (*(values[s] for s in sources), *constants, *more)
    call = Call(onnx, text(name, place), operands, translated, _OPSET)
    step = _linear(call) if op == "linear" else OPERATORS[onnx](call)
    require(isinstance(step, Step) and not call.unread, f"{place}: {', '.join(call.unread)}")
    full = (1, *_ints(shape, place, 1))
    require(step.shape == full, f"{place} declares shape {full[1:]}, its op gives {step.shape[1:]}")
    require(name not in values, f"value {name!r} is defined twice")
    values[name] = Value(name, full)
    return step  # type: ignore[return-value]


def _linear(call: Call) -> Step:
    weight, bias, x = call.numbers(1), call.maybe_numbers(2), call.value()
    require(weight.mantissa.ndim == 2 and len(x.shape) >= 2, f"{call}: weight is not a matrix")
    require(bias is None or bias.mantissa.shape == weight.mantissa.shape[:1], f"{call}: bias does not fit")
    return p.linear(call.name, x.name, x.shape, weight, bias)


class _Attributes:
    """The attributes of a node, to be read with their types; all must be read."""

    def __init__(self, values: dict[str, Any], place: str) -> None:
        self.values, self.place = dict(values), place

    def ints(self, name: str) -> Shape:
        return _ints(self.values.pop(name, None), f"{self.place}.{name}")

    def whole(self, name: str) -> int:
        return whole(self.values.pop(name, None), f"{self.place}.{name}", 0, 2**31)

    def flag(self, name: str) -> int:
        value = self.values.pop(name, None)
        require(isinstance(value, bool), f"{self.place}.{name} is not a truth value")
        return int(value)

    def number(self, name: str) -> float:
        (value,) = fields(self.values.pop(name, None), "float", f"{self.place}.{name}")
        try:
            return float.fromhex(text(value, f"{self.place}.{name}", 64))
        except (ValueError, OverflowError):
            raise Malformed(f"{self.place}.{name} is not a hexadecimal number") from None

    def window(self, kernel: bool) -> dict[str, Any]:
        names = {"strides": "stride", "pads": "padding", "dilations": "dilation"}
        return {k: self.ints(v) for k, v in ({**names, "kernel_shape": "kernel"} if kernel else names).items()}


_Rewrite = Callable[[_Attributes], tuple[dict[str, Any], tuple[Constant, ...]]]


def _plain(read: Callable[[_Attributes], dict[str, Any]]) -> _Rewrite:
    """A rewriting into attributes alone; attributes left over stay, and are refused."""

    def rewrite(a: _Attributes) -> tuple[dict[str, Any], tuple[Constant, ...]]:
        found = read(a)
        return {**found, **a.values}, ()

    return rewrite


def _lists(read: Callable[[_Attributes], tuple[Shape, ...]], **more: str) -> _Rewrite:
    """A rewriting into operands that are lists of integers."""

    def rewrite(a: _Attributes) -> tuple[dict[str, Any], tuple[Constant, ...]]:
        lists = tuple(Constant((len(v),), integers=v) for v in read(a))
        flags = {key: a.flag(name) for key, name in more.items()}
        return {**flags, **a.values}, lists

    return rewrite


def _slice(a: _Attributes) -> tuple[Shape, ...]:
    starts, stops, steps = (a.ints(k) for k in ("starts", "stops", "steps"))
    return starts, stops, tuple(range(1, len(starts) + 1)), steps


def _pad(a: _Attributes) -> tuple[dict[str, Any], tuple[Constant, ...]]:
    padding, value = a.ints("padding"), a.number("value")
    half = len(padding) // 2
    pads = (0, *padding[:half], 0, *padding[half:])
    fill = p.from_bits(np.array(value, dtype="<f8").tobytes(), "float64").reshape()
    return dict(a.values), (Constant((len(pads),), integers=pads), Constant((), numbers=fill))


_NOTHING = _plain(lambda a: {})
# op -> ONNX operator, parameters in the order of its operands, rewriting of attributes
_REWRITES: dict[str, tuple[str, str, _Rewrite]] = {
    "linear": ("Gemm", "weight", _NOTHING),
    "conv": ("Conv", "weight", _plain(lambda a: {**a.window(False), "group": a.whole("groups")})),
    "batch_norm": (
        "BatchNormalization", "weight bias mean variance", _plain(lambda a: {"epsilon": a.number("epsilon")})),
    "scale": ("Mul", "value", _NOTHING), "divide": ("Div", "value", _NOTHING), "shift": ("Add", "value", _NOTHING),
    "add": ("Add", "", _NOTHING), "subtract": ("Sub", "", _NOTHING), "relu": ("Relu", "", _NOTHING),
    "max_pool": ("MaxPool", "", _plain(lambda a: a.window(True))),
    "average_pool": (
        "AveragePool", "", _plain(lambda a: {**a.window(True), "count_include_pad": a.flag("count_padding")})),
    "mean": ("ReduceMean", "", _lists(lambda a: (tuple(n + 1 for n in a.ints("axes")),), keepdims="keepdims")),
    "reshape": ("Reshape", "", _lists(lambda a: ((1, *a.ints("shape")),))),
    "transpose": ("Transpose", "", _plain(lambda a: {"perm": (0, *(n + 1 for n in a.ints("permutation")))})),
    "slice": ("Slice", "", _lists(_slice)),
    "pad": ("Pad", "", _pad),
    "concat": ("Concat", "", _plain(lambda a: {"axis": a.whole("axis") + 1})),
}  # fmt: skip


def read_safetensors(data: bytes) -> dict[str, tuple[str, Shape, Real]]:
    """Name -> (type, shape, numbers). The tensors must cover the data without gap, overlap or rest."""
    size = int.from_bytes(data[:8], "little")
    require(size <= min(MAX_HEADER, len(data) - 8), "not a safetensors file, or cut short")
    require(data[8:9] == b"{", "a safetensors header is not an object")
    header, body = read_json(data[8 : 8 + size]), data[8 + size :]
    notes = header.pop("__metadata__", {})
    require(isinstance(notes, dict) and all(isinstance(v, str) for v in notes.values()), "__metadata__")
    entries = []
    for name, entry in header.items():
        dtype, shape, offsets = fields(entry, "dtype shape data_offsets", f"tensor {name!r}")
        supported(isinstance(dtype, str) and dtype in _TYPES, f"tensor {name!r} has type {str(dtype)[:20]}")
        sizes, ends = _ints(shape, name), _ints(offsets, name)
        kind, width = _TYPES[dtype]
        require(len(ends) == 2 and ends[1] - ends[0] == p.bounded(prod(sizes)) * width, f"tensor {name!r}: length")
        entries.append((*ends, name, kind, sizes))
    at, result = 0, {}
    for begin, end, name, kind, sizes in sorted(entries):
        require(begin == at and end <= len(body), f"tensor {name!r} overlaps another, leaves a gap, or is cut short")
        result[name] = kind, sizes, p.from_bits(body[begin:end], kind).reshape(*sizes)
        at = end
    require(at == len(body), "data behind the last tensor")
    return result
