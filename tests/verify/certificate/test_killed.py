"""`verify deviation` killed at any point of writing its certificate leaves no file that is half a certificate."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from verify.audit import Verdict, audit
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx

ROOT = Path(__file__).parents[3]
DOMAIN = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (>= X_0 -0.5))
(assert (<= X_0 0.5))
(assert (>= X_1 0))
(assert (<= X_1 1))
"""

# Runs the command; where it would write the certificate, it does so in forked children that kill themselves at one of
# the calls and returns of the writing, and notes what stands on the disk then.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
import verify.certificate.issue as issue
from verify.cli import main

folder, points = Path(sys.argv[1]), int(sys.argv[2])
target, honest, notes = folder / "c.json", issue.issue_certificate, []

def forked(arguments, more, last):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        def watch(frame, event, value):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(watch)
        honest(*arguments, **more)
        sys.setprofile(None)
        os.write(write, str(count).encode())
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(read) as pipe:
        return os.WIFSIGNALED(status), pipe.read()

def content():
    return target.read_text() if target.exists() else None

def killed_at_many_points(*arguments, **more):
    _, calls = forked(arguments, more, 0)
    reference = content()
    target.unlink()
    for i in range(points):
        last = 1 + i * (int(calls) - 1) // (points - 1)
        killed, _ = forked(arguments, more, last)
        after = content()
        again = None
        if i % 5 == 0:
            forked(arguments, more, 0)
            again = content()
        notes.append((killed, after in (None, reference), after is not None, again in (None, reference)))
        for path in folder.glob("*c.json"):
            path.unlink()
    (folder / "notes.json").write_text(json.dumps({"calls": int(calls), "notes": notes, "reference": reference}))
    return honest(*arguments, **more)

issue.issue_certificate = killed_at_many_points
names = [str(folder / name) for name in ("original.onnx", "compact.onnx", "domain.vnnlib")]
sys.exit(main(["deviation", names[0], names[1], "--domain", names[2], "--epsilon", "1", "--certificate", str(target)]))
"""


def network(scale: float) -> Network:
    rng = np.random.default_rng(0)
    parameters = {"w": rng.normal(size=(4, 2)).astype(np.float32), "v": rng.normal(size=(1, 4)).astype(np.float32)}
    parameters["v"] *= np.float32(scale)
    steps = [
        ("h", "linear", ("x",), {"weight": "w"}, {}), ("a", "relu", ("h",), {}, {}),
        ("y", "linear", ("a",), {"weight": "v"}, {}),
    ]  # fmt: skip
    return build("x", (2,), steps, "y", parameters)


@pytest.mark.parametrize("points", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_point_and_run_again(tmp_path: Path, points: int) -> None:
    write_onnx(network(1.0), tmp_path / "original.onnx")
    write_onnx(network(0.99), tmp_path / "compact.onnx")
    (tmp_path / "domain.vnnlib").write_text(DOMAIN)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(points)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "notes.json").read_text())
    killed, whole, present, same = (list(column) for column in zip(*found["notes"], strict=True))
    assert found["calls"] > 1000
    assert all(killed)
    assert all(whole), "a file that is not the whole certificate stood in its place"
    assert all(same), "the second run wrote something else"
    assert not all(present)
    assert (tmp_path / "c.json").read_text() == found["reference"]
    report = audit(tmp_path / "c.json", tmp_path / "original.onnx", tmp_path / "compact.onnx")
    assert report.verdict is Verdict.ACCEPT
    assert report.bound is not None
    assert report.bound <= Fraction(1)


def test_every_prefix_of_a_certificate_is_refused(tmp_path: Path) -> None:
    """What a writer without a temporary file would leave behind."""
    golden = ROOT / "tests" / "verify" / "audit" / "golden"
    data = (golden / "v0_real.json").read_bytes()
    for end in range(0, len(data), 7):
        (tmp_path / "part.json").write_bytes(data[:end])
        found = audit(tmp_path / "part.json", golden / "original.onnx", golden / "compact.onnx")
        assert found.verdict is Verdict.MALFORMED
