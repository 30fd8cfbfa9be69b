"""The claim `|original(x) - compact(x)| <= epsilon for every x in the domain`: verdict and evidence.

Evidence of a formal proof is, for each root box, a binary tree of input splits; on every leaf some bound
rule shows the claim. The halves of a split are closed, so the leaves cover the box.
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
class Leaf:
    """A sub-box that is not split further."""


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


Tree = Split | Leaf


def preorder(tree: Tree) -> tuple[Tree, ...]:
    """The nodes of a tree, each before its halves, low before high (without recursion: trees may be deep)."""
    nodes: list[Tree] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        nodes.append(node)
        if isinstance(node, Split):
            pending += [node.high, node.low]
    return tuple(nodes)


def count_leaves(tree: Tree) -> int:
    """Number of sub-boxes that together cover the root box."""
    return sum(isinstance(node, Leaf) for node in preorder(tree))
