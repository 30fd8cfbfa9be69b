"""What a rule of the bound propagation must provide, and what it is given.

A rule is compiled once per node into a function from the bounds of the node's inputs to those of its value. It
is written against `Arithmetic`, so that one text serves a pair of networks and a single one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.formal.lift import Correspondence, Index, flat_index, kept_along
from verify.formal.maps import Map
from verify.formal.pair import Kept
from verify.network.graph import Network, Node, Shape

Value = TypeVar("Value")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """``sum_i maps[i](input_i) + offset``; the true offset differs by at most `offset_error`."""

    maps: tuple[Map, ...]
    offset: Tensor | None = None
    offset_error: Tensor | None = None


@dataclass(frozen=True)
class AffineStep:
    """An affine operation in both networks.

    Attributes:
        first: of the original; second: of the compact network, None when only one network is bounded.
        change: ``first[kept out] - second`` applied to the original's inputs; None where it is zero.
        kept: which elements of the original's output the compact one has.
        compare: whether ``z[kept] - y`` may replace the difference where it is narrower.
    """

    first: Affine
    second: Affine | None = None
    change: Affine | None = None
    kept: Kept | None = None
    compare: bool = False


class Arithmetic(ABC, Generic[Value]):
    """The operations every kind of bound offers to the rules."""

    @abstractmethod
    def affine(self, step: AffineStep, inputs: Sequence[Value]) -> Value:
        """Bounds of an affine operation."""

    @abstractmethod
    def relu(self, value: Value) -> Value:
        """Bounds of ``max(value, 0)``."""

    @abstractmethod
    def curve(self, function: "Curve", value: Value) -> Value:
        """Bounds of a differentiable element-wise function."""

    @abstractmethod
    def constant(self, first: Tensor, second: Tensor | None, kept: Kept | None) -> Value:
        """A value that does not depend on the input."""


class Curve(ABC):
    """An element-wise function with enclosures of its values and of its derivative."""

    @abstractmethod
    def values(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the function on ``[lower, upper]``, rounded outward."""

    @abstractmethod
    def derivatives(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the derivative (of all its one-sided values) on ``[lower, upper]``, rounded outward."""


@dataclass(frozen=True)
class Side:
    """One network as a rule sees it: parameters in float64, elements in the order in which they are stored.

    The original's elements are stored with the kept channels first, so that selecting them is a view.

    Attributes:
        orders: value -> order of the entries along axis 0, for values stored in another order.
    """

    network: Network
    orders: Mapping[str, Index]

    def shape(self, name: str) -> Shape:
        """Shape of a value."""
        return self.network.shape_of(name)

    def size(self, name: str) -> int:
        """Number of elements of a value."""
        return int(np.prod(self.shape(name), dtype=np.int64))

    def channels(self, name: str) -> Index:
        """Stored position along axis 0 -> position in the file's order."""
        return self.orders[name] if name in self.orders else np.arange(self.shape(name)[0])

    def order(self, name: str) -> Index:
        """Stored flat position -> flat position in the file's order."""
        if name not in self.orders:
            return np.arange(self.size(name))
        return flat_index(self.shape(name), 0, [int(i) for i in self.orders[name]])

    def parameters(self, node: Node) -> dict[str, Floats]:
        """Role -> float64 array, exact."""
        return {role: array.astype(np.float64) for role, array in self.network.parameters_of(node).items()}


@dataclass(frozen=True)
class Site:
    """A node in both networks, or in one (`compact` None).

    Attributes:
        pairs: original value -> correspondence.
    """

    original: Side
    first: Node
    compact: Side | None = None
    second: Node | None = None
    pairs: Mapping[str, Correspondence] | None = None

    @property
    def sides(self) -> tuple[tuple[Side, Node], ...]:
        """Each network with its node."""
        if self.compact is None or self.second is None:
            return ((self.original, self.first),)
        return ((self.original, self.first), (self.compact, self.second))

    def pair(self, name: str) -> Correspondence:
        """Correspondence of an original value."""
        assert self.pairs is not None
        return self.pairs[name]

    def kept_channels(self, name: str, axis: int) -> Index:
        """Kept positions along an axis, in the file's order."""
        return kept_along(self.original.network, self.pair(name), axis)

    def kept(self, name: str) -> Kept | None:
        """Kept elements of an original value, in stored order."""
        if self.compact is None:
            return None
        pair, size = self.pair(name), self.original.size(name)
        flat = flat_index(self.original.shape(name), pair.axis, pair.kept)
        order = self.original.order(name)
        index = torch.from_numpy(inverse(order)[flat])
        return Kept(index, size, torch.from_numpy(order) if name in self.original.orders else None)


Compiled = Callable[[Arithmetic[Any], Sequence[Any]], Any]


class Rule(ABC):
    """Bounds of one operation (`name` is its key in the table of operations)."""

    name: str

    @abstractmethod
    def compile(self, site: Site) -> Compiled:
        """The function that bounds this node.

        Raises:
            UnsupportedOperation: this form of the operation has no rule.
        """


class AffineRule(Rule):
    """A rule whose operation is affine in its inputs; `compare` as in `AffineStep`."""

    compare = False

    @abstractmethod
    def affine(self, side: Side, node: Node) -> Affine:
        """The operation of one network, in stored order."""

    def change(self, site: Site) -> Affine | None:
        """Original minus compact operation on the original's inputs; None when they act alike."""
        return None

    def step(self, site: Site) -> AffineStep:
        """Both networks' operations."""
        maps = [self.affine(side, node) for side, node in site.sides]
        if len(maps) == 1:
            return AffineStep(maps[0])
        return AffineStep(maps[0], maps[1], self.change(site), site.kept(site.first.name), self.compare)

    def compile(self, site: Site) -> Compiled:
        step = self.step(site)
        return lambda arithmetic, inputs: arithmetic.affine(step, inputs)


def inverse(order: Index) -> Index:
    """The inverse permutation."""
    result = np.empty_like(order)
    result[order] = np.arange(len(order))
    return result


def tensor(array: NDArray[Any]) -> Tensor:
    """A float64 tensor that owns its memory."""
    return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))
