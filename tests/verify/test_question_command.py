"""`verify question` and the parallel and resumable `verify deviation`: exit codes and what is said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from verify.cli import main
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.questions.sample import certify_boxes
from verify.spec.deviation import Verdict

DOMAIN = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 0.5))
"""


def _network(units: int = 6, bits: int | None = None) -> Network:
    rng = np.random.default_rng(0)
    parameters = {"w": rng.normal(size=(units, 2)), "b": 0.3 * rng.normal(size=units), "v": rng.normal(size=(2, units))}
    if bits is not None:
        parameters = {k: np.round(2.0**bits * v) / 2.0**bits for k, v in parameters.items()}
    steps = [
        ("hidden", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
        ("active", "relu", ["hidden"], {}, {}),
        ("y", "linear", ["active"], {"weight": "v"}, {}),
    ]
    return build("x", (2,), steps, "y", {k: v.astype(np.float32) for k, v in parameters.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_onnx(_network(), tmp_path / "original.onnx")
    write_onnx(_network(bits=8), tmp_path / "compact.onnx")
    (tmp_path / "domain.vnnlib").write_text(DOMAIN + "(assert (>= Y_0 100))")
    (tmp_path / "unsafe.vnnlib").write_text(DOMAIN + "(assert (>= Y_0 -100))")
    (tmp_path / "contradiction.vnnlib").write_text(DOMAIN + "(assert (>= X_0 2))")
    rng = np.random.default_rng(1)
    np.save(tmp_path / "centers.npy", rng.uniform(-1, 1, (4, 2)).astype(np.float32))
    np.save(tmp_path / "integers.npy", np.zeros((4, 2), dtype=np.int64))
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    return tmp_path


def _ask(folder: Path, kind: str, *more: str, domain: bool = True) -> int:
    paths = [str(folder / "original.onnx"), str(folder / "compact.onnx")]
    given = ["--domain", str(folder / "domain.vnnlib")] if domain else []
    return main(["question", kind, *paths, *given, "--timeout", "60", *more])


def test_questions_have_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ask(folder, "arg-max", "--margin", "0.1") == 0
    assert "PROVED" in capsys.readouterr().out
    assert _ask(folder, "per-output", "--epsilon", "0.1,0.2") == 0
    assert _ask(folder, "per-output", "--epsilon", "0.1,0.000001") == 1
    assert "fails, replayed" in capsys.readouterr().out
    assert _ask(folder, "relative", "--share", "0.05") == 0
    assert _ask(folder, "relative", "--share", "0.0000001") == 1
    assert "range of at least" in capsys.readouterr().out
    assert _ask(folder, "per-output", "--epsilon", "0.01,0.01", "--timeout", "1e-9") == 2


def test_complete_methods_for_small_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ask(folder, "complete") == 0
    assert "exactly that" in capsys.readouterr().out
    assert _ask(folder, "complete", "--method", "milp", "--epsilon", "0.000001") == 1
    assert "The solver claims" in capsys.readouterr().out
    assert _ask(folder, "complete", "--method", "relaxation", "--epsilon", "5") == 0
    assert "at most" in capsys.readouterr().out
    assert _ask(folder, "complete", "--timeout", "1e-9") == 2
    assert "not bounded in time" in capsys.readouterr().out


def test_properties_of_the_compact_network(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(name: str) -> int:
        return main(["question", "property", str(folder / "compact.onnx"), "--property", str(folder / name)])

    assert ask("domain.vnnlib") == 0
    assert ask("unsafe.vnnlib") == 1
    assert ask("contradiction.vnnlib") == 3
    assert "contradictory bounds" in capsys.readouterr().err


def test_samples_of_boxes_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(epsilon: str, *more: str, data: str = "centers.npy", radius: str = "0.01") -> int:
        options = ["--data", str(folder / data), "--radius", radius, "--epsilon", epsilon, "--timeout", "4", *more]
        return _ask(folder, "sample", *options, domain=False)

    assert ask("0.1") == 0
    assert "4 of 4 boxes certified" in capsys.readouterr().out
    assert ask("0.0000001", "--at-least", "0.25") == 1
    assert "4 refuted" in capsys.readouterr().out
    assert ask("0.1", data="integers.npy") == 3
    assert ask("0.1", data="nan.npy") == 3
    assert ask("0.1", radius="-1") == 3
    assert ask("0.1", "--confidence", "1.5") == 3
    assert ask("0.1", "--at-least", "2") == 3


def test_bad_questions_are_refused(folder: Path) -> None:
    assert _ask(folder, "per-output", "--epsilon", "0.1,0.1,0.1") == 3
    assert _ask(folder, "per-output", "--epsilon", "nan") == 3
    assert _ask(folder, "arg-max", "--margin", "-1") == 3
    assert _ask(folder, "arg-max", "--timeout", "0") == 3


def test_the_bound_of_a_sample_is_that_of_its_count() -> None:
    network = _network()
    centers = np.zeros((5, 2))
    found = certify_boxes(network, network, centers, "0.1", "1e-9", confidence=0.9, seconds=2.0)
    assert found.verdicts == (Verdict.PROVED,) * 5
    assert found.rate_lower == pytest.approx(0.1 ** (1 / 5))


def _deviation(folder: Path, *more: str) -> list[str]:
    paths = [str(folder / "original.onnx"), str(folder / "compact.onnx"), "--domain", str(folder / "domain.vnnlib")]
    return ["deviation", *paths, "--timeout", "60", *more]


def test_a_deviation_is_resumed_and_certified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, certificate = folder / "state.json", folder / "certificate.json"
    resume = ["--resume", str(state)]
    assert main(_deviation(folder, *resume)) == 0
    first = json.loads(state.read_text())
    assert main(_deviation(folder, *resume, "--certificate", str(certificate))) == 0
    assert "PROVED and audited" in capsys.readouterr().out
    assert json.loads(state.read_text()) == first  # nothing was searched again
    assert main(_deviation(folder, *resume, "--epsilon", "0.1")) == 3
    assert "another epsilon" in capsys.readouterr().err
    assert main(_deviation(folder, "--workers", "0")) == 3


@pytest.mark.slow
def test_a_killed_search_reaches_the_same_verdict(tmp_path: Path) -> None:
    """The command is killed while it works on pieces, and started again."""
    rng = np.random.default_rng(3)
    widths = (3, 12, 12, 2)
    steps, parameters, last = [], {}, "x"
    for i in range(3):
        parameters[f"w{i}"] = (rng.normal(size=(widths[i + 1], widths[i])) / np.sqrt(widths[i])).astype(np.float32)
        steps.append((f"a{i}", "linear", [last], {"weight": f"w{i}"}, {}))
        last = f"a{i}"
        if i < 2:
            last = f"h{i}"
            steps.append((last, "relu", [f"a{i}"], {}, {}))
    original = build("x", (3,), steps, last, parameters)
    write_onnx(original, tmp_path / "o.onnx")
    write_onnx(original.with_parameters({k: np.round(8 * v) / 8 for k, v in parameters.items()}), tmp_path / "c.onnx")
    text = "".join(f"(declare-const X_{i} Real) (assert (>= X_{i} -1)) (assert (<= X_{i} 1))" for i in range(3))
    (tmp_path / "d.vnnlib").write_text(text)
    state = tmp_path / "state.json"
    command = [sys.executable, "-m", "verify.cli", "deviation", "o.onnx", "c.onnx", "--domain", "d.vnnlib"]
    command += ["--resume", "state.json", "--timeout", "600", "--tightest"]
    search = subprocess.Popen(command, cwd=tmp_path)
    while not state.exists() and search.poll() is None:
        time.sleep(0.05)
    if search.poll() is None:
        os.kill(search.pid, signal.SIGKILL)
    search.wait()
    before = json.loads(state.read_text())["results"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PROVED" in done.stdout
    assert before.items() <= json.loads(state.read_text())["results"].items()
