"""ONNX files (default operator set, opsets 8 to 23) as programs of the auditor.

The graph is followed at batch size one, tensors whole: a symbolic first axis counts as 1. A value bears the name
of its ONNX tensor; a constant that is added directly and only to a product with a constant matrix becomes its
bias, and the value then bears the name of the sum. An operator, attribute or form outside the list is refused.
"""

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

from verify.audit import program as p
from verify.audit.onnx_operators import OPERATORS, Call, Result, Value
from verify.audit.onnx_tensor import FLOATS, Constant, read_tensor
from verify.audit.program import Program, Shape, Step, require, supported
from verify.audit.protobuf import Message, read_message

OPSETS = range(8, 24)
MAX_NODES = 100_000


def read_onnx(data: bytes) -> Program:
    """The network in the bytes of an ONNX file.

    Raises:
        Malformed: not a well-formed ONNX file, or NaN or infinity among the weights.
        Unsupported: an operator or a form of one that this auditor does not know.
    """
    model = read_message("MODEL", memoryview(data))
    opsets = {m.domain or "": m.version for m in model.opset_import}
    require(model.graph is not None and model.ir_version is not None, "not an ONNX file: it has no graph")
    supported(len(opsets) == len(model.opset_import) and opsets.get("") in OPSETS, f"operator sets {opsets}")
    return _Reader(model.graph, opsets[""]).program()


class _Reader:
    """One pass over the nodes of a graph."""

    def __init__(self, graph: Message, opset: int) -> None:
        supported(len(graph.node) <= MAX_NODES, f"{len(graph.node)} nodes, the limit is {MAX_NODES}")
        self.graph, self.opset = graph, opset
        self.tensors: dict[str, Constant | Value] = {}
        self.steps: dict[str, Step] = {}
        self.products: set[str] = set()
        self.kinds: set[str] = set()  # of the numbers that the nodes read, and of the input
        for tensor in graph.initializer:
            self.define(tensor.name or "", read_tensor(tensor))
        inputs = [i for i in graph.input if i.name not in self.tensors]
        require(len(inputs) == 1 and len(graph.output) == 1, "a network has one input and one output")
        self.input = Value(inputs[0].name or "", _input_shape(inputs[0]))
        self.kinds.add(FLOATS[inputs[0].type.tensor_type.elem_type])
        self.define(self.input.name, self.input)
        self.uses = Counter([n for node in graph.node for n in node.input] + [o.name for o in graph.output])

    def define(self, name: str, tensor: Constant | Value) -> None:
        require(name != "" and name not in self.tensors, f"tensor {name!r} is defined twice or has no name")
        self.tensors[name] = tensor

    def program(self) -> Program:
        for node in self.graph.node:
            self.node(node)
        output = self.tensors.get(self.graph.output[0].name or "")
        require(isinstance(output, Value), "the output does not depend on the input")
        batch, steps = len(self.input.shape) >= 2, tuple(self.steps.values())
        program = p.finish(self.input.name, self.input.shape, batch, steps, output.name)  # type: ignore[union-attr]
        return replace(program, float32=self.kinds == {"float32"})

    def node(self, node: Message) -> None:
        op = node.op_type or ""
        supported((node.domain or "") in ("", "ai.onnx") and not node.overload, f"operator {node.domain}::{op}")
        outputs = [o for o in node.output if o]
        require(len(outputs) >= 1, f"a node {op} has no output")
        supported(len(outputs) == 1 and node.output[0] != "", f"{op} {outputs} has several outputs")
        for name in node.input:
            require(name == "" or name in self.tensors, f"{op} {outputs[0]!r} reads {name!r}, not defined before it")
        operands = tuple(self.tensors[n] if n else None for n in node.input)
        self.kinds.update(o.kind for o in operands if isinstance(o, Constant) and o.numbers is not None)
        call = Call(op, outputs[0], operands, _attributes(node), self.opset)
        supported(op in OPERATORS, f"{call}; supported operators: {', '.join(sorted(OPERATORS))}")
        result = self.fused(call, tuple(node.input)) or OPERATORS[op](call)
        supported(not call.unread, f"{call}: {', '.join(call.unread)}")
        self.result(call, result)

    def result(self, call: Call, result: Result) -> None:
        if isinstance(result, Step):
            p.bounded(prod(result.shape))
            self.steps[result.name] = result
            if call.op == "MatMul":
                self.products.add(call.name)
            result = Value(result.name, result.shape)
        self.define(call.name, result)

    def fused(self, call: Call, names: tuple[str, ...]) -> Step | None:
        """The product with a constant matrix that `call` adds a constant to, with that constant as its bias."""
        for i, name in enumerate(names if call.op == "Add" and len(names) == 2 else ()):
            other = call.operand(1 - i)
            if name not in self.products or self.uses[name] != 1 or not isinstance(other, Constant):
                continue
            step = self.steps[call.value(i).name]
            size = step.shape[-1]
            fits = prod(other.shape) == size and (size == 1 or other.shape[-1:] == (size,))
            if not fits or len(other.shape) > len(step.shape):
                continue
            del self.steps[name]
            bias = call.numbers(1 - i).reshape(size).expand((prod(step.shape) // size, size))
            return replace(step, name=call.name, bias=bias.reshape(prod(step.shape)))
        return None


def _input_shape(info: Message) -> Shape:
    kind = info.type.tensor_type if info.type else None
    if kind is None or kind.shape is None:
        raise p.Malformed(f"input {info.name!r} has no shape")
    supported(kind.elem_type in FLOATS, f"input {info.name!r} is not a floating-point tensor")
    sizes = [d.dim_value if d.dim_value is not None else 0 for d in kind.shape.dim]
    if len(sizes) >= 2 and sizes[0] == 0:
        sizes[0] = 1
    supported(len(sizes) < 2 or sizes[0] == 1, f"input of shape {sizes}: the first axis must be 1 or symbolic")
    require(bool(sizes) and min(sizes) >= 1, f"input of shape {sizes}: axes after the first must be fixed")
    return tuple(sizes)


def _attributes(node: Message) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for a in node.attribute:
        require(a.name and a.name not in result, f"attribute {a.name!r} of {node.op_type} occurs twice or has no name")
        kinds = {1: a.f, 2: a.i, 3: a.s, 4: a.t, 7: tuple(a.ints)}
        absent = {1: 0.0, 2: 0, 3: b""}
        supported(a.type in kinds and not a.floats, f"attribute {a.name!r} of type {a.type}")
        given = kinds[a.type] if kinds[a.type] is not None else absent.get(a.type)
        filled = [k for k, v in kinds.items() if v not in (None, ())]
        require(given is not None and filled in ([], [a.type]), f"attribute {a.name!r} of {node.op_type} is ill-formed")
        result[a.name] = bytes(a.s or b"").decode("latin-1") if a.type == 3 else given
    return result
