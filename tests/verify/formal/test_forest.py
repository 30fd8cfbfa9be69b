"""The forest: halves cover their sub-box, splits never worsen the bound, the trees certify it."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.formal.forest import REMEMBERED, Forest, Found, dyadic_between
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, count_leaves

BOXES = (
    Box((Fraction(-1, 3), Fraction(0), Fraction(2, 7)), (Fraction(1), Fraction(1, 10), Fraction(2, 7))),
    Box((Fraction(-5), Fraction(-5), Fraction(-5)), (Fraction(5), Fraction(5), Fraction(5))),
)


def random_search(rng, rounds):
    """A forest after some rounds of splitting, with made-up bounds; also the bounds it reported on the way."""
    forest = Forest(BOXES, 2)
    pending, reported = np.arange(2), []
    for _ in range(rounds):
        k = len(pending)
        own = rng.choice([0.25, 0.5, 1.0, 2.0, 3.0], k)
        per_output = np.stack([own, own / 2], axis=1)
        dimension = np.stack([rng.permutation(np.resize(np.arange(3), REMEMBERED)) for _ in range(k)]).reshape(k, -1)
        forest.record(pending, Found(own, per_output, dimension, rng.random((k, REMEMBERED)) * rng.integers(0, 2)))
        reported.append(forest.bound())
        nodes = forest.worst_open(0.3, int(rng.integers(1, 6)))
        done, lows = forest.split(nodes)
        assert len(lows) == done.sum()
        pending = np.stack([lows, lows + 1], axis=1).ravel()
        if not len(pending):
            break
        reported.append(forest.bound())
    return forest, reported


def sub_boxes(tree, lower, upper):
    if isinstance(tree, Leaf):
        return [(lower, upper)]
    assert isinstance(tree, Split)
    i, at = tree.dimension, tree.at
    assert lower[i] < at < upper[i]
    assert at.denominator & (at.denominator - 1) == 0
    low = sub_boxes(tree.low, lower, (*upper[:i], at, *upper[i + 1 :]))
    return low + sub_boxes(tree.high, (*lower[:i], at, *lower[i + 1 :]), upper)


def volume(lower, upper):
    """Exact volume over the coordinates of positive width."""
    return math.prod(b - a for a, b in zip(lower, upper, strict=True) if a < b)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_splits_never_worsen_the_bound(seed, rounds):
    forest, reported = random_search(np.random.default_rng(seed), rounds)
    assert all(a >= b for a, b in pairwise(reported))
    if not np.isinf(forest.own[forest.leaves()]).any():
        assert forest.bound() == forest.cover()[:2].max()


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_trees_certify_the_bound_and_cover_the_boxes(seed, rounds):
    forest, _ = random_search(np.random.default_rng(seed), rounds)
    upper = float(forest.cover()[:2].max())
    trees, leaves = forest.trees(upper)
    assert all(forest.own[leaf] <= upper for leaf in leaves)
    assert sum(map(count_leaves, trees)) == len(leaves)
    for tree, box in zip(trees, BOXES, strict=True):
        parts = sub_boxes(tree, box.lower, box.upper)
        assert sum(volume(low, high) for low, high in parts) == volume(box.lower, box.upper)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_float_sub_boxes_contain_the_exact_ones(seed, rounds):
    forest, _ = random_search(np.random.default_rng(seed), rounds)
    trees, leaves = forest.trees(-1.0)
    exact = [part for tree, box in zip(trees, BOXES, strict=True) for part in sub_boxes(tree, box.lower, box.upper)]
    floats = {(tuple(forest.lower[i]), tuple(forest.upper[i])) for i in leaves}
    for low, high in exact:
        outward = Box(low, high).outward()
        assert (tuple(outward[0]), tuple(outward[1])) in floats


def test_inputs_too_thin_to_split_give_way_to_others():
    forest = Forest((BOXES[0],), 1)
    root = np.array([0])
    found = Found(np.array([1.0]), np.ones((1, 1)), np.full((1, REMEMBERED), 2), np.ones((1, REMEMBERED)))
    forest.record(root, found)  # only the third input, of zero width, seems to matter
    for _ in range(REMEMBERED):
        assert not forest.split(root)[0].any()
        assert len(forest.worst_open(0.0, 10)) == 1
    assert forest.split(root)[0].all()


def test_a_point_cannot_be_split():
    forest = Forest((Box((Fraction(1),), (Fraction(1),)),), 1)
    found = Found(np.array([1.0]), np.ones((1, 1)), np.zeros((1, REMEMBERED), dtype=int), np.zeros((1, REMEMBERED)))
    forest.record(np.array([0]), found)
    assert not forest.split(np.array([0]))[0].any()
    assert len(forest.worst_open(0.0, 10)) == 0


@given(st.floats(-1e9, 1e9), st.floats(1e-12, 1e9))
def test_split_points_are_inside_and_short(low, width):
    high = low + width
    at = float(dyadic_between(np.array([low]), np.array([high]))[0])
    if np.nextafter(low, np.inf) < high:
        assert low < at < high
        if width > 1e-6 * abs(low):
            assert abs(at - (low + high) / 2) <= 0.01 * width
            assert Fraction(at).limit_denominator(2**64) == Fraction(at)
