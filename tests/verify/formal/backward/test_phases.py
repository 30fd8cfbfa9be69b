"""Decided signs: no attained deviation lies outside a bound of its part, and searches with decisions are certified."""

import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.audit import Verdict as Audited
from verify.audit import audit
from verify.certificate.issue import issue_certificate
from verify.errors import SpecificationError
from verify.formal.backward.phases import Phases
from verify.formal.backward.tape import record_pair
from verify.formal.deviation import verify_deviation
from verify.formal.lift import align
from verify.formal.search import MANY_INPUTS
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import build
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import write_onnx
from verify.parallel.checkpoint import encoded_node, load, tree_of
from verify.parallel.pieces import verify_in_pieces
from verify.spec.box import Box
from verify.spec.deviation import Decision, Sign, Verdict, preorder


def perceptrons(rng, inputs, hidden=(6, 5), outputs=3, noise=0.1):
    """A random perceptron and a twin with noise on every parameter."""
    widths, steps, parameters, last = (inputs, *hidden, outputs), [], {}, "x"
    for i, (n, m) in enumerate(pairwise(widths)):
        parameters |= {f"w{i}": rng.normal(size=(m, n)) / np.sqrt(n), f"b{i}": 0.1 * rng.normal(size=m)}
        steps.append((f"a{i}", "linear", [last], {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        last = f"a{i}"
        if i < len(hidden):
            last = f"h{i}"
            steps.append((last, "relu", [f"a{i}"], {}, {}))
    parameters = {k: v.astype(np.float32) for k, v in parameters.items()}
    original = build("x", (inputs,), steps, last, parameters)
    moved = {k: v + noise * np.abs(v).mean() * rng.normal(size=v.shape) for k, v in parameters.items()}
    moved = {k: v.astype(np.float32) for k, v in moved.items()}
    return original, original.with_parameters(moved)


def decisions_at(phases, original, compact, x, rng, count):
    """Random decisions that hold at a point."""
    names = {value.name for value in phases.values}
    both = [evaluate_values(network, x[None], names) for network in (original, compact)]
    numbers = []
    for _ in range(count):
        value = phases.values[rng.integers(len(phases.values))]
        element = int(rng.integers(value.size))
        at = both[value.compact][value.name].reshape(-1)[element]
        numbers.append((1 if at > 0 else -1) * (value.first + element + 1))
    return numbers


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0), st.sampled_from([0, 3]))
def test_deviations_stay_inside_their_part(seed, noise, steps):
    rng = np.random.default_rng(seed)
    original, compact = perceptrons(rng, int(rng.integers(2, 8)), noise=noise)
    n = original.input_shape[0]
    low = rng.uniform(-1, 1, n)
    high = low + rng.uniform(0, 1, n) * 2.0 ** -rng.integers(0, 4)
    tape = record_pair(original, compact, align(original, compact, None))
    phases = Phases(tape, torch.from_numpy(low)[None], torch.from_numpy(high)[None], seconds=1e9, started=0.0)
    points = np.clip(low + rng.random((8, n)) * (high - low), low, high)
    decided = torch.tensor([decisions_at(phases, original, compact, p, rng, 4) for p in points])
    found = phases.bounds(decided, steps=steps)
    difference = evaluate(original, points) - evaluate(compact, points)
    attained = np.concatenate([difference, -difference], axis=1)
    size = np.abs(evaluate(original, points)).max() + np.abs(evaluate(compact, points)).max()
    assert (attained <= found.upper.numpy() + 1e-12 * size).all()
    assert (found.multipliers >= 0).all()


def test_multipliers_only_help():
    rng = np.random.default_rng(3)
    original, compact = perceptrons(rng, 5)
    tape = record_pair(original, compact, align(original, compact, None))
    phases = Phases(tape, -torch.ones(1, 5).double(), torch.ones(1, 5).double(), seconds=1e9, started=0.0)
    first = int(phases.bounds(torch.zeros(1, 0, dtype=torch.int64)).wish[0])
    assert first > 0
    decided = torch.tensor([[first], [-first]])
    plain, helped = phases.bounds(decided, steps=0).upper, phases.bounds(decided, steps=12).upper
    assert (helped <= plain).all()
    assert (helped < plain).any()


def test_without_a_relu_there_is_nothing_to_decide():
    rng = np.random.default_rng(4)
    original, compact = perceptrons(rng, MANY_INPUTS, hidden=())
    box = Box.from_floats(np.full(MANY_INPUTS, -1.0), np.full(MANY_INPUTS, 1.0))
    result = verify_deviation(original, compact, [box], timeout=5, ratio=1.001)
    assert result.verdict is Verdict.PROVED
    assert result.upper <= 1.001 * result.lower


def pair_files(folder, original, compact):
    """Both networks through their files, as the auditor reads them."""
    paths = folder / "original.onnx", folder / "compact.onnx"
    for network, path in zip((original, compact), paths, strict=True):
        write_onnx(network, path)
    return paths, [read_onnx(path) for path in paths]


def decided(result):
    return any(isinstance(node, Decision) for tree in result.trees for node in preorder(tree))


@pytest.mark.parametrize("arithmetic", ["real", "float32"])
def test_with_many_inputs_signs_are_decided_and_the_auditor_agrees(tmp_path, arithmetic):
    rng = np.random.default_rng(0)
    paths, (original, compact) = pair_files(tmp_path, *perceptrons(rng, MANY_INPUTS, (8, 6)))
    centre = rng.uniform(-1, 1, MANY_INPUTS)
    box = Box.from_floats(centre - 0.1, centre + 0.1)
    whole = verify_deviation(original, compact, [box], timeout=30, ratio=1e6)
    result = verify_deviation(original, compact, [box], timeout=60, ratio=1.25)
    assert result.verdict is Verdict.PROVED
    assert decided(result)
    assert result.lower <= result.upper < whole.upper
    certificate = tmp_path / "certificate.json"
    found = issue_certificate(
        certificate, result, original=paths[0], compact=paths[1], boxes=[box], arithmetic=arithmetic
    )
    assert isinstance(found, tuple), found
    assert found[1].verdict is Audited.ACCEPT
    assert Fraction(result.lower) <= found[0]
    if arithmetic == "real":
        assert found[0] <= Fraction(result.upper) * Fraction(101, 100)
    text = certificate.read_text()
    flipped = text.replace(" y", " z", 1) if " y" in text else text.replace(" z", " y", 1)
    (tmp_path / "other.json").write_text(flipped)
    assert audit(tmp_path / "other.json", *paths).verdict is Audited.MALFORMED  # the seal


def test_a_checkpoint_keeps_decisions():
    rng = np.random.default_rng(1)
    original, compact = perceptrons(rng, MANY_INPUTS, (8, 6))
    box = Box.from_floats(np.full(MANY_INPUTS, -0.1), np.full(MANY_INPUTS, 0.1))
    (tree,) = verify_deviation(original, compact, [box], timeout=30, ratio=1.25).trees
    assert any(isinstance(node, Decision) for node in preorder(tree))
    assert tree_of([encoded_node(node) for node in preorder(tree)]) == tree


def test_pieces_of_many_inputs_are_cut_by_signs(tmp_path):
    rng = np.random.default_rng(1)
    paths, (original, compact) = pair_files(tmp_path, *perceptrons(rng, MANY_INPUTS, (8, 6)))
    box = Box.from_floats(np.full(MANY_INPUTS, -0.1), np.full(MANY_INPUTS, 0.1))
    whole = verify_deviation(original, compact, [box], timeout=5, ratio=1e6)
    options = {"ratio": 1.01, "checkpoint": tmp_path / "state.json", "slice_seconds": 3.0, "attack": None}
    first = verify_in_pieces(original, compact, [box], timeout=8.0, **options)  # ends by time, on any machine
    again = verify_in_pieces(original, compact, [box], timeout=4.0, **options)
    assert decided(first)
    assert again.upper <= first.upper < whole.upper
    pieces = load(tmp_path / "state.json", json.loads((tmp_path / "state.json").read_text())["question"], [box])
    assert any(isinstance(cut, Decision) for cut in pieces.splits.values())
    found = issue_certificate(tmp_path / "c.json", again, original=paths[0], compact=paths[1], boxes=[box])
    assert isinstance(found, tuple), found
    assert found[0] <= Fraction(again.upper) * Fraction(101, 100)


def test_a_part_is_searched_alone():
    rng = np.random.default_rng(6)
    original, compact = perceptrons(rng, 5)
    box = Box.from_floats(-np.ones(5), np.ones(5))
    phases = Phases(
        record_pair(original, compact, align(original, compact, None)),
        -torch.ones(1, 5).double(), torch.ones(1, 5).double(), seconds=1e9, started=0.0,
    )  # fmt: skip
    name, compact_too, element = phases.name(int(phases.bounds(torch.zeros(1, 0, dtype=torch.int64)).wish[0]))
    both = [
        verify_deviation(original, compact, [box], timeout=1, part=[Sign(name, compact_too, element, positive)])
        for positive in (False, True)
    ]
    points = box.sample(rng, 200)
    gap = np.abs(evaluate(original, points) - evaluate(compact, points)).max(axis=1)
    at = evaluate_values((original, compact)[compact_too], points, {name})[name][:, element]
    for positive, result in zip((False, True), both, strict=True):
        assert gap[at > 0 if positive else at < 0].max() <= result.upper
    with pytest.raises(SpecificationError, match="no argument"):
        verify_deviation(original, compact, [box], timeout=1, part=[Sign("nothing", False, 0, True)])
    with pytest.raises(SpecificationError, match="single box"):
        verify_deviation(original, compact, [box, box], timeout=1, part=[Sign(name, False, 0, True)])
