"""What every activation provides: its value, how it is bounded, and what bounds offer it for that.

An activation says once how it is composed, and every kind of bound follows from it: intervals, affine forms, backward
planes, and the difference of a pair. Piecewise-linear ones are sums of ReLUs, the others are curves.
"""

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Protocol, TypeVar

from verify.network.graph import Array, Node, Shape
from verify.network.operations.operation import Operation

Value = TypeVar("Value")


class Curve(Protocol):
    """A continuous element-wise function with enclosures of its values and of its derivative.

    numpy's and scipy's elementary functions are taken to be accurate to 2^-44 relative plus 2^-44 absolute: an
    assumption, not a proof, which theory_notes/differential_zonotope.md states (section 5).
    """

    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Bounds of the function on ``[lower, upper]``, rounded outward."""
        ...

    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Bounds of the derivative (of all its one-sided values) on ``[lower, upper]``, rounded outward."""
        ...


class Bounds(Protocol[Value]):
    """What an activation may ask of bounds of any kind, element by element; numbers are exact."""

    def weighted_sum(self, factors: Sequence[Fraction], values: Sequence[Value], shift: Fraction) -> Value:
        """``sum_i factors[i] values[i] + shift``."""
        ...

    def relu(self, value: Value) -> Value:
        """``max(value, 0)``."""
        ...

    def curve(self, function: Curve, value: Value) -> Value:
        """``function(value)``."""
        ...


class Activation(Operation):
    """``y = phi(x)`` at every position: its value by `evaluate`, its bounds by `bound`.

    `piecewise_linear` ones are composed of weighted sums and ReLUs alone.
    """

    elementwise = True
    piecewise_linear: ClassVar[bool] = False

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: object) -> Shape:
        return inputs[0]

    @abstractmethod
    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        """Bounds of ``phi(x)``, composed of what `bounds` offers.

        Raises:
            UnsupportedOperation: this form of the activation cannot be bounded.
        """


class Smooth(Activation):
    """An activation that is its own `Curve`."""

    def bound(self, node: Node, bounds: Bounds[Value], x: Value) -> Value:
        return bounds.curve(self, x)

    @abstractmethod
    def values(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.values`."""

    @abstractmethod
    def derivatives(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As `Curve.derivatives`."""
