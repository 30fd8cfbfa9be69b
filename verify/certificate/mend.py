"""Trees that the auditor refuses, mended: leaves that it does not accept are halved, and halved again.

Prover and auditor round differently, so now and then they choose other slopes, and one leaf in thousands has a bound
that is some per cent larger for the auditor. It is asked about small subtrees, each on its own box and with a smaller
epsilon, because what it finds depends a little on what it looks at together. Nothing here is trusted: the whole tree
is audited afterwards. Not claimed: that a tree can be mended; signs that were decided are left as they are.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from verify.audit.check import AuditReport, Verdict
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree, preorder

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
        box = int(place["box"])
        cut = _cut_again(whole[box], boxes[box], int(place["leaf"]), leaf_counts(whole[box]))
        if cut is None:
            break
        whole[box] = cut
    return report


def leaf_counts(tree: Tree) -> dict[int, int]:
    """The number of leaves of every subtree, by its identity."""
    found: dict[int, int] = {}
    for node in reversed(preorder(tree)):  # halves before what they are halves of
        found[id(node)] = 1 if isinstance(node, Leaf) else found[id(node.low)] + found[id(node.high)]
    return found


def _cut_again(tree: Tree, box: Box, number: int, counts: Mapping[int, int]) -> Tree | None:
    """The tree with its leaf of that number halved, lower halves first; None where it cannot be."""
    if isinstance(tree, Leaf):
        return _halved(box)
    if not isinstance(tree, Split):
        return None
    below, above = box.halves(tree.dimension, tree.at)
    lower = counts[id(tree.low)]
    if number < lower:
        cut = _cut_again(tree.low, below, number, counts)
        return None if cut is None else replace(tree, low=cut)
    cut = _cut_again(tree.high, above, number - lower, counts)
    return None if cut is None else replace(tree, high=cut)


def mended(tree: Tree, box: Box, accepts: Accepts) -> Tree | None:
    """The tree with halved leaves wherever it is not accepted; None where that does not help.

    Args:
        accepts: whether the auditor accepts a tree on a box.
    """
    counts = leaf_counts(tree)

    def mend(tree: Tree, box: Box, halvings: int) -> Tree | None:
        if (isinstance(tree, Leaf) or counts[id(tree)] <= TOGETHER) and accepts(box, tree):
            return tree
        cut: Tree | None = tree
        if isinstance(tree, Leaf):
            halvings, cut = halvings - 1, _halved(box) if halvings else None
        if not isinstance(cut, Split):
            return None
        below, above = box.halves(cut.dimension, cut.at)
        low = mend(cut.low, below, halvings)
        high = None if low is None else mend(cut.high, above, halvings)
        return None if low is None or high is None else Split(cut.dimension, cut.at, low, high)

    return mend(tree, box, HALVINGS)


def _halved(box: Box) -> Split | None:
    """Two leaves, cut near the middle of the widest side; None where there is nothing to cut."""
    middle = box.middle()
    return None if middle is None else Split(*middle, Leaf(), Leaf())
