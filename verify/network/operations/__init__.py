"""The table of operations: everything a `Network` may contain, one entry each.

An entry declares its parameters and attributes, the shape of its result and its value in float64.
Adding an operation is one class in the file of its family and one line in the table below; an activation is a file in
`activations`, and brings its bounds along.
"""

from collections.abc import Mapping, Sequence

from verify.network.graph import Node, Shape
from verify.network.operations.activations import ACTIVATIONS
from verify.network.operations.affine import AFFINE
from verify.network.operations.attention import ATTENTION
from verify.network.operations.operation import Operation
from verify.network.operations.pooling import POOLING
from verify.network.operations.structure import STRUCTURE

OPERATIONS: dict[str, Operation] = {
    operation.name: operation for operation in (*AFFINE, *ACTIVATIONS, *POOLING, *STRUCTURE, *ATTENTION)
}


def infer_shape(node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
    """Shape of the value of `node` for one sample.

    Raises:
        UnsupportedOperation: the op is not in the table.
        ModelError: the inputs, parameters or attributes do not fit the op.
    """
    from verify.errors import UnsupportedOperation

    if node.op not in OPERATIONS:
        raise UnsupportedOperation(node.op, node.name, OPERATIONS)
    return OPERATIONS[node.op].infer(node, inputs, parameters)


__all__ = ["OPERATIONS", "Operation", "infer_shape"]
