"""Atoms of channels: a union-find whose classes are sets of channels that leave together.

A value's labels are an integer array with as many axes as the value, of size 1 or of the value's size:
by broadcasting, every element of the value has one label, the atom it belongs to. Two atoms in one class
leave together; a pinned atom stays, for the reason recorded with its class.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.int64]


class Atoms:
    """Classes of atoms, and why some of them are pinned."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reason: dict[int, str] = {}

    def fresh(self, shape: tuple[int, ...]) -> Labels:
        """Labels of new atoms, one per element of `shape`."""
        first, count = len(self._parent), int(np.prod(shape, dtype=np.int64))
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64).reshape(shape)

    def pinned(self, rank: int, reason: str) -> Labels:
        """Labels of a value of that rank that stays whole: one new atom, pinned."""
        labels = self.fresh((1,) * rank)
        self.pin(labels, reason)
        return labels

    def pin(self, labels: Labels, reason: str) -> None:
        """Keep the classes of these labels; a class keeps its first reason."""
        for root in self._classes(labels):
            self._reason.setdefault(root, reason)

    def unite(self, left: Labels, right: Labels) -> None:
        """Element by element (after broadcasting), the two atoms leave together."""
        pairs = np.stack([a.ravel() for a in np.broadcast_arrays(self.roots(left), self.roots(right))])
        for a, b in np.unique(pairs, axis=1).T.tolist():
            self._join(self._find(a), self._find(b))

    def roots(self, labels: Labels) -> Labels:
        """The same labels, each atom replaced by the representative of its class."""
        atoms, inverse = np.unique(labels, return_inverse=True)
        found = np.array([self._find(atom) for atom in atoms.tolist()], dtype=np.int64)
        return found[inverse].reshape(labels.shape)

    def reason(self, root: int) -> str:
        """Why the class of this atom is pinned; empty if it is not."""
        return self._reason.get(self._find(root), "")

    def reasons(self) -> tuple[str, ...]:
        """Every reason for which something is pinned, in the order found."""
        return tuple(dict.fromkeys(self._reason.values()))

    def _classes(self, labels: Labels) -> Iterator[int]:
        return iter(np.unique(self.roots(labels)).tolist())

    def _find(self, atom: int) -> int:
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def _join(self, a: int, b: int) -> None:
        first, second = min(a, b), max(a, b)
        self._parent[second] = first
        if second in self._reason:
            self._reason.setdefault(first, self._reason[second])


def varying(labels: Labels) -> tuple[int, ...]:
    """Axes along which the labels are not constant, given labels as `reduced` returns them."""
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def reduced(labels: Labels) -> Labels:
    """The same labels with size 1 along every axis on which they are constant."""
    for axis in varying(labels):
        first = labels.take([0], axis)
        if (labels == first).all():
            labels = first
    return labels


def first_along(labels: Labels, axes: tuple[int, ...]) -> Labels:
    """The labels at the first position of every axis not in `axes`, those axes kept with size 1."""
    return labels[tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(labels.ndim))]
