"""Whether the trees of a deviation result show its bound: every leaf, bounded afresh on its own."""

import math

import torch

from verify.formal.backward.leaves import RULE, leaf_bounds
from verify.formal.program import compile_pair
from verify.spec.box import Box
from verify.spec.deviation import Split, count_leaves


def leaf_boxes(tree, lower, upper):
    """Sub-boxes of the leaves, exactly, by walking the tree of the record."""
    pending = [(tree, lower, upper)]
    while pending:
        node, low, high = pending.pop()
        if isinstance(node, Split):
            i, at = node.dimension, node.at
            assert low[i] < at < high[i]
            pending.append((node.high, (*low[:i], at, *low[i + 1 :]), high))
            pending.append((node.low, low, (*high[:i], at, *high[i + 1 :])))
        else:
            yield Box(low, high)


def leaf_bound(original, compact, result, leaf):
    """What the rule of a result shows on one leaf: "pair_backward" is the better of backward bounds and zonotopes."""
    ends = [torch.from_numpy(end)[None] for end in leaf.outward()]
    program = compile_pair(original, compact, result.lift)
    forward = float(program.bounds(*ends, symbols=result.parameters["symbols"]).deviation())
    if result.rule != RULE:
        assert result.rule == program.rule
        return forward
    lower, upper = leaf_bounds(original, compact, result.lift).bounds(*ends, seconds=math.inf, started=0.0)
    return min(forward, float(torch.maximum(-lower, upper).max()))


def check_evidence(original, compact, boxes, result):
    """Every leaf shows `upper`; the trees are as long as stated."""
    count = 0
    for tree, box in zip(result.trees, boxes, strict=True):
        for leaf in leaf_boxes(tree, box.lower, box.upper):
            assert leaf_bound(original, compact, result, leaf) <= result.upper * (1 + 1e-9)
            count += 1
    assert count == result.leaves == sum(map(count_leaves, result.trees))
