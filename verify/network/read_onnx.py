"""ONNX files -> the verifier's graph.

Opsets 8 to 23, the default operator set, one input, one output, no external data. The run of the file at
batch size one is followed operator by operator (`onnx_operators`), everything that does not depend on
the input is folded (`onnx_folding`), and what remains is written down for one sample (`lowering`).

The batch axis is the first axis of an input of rank >= 2 if it is 1 or symbolic; an input of rank 1 has none.
Every node bears the name of the ONNX tensor it computes; parameters bear the names of the initialisers.
Not claimed: that a runtime computes these values; it rounds, and may fuse.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from verify.errors import ModelError, UnsupportedOperation, VerifyError
from verify.network.files import read_bytes
from verify.network.graph import Array, Network
from verify.network.lowering import Constant, Lowering, Operand, Value
from verify.network.onnx_folding import FOLDS
from verify.network.onnx_operators import OPERATORS, Call, Origin

OPSETS = range(8, 24)
MAX_NODES = 200_000
_ELEMENT_TYPES = {1: np.float32, 10: np.float16, 11: np.float64, 6: np.int32, 7: np.int64, 9: np.bool_}


def read_onnx(source: Path | str | bytes) -> Network:
    """The network in an ONNX file.

    Args:
        source: path of the file, or its bytes.

    Raises:
        ModelError: the file is missing, damaged, too large, or breaks the rules of the graph.
        UnsupportedOperation: it uses an operator, or a form of one, that the graph cannot express exactly.
    """
    place = "ONNX bytes" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_bytes(Path(source), "an ONNX file")
    try:
        return _Reader(_parse(data)).read()
    except UnsupportedOperation:
        raise
    except VerifyError as error:
        raise ModelError(f"{place}: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, ZeroDivisionError) as error:
        raise ModelError(f"{place}: malformed ONNX graph: {type(error).__name__}: {error}") from error


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"not an ONNX file, or cut short ({error})") from None
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError("not an ONNX file, or cut short: it holds no graph with an output")
    return model


class _Reader:
    """One pass over the nodes of an ONNX graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset = _opset(model)
        _check_extent(model)
        self.tensors: dict[str, Operand] = {}
        for initializer in self.graph.initializer:
            self.tensors[initializer.name] = Constant(_array(initializer), initializer.name, initializer.name)
        self.lowering, self.dtype = self._input()
        self.tensors[self.lowering.input.name] = self.lowering.input
        self.uses = Counter(i for node in self.graph.node for i in node.input)
        self.uses.update(o.name for o in self.graph.output)
        self.sources: dict[str, Origin] = {}

    def read(self) -> Network:
        for node in self.graph.node:
            self._node(node)
        if len(self.graph.output) != 1:
            raise ModelError(f"the network has {len(self.graph.output)} outputs, expected 1")
        name = self.graph.output[0].name
        output = self.tensors.get(name)
        if not isinstance(output, Value):
            raise ModelError(f"the output {name!r} does not depend on the input")
        return self.lowering.network(output)

    def _input(self) -> tuple[Lowering, "np.dtype[Any]"]:
        inputs = [i for i in self.graph.input if i.name not in self.tensors]
        if len(inputs) != 1:
            raise ModelError(f"the network has {len(inputs)} inputs ({[i.name for i in inputs]}), expected 1")
        kind = inputs[0].type.tensor_type
        if _ELEMENT_TYPES.get(kind.elem_type, np.int32)(0).dtype.kind != "f" or not kind.HasField("shape"):
            raise ModelError(f"input {inputs[0].name!r} is not a floating-point tensor with a shape")
        shape = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]  # 0: symbolic
        batch, symbolic = 0 if len(shape) >= 2 else None, bool(shape) and shape[0] < 1
        if batch == 0 and shape[0] <= 1:
            shape[0] = 1
        elif batch == 0:
            raise ModelError(
                f"input {inputs[0].name!r} of shape {shape}: the first axis must be a batch axis of size 1 or symbolic"
            )
        if not shape or min(shape) < 1:
            raise ModelError(f"input {inputs[0].name!r} of shape {shape}: axes after the batch axis must be fixed")
        return Lowering(inputs[0].name, tuple(shape), batch, symbolic), np.dtype(_ELEMENT_TYPES[kind.elem_type])

    def _node(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperation(f"{node.domain}::{node.op_type}", _name(node), OPERATORS, "custom operator")
        _check_schema(node, self.opset)
        outputs = _outputs(node)
        if not outputs:
            return
        attributes = _attributes(node)
        results = self._results(node, outputs, attributes)
        for name, result in zip(outputs, results, strict=True):
            if name in self.tensors:
                raise ModelError(f"tensor {name!r} is defined twice")
            self.tensors[name] = result

    def _results(self, node: onnx.NodeProto, outputs: tuple[str, ...], attributes: dict[str, Any]) -> list[Operand]:
        if node.op_type == "Constant":
            return [Constant(_constant(node, attributes), outputs[0], outputs[0])]
        operands = tuple(self._operand(node, name) for name in node.input)
        if node.op_type in ("Shape", "Size"):
            return [self._extent(node, operands[0], attributes)]
        if node.op_type == "CastLike" and isinstance(operands[0], Constant):
            operands = (operands[0], self._like(operands[1]))
        constants = [o for o in operands if isinstance(o, Constant)]
        if len(constants) == len(operands) and node.op_type in FOLDS and not _per_sample(node, constants):
            return [_fold(node, constants, attributes)]
        handler = OPERATORS.get(node.op_type)
        if handler is None:
            raise UnsupportedOperation(node.op_type, _name(node), OPERATORS)
        call = Call(
            node.op_type, outputs[0], operands, tuple(node.input), outputs, attributes,
            self.opset, self.dtype, self.lowering, self.uses, self.sources,
        )  # fmt: skip
        result = handler(call)
        return list(result) if isinstance(result, tuple) else [result]

    def _operand(self, node: onnx.NodeProto, name: str) -> Operand | None:
        if not name:
            return None
        if name not in self.tensors:
            raise ModelError(f"node {_name(node)!r} reads {name!r}, which is not defined before it")
        return self.tensors[name]

    def _like(self, operand: Operand | None) -> Operand | None:
        """A constant of the type of `operand`; values have the type of the network's input."""
        return Constant(np.zeros((), dtype=self.dtype), "") if isinstance(operand, Value) else operand

    def _extent(self, node: onnx.NodeProto, operand: Operand | None, attributes: dict[str, Any]) -> Constant:
        """Shape or Size of a tensor."""
        if operand is None:
            raise ModelError(f"node {_name(node)!r} ({node.op_type}): its input is missing")
        sized = isinstance(operand, Value) and operand.batch is not None
        shape = operand.shape if isinstance(operand, Value) else operand.array.shape
        stand_in = np.broadcast_to(np.int64(0), shape)
        return Constant(FOLDS[node.op_type]([stand_in], attributes, _name(node)), node.output[0], node.output[0], sized)


def _fold(node: onnx.NodeProto, constants: list[Constant], attributes: dict[str, Any]) -> Constant:
    """Result of an operator on constants; one that only moves or widens a single tensor keeps its key."""
    array = np.asarray(FOLDS[node.op_type]([c.array for c in constants], attributes, _name(node)))
    floats = [c for c in constants if c.array.dtype.kind == "f"]
    moved = node.op_type in ("Identity", "Cast", "CastLike", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Expand")
    key = floats[0].key if floats and moved else node.output[0]
    return Constant(array, key, node.output[0], any(c.sized for c in constants))


def _per_sample(node: onnx.NodeProto, constants: list[Constant]) -> bool:
    """A constant repeated for every sample stays a value of its own."""
    return node.op_type == "Expand" and constants[1].sized


def _name(node: onnx.NodeProto) -> str:
    return node.name or next((o for o in node.output if o), "")


def _outputs(node: onnx.NodeProto) -> tuple[str, ...]:
    """Names of the outputs; those left out at the end do not count."""
    names = list(node.output)
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UnsupportedOperation(node.op_type, _name(node), OPERATORS, "an output is left out before another one")
    return tuple(names)


def _check_schema(node: onnx.NodeProto, opset: int) -> None:
    """Refuse unknown operators, and operands and attributes that the operator does not have."""
    if node.op_type not in (*OPERATORS, *FOLDS, "Constant"):
        raise UnsupportedOperation(node.op_type, _name(node), OPERATORS)
    place = f"node {_name(node)!r} ({node.op_type})"
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        reason = f"not an operator of opset {opset}"
        raise UnsupportedOperation(node.op_type, _name(node), OPERATORS, reason) from None
    if not schema.min_input <= len(node.input) <= schema.max_input or len(node.output) > schema.max_output:
        raise ModelError(f"{place} has {len(node.input)} inputs and {len(node.output)} outputs")
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None or int(known.type) != attribute.type:  # type: ignore[call-overload]
            raise ModelError(f"{place}: attribute {attribute.name!r} is unknown or of a wrong type")


def _opset(model: onnx.ModelProto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ModelError(f"operator set {versions or 'missing'}, expected one version from 8 to 23")
    return int(versions[0])


def _check_extent(model: onnx.ModelProto) -> None:
    if len(model.graph.node) > MAX_NODES:
        raise ModelError(f"{len(model.graph.node)} nodes, above the limit of {MAX_NODES}")
    if model.graph.sparse_initializer:
        raise ModelError("sparse initialisers are not supported")
    seen: set[str] = set()
    for initializer in model.graph.initializer:
        if not initializer.name or initializer.name in seen:
            raise ModelError(f"initialiser {initializer.name!r} is unnamed or defined twice")
        seen.add(initializer.name)


def _array(tensor: onnx.TensorProto) -> Array:
    """Elements of a stored tensor, bits unchanged."""
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise ModelError(f"tensor {tensor.name!r} is stored outside the file; external data is refused")
    if tensor.data_type not in _ELEMENT_TYPES:
        raise ModelError(f"tensor {tensor.name!r} has ONNX type {tensor.data_type}, which is not supported")
    if tensor.HasField("segment") or any(d < 0 for d in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} is segmented or has a negative dimension")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(f"tensor {tensor.name!r} of shape {tuple(tensor.dims)} is damaged: {error}") from None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return dict(_plain(node, attribute) for attribute in node.attribute)


def _plain(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> tuple[str, Any]:
    kind = onnx.AttributeProto
    if attribute.ref_attr_name or attribute.type in (kind.GRAPH, kind.GRAPHS, kind.SPARSE_TENSOR, kind.SPARSE_TENSORS):
        raise UnsupportedOperation(node.op_type, _name(node), OPERATORS, f"attribute {attribute.name!r}")
    if attribute.type == kind.TENSOR:
        return attribute.name, _array(attribute.t)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return attribute.name, value.decode("utf-8")
    return attribute.name, tuple(value) if attribute.type in (kind.INTS, kind.FLOATS) else value


def _constant(node: onnx.NodeProto, attributes: dict[str, Any]) -> Array:
    kinds: Iterator[tuple[str, Any]] = iter(attributes.items())
    kind, value = next(kinds, ("nothing", None))
    if kind == "value":
        return np.asarray(value)
    if kind in ("value_float", "value_floats"):
        return np.array(value, dtype=np.float32)
    if kind in ("value_int", "value_ints"):
        return np.array(value, dtype=np.int64)
    raise UnsupportedOperation("Constant", _name(node), OPERATORS, f"it holds {kind}")
