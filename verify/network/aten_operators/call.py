"""One ATen call with its arguments by name, as the functions of this package receive it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from verify.errors import ModelError, UnsupportedOperation
from verify.network.graph import Shape
from verify.network.lowering import Constant, Lowering, Operand, Value

_HARMLESS = {"cudnn_enable", "cudnn_enabled", "memory_format", "momentum", "pin_memory", "non_blocking", "copy"}


@dataclass
class Call:
    """One ATen call.

    Attributes:
        target: "aten.conv2d.default".
        name: of the node of the graph it becomes.
        arguments: by schema name; tensors are `Operand`.
        defaults: the schema's default values.
        dtype: of the network's input; Python numbers become constants of this type.
    """

    target: str
    name: str
    arguments: Mapping[str, Any]
    defaults: Mapping[str, Any]
    lowering: Lowering
    dtype: "np.dtype[Any]"
    _seen: set[str] = field(default_factory=set)

    def refuse(self, reason: str) -> UnsupportedOperation:
        """The error for a form of the operator that has no exact counterpart."""
        from verify.network.aten_operators import OPERATORS  # the table imports this file

        return UnsupportedOperation(self.target, self.name, OPERATORS, reason)

    def get(self, name: str) -> Any:
        self._seen.add(name)
        return self.arguments.get(name, self.defaults.get(name))

    def value(self, name: str = "self") -> Value:
        """Argument that must depend on the input; a constant becomes a node of its own."""
        operand = self.get(name)
        if isinstance(operand, Constant):
            batch = 0 if operand.array.shape[:1] == (1,) and operand.array.ndim > 1 else None
            return self.lowering.constant(f"{operand.key}/value", operand, batch)
        if not isinstance(operand, Value):
            raise ModelError(f"node {self.name!r} ({self.target}): {name} is not a tensor")
        return operand

    def constant(self, name: str) -> Constant | None:
        """Argument that must not depend on the input, or None."""
        operand = self.get(name)
        if isinstance(operand, Value):
            raise self.refuse(f"its {name} depends on the network's input")
        return operand if isinstance(operand, Constant) else None

    def required(self, name: str) -> Constant:
        constant = self.constant(name)
        if constant is None:
            raise self.refuse(f"without {name}")
        return constant

    def number(self, name: str) -> float:
        """A scalar argument, in the precision in which a kernel of the network's type takes it."""
        value = float(self.get(name))
        return float(np.float32(value)) if self.dtype.itemsize <= 4 else value

    def operand(self, name: str) -> Operand:
        """A tensor, or a Python number as a constant of the network's type."""
        operand = self.get(name)
        if isinstance(operand, (Constant, Value)):
            return operand
        if isinstance(operand, (bool, int, float)):
            return Constant(np.array(operand, dtype=self.dtype), f"{self.name}/{name}")
        raise ModelError(f"node {self.name!r} ({self.target}): {name} is not a tensor or a number")

    def sizes(self, name: str, count: int, default: Sequence[int] = ()) -> Shape:
        """A list of integers, one for every axis (a single one counts for all)."""
        given = self.get(name)
        listed = [given] if isinstance(given, int) else list(given) or list(default)
        return tuple(listed * count if len(listed) == 1 else listed)

    def finish(self) -> None:
        """Refuse arguments that nobody looked at and that are not the default."""
        for name, value in self.arguments.items():
            if name not in self._seen | _HARMLESS and value != self.defaults.get(name, None):
                raise self.refuse(f"argument {name} = {value}")


Result = Operand | tuple[Operand, ...]
Handler = Callable[[Call], Result]
