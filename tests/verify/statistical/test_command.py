"""The command `verify statistical`: exit codes, words, files, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from verify.cli import main
from verify.network.graph import build
from verify.network.write_onnx import write_onnx
from verify.statistical import read_certificate, row_hashes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    w = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    network = build("x", (2,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": w})
    write_onnx(network, tmp_path / "f.onnx")
    write_onnx(network.with_parameters({"w": 1.01 * w}), tmp_path / "g.onnx")
    x = np.random.default_rng(0).random((300, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", a=x, b=x[:5])
    (tmp_path / "rows.json").write_text(json.dumps({"version": 1, "rows": row_hashes(x[:2])}))
    return tmp_path


def run(folder: Path, *arguments: str, data: str = "x.npy") -> int:
    paths = [str(folder / name) for name in ("f.onnx", "g.onnx")]
    return main(["statistical", *paths, "--data", str(folder / data), *arguments])


def test_claims_are_printed_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "c.json"
    assert run(folder, "--epsilon", "0.02", "--certificate", str(path)) == 0
    shown = capsys.readouterr().out
    assert "the deviation exceeds 0.02 on at most" in shown
    assert "Not claimed" in shown
    certificate = read_certificate(path)
    assert certificate.claims[1].count == 0
    assert run(folder, "--certificate", str(path)) == 3
    assert "--force" in capsys.readouterr().err
    assert run(folder, "--certificate", str(path), "--force") == 0


def test_an_array_of_an_archive_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--key", "a", data="x.npz") == 0
    assert run(folder, data="x.npz") == 3
    assert "choose one with --key" in capsys.readouterr().err
    assert run(folder, "--key", "c", data="x.npz") == 3


def test_calibration_rows_and_damaged_files_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--calibration-rows", str(folder / "rows.json")) == 3
    assert "rows 0, 1" in capsys.readouterr().err
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:50])
    assert run(folder, data="cut.npy") == 3
    assert run(folder, data="none.npy") == 3
    assert run(folder, data="f.onnx") == 3


def test_pickled_arrays_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert run(folder, data="object.npy") == 3
    assert "cannot be read" in capsys.readouterr().err


def test_a_sample_that_shows_nothing_is_unknown(folder: Path) -> None:
    """The only sample exceeds epsilon and ties its arg max: both rates stay at their trivial bound of 1."""
    np.save(folder / "far.npy", np.full((1, 2), 50.0))
    assert run(folder, "--epsilon", "0.001", "--confidence", "0.999999", data="far.npy") == 2


def audit(folder: Path, *arguments: str, compact: str = "g.onnx") -> int:
    networks = ["--original", str(folder / "f.onnx"), "--compact", str(folder / compact)]
    return main(["audit", str(folder / "c.json"), *networks, *arguments])


def test_a_certificate_is_recounted_on_its_own_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--certificate", str(folder / "c.json")) == 0
    data = ("--data", str(folder / "x.npy"))
    assert audit(folder, *data) == 0
    assert "ACCEPT" in capsys.readouterr().out
    assert audit(folder) == 3
    assert "--data" in capsys.readouterr().err
    assert audit(folder, "--data", str(folder / "x.npz"), "--key", "b") == 1
    assert "other data" in capsys.readouterr().out
    np.save(folder / "turned.npy", np.load(folder / "x.npy")[::-1])
    assert audit(folder, "--data", str(folder / "turned.npy")) == 1
    assert "another data" in capsys.readouterr().out
    assert audit(folder, *data, compact="f.onnx") == 1
    assert "another compact" in capsys.readouterr().out


def test_a_stronger_claim_than_the_recount_is_rejected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "c.json"
    assert run(folder, "--epsilon", "0.005", "--certificate", str(path)) == 0
    record = json.loads(path.read_text())
    assert record["claims"][1]["count"] != 0
    honest = dict(record["claims"][1])
    assert run(folder, "--epsilon", "0.02", "--certificate", str(path), "--force") == 0
    record["claims"][1] = {**json.loads(path.read_text())["claims"][1], "parameter": honest["parameter"]}
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert audit(folder, "--data", str(folder / "x.npy")) == 1
    assert "weaker claims" in capsys.readouterr().out


def test_the_calibration_inputs_of_a_certificate_are_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = folder / "other.json"
    rows.write_text(json.dumps({"version": 1, "rows": row_hashes(np.full((3, 2), 7.0))[:1]}))
    made = ("--calibration-rows", str(rows))
    assert run(folder, *made, "--certificate", str(folder / "c.json")) == 0
    data = ("--data", str(folder / "x.npy"))
    assert audit(folder, *data) == 3
    assert "--calibration-rows" in capsys.readouterr().err
    assert audit(folder, *data, *made) == 0


def test_a_proof_takes_no_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.json").write_text("{}")
    assert audit(folder, "--data", str(folder / "x.npy")) == 3
    assert "no statistical certificate" in capsys.readouterr().err
    assert audit(folder) == 3
