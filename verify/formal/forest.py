"""The sub-boxes of a search: one binary tree of input splits per root box, and the bounds known on its nodes.

A node's own bound holds on its sub-box; every ancestor's bound holds there too. The forest's bound is the best
that the nodes support, cover(node) = min(own, max(cover(low), cover(high))), so a split never worsens it.

Under a sub-box the signs of values inside the networks may be decided instead: such nodes keep the sub-box, called
their base, and the list of decisions (`verify.formal.backward.phases`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verify.spec.box import Box
from verify.spec.deviation import Decision, Leaf, Multiplier, Split, Tree

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Namer = Callable[[int], tuple[str, bool, int]]

REMEMBERED = 4  # inputs whose influence a node keeps
SUFFICES = 2.0**-10  # the room that an auditor's own rounding may need
_GRID_BITS = 7  # splits lie on a dyadic grid of at least 2^-8 of the interval, so that they are short numbers


@dataclass(frozen=True)
class Found:
    """What a bound propagation found for some nodes.

    Attributes:
        own: ``(k,)`` bound of the deviation.
        per_output: ``(k, outputs)`` the same for every output.
        dimension, influence: ``(k, REMEMBERED)`` the inputs that matter most, most first.
    """

    own: Floats
    per_output: Floats
    dimension: Index
    influence: Floats


class Forest:
    """Nodes in arrays that grow; a node is known by its number, its children are neighbours."""

    def __init__(self, boxes: Sequence[Box], outputs: int) -> None:
        outward = [box.outward() for box in boxes]
        self.roots, self.count = len(boxes), len(boxes)
        self.lower = np.stack([low for low, _ in outward])
        self.upper = np.stack([high for _, high in outward])
        n = self.roots
        self.own = np.full(n, np.inf)
        self.effective = np.full(n, np.inf)
        self.per_output = np.full((n, outputs), np.inf)
        self.dimension = np.zeros((n, REMEMBERED), dtype=np.int64)
        self.influence = np.zeros((n, REMEMBERED))
        self.child = np.zeros(n, dtype=np.int64)  # number of the low half, 0 for a leaf
        self.split_dimension = np.zeros(n, dtype=np.int64)
        self.split_at = np.zeros(n)
        self.stuck = np.zeros(n, dtype=bool)
        self.sharp = np.zeros(n, dtype=bool)  # bounded backward as well
        self.wish = np.zeros(n, dtype=np.int64)  # number of the value whose sign to decide next, 0 for none
        self.decided: dict[int, tuple[int, ...]] = {}  # node -> numbers of values, negative where at most zero
        self.base: dict[int, int] = {}  # node with decisions -> its sub-box
        self.whole: dict[int, int] = {}  # node with decisions -> its parent
        self.multipliers: dict[int, Floats] = {}  # node -> (2 outputs, decisions)

    def record(self, nodes: Index, found: Found) -> None:
        """Note the bounds found on some nodes."""
        self.own[nodes] = found.own
        self.effective[nodes] = np.minimum(self.effective[nodes], found.own)
        self.per_output[nodes] = found.per_output
        self.dimension[nodes], self.influence[nodes] = found.dimension, found.influence

    def sharpen(self, nodes: Index, per_output: Floats) -> None:
        """Note further bounds ``(k, outputs)`` of nodes that have some."""
        self.per_output[nodes] = np.minimum(self.per_output[nodes], per_output)
        own = per_output.max(axis=1)
        self.own[nodes] = np.minimum(self.own[nodes], own)
        self.effective[nodes] = np.minimum(self.effective[nodes], own)

    def leaves(self) -> Index:
        """Numbers of the nodes that are not split."""
        return np.flatnonzero(self.child[: self.count] == 0)

    def bound(self) -> float:
        """What the forest proves for the deviation on all boxes."""
        return float(self.effective[self.leaves()].max())

    def worst_open(self, goal: float, most: int) -> Index:
        """Up to `most` leaves with a bound above `goal`, the worst ones, in the order of their numbers."""
        leaves = self.leaves()
        leaves = leaves[(self.effective[leaves] > goal) & ~self.stuck[leaves]]
        if len(leaves) > most:
            leaves = leaves[np.argpartition(-self.effective[leaves], most)[:most]]
        return np.sort(leaves)

    def split(self, nodes: Index) -> tuple[NDArray[np.bool_], Index]:
        """Halve leaves along the input that matters most.

        Returns:
            A mask of the nodes that could be split (the others will try another input, or are stuck), and the numbers
            of their low halves; each high half has the next number.
        """
        dimension, rank = self._choice(nodes)
        rows = np.arange(len(nodes))
        low, high = self.lower[nodes, dimension], self.upper[nodes, dimension]
        at = dyadic_between(low, high)
        fine = (low < at) & (at < high)
        thin = nodes[~fine]
        self.stuck[thin] = self.influence[thin].max(axis=1, initial=0.0) <= 0.0
        self.influence[thin, rank[~fine]] = 0.0  # another input next time
        nodes, dimension, rank, at, rows = nodes[fine], dimension[fine], rank[fine], at[fine], rows[: fine.sum()]
        first = self._grow(2 * len(nodes))
        lows = first + 2 * rows
        self.child[nodes], self.split_dimension[nodes], self.split_at[nodes] = lows, dimension, at
        for half, bound in ((lows, self.upper), (lows + 1, self.lower)):
            self.lower[half], self.upper[half] = self.lower[nodes], self.upper[nodes]
            bound[half, dimension] = at
            self.own[half], self.effective[half] = np.inf, self.effective[nodes]
            self.per_output[half] = np.inf
            self.dimension[half], self.influence[half] = self.dimension[nodes], self.influence[nodes]
            self.influence[half, rank] *= 0.5  # until its own influence is known
        return fine, lows

    def decide(self, nodes: Index) -> Index:
        """Set leaves apart by the signs of the values that they wish to decide; the numbers of the low halves."""
        lows = self._grow(2 * len(nodes)) + 2 * np.arange(len(nodes))
        self.child[nodes], self.split_dimension[nodes] = lows, -self.wish[nodes]
        for half, sign in ((lows, -1), (lows + 1, 1)):
            self.lower[half], self.upper[half] = self.lower[nodes], self.upper[nodes]
            self.own[half], self.effective[half] = np.inf, self.effective[nodes]
            self.per_output[half] = np.inf
            for node, parent in zip(half.tolist(), nodes.tolist(), strict=True):
                self.decided[node] = (*self.decided.get(parent, ()), sign * int(self.wish[parent]))
                self.base[node], self.whole[node] = self.base.get(parent, parent), parent
        return lows

    def leave(self, node: int) -> None:
        """A part that is somebody else's."""
        self.own[node] = self.effective[node] = 0.0
        self.per_output[node] = 0.0
        self.stuck[node] = True

    def decides(self, nodes: Index) -> NDArray[np.bool_]:
        """Which nodes are parts of a sub-box, set apart by signs."""
        return np.array([node in self.decided for node in nodes.tolist()], dtype=bool)

    def _choice(self, nodes: Index) -> tuple[Index, Index]:
        """The dimension to split and its rank among the remembered ones; the widest where none has influence."""
        rank = self.influence[nodes].argmax(axis=1)
        dimension = self.dimension[nodes, rank]
        silent = self.influence[nodes, rank] <= 0.0
        if silent.any():
            root = (self.upper[: self.roots] - self.lower[: self.roots]).max(axis=0)
            width = (self.upper[nodes] - self.lower[nodes]) / np.where(root > 0.0, root, 1.0)
            dimension = np.where(silent, width.argmax(axis=1), dimension)
        return dimension, rank

    def _grow(self, more: int) -> int:
        """Room for `more` nodes; returns the number of the first."""
        first, needed = self.count, self.count + more
        if needed > len(self.own):
            for name in _ARRAYS:
                array = getattr(self, name)
                room = np.zeros((max(needed, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
                room[: self.count] = array[: self.count]
                setattr(self, name, room)
        self.count = needed
        return first

    def cover(self) -> Floats:
        """``cover(node)`` for every node, children before parents."""
        cover = self.own[: self.count].copy()
        for node in np.flatnonzero(self.child[: self.count])[::-1]:  # children have larger numbers
            low = self.child[node]
            cover[node] = min(cover[node], max(cover[low], cover[low + 1]))
        return cover

    def trees(self, bound: float, name: Namer | None = None) -> tuple[tuple[Tree, ...], Index]:
        """The smallest trees whose leaves all have an own bound of at most `bound`, and the numbers of their leaves.

        Where the forest does not prove `bound`, the leaves are those of the forest.

        Args:
            name: from the number of a value to its name, whether it is the compact network's, and its element.
        """
        kept: list[int] = []
        trees: dict[int, Tree] = {}
        for node, closing in self._walk(bound):
            if not closing:
                kept.append(node)
                trees[node] = Leaf(self._multipliers(node, bound))
                continue
            low, dimension = int(self.child[node]), int(self.split_dimension[node])
            halves = trees.pop(low), trees.pop(low + 1)
            if dimension < 0 and name is not None:
                trees[node] = Decision(*name(-dimension), *halves)
            else:
                trees[node] = Split(dimension, Fraction(float(self.split_at[node])), *halves)
        return tuple(trees[root] for root in range(self.roots)), np.array(kept, dtype=np.int64)

    def _multipliers(self, node: int, bound: float) -> tuple[Multiplier, ...]:
        """Those of a leaf, without the outputs for which the bounds of the whole sub-box suffice."""
        values = self.multipliers.get(node)
        if values is None:
            return ()
        open_ = self.per_output[self.base[node]] > bound * (1.0 - SUFFICES)
        wanted = (values > 0.0) & np.tile(open_, 2)[:, None]
        return tuple(
            Multiplier(int(row % len(open_)), bool(row >= len(open_)), int(k), Fraction(float(values[row, k])))
            for row, k in np.argwhere(wanted)
        )

    def _walk(self, bound: float) -> list[tuple[int, bool]]:
        """Nodes in an order in which both halves come before the whole; False marks leaves."""
        order: list[tuple[int, bool]] = []
        pending = list(range(self.roots))
        while pending:
            node = pending.pop()
            inner = self.child[node] != 0 and not self.own[node] <= bound
            order.append((node, bool(inner)))
            if inner:
                pending += [int(self.child[node]), int(self.child[node]) + 1]
        return order[::-1]


_ARRAYS = (
    "lower", "upper", "own", "effective", "per_output", "dimension", "influence", "child", "split_dimension",
    "split_at", "stuck", "sharp", "wish",
)  # fmt: skip


def dyadic_between(low: Floats, high: Floats) -> Floats:
    """A short dyadic number near the middle of each interval; the middle itself where none fits."""
    _, exponent = np.frexp(high - low)
    step = np.ldexp(1.0, exponent - 1 - _GRID_BITS)
    middle = low + 0.5 * (high - low)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        short = np.round(middle / step) * step
    return np.where((low < short) & (short < high), short, middle)
