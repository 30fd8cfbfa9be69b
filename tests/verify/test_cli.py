"""The command line: exit codes, what is written, and what is said for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from verify.certificate.issue import round_up
from verify.cli import main
from verify.deviation_command import decimal_up
from verify.network.evaluate import evaluate
from verify.network.graph import Network, build
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import write_onnx

DOMAIN = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 0.5))
(assert (>= Y_0 100))
"""


def _network(kept: list[int], *, output_bias: float = 0.0) -> Network:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=(1, 6)).astype(np.float32)
    second[:, 5] = 1e-3  # the neuron that the compact network lacks
    parameters = {
        "w1": first[kept], "b1": np.zeros(len(kept), np.float32),
        "w2": second[:, kept], "b2": np.full(1, output_bias, np.float32),
    }  # fmt: skip
    steps = [
        ("hidden", "linear", ["x"], {"weight": "w1", "bias": "b1"}, {}),
        ("active", "relu", ["hidden"], {}, {}),
        ("y", "linear", ["active"], {"weight": "w2", "bias": "b2"}, {}),
    ]
    return build("x", (2,), steps, "y", parameters)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_onnx(_network(list(range(6))), tmp_path / "original.onnx")
    write_onnx(_network(list(range(5))), tmp_path / "compact.onnx")
    entry = {"axis": 0, "kept": [0, 1, 2, 3, 4]}
    channels = {"version": 1, "values": {"hidden": entry, "active": entry}}
    (tmp_path / "channels.json").write_text(json.dumps(channels))
    (tmp_path / "domain.vnnlib").write_text(DOMAIN)
    return tmp_path


def _deviation(folder: Path, *more: str, original: str = "original.onnx", domain: str = "domain.vnnlib") -> int:
    paths = [str(folder / original), str(folder / "compact.onnx"), "--domain", str(folder / domain)]
    return main(["deviation", *paths, "--channels", str(folder / "channels.json"), "--timeout", "20", *more])


def test_tightest_bound_is_proved_audited_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = folder / "certificate.json"
    assert _deviation(folder, "--tightest", "--certificate", str(certificate)) == 0
    assert "PROVED and audited" in capsys.readouterr().out
    arguments = ["audit", str(certificate), "--original", str(folder / "original.onnx")]
    assert main([*arguments, "--compact", str(folder / "compact.onnx")]) == 0
    assert "ACCEPT" in capsys.readouterr().out
    assert main([*arguments, "--compact", str(folder / "original.onnx")]) == 1
    assert "REJECT" in capsys.readouterr().out


def test_a_float32_claim_is_proved_by_the_auditor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = folder / "f32.json"
    assert _deviation(folder, "--arithmetic", "float32") == 3
    assert "needs --certificate" in capsys.readouterr().err
    assert _deviation(folder, "--arithmetic", "float32", "--certificate", str(certificate)) == 0
    assert "executed in float32" in capsys.readouterr().out
    paths = ["--original", str(folder / "original.onnx"), "--compact", str(folder / "compact.onnx")]
    assert main(["audit", str(certificate), *paths]) == 0
    assert "flush to zero" in capsys.readouterr().out


def test_questions_have_exit_codes(folder: Path) -> None:
    assert _deviation(folder, "--epsilon", "0.1") == 0
    assert _deviation(folder, "--epsilon", "0.0000001") == 1


def test_a_refutation_shows_its_input_and_writes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    witness = folder / "witness.npy"
    assert _deviation(folder, "--epsilon", "0.0000001", "--witness", str(witness)) == 1
    assert "replayed with rigorous rounding" in capsys.readouterr().out
    x = np.load(witness, allow_pickle=False)[None]
    original, compact = (read_onnx(folder / name) for name in ("original.onnx", "compact.onnx"))
    assert x.shape[1:] == original.input_shape
    assert np.abs(evaluate(original, x) - evaluate(compact, x)).max() > 1e-7
    assert _deviation(folder, "--epsilon", "0.0000001", "--witness", str(witness)) == 3
    assert "--force" in capsys.readouterr().err


def test_little_memory_is_enough_for_an_answer_and_none_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _deviation(folder, "--epsilon", "0.1", "--memory", "1") == 0
    assert _deviation(folder, "--memory", "0") == 3
    assert "--memory 0 is not a positive number of MiB" in capsys.readouterr().err


def test_certificate_with_a_smaller_claim_is_rejected(folder: Path) -> None:
    certificate = folder / "certificate.json"
    assert _deviation(folder, "--certificate", str(certificate)) == 0
    forged = json.loads(certificate.read_text())
    forged["claim"]["epsilon"] = "0.0000001"
    certificate.write_text(json.dumps(forged))
    paths = ["--original", str(folder / "original.onnx"), "--compact", str(folder / "compact.onnx")]
    assert main(["audit", str(certificate), *paths]) in (1, 3)


def test_an_existing_certificate_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = folder / "certificate.json"
    certificate.write_text("precious")
    assert _deviation(folder, "--certificate", str(certificate)) == 3
    assert certificate.read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert _deviation(folder, "--certificate", str(certificate), "--force") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DOMAIN.replace("(assert (<= X_1 0.5))", ""), "X_1"),
        (DOMAIN.replace("X_1 0.5", "X_1 -2"), "X_1"),
        (DOMAIN.replace("X_1 0.5", "X_7 0.5"), "X_7"),
        (DOMAIN.replace("0.5", "1e99999"), "1e99999"),
        ("(assert", "domain.vnnlib"),
        (DOMAIN + "(declare-const X_2 Real)(assert (<= X_2 1))(assert (>= X_2 0))", "3"),
    ],
)
def test_bad_domains_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    (folder / "domain.vnnlib").write_text(text)
    assert _deviation(folder, "--certificate", str(folder / "c.json")) == 3
    assert message in capsys.readouterr().err
    assert not (folder / "c.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 1, "version": 1, "values": {}}', '{"version": 1, "values": {"hidden": NaN}}']
)
def test_bad_channels_are_refused(folder: Path, content: str) -> None:
    (folder / "channels.json").write_text(content)
    assert _deviation(folder) == 3


def test_missing_truncated_and_unfit_networks_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _deviation(folder, original="absent.onnx") == 3
    whole = (folder / "original.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(whole[: len(whole) // 2])
    assert _deviation(folder, original="half.onnx") == 3
    write_onnx(build("x", (3,), [("y", "relu", ["x"], {}, {})], "y", {}), folder / "other.onnx")
    assert _deviation(folder, original="other.onnx") == 3
    assert "inputs" in capsys.readouterr().err


def test_statistical_refuses_calibration_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from verify.statistical.disjoint import row_hashes

    inputs = np.random.default_rng(1).uniform(-1, 0.5, (3000, 2)).astype(np.float32)
    np.save(folder / "fresh.npy", inputs)
    rows = {"version": 1, "rows": row_hashes(np.zeros((1, 2), np.float32))}
    (folder / "rows.json").write_text(json.dumps(rows))
    arguments = ["statistical", str(folder / "original.onnx"), str(folder / "compact.onnx")]
    arguments += ["--data", str(folder / "fresh.npy"), "--calibration-rows", str(folder / "rows.json")]
    assert main([*arguments, "--certificate", str(folder / "s.json")]) == 0
    rows["rows"] = row_hashes(inputs[:1])
    (folder / "rows.json").write_text(json.dumps(rows))
    assert main(arguments) == 3
    assert "calibration" in capsys.readouterr().err


def test_wrong_usage_is_bad_input() -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["deviation"])
    assert exit_info.value.code == 3


@pytest.mark.parametrize("value", ["0.0000123456", "7", "123456.7", "0.9999999"])
def test_rounding_for_claims_goes_up(value: str) -> None:
    from fractions import Fraction

    exact = Fraction(value)
    assert exact < round_up(exact) <= exact * (1 + Fraction(2, 1000))
    assert Fraction(decimal_up(exact)) >= exact
