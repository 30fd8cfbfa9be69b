"""What every entry of the table of operations must provide."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from verify.errors import ModelError
from verify.network.graph import Array, Node, Shape


class Operation(ABC):
    """One kind of node.

    Class attributes:
        name: key in the table, the `op` of a node.
        arity: number of value inputs; None for any number >= 1.
        roles: parameters it must have; `optional_roles`: those it may have.
        attribute_names: attributes it must have, no others.
        linear: the value is affine in the value inputs.
        elementwise: the value at a position depends on the inputs at that position alone.
    """

    name: ClassVar[str]
    arity: ClassVar[int | None] = 1
    roles: ClassVar[tuple[str, ...]] = ()
    optional_roles: ClassVar[tuple[str, ...]] = ()
    attribute_names: ClassVar[tuple[str, ...]] = ()
    linear: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False

    def infer(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        """Shape of the value for one sample; raises ModelError if the node is ill-formed."""
        if self.arity is not None and len(inputs) != self.arity:
            raise ModelError(f"node {node.name!r}: {self.name} takes {self.arity} input(s), got {len(inputs)}")
        missing = set(self.roles) - set(parameters)
        unknown = set(parameters) - set(self.roles) - set(self.optional_roles)
        if missing or unknown:
            raise ModelError(
                f"node {node.name!r}: {self.name} takes parameters {self.roles + self.optional_roles}, "
                f"got {tuple(parameters)}"
            )
        if set(node.attributes) != set(self.attribute_names):
            raise ModelError(
                f"node {node.name!r}: {self.name} takes attributes {self.attribute_names}, got {tuple(node.attributes)}"
            )
        return self.shape(node, inputs, parameters)

    @abstractmethod
    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        """Shape of the value, given inputs of the right number and parameters of the right names."""

    @abstractmethod
    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        """The value for a batch: each input is ``(batch, *shape)``; arithmetic in the inputs' dtype."""


def require(condition: bool, node: Node, message: str) -> None:
    """Raise ModelError that names the node unless `condition` holds."""
    if not condition:
        raise ModelError(f"node {node.name!r} ({node.op}): {message}")
