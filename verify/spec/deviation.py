"""The claim `|original(x) - compact(x)| <= epsilon for every x in the domain`: verdict and evidence.

Evidence of a formal proof is, for each root box, a binary tree of input splits, under which the signs of values
inside the networks may be decided; on every leaf some bound rule shows the claim. The halves of a split are closed,
and a value is at most or at least zero, so the leaves cover the box.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction


class Verdict(Enum):
    """The outcome of a question; never an exception."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Multiplier:
    """What a decision above a leaf counts in the bound of one output: `value` times the decided value, towards zero.

    Attributes:
        output: flat index. negative: whether it is for the bound of compact - original instead of original - compact.
        decision: number of the decision among those above the leaf, 0 at the top.
        value: a dyadic number above 0.
    """

    output: int
    negative: bool
    decision: int
    value: Fraction


@dataclass(frozen=True)
class Leaf:
    """A part of the domain that is not split further; multipliers where signs were decided."""

    multipliers: tuple[Multiplier, ...] = ()


@dataclass(frozen=True)
class Split:
    """A sub-box cut in two closed halves: ``x[dimension] <= at`` and ``x[dimension] >= at``.

    Attributes:
        dimension: coordinate of the flattened input.
        at: a dyadic rational strictly inside the interval of that coordinate.
        low, high: the trees of the two halves.
    """

    dimension: int
    at: Fraction
    low: "Tree"
    high: "Tree"


@dataclass(frozen=True)
class Decision:
    """The inputs of a sub-box set apart by the sign of one element of a value inside a network.

    Attributes:
        value: name of the value in the original network. element: flat index.
        compact: whether the value of the compact network at the same step is meant.
        low, high: the trees of the inputs where it is at most 0, and where it is at least 0.
    """

    value: str
    compact: bool
    element: int
    low: "Tree"
    high: "Tree"


@dataclass(frozen=True)
class Sign:
    """A decision that was made: the element is at least 0 where `positive`, else at most 0."""

    value: str
    compact: bool
    element: int
    positive: bool


Tree = Split | Decision | Leaf


def preorder(tree: Tree) -> tuple[Tree, ...]:
    """The nodes of a tree, each before its halves, low before high (without recursion: trees may be deep)."""
    nodes: list[Tree] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if not isinstance(node, Leaf):
            pending += [node.high, node.low]
    return tuple(nodes)


def count_leaves(tree: Tree) -> int:
    """Number of parts that together cover the root box."""
    return sum(isinstance(node, Leaf) for node in preorder(tree))
