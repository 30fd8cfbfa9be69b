"""Trees that the auditor refuses, mended: leaves that it does not accept are halved, and halved again.

Prover and auditor round differently, so now and then they choose other slopes, and one leaf in thousands has a bound
that is some per cent larger for the auditor. It is asked about small subtrees, each on its own box and with a smaller
epsilon, because what it finds depends a little on what it looks at together. Nothing here is trusted: the whole tree
is audited afterwards. Not claimed: that a tree can be mended; signs that were decided are left as they are.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from verify.audit.check import AuditReport, Verdict
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree, count_leaves

STRICTER = Fraction(63, 64)  # of epsilon
RETRIES = 8  # whole audits, each of which may refuse one more leaf
TOGETHER = 64  # leaves about which the auditor is asked at once
HALVINGS = 6  # of one leaf
REFUSED = re.compile(r"box (?P<box>\d+), leaf (?P<leaf>\d+): ")

Accepts = Callable[[Box, Tree], bool]
Attempt = Callable[[Fraction, Sequence[Box], Sequence[Tree]], AuditReport]


def audited(attempt: Attempt, epsilon: Fraction, boxes: Sequence[Box], trees: Sequence[Tree]) -> AuditReport:
    """The auditor's report on the trees, which are mended where it refuses them.

    Args:
        attempt: writes a certificate for a bound, boxes and their trees, and has it audited.
    """

    def accepts(limit: Fraction, box: Box, tree: Tree) -> bool:
        return attempt(limit, [box], [tree]).verdict is Verdict.ACCEPT

    report = attempt(epsilon, boxes, trees)
    if report.verdict is not Verdict.REJECT:
        return report
    found = [mended(t, b, partial(accepts, STRICTER * epsilon)) for t, b in zip(trees, boxes, strict=True)]
    whole = [tree for tree in found if tree is not None]
    if len(whole) < len(found):
        return report
    for _ in range(RETRIES):
        report = attempt(epsilon, boxes, whole)
        place = REFUSED.match(report.reason)
        if report.verdict is not Verdict.REJECT or place is None:
            break
        box, leaf = int(place["box"]), int(place["leaf"])
        whole[box] = _cut_again(whole[box], boxes[box], leaf)
    return report


def _cut_again(tree: Tree, box: Box, number: int) -> Tree:
    """The tree with its leaf of that number halved; leaves are counted from the lower halves on."""
    if not isinstance(tree, Split):
        return _halved(box) if isinstance(tree, Leaf) else tree
    below, above = _halves(box, tree)
    lower = count_leaves(tree.low)
    if number < lower:
        return replace(tree, low=_cut_again(tree.low, below, number))
    return replace(tree, high=_cut_again(tree.high, above, number - lower))


def mended(tree: Tree, box: Box, accepts: Accepts, *, halvings: int = HALVINGS) -> Tree | None:
    """The tree with halved leaves wherever it is not accepted; None where that does not help.

    Args:
        accepts: whether the auditor accepts a tree on a box.
        halvings: how often a leaf of `tree` may be halved.
    """
    if count_leaves(tree) <= TOGETHER and accepts(box, tree):
        return tree
    if isinstance(tree, Leaf) and halvings > 0:
        halvings, tree = halvings - 1, _halved(box)
    if not isinstance(tree, Split):
        return None
    below, above = _halves(box, tree)
    low = mended(tree.low, below, accepts, halvings=halvings)
    high = None if low is None else mended(tree.high, above, accepts, halvings=halvings)
    return None if low is None or high is None else Split(tree.dimension, tree.at, low, high)


def _halved(box: Box) -> Tree:
    """Cut near the middle of the widest side; a point stays a leaf."""
    widths = [high - low for low, high in zip(box.lower, box.upper, strict=True)]
    widest = widths.index(max(widths))
    low, high = box.lower[widest], box.upper[widest]
    at = Fraction(float((low + high) / 2))
    return Split(widest, at, Leaf(), Leaf()) if low < at < high else Leaf()


def _halves(box: Box, cut: Split) -> tuple[Box, Box]:
    i = cut.dimension
    below = Box(box.lower, (*box.upper[:i], cut.at, *box.upper[i + 1 :]))
    return below, Box((*box.lower[:i], cut.at, *box.lower[i + 1 :]), box.upper)
