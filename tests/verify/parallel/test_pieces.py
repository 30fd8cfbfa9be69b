"""A search in pieces says what one search says; a checkpoint continues it; wrong or damaged checkpoints are refused."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.verify.evidence import check_evidence
from verify.complete.enumeration import enumerate_regions
from verify.complete.system import relu_system
from verify.errors import DataError, SpecificationError
from verify.network.graph import build
from verify.parallel.checkpoint import Pieces, load, save, tree_of
from verify.parallel.pieces import SEVERAL, verify_in_pieces
from verify.parallel.workers import WorkersLost
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Verdict, count_leaves

SECONDS = 60.0


def pair(seed, units=6):
    """A ReLU network with two inputs, and a coarse twin."""
    rng = np.random.default_rng(seed)
    parameters = {
        "w": rng.normal(size=(units, 2)), "b": 0.3 * rng.normal(size=units),
        "v": rng.normal(size=(2, units)) / 2, "c": 0.3 * rng.normal(size=2),
    }  # fmt: skip
    steps = [
        ("a", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
        ("h", "relu", ["a"], {}, {}),
        ("y", "linear", ["h"], {"weight": "v", "bias": "c"}, {}),
    ]
    original = build("x", (2,), steps, "y", parameters)
    return original, original.with_parameters({k: np.round(8 * v) / 8 for k, v in parameters.items()})


BOXES = (
    Box((Fraction(-1), Fraction(-1)), (Fraction(1), Fraction(1, 3))),
    Box((Fraction(1), Fraction(1)), (Fraction(2), Fraction(2))),
)


def exact_deviation(original, compact):
    return max(enumerate_regions(relu_system(original, compact), box).deviation() for box in BOXES)


class Stopping:
    """Workers that give up after some items, like a process that is killed."""

    count = 3

    def __init__(self, most):
        self.left = most

    def each(self, function, items):
        for position, item in enumerate(items):
            if self.left == 0:
                raise WorkersLost("no more")
            self.left -= 1
            yield position, function(item)


@pytest.mark.parametrize("seed", range(2))
def test_pieces_decide_epsilon_both_ways(seed):
    original, compact = pair(seed)
    exact = exact_deviation(original, compact)
    for factor, verdict in ((Fraction(51, 50), Verdict.PROVED), (Fraction(49, 50), Verdict.REFUTED)):
        result = verify_in_pieces(
            original, compact, BOXES, epsilon=exact * factor, timeout=SECONDS, slice_seconds=0.05, backward=False
        )
        assert result.verdict is verdict
        assert Fraction(result.lower) <= exact
        assert any(box.contains(result.witness) for box in BOXES)
        if verdict is Verdict.PROVED:
            assert exact <= Fraction(result.upper) <= exact * factor
            check_evidence(original, compact, BOXES, result)


def test_the_tightest_bound_is_close_to_the_exact_one():
    original, compact = pair(3)
    exact = exact_deviation(original, compact)
    result = verify_in_pieces(original, compact, BOXES, timeout=SECONDS, ratio=1.1, slice_seconds=0.05, backward=False)
    assert result.verdict is Verdict.PROVED
    assert exact <= Fraction(result.upper) <= Fraction(11, 10) * exact * (1 + Fraction(1, 10**9))
    assert max(result.per_output_upper) <= result.upper
    check_evidence(original, compact, BOXES, result)


def test_a_stopped_search_continues_from_its_checkpoint(tmp_path):
    original, compact = pair(1, units=9)
    epsilon = exact_deviation(original, compact) * Fraction(10001, 10000)
    path = tmp_path / "state.json"

    def run(slice_seconds=0.05, workers=None):
        return verify_in_pieces(
            original, compact, BOXES, epsilon=epsilon, slice_seconds=slice_seconds, checkpoint=path, attack=None,
            backward=False, timeout=SECONDS, workers=workers,
        )  # fmt: skip

    stopped = run(slice_seconds=0.01, workers=Stopping(4))  # too short to be done, however fast the machine
    assert stopped.verdict is Verdict.UNKNOWN
    assert stopped.upper < math.inf
    assert "lost" in stopped.words
    before = json.loads(path.read_text())
    assert len(before["results"]) == 4
    finished = run()
    after = json.loads(path.read_text())
    assert finished.verdict is Verdict.PROVED
    assert finished.upper <= stopped.upper
    assert before["results"].items() <= after["results"].items()
    if finished.rule != SEVERAL:  # a slice too short for affine forms falls back to intervals
        check_evidence(original, compact, BOXES, finished)
    again = run(workers=Stopping(0))
    assert (again.verdict, again.upper, again.trees) == (finished.verdict, finished.upper, finished.trees)


@pytest.mark.parametrize("text", ["1e20000000", "0x1", "1/0", "9" * 5000, "1.5"])
def test_numbers_that_no_checkpoint_holds_are_refused_at_once(tmp_path, text):
    path = tmp_path / "state.json"
    save(path, Pieces("q", BOXES[:1], {"0": Split(0, Fraction(1, 3), Leaf(), Leaf())}))
    path.write_text(path.read_text().replace("1/3", text))
    with pytest.raises(DataError, match="not a checkpoint"):
        load(path, "q", BOXES[:1])


def test_no_time_is_unknown_with_no_bound():
    original, compact = pair(0)
    result = verify_in_pieces(original, compact, BOXES, timeout=SECONDS, workers=Stopping(0), backward=False)
    assert (result.verdict, result.upper, result.lower, result.witness) == (Verdict.UNKNOWN, math.inf, 0.0, None)
    with pytest.raises(SpecificationError, match="times"):
        verify_in_pieces(original, compact, BOXES, timeout=0.0)
    with pytest.raises(SpecificationError, match="box"):
        verify_in_pieces(original, compact, [])


def test_checkpoints_about_something_else_or_damaged_are_refused(tmp_path):
    original, compact = pair(2)
    path = tmp_path / "state.json"
    run = {"timeout": SECONDS, "checkpoint": path, "backward": False, "ratio": 1.5}
    verify_in_pieces(original, compact, BOXES, **run)
    whole = path.read_text()
    with pytest.raises(DataError, match="other networks"):
        verify_in_pieces(compact, original, BOXES, **run)
    with pytest.raises(DataError, match="other networks"):
        verify_in_pieces(original, compact, BOXES[:1], **run)
    with pytest.raises(DataError, match="other networks"):
        verify_in_pieces(original, compact, BOXES, epsilon="0.1", **run)
    content = json.loads(whole)
    name = next(iter(content["results"]))
    outside = {**content["results"][name], "witness": ["9", "9"]}
    for damaged in (
        whole[: len(whole) // 2],
        "[]",
        json.dumps({**content, "results": {"7": content["results"][name]}}),
        json.dumps({**content, "results": {name: {}}}),
        json.dumps({**content, "results": {name: {**content["results"][name], "upper": "nan"}}}),
        json.dumps({**content, "results": {name: {**content["results"][name], "tree": [[0, "0"], None]}}}),
        json.dumps({**content, "results": {name: outside}}),
        json.dumps({**content, "splits": {"0": [0, "5"]}, "results": {}}),
    ):
        path.write_text(damaged)
        with pytest.raises(DataError):
            verify_in_pieces(original, compact, BOXES, **run)


def test_the_state_survives_the_file(tmp_path):
    original, compact = pair(2)
    path = tmp_path / "state.json"
    verify_in_pieces(original, compact, BOXES, timeout=SECONDS, checkpoint=path, ratio=1.05, backward=False)
    question = json.loads(path.read_text())["question"]
    first = load(path, question, BOXES)
    save(path, first)
    assert load(path, question, BOXES) == first
    assert Pieces(question, BOXES).leaves() == ["0", "1"]


def test_deep_trees_are_read_without_recursion():
    nodes = [[0, "1/2"]] * 5000 + [None] * 5001
    assert count_leaves(tree_of(nodes)) == 5001
    with pytest.raises(ValueError, match="incomplete"):
        tree_of(nodes[1:])
