"""One ONNX node with its operands resolved, as the functions of this package receive it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.errors import ModelError, UnsupportedOperation
from verify.network.extents import same_padding
from verify.network.graph import Shape
from verify.network.lowering import Constant, Lowering, Operand, Value


@dataclass(frozen=True)
class Origin:
    """The ONNX operator a value came from, and the value it was applied to."""

    op: str
    value: Value


@dataclass(frozen=True)
class Call:
    """One ONNX node.

    Attributes:
        name: of its first output, and of the node of the graph it becomes.
        operands: None where an optional input is left out; `inputs` are the names of the tensors.
        dtype: of the network's input, hence of every value.
        uses: how often each tensor is read.
        sources: values that came out of a MatMul or Sigmoid -> what went into it, for fusion.
    """

    op: str
    name: str
    operands: tuple[Operand | None, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    dtype: "np.dtype[Any]"
    lowering: Lowering
    uses: Mapping[str, int]
    sources: dict[str, "Origin"]

    def refuse(self, reason: str) -> UnsupportedOperation:
        """The error for a form of the operator that has no exact counterpart."""
        from verify.network.onnx_operators import OPERATORS  # the table imports this file

        return UnsupportedOperation(self.op, self.name, OPERATORS, reason)

    def operand(self, index: int) -> Operand | None:
        return self.operands[index] if index < len(self.operands) else None

    def value(self, index: int = 0) -> Value:
        """Operand that must depend on the input; a constant becomes a node of its own."""
        operand = self.operand(index)
        if operand is None:
            raise ModelError(f"node {self.name!r} ({self.op}): input {index} is missing")
        if isinstance(operand, Constant):
            return self.lowering.constant(f"{operand.tensor or operand.key}/value", operand, None)
        return operand

    def constant(self, index: int, what: str) -> Constant | None:
        """Operand that must not depend on the input, or None if it is left out."""
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise self.refuse(f"its {what} depends on the network's input")
        return operand

    def required(self, index: int, what: str) -> Constant:
        constant = self.constant(index, what)
        if constant is None:
            raise ModelError(f"node {self.name!r} ({self.op}): its {what} is missing")
        return constant

    def integers(self, index: int, attribute: str, what: str = "") -> tuple[int, ...] | None:
        """A list of integers given as an attribute (older opsets) or as a constant input."""
        if attribute in self.attributes:
            value = self.attributes[attribute]
            return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
        constant = self.constant(index, what or attribute)
        if constant is None:
            return None
        if constant.array.dtype.kind != "i":
            raise ModelError(f"node {self.name!r} ({self.op}): its {what or attribute} are not integers")
        return tuple(int(i) for i in constant.array.reshape(-1))

    def origin(self, index: int, op: str) -> Origin | None:
        """Where operand `index` came from, if directly from `op` and nothing else reads it."""
        tensor = self.inputs[index]
        origin = self.sources.get(tensor)
        return origin if origin is not None and origin.op == op and self.uses[tensor] == 1 else None

    def number(self, index: int, attribute: str, default: float) -> float:
        """A scalar given as an attribute or as a constant input."""
        if attribute in self.attributes:
            return float(self.attributes[attribute])
        constant = self.constant(index, attribute)
        if constant is None:
            return default
        if constant.array.size != 1:
            raise self.refuse(f"its {attribute} is not a scalar")
        return float(constant.array.reshape(()))

    def window(self, spatial: Shape, kernel: Shape) -> tuple[Shape, Shape, Shape]:
        """Stride, padding and dilation of a convolution or pooling, automatic padding worked out."""
        rank = len(kernel)
        if rank != len(spatial) or rank == 0:
            raise ModelError(f"node {self.name!r} ({self.op}): kernel {kernel} does not fit input {spatial}")
        stride = tuple(self.attributes.get("strides", (1,) * rank))
        dilation = tuple(self.attributes.get("dilations", (1,) * rank))
        padding = tuple(self.attributes.get("pads", (0,) * 2 * rank))
        mode = self.attributes.get("auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            padding = same_padding(spatial, kernel, stride, dilation, upper=mode == "SAME_UPPER")
        elif mode == "VALID":
            padding = (0,) * 2 * rank
        elif mode != "NOTSET":
            raise self.refuse(f"auto_pad {mode!r}")
        return stride, padding, dilation


def single(value: float) -> float:
    """A default of an ONNX attribute, which is a float32 number."""
    return float(np.float32(value))


Result = Operand | tuple[Operand, ...]
Handler = Callable[[Call], Result]
