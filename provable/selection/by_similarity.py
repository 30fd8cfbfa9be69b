"""One representative of every cluster stays, and the next layer reads it with the weights of all.

Cutting the tree after its first c - k merges leaves k clusters. Merging by SUM is exact for channels that are equal
(theory_notes/scores.md); otherwise compensation, if any, starts from it.
"""

from numpy.random import Generator

from provable.compensation.moments import Matrix
from provable.errors import CalibrationError
from provable.selection.by_score import found
from provable.selection.evidence import Choice, Evidence


def representatives(evidence: Evidence, count: int, generator: Generator) -> Choice:
    """The representatives of `count` clusters."""
    finding = found(evidence)
    if finding.tree is None:
        raise CalibrationError(f"group {evidence.group.name!r} has no clustering")
    order, _ = finding.removals()
    kept = tuple(sorted(order[len(order) - count :]))
    staying = set(kept)
    merged = []
    for members in clusters(finding.tree, count):
        (head,) = staying.intersection(members)
        merged += [(slot, head) for slot in members if slot != head]
    return Choice(kept, None, method="one of each cluster, merged", merged=tuple(merged))


def clusters(tree: Matrix, count: int) -> list[tuple[int, ...]]:
    """The `count` clusters (1 <= count <= slots) left after the first merges of a linkage, by smallest member."""
    size = len(tree) + 1
    sets: list[tuple[int, ...] | None] = [(slot,) for slot in range(size)]
    for first, second in tree[: size - count, :2].astype(int):
        sets.append(tuple(sorted((sets[first] or ()) + (sets[second] or ()))))
        sets[first] = sets[second] = None
    return sorted(members for members in sets if members is not None)
