"""What each ONNX operator means: one short function per operator, joined by the table `OPERATORS`.

A function receives a `Call` (the ONNX node with its operands resolved) and emits nodes of the graph.
Operators whose operands are all constant are folded by `onnx_folding` instead.
"""

from verify.network.onnx_operators.activation import ACTIVATION
from verify.network.onnx_operators.arithmetic import ARITHMETIC
from verify.network.onnx_operators.call import Call, Handler, Origin
from verify.network.onnx_operators.layer import LAYER
from verify.network.onnx_operators.layout import LAYOUT
from verify.network.onnx_operators.pooling import POOLING

OPERATORS: dict[str, Handler] = {**ACTIVATION, **ARITHMETIC, **LAYER, **POOLING, **LAYOUT}

__all__ = ["OPERATORS", "Call", "Origin"]
