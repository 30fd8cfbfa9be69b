"""The smallest certified network, and the commands `provable exact` and `provable compress --until`."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from provable.cli import main
from provable.errors import InputError
from provable.smallest import STEPS, _bisect, composed, smallest_certified
from verify.audit import Verdict, audit
from verify.network.evaluate import evaluate
from verify.network.graph import Network
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box

BOX = Box.from_floats([-0.3] * 3, [0.5] * 3)


@pytest.fixture(scope="module")
def network(sketch) -> Network:
    s = sketch((3,), seed=5, dtype="float32")
    x = s.add("relu", s.linear("x", 16))
    return s.network(s.linear(s.add("relu", s.linear(x, 16)), 2))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, network: Network) -> Path:
    folder = tmp_path_factory.mktemp("domain")
    write_onnx(network, folder / "net.onnx")
    np.save(folder / "x.npy", BOX.sample(np.random.default_rng(0), 500).astype(np.float32))
    lines = [f"(declare-const X_{i} Real)" for i in range(3)] + [f"(declare-const Y_{i} Real)" for i in range(2)]
    lines += [f"(assert (and (>= X_{i} -0.3) (<= X_{i} 0.5)))" for i in range(3)]
    (folder / "d.vnnlib").write_text("\n".join(lines))
    return folder


def command(workplace: Path, *words: str) -> int:
    return main([words[0], str(workplace / "net.onnx"), *words[1:]])


def test_the_result_is_smaller_and_its_certificate_is_accepted(workplace: Path, capsys) -> None:
    out = workplace / "until"
    arguments = ("--calibration", str(workplace / "x.npy"), "--domain", str(workplace / "d.vnnlib"), "--out", str(out))
    assert command(workplace, "compress", *arguments, "--until", "deviation=0.05") == 0
    assert "PROVED and audited" in capsys.readouterr().out
    report = audit(out / "certificate.json", out / "original.onnx", out / "compact.onnx")
    assert report.verdict is Verdict.ACCEPT
    assert report.bound is not None
    assert report.bound <= Fraction("0.05")
    original, compact = read_onnx(out / "original.onnx"), read_onnx(out / "compact.onnx")
    x = BOX.sample(np.random.default_rng(1), 500)
    assert np.abs(evaluate(original, x) - evaluate(compact, x)).max() <= 0.05
    tried = json.loads((out / "search.json").read_text())["probes"]
    accepted = [probe["flops"] for probe in tried if probe["certified"] is not None]
    assert json.loads((out / "summary.json").read_text())["after"]["flops"] == min(accepted)
    assert min(accepted) < tried[0]["flops"]


def test_exact_pruning_is_certified_at_zero(workplace: Path, capsys) -> None:
    out = workplace / "exact"
    arguments = ("--domain", str(workplace / "d.vnnlib"), "--out", str(out))
    assert command(workplace, "exact", *arguments, "--keep-bits") == 0
    assert "|original - compact| <= 0," in capsys.readouterr().out
    report = audit(out / "certificate.json", out / "original.onnx", out / "compact.onnx")
    assert report.bound == 0
    assert command(workplace, "exact", *arguments) == 3
    assert command(workplace, "exact", *arguments, "--force") == 0


def test_a_deviation_that_nothing_meets_writes_nothing(workplace: Path, network: Network, capsys) -> None:
    far = Box.from_floats([-1e3] * 3, [1e3] * 3)
    inputs = np.load(workplace / "x.npy")
    found = smallest_certified(network, inputs, [far], epsilon=Fraction(0), timeout=0.2)
    assert found is None or found.certified.bound == 0
    out = workplace / "nothing"
    bad = (
        ("--until", "deviation=-1", "--domain", "d.vnnlib"),
        ("--until", "size=1", "--domain", "d.vnnlib"),
        ("--until", "deviation=0.1"),
        ("--until", "deviation=0.1", "--domain", "missing.vnnlib"),
        ("--until", "deviation=0.1", "--keep", "flops=0.5", "--domain", "d.vnnlib"),
    )
    for words in bad:
        placed = [str(workplace / w) if w.endswith(".vnnlib") else w for w in words]
        try:
            code = command(workplace, "compress", "--calibration", str(workplace / "x.npy"), *placed, "--out", str(out))
        except SystemExit as stop:
            code = stop.code
        assert code == 3, words
        assert not out.exists()
    with pytest.raises(InputError, match="not be negative"):
        smallest_certified(network, inputs, [BOX], epsilon=Fraction(-1))


@pytest.mark.parametrize("threshold", [1, 7, 40, 63])
def test_bisection_finds_the_smallest_accepted_share(threshold: int) -> None:
    tried: list[float] = []

    def accepted(share: float) -> bool:
        tried.append(share)
        return share * STEPS >= threshold

    _bisect(accepted)
    assert min((s for s in tried if s * STEPS >= threshold), default=1.0) == threshold / STEPS
    assert len(tried) <= 6


def test_cuts_compose() -> None:
    first = {"a": {"axis": 0, "kept": [1, 4, 7]}, "b": {"axis": 0, "kept": [2]}}
    second = {"a": {"axis": 0, "kept": [0, 2]}, "c": {"axis": 1, "kept": [3]}}
    assert composed(first, second) == {
        "a": {"axis": 0, "kept": [1, 7]}, "b": {"axis": 0, "kept": [2]}, "c": {"axis": 1, "kept": [3]},
    }  # fmt: skip
    with pytest.raises(InputError, match="two axes"):
        composed(first, {"a": {"axis": 1, "kept": [0]}})
