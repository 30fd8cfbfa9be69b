"""The judgement at its edges: counts box by box, names in the words, the machine's test."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verify.audit import Verdict, audit, check, grid, rounding
from verify.audit import certificate as certificate_module
from verify.audit.check import _Enclosure, _Prover
from verify.audit.exact import Memory, Refuted, Resource
from verify.certificate.emit import emit_certificate
from verify.network.graph import Network, build
from verify.network.structure import write_structure
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree


def network(scale: float) -> Network:
    steps = [("h", "linear", ("x",), {"weight": "w"}, {}), ("y", "relu", ("h",), {}, {})]
    return build("x", (1,), steps, "y", {"w": np.array([[scale]], np.float32)})


def issued(folder: Path, boxes: list[Box], trees: list[Tree], epsilon: str = "1") -> dict[str, Path]:
    """relu(x) and relu(x / 2) on boxes, certified; the arguments of an audit."""
    paths = {"original": folder / "first.onnx", "compact": folder / "second.onnx"}
    for path, scale in zip(paths.values(), (1.0, 0.5), strict=True):
        write_onnx(network(scale), path)
    emit_certificate(
        folder / "c.json", **paths, boxes=boxes, epsilon=Fraction(epsilon), lift=(), rule="pair_zonotope",
        parameters={"symbols": 10}, trees=trees,
    )  # fmt: skip
    return {"certificate": folder / "c.json", **paths}


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a certificate in place and seal it again."""
    data = json.loads(path.read_text())
    del data["seal"]
    change(data)
    text = json.dumps(data)[:-1] + ",\n"
    path.write_text(f'{text} "seal": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n')


HALF = Split(0, Fraction(1, 2), Leaf(), Leaf())
UNIT = Box.from_floats([0], [1])


def test_leaves_are_counted_box_by_box(tmp_path: Path) -> None:
    """Counts that fit in sum and not one by one are refused."""
    paths = issued(tmp_path, [UNIT, Box.from_floats([1], [1])], [HALF, Leaf()])
    assert audit(**paths).leaves == 3
    changed(paths["certificate"], lambda d: [d["evidence"][i].update(leaves=n) for i, n in enumerate((1, 2))])
    report = audit(**paths)
    assert report.verdict is Verdict.REJECT
    assert "box 0: the certificate states 1 leaves, its tree has 2" in report.reason


def test_the_words_count_boxes_and_name_the_files(tmp_path: Path) -> None:
    words = audit(**issued(tmp_path, [UNIT], [Leaf()])).claim_words
    assert words == (
        "For every input in the box of the claim (1 coordinates), each of the 1 outputs of the compact network "
        "second.onnx differs from that of the original network first.onnx by at most 1, in real arithmetic."
    )
    assert "in the 2 boxes of" in audit(**issued(tmp_path, [UNIT, UNIT], [Leaf(), Leaf()])).claim_words


def test_a_network_of_two_files_is_named_by_the_first(tmp_path: Path) -> None:
    for role in ("first", "second"):
        (tmp_path / role).mkdir()
        structure, weights = write_structure(network(1.0), tmp_path / role)
        structure.rename(tmp_path / role / f"{role}.json")
        weights.rename(tmp_path / role / "elsewhere.safetensors")
    paths = {"original": tmp_path / "first" / "first.json", "compact": tmp_path / "second" / "second.json"}
    weights_of = {f"{role}_weights": path.with_name("elsewhere.safetensors") for role, path in paths.items()}
    emit_certificate(
        tmp_path / "c.json", **paths, **weights_of, boxes=[UNIT], epsilon=Fraction(0), lift=(), rule="pair_zonotope",
        parameters={"symbols": 10}, trees=[Leaf()],
    )  # fmt: skip
    report = audit(tmp_path / "c.json", **paths, **weights_of)
    assert report.verdict is Verdict.ACCEPT
    assert [name for name, _ in report.hashes[1:]] == [
        "first.json", "elsewhere.safetensors", "second.json", "elsewhere.safetensors"
    ]  # fmt: skip
    assert "compact network second.json" in report.claim_words
    assert "original network first.json" in report.claim_words
    for role in ("original", "compact"):  # the default place of the weights is beside the structure, under its name
        without = {k: v for k, v in weights_of.items() if k != f"{role}_weights"}
        assert audit(tmp_path / "c.json", **paths, **without).verdict is Verdict.MALFORMED
        weights_of[f"{role}_weights"].rename(paths[role].with_name("compact.safetensors"))
        found = audit(tmp_path / "c.json", **paths, **without).verdict
        paths[role].with_name("compact.safetensors").rename(weights_of[f"{role}_weights"])
        assert found is Verdict.ACCEPT


def test_what_was_not_accepted_reports_nothing(tmp_path: Path) -> None:
    report = audit(**issued(tmp_path, [UNIT], [Leaf()], "1/3"))
    assert (report.verdict, report.leaves, report.bound) == (Verdict.REJECT, 0, None)
    assert (report.claim_words, report.limits, report.hashes) == ("", "", ())


def test_the_machine_is_tested_before_it_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise Resource("this machine cannot count")

    paths = issued(tmp_path, [UNIT], [Leaf()])
    assert audit(**paths).verdict is Verdict.ACCEPT
    monkeypatch.setattr(check, "self_test", fails)
    report = audit(**paths)
    assert report.verdict is Verdict.RESOURCE
    assert "cannot count" in report.reason


def test_the_constants_of_float32_are_those_of_the_format() -> None:
    single = np.finfo(np.float32)
    assert single.eps / 2 == 2.0**rounding.UNIT_ROUNDOFF
    assert single.smallest_subnormal == 2.0**rounding.SMALLEST
    assert single.max > 2.0 ** (rounding.LARGEST_SUM + 1)
    assert rounding.LONGEST_SUM * 2.0**rounding.UNIT_ROUNDOFF <= 0.25  # gamma_m <= (m + ceil(m^2 / 2^23)) u needs it


# enclosures


def one(low: float, high: float, exponent: int = 0) -> _Enclosure:
    return _Enclosure(np.array([[float(low)]]), np.array([[float(high)]]), exponent)


@pytest.mark.parametrize("size", [2**30, 2**45, 2**51])
def test_one_unit_beyond_epsilon_is_too_much_at_every_size(size: int) -> None:
    assert one(-size, size).within(Fraction(size)).all()
    assert not one(0, size + 1).within(Fraction(size)).any()
    assert not one(-size - 1, 0).within(Fraction(size)).any()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_join_scales_every_side_that_it_takes(swapped: bool) -> None:
    fine, coarse = one(-50, 50), one(-13, 13, 2)
    joined = coarse.joined(fine) if swapped else fine.joined(coarse)
    assert (joined.low[0, 0], joined.high[0, 0], joined.exponent) == (-50, 50, 0)
    joined = coarse.joined(one(-60, 60)) if swapped else one(-60, 60).joined(coarse)
    assert (joined.low[0, 0], joined.high[0, 0], joined.exponent) == (-52, 52, 0)


def test_no_deviation_has_the_bound_zero() -> None:
    assert one(0, 0).largest == 0


# rules


def test_networks_with_other_steps_are_proved_apart(tmp_path: Path) -> None:
    """relu(x) and x on [0, 1]: equal, and nothing to compare value by value."""
    paths = {"original": tmp_path / "first.onnx", "compact": tmp_path / "second.onnx"}
    write_onnx(network(1.0), paths["original"])
    plain = build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": np.ones((1, 1), np.float32)})
    write_onnx(plain, paths["compact"])
    found = {}
    for rule in ("separate", "pair_zonotope", "pair_backward"):
        emit_certificate(
            tmp_path / "c.json", **paths, boxes=[UNIT], epsilon=Fraction(1, 10**6), parameters={"symbols": 10},
            lift=None if rule == "separate" else (), rule=rule, trees=[Leaf()],
        )  # fmt: skip
        found[rule] = audit(tmp_path / "c.json", **paths).verdict
    assert found == {"separate": Verdict.ACCEPT, "pair_zonotope": Verdict.REJECT, "pair_backward": Verdict.REJECT}


# many leaves at once


def prover(paths: dict[str, Path]) -> _Prover:
    programs = [check.read_network([paths[role].read_bytes()]) for role in ("original", "compact")]
    return _Prover(certificate_module.read_certificate(paths["certificate"].read_bytes()), *programs)


def leaves(*boxes: certificate_module.Box) -> Iterator[certificate_module.Part]:
    return map(certificate_module.Part, boxes)


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_no_leaf_is_left_out_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Five leaves, at most `limit` fit at once: a false one is found in every place, and named by its number."""

    def check_memory(n: int, leaves: int, blocks: object) -> None:
        if leaves > limit:
            raise Memory("too much")

    monkeypatch.setattr(grid, "check_memory", check_memory)
    judge = prover(issued(tmp_path, [UNIT], [Leaf()], "1/4"))
    root = ((Fraction(0), Fraction(1)),)
    good, bad = ((Fraction(0), Fraction(1, 4)),), ((Fraction(1, 4), Fraction(1)),)
    assert judge.prove(leaves(*[good] * 5), root, "here") == 5
    assert Fraction(1, 8) <= judge.bound <= Fraction(1, 4)
    for place in range(5):
        with pytest.raises(Refuted, match=f"here, leaf {place}: "):
            judge.prove(leaves(*[good] * place, bad, *[good] * (4 - place)), root, "here")


def test_leaves_that_do_not_fit_one_by_one_are_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_memory(*_: object) -> None:
        raise Memory("too much")

    judge = prover(issued(tmp_path, [UNIT], [Leaf()]))
    monkeypatch.setattr(grid, "check_memory", check_memory)
    leaf = ((Fraction(0), Fraction(1)),)
    for count in (1, 2, 3):
        with pytest.raises(Memory, match="too much"):
            judge.prove(leaves(*[leaf] * count), leaf, "here")


@pytest.mark.parametrize("size", [1, 2**40])
def test_how_many_leaves_are_proved_together_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    paths = issued(tmp_path, [UNIT], [Split(0, Fraction(1, 2), HALF.low, Split(0, Fraction(3, 4), Leaf(), Leaf()))])
    honest = audit(**paths)
    assert (honest.verdict, honest.leaves) == (Verdict.ACCEPT, 3)
    monkeypatch.setattr(check, "CHUNK_BYTES", size)
    assert audit(**paths) == honest


def test_a_refusal_names_the_first_leaf_and_output_with_their_numbers(tmp_path: Path) -> None:
    """Outputs x and twice 2 x against half of them, on three leaves: the first false one is leaf 1, in output 1."""
    paths = {"original": tmp_path / "first.onnx", "compact": tmp_path / "second.onnx"}
    for path, scale in zip(paths.values(), (1.0, 0.5), strict=True):
        weight = scale * np.array([[1.0], [2.0], [2.0]], np.float32)
        write_onnx(build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": weight}), path)
    emit_certificate(
        tmp_path / "c.json", **paths, boxes=[UNIT], epsilon=Fraction(3, 8), lift=(), rule="pair_zonotope",
        parameters={"symbols": 10}, trees=[Split(0, Fraction(1, 4), Leaf(), HALF)],
    )  # fmt: skip
    report = audit(tmp_path / "c.json", **paths)
    assert report.verdict is Verdict.REJECT
    found = re.match(r"box 0, leaf 1: output 1 deviates by a value in \[(.*), (.*)\] for all this", report.reason)
    assert found is not None, report.reason
    assert [float(v) for v in found.groups()] == pytest.approx([0.25, 0.5], abs=1e-5)
    assert report.reason.endswith("which is not within epsilon = 0.375")
