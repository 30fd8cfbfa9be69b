"""What each ATen operator means: one short function per operator, joined by the table `OPERATORS`.

A function receives a `Call` (the operator's arguments by name, defaults filled in) and emits nodes of the
graph. An argument that the function did not look at must have its default value or be known to have no
influence on the result; otherwise the operator is refused.
"""

from verify.network.aten_operators.activation import ACTIVATION
from verify.network.aten_operators.arithmetic import ARITHMETIC
from verify.network.aten_operators.call import Call, Handler
from verify.network.aten_operators.layer import LAYER
from verify.network.aten_operators.layout import LAYOUT
from verify.network.aten_operators.pooling import POOLING

_BY_NAME: dict[str, Handler] = {**ACTIVATION, **ARITHMETIC, **LAYER, **POOLING, **LAYOUT}
OPERATORS: dict[str, Handler] = {
    f"aten.{name}" if "." in name else f"aten.{name}.default": handler for name, handler in _BY_NAME.items()
}

__all__ = ["OPERATORS", "Call"]
