"""A coreset of every class of weights: m draws with replacement by sensitivity, or the most sensitive ones.

    sampled          n ~ Multinomial(m, s / T),   w'_j = w_j n_j / (m q_j)           E w' = w
    deterministic    the k largest s_j, weights unchanged

Promise, given that no share of a fresh input exceeds its s_j (see provable.bounds.event_bound), for one class, at all
positions: |z' - z| <= e (z+ + z-) with e from Bernstein's inequality (layer_theorem.py with the class's T, N = 2 x
positions, delta shared by all classes), or the tail sum of s for the deterministic choice. A filter is the sum of its
two classes, a layer the maximum over its filters. Proof: theory_notes/weight_coresets.md. Not claimed: anything for
inputs outside that event, whose probability for all weights of a layer is small with few images: the report says so.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from provable.bounds.layer_theorem import layer_error
from provable.compensation.moments import Matrix
from provable.coresets.sensitivity import Layer

FAILURE = 0.05
"""Probability, over all draws of a layer, that one of its classes exceeds its error."""


@dataclass(frozen=True)
class Coreset:
    """What is left of one layer.

    Attributes:
        weight: (f, d).
        errors: (2, f) error promised for every class.
        sampled: whether any class was drawn.
    """

    weight: Matrix
    errors: Matrix
    sampled: bool


def expected_kept(layer: Layer, draws: Matrix) -> float:
    """Expected number of nonzero weights when every class (2, f) is drawn that often; whole classes count whole."""
    total = 0.0
    for members, times, size, T in zip(layer.classes, draws, layer.sizes, layer.totals, strict=True):
        q = np.divide(layer.largest * members, T[:, None], out=np.zeros_like(layer.largest), where=T[:, None] > 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            missed = np.where(times[:, None] > 0.0, times[:, None] * np.log1p(-np.minimum(q, 1.0)), 0.0)
        found = -np.expm1(missed).sum(-1)
        total += float(np.where(times >= size, size, found).sum())
    return total


def sampled(layer: Layer, draws: Matrix, generator: Generator) -> Coreset:
    """Every class drawn that often (2, f); a class with as many draws as weights stays whole."""
    weight, errors, drawn = np.zeros_like(layer.weight), np.zeros(draws.shape), False
    for sign, members in enumerate(layer.classes):
        for row in range(len(weight)):
            index, times = np.flatnonzero(members[row]), int(draws[sign, row])
            if times >= len(index):
                weight[row, index] = layer.weight[row, index]
                continue
            scores = layer.largest[row, index]
            total = float(scores.sum())
            errors[sign, row] = promised(total, times, layer.positions, 2 * len(weight))
            if times and total > 0.0:
                counts = generator.multinomial(times, scores / total)
                weight[row, index] = _reweighted(layer.weight[row, index], counts, times * scores / total)
                drawn = True
    return Coreset(weight, errors, drawn)


def deterministic(layer: Layer, kept: NDArray[np.bool_]) -> Coreset:
    """The weights where `kept` (f, d) is true, unchanged."""
    tails = np.asarray((layer.classes & ~kept) * layer.largest).sum(-1)
    return Coreset(np.where(kept, layer.weight, 0.0), tails, False)


def better(layer: Layer, first: Coreset, second: Coreset) -> Coreset:
    """Class by class the one with the smaller promised error; ties: the first."""
    take = first.errors <= second.errors  # (2, f)
    weight = np.zeros_like(layer.weight)
    for members, choice in zip(layer.classes, take, strict=True):
        weight += members * np.where(choice[:, None], first.weight, second.weight)
    return Coreset(weight, np.where(take, first.errors, second.errors), second.sampled and bool((~take).any()))


def top(layer: Layer, counts: Matrix) -> Coreset:
    """The most sensitive weights of every class, counts (2, f) of them."""
    kept = np.zeros(layer.weight.shape, dtype=bool)
    for members, count in zip(layer.classes, counts.astype(int), strict=True):
        order = np.argsort(-np.where(members, layer.largest, -1.0), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None], 1)
        kept |= members & (rank < count[:, None])
    return deterministic(layer, kept)


def promised(total: float, draws: int, positions: int, classes: int) -> float:
    """e of one class; 1 (everything may be lost) without draws, 0 where no weight ever acts."""
    if total <= 0.0:
        return 0.0
    if not draws:
        return 1.0
    return layer_error(draws, total, 2 * positions, FAILURE / classes)


def _reweighted(weight: Matrix, counts: NDArray[np.int64], expected: Matrix) -> Matrix:
    return np.divide(weight * counts, expected, out=np.zeros_like(weight), where=counts > 0)
