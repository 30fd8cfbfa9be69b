"""A pair of ReLU networks as one chain of units, in exact rational arithmetic.

    a_i = P_i (1, x, h_0 .. h_{i-1}),   h_i = max(a_i, 0),   f(x) - g(x) = Q (1, x, h)

Every affine operation is evaluated on rational coefficients, so the system equals the networks in real arithmetic:
nothing is rounded. Every piecewise-linear activation says in the table of activations which ReLUs it is the sum of.

Theory: theory_notes/milp.md, section 1. Not claimed: that it is fast; operations that leave the rationals (a square
root in a batch norm) or that are not piecewise linear are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from verify.errors import MismatchError, UnsupportedOperation
from verify.network.graph import Network, Node
from verify.network.operations import OPERATIONS
from verify.network.operations.activations import ACTIVATIONS
from verify.network.operations.activations.activation import Activation, Curve

Exact = NDArray[Any]  # of Fraction
_ZERO, _ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True)
class ReluSystem:
    """Units and outputs as affine rows over the columns ``(1, x, h)``.

    Attributes:
        inputs: number of input coordinates.
        units: one row per unit, ``(1 + inputs + i,)`` fractions for unit ``i``.
        outputs: one row per output, ``(1 + inputs + units,)`` fractions.
    """

    inputs: int
    units: tuple[Exact, ...]
    outputs: tuple[Exact, ...]

    def values(self, x: Sequence[Fraction]) -> tuple[Fraction, ...]:
        """The outputs at a point, exactly."""
        columns = np.array([_ONE, *x], dtype=object)
        for row in self.units:
            columns = np.array([*columns, max(_ZERO, dot(row, columns))], dtype=object)
        return tuple(dot(row, columns) for row in self.outputs)


def relu_system(original: Network, compact: Network | None = None) -> ReluSystem:
    """The system of ``original - compact``, of any two topologies; of ``original`` alone without `compact`.

    Raises:
        MismatchError: the networks differ in inputs or outputs.
        UnsupportedOperation: an operation is not piecewise linear over the rationals.
    """
    builder = _Builder(int(np.prod(original.input_shape)))
    rows = builder.run(original)
    if compact is not None:
        other = builder.run(compact)
        if original.input_shape != compact.input_shape or rows.shape[1] != other.shape[1]:
            raise MismatchError(
                f"networks {original.input_shape} -> {original.output_shape} and {compact.input_shape} -> "
                f"{compact.output_shape} cannot be compared"
            )
        rows = builder.padded(rows) - other
    full = builder.padded(rows)
    return ReluSystem(builder.inputs, tuple(builder.units), tuple(full[:, i] for i in range(full.shape[1])))


def dot(row: Exact, columns: Exact) -> Fraction:
    """``row . columns``, exactly; zeros are skipped."""
    return sum((a * v for a, v in zip(row, columns, strict=True) if a and v), start=_ZERO)


class _Builder:
    """Units found so far; a value is ``(columns, *shape)``, its coefficients over ``(1, x, h)``."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.units: list[Exact] = []

    def run(self, network: Network) -> Exact:
        """Coefficients ``(columns, outputs)`` of the network's output."""
        start = np.vstack([np.zeros((1, self.inputs), dtype=int), np.eye(self.inputs, dtype=int)])
        values = {network.input: exact_array(start).reshape(-1, *network.input_shape)}
        for node in network.nodes:
            values[node.name] = self._value(network, node, [self.padded(values[s]) for s in node.inputs])
        output = self.padded(values[network.output])
        return output.reshape(len(output), -1)

    def padded(self, value: Exact) -> Exact:
        """The value with a zero for every column that was added since."""
        missing = 1 + self.inputs + len(self.units) - len(value)
        return np.concatenate([value, exact_array(np.zeros((missing, *value.shape[1:]), dtype=int))])

    def weighted_sum(self, factors: Sequence[Fraction], values: Sequence[Exact], shift: Fraction) -> Exact:
        """``sum_i factors[i] values[i] + shift``, exactly."""
        total = sum(self.padded(value) * factor for factor, value in zip(factors, values, strict=True))
        total[0] += shift
        return cast(Exact, total)

    def relu(self, value: Exact) -> Exact:
        """One more unit per element, and the columns that select them."""
        first, flat = len(self.units), self.padded(value).reshape(len(value), -1)
        for column in flat.T:
            self.units.append(self.padded(column))
        result = self.padded(flat * 0)
        result[1 + self.inputs + first :] = exact_array(np.eye(flat.shape[1], dtype=int))
        return result.reshape(len(result), *value.shape[1:])

    def curve(self, function: Curve, value: Exact) -> Exact:
        """Never asked for by a piecewise-linear activation."""
        raise AssertionError("a chain of ReLUs has no curves")

    def _value(self, network: Network, node: Node, inputs: list[Exact]) -> Exact:
        operation = OPERATIONS[node.op]
        if isinstance(operation, Activation) and operation.piecewise_linear:
            return operation.bound(node, self, inputs[0])
        if not operation.linear:
            raise UnsupportedOperation(node.op, node.name, _supported(), "not piecewise linear")
        parameters = {role: exact_array(array) for role, array in network.parameters_of(node).items()}
        return _affine(node, inputs, parameters, 1 + self.inputs + len(self.units))


def exact_array(values: NDArray[Any]) -> Exact:
    """Floats or integers as fractions, exactly."""
    flat = np.empty(values.size, dtype=object)
    flat[:] = [Fraction(v) for v in values.ravel().tolist()]
    return flat.reshape(values.shape)


def _affine(node: Node, inputs: list[Exact], parameters: Mapping[str, Exact], columns: int) -> Exact:
    """The image of all columns under an affine operation: ``f(column) - f(0)``, for the constant ``f(column)``."""
    batches = [np.concatenate([value, value[:1] * 0]) for value in inputs]
    try:
        image = OPERATIONS[node.op].evaluate(node, batches, parameters)
    except TypeError:
        image = np.zeros(1)
    if image.dtype != object or not all(isinstance(v, Fraction) for v in image.ravel()):
        raise UnsupportedOperation(node.op, node.name, _supported(), "its value leaves the rationals")
    image = np.broadcast_to(image, (columns + 1, *node.shape))
    result = image[:-1] - image[-1:]
    result[0] = image[0]
    return result


def _supported() -> list[str]:
    linear = [name for name, operation in OPERATIONS.items() if operation.linear]
    return [*(a.name for a in ACTIVATIONS if a.piecewise_linear), *linear]
