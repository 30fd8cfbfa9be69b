"""The auditor's own bound stays close to the prover's: a certificate that is accepted must not be a loose one."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.audit import AuditReport, audit
from verify.audit import Verdict as Audited
from verify.certificate import mend
from verify.certificate.issue import issue_certificate
from verify.formal.deviation import DeviationResult, verify_deviation
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Decision, Leaf, Split, Tree, Verdict, count_leaves, preorder

WIDTHS = (3, 8, 8, 8, 2)
BOX = Box.from_floats([-1.0] * 3, [1.0] * 3)


def perceptron(weights: list[np.ndarray], biases: list[np.ndarray]) -> Network:
    nodes, parameters, last = [], {}, "x"
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        parameters |= {f"w{i}": w.astype(np.float32), f"b{i}": b.astype(np.float32)}
        nodes.append((f"h{i}", "linear", (last,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        last = f"h{i}"
        if i < len(weights) - 1:
            nodes.append((f"r{i}", "relu", (last,), {}, {}))
            last = f"r{i}"
    return build("x", (WIDTHS[0],), nodes, last, parameters)


def pair_with_dead_neurons(seed: int, change: float) -> tuple[Network, Network, dict[str, object]]:
    """A perceptron whose last two neurons of each hidden layer never fire on the box, and the one without them."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(m, n)) / np.sqrt(n) for n, m in pairwise(WIDTHS)]
    biases = [rng.normal(size=m) / 4 for m in WIDTHS[1:]]
    for b in biases[:-1]:
        b[-2:] = -1000.0
    small_weights = [w[: len(w) - 2 * (i < 3), : w.shape[1] - 2 * (i > 0)] for i, w in enumerate(weights)]
    small_weights[1] = small_weights[1] * (1 + change)
    small_biases = [b[: len(b) - 2 * (i < 3)] for i, b in enumerate(biases)]
    kept = {name: {"axis": 0, "kept": list(range(6))} for i in range(3) for name in (f"h{i}", f"r{i}")}
    return perceptron(weights, biases), perceptron(small_weights, small_biases), {"version": 1, "values": kept}


def certified(folder: Path, seed: int, change: float) -> tuple[float, float]:
    """The prover's bound and the auditor's."""
    original, compact, channels = pair_with_dead_neurons(seed, change)
    paths = folder / "original.onnx", folder / "compact.onnx"
    for network, path in zip((original, compact), paths, strict=True):
        write_onnx(network, path)
    found = verify_deviation(original, compact, [BOX], channels=channels, timeout=10, ratio=1.5, floor=1e-3)
    issued = issue_certificate(folder / "c.json", found, boxes=[BOX], original=paths[0], compact=paths[1])
    assert isinstance(issued, tuple), issued
    bound = issued[1].bound
    assert bound is not None
    return found.upper, float(bound)


@pytest.mark.parametrize("seed", range(3))
def test_neurons_that_never_fire_cost_exactly_nothing(seed: int, tmp_path: Path) -> None:
    upper, audited = certified(tmp_path, seed, change=0.0)
    assert upper < 1e-12
    assert audited == 0.0


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), change=st.sampled_from([1e-6, 1e-3, 0.05]))
def test_the_auditor_shows_almost_what_the_prover_found(
    tmp_path_factory: pytest.TempPathFactory, seed: int, change: float
) -> None:
    upper, audited = certified(tmp_path_factory.mktemp("pair"), seed, change)
    assert audited <= 1.25 * upper + 1e-9


def coarse(folder: Path, seed: int, share: float) -> tuple[DeviationResult, Path, Path]:
    """A proof of `share` times the bound of the whole box, whose tree is just that box."""
    original, compact, channels = pair_with_dead_neurons(seed, 0.05)
    paths = folder / "original.onnx", folder / "compact.onnx"
    for network, path in zip((original, compact), paths, strict=True):
        write_onnx(network, path)
    whole = verify_deviation(original, compact, [BOX], channels=channels, timeout=10, ratio=1e9)
    tight = verify_deviation(original, compact, [BOX], channels=channels, timeout=10, ratio=1.5)
    epsilon = Fraction(tight.upper + share * (whole.upper - tight.upper))
    proved = replace(whole, verdict=Verdict.PROVED, epsilon=epsilon, trees=(Leaf(),), leaves=1)
    return proved, *paths


@pytest.mark.parametrize("seed", range(3))
def test_leaves_that_the_auditor_refuses_are_halved(tmp_path: Path, seed: int) -> None:
    result, original, compact = coarse(tmp_path, seed, 0.5)
    issued = issue_certificate(tmp_path / "c.json", result, boxes=[BOX], original=original, compact=compact)
    assert isinstance(issued, tuple), issued
    assert issued[0] == result.epsilon
    assert issued[1].leaves > 1
    again = audit(tmp_path / "c.json", original, compact)
    assert again.verdict is Audited.ACCEPT


@pytest.mark.parametrize("seed", range(2))
def test_the_tightest_bound_is_certified_by_halving_leaves_rather_than_by_a_larger_claim(
    tmp_path: Path, seed: int
) -> None:
    result, original, compact = coarse(tmp_path, seed, 0.5)
    assert result.epsilon is not None
    upper = float(result.epsilon)
    tightest = replace(result, epsilon=None, upper=upper)
    issued = issue_certificate(tmp_path / "c.json", tightest, boxes=[BOX], original=original, compact=compact)
    assert isinstance(issued, tuple), issued
    assert issued[0] <= Fraction(upper) * Fraction(102, 100)
    assert issued[1].leaves > 1


def test_a_false_claim_is_not_mended(tmp_path: Path) -> None:
    result, original, compact = coarse(tmp_path, 0, 0.5)
    false = replace(result, epsilon=Fraction(result.lower) / 2)
    issued = issue_certificate(tmp_path / "c.json", false, boxes=[BOX], original=original, compact=compact)
    assert isinstance(issued, AuditReport)
    assert issued.verdict is Audited.REJECT
    assert not list(tmp_path.glob("*.json*"))


@given(st.integers(1, 40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_mended_tree_has_only_leaves_that_were_accepted(leaves: int, seed: int) -> None:
    """And covers the box: its leaves' volumes add up to that of the box."""
    rng = np.random.default_rng(seed)
    largest = Fraction(1, int(rng.integers(1, 30)))

    def volume(box: Box) -> Fraction:
        return prod((high - low for low, high in zip(box.lower, box.upper, strict=True)), start=Fraction(1))

    def accepts(box: Box, tree: Tree) -> bool:
        return all(volume(part) <= largest for part in parts(tree, box))

    def parts(tree: Tree, box: Box) -> list[Box]:
        if not isinstance(tree, Split):
            return [box]
        below, above = box.halves(tree.dimension, tree.at)
        return parts(tree.low, below) + parts(tree.high, above)

    def grown(count: int, box: Box) -> Tree:
        if count == 1:
            return Leaf()
        dimension, at = box.middle() or (0, Fraction(0))
        below, above = box.halves(dimension, at)
        first = int(rng.integers(1, count))
        return Split(dimension, at, grown(first, below), grown(count - first, above))

    box = Box.from_floats([0.0, 0.0], [1.0, 1.0])
    found = mend.mended(grown(leaves, box), box, accepts)
    assert found is not None
    assert all(volume(part) <= largest for part in parts(found, box))
    assert sum(volume(part) for part in parts(found, box)) == 1
    assert mend.mended(Leaf(), box, lambda *_: False) is None


def test_a_leaf_that_only_a_whole_audit_refuses_is_halved() -> None:
    """Of two boxes; the auditor accepts every subtree alone, and the whole where one leaf is smaller."""
    boxes = [Box.from_floats([0.0, 0.0], [1.0, 1.0]), Box.from_floats([0.0, 0.0], [8.0, 1.0])]
    cut = Split(0, Fraction(4), Split(0, Fraction(2), Leaf(), Leaf()), Leaf())
    tried: list[list[Tree]] = []

    def attempt(epsilon: Fraction, domain: Sequence[Box], trees: Sequence[Tree]) -> AuditReport:
        accepted = len(domain) == 1 or count_leaves(trees[1]) > 3
        if len(domain) == 2:
            tried.append(list(trees))
        reason = "" if accepted else "box 1, leaf 2: output 0 deviates"
        return AuditReport(Audited.ACCEPT if accepted else Audited.REJECT, reason, 0, None, "", "", ())

    report = mend.audited(attempt, Fraction(1), boxes, [Leaf(), cut])
    assert report.verdict is Audited.ACCEPT
    assert tried[-1] == [Leaf(), Split(0, Fraction(4), cut.low, Split(0, Fraction(6), Leaf(), Leaf()))]
    assert len(tried) == 3


@pytest.mark.parametrize(
    ("refused", "upper"), [(Decision("a", False, 0, Leaf(), Leaf()), 1.0), (Leaf(), 0.0)], ids=["sign", "point"]
)
def test_what_cannot_be_halved_is_not_audited_again(refused: Tree, upper: float) -> None:
    """Signs that were decided stay as they are, and a point has no halves: the first refusal of the whole is final."""
    box = Box.from_floats([0.0], [upper])
    asked: list[Fraction] = []

    def attempt(epsilon: Fraction, domain: Sequence[Box], trees: Sequence[Tree]) -> AuditReport:
        asked.append(epsilon)
        verdict = Audited.REJECT if epsilon == 1 else Audited.ACCEPT
        return AuditReport(verdict, "box 0, leaf 0: output 0 deviates", 0, None, "", "", ())

    assert mend.audited(attempt, Fraction(1), [box], [refused]).verdict is Audited.REJECT
    assert asked == [1, mend.STRICTER, 1]


@given(st.integers(1, 60), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_leaf_counts_are_those_of_every_subtree(leaves: int, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def grown(count: int) -> Tree:
        first = int(rng.integers(1, count)) if count > 1 else 0
        return Split(0, Fraction(0), grown(first), grown(count - first)) if count > 1 else Leaf()

    tree = grown(leaves)
    counts = mend.leaf_counts(tree)
    assert all(counts[id(node)] == count_leaves(node) for node in preorder(tree))
