"""`verify deviation --resume` killed at any point of its run goes on where it stopped, to the identical certificate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from verify.audit import Verdict, audit
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx

ROOT = Path(__file__).parents[3]
BOXES = 4

# Runs the command to its end, then in forked children that kill themselves at one of the calls and returns of the run,
# each followed by a child that runs the same command again to its end.
DRIVER = """
import json, os, signal, sys
from functools import partial
from pathlib import Path
import verify.parallel.pieces as pieces
from verify.cli import main

pieces.SAVE_SECONDS = 0.0  # every finished piece is kept at once
pieces.verify_in_pieces = partial(pieces.verify_in_pieces, attack=None)  # only what a proof needs, for speed
folder, points = Path(sys.argv[1]), int(sys.argv[2])
state, target = folder / "state.json", folder / "c.json"
names = [str(folder / name) for name in ("original.onnx", "compact.onnx", "domain.vnnlib")]
command = ["deviation", *names[:2], "--domain", names[2], "--epsilon", sys.argv[3]]
command += ["--resume", str(state), "--certificate", str(target)]

def forked(last):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        count = 0
        def watch(frame, event, value):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(watch)
        code = main(command)
        sys.setprofile(None)
        os.write(write, f"{code} {count}".encode())
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(read) as pipe:
        return os.WIFSIGNALED(status), [int(v) for v in pipe.read().split()]

def cleared():
    for path in folder.glob("*.json*"):
        path.unlink()
    for path in folder.glob(".*json*"):
        path.unlink()

def content(path):
    return path.read_text() if path.exists() else None

main(command)  # everything is imported now
cleared()
_, (code, calls) = forked(0)
reference, notes = content(target), []
cleared()
for i in range(points):
    killed, _ = forked(1 + i * (calls - 1) // points)
    left = content(target)
    kept = len(json.loads(content(state))["results"]) if state.exists() else 0
    if left is not None:
        target.unlink()  # the command refuses to replace a certificate
    _, (again, more) = forked(0)
    notes.append([killed, left in (None, reference), kept, again, more / calls, content(target) == reference])
    cleared()
print(json.dumps({"code": code, "calls": calls, "reference": reference, "notes": notes}))
"""


def network(scale: float) -> Network:
    rng = np.random.default_rng(0)
    sizes = {"w": (8, 2), "u": (8, 8), "v": (1, 8)}
    parameters = {k: rng.normal(size=s).astype(np.float32) for k, s in sizes.items()}
    parameters["v"] *= np.float32(scale)
    steps = [
        ("h", "linear", ("x",), {"weight": "w"}, {}), ("a", "relu", ("h",), {}, {}),
        ("g", "linear", ("a",), {"weight": "u"}, {}), ("b", "relu", ("g",), {}, {}),
        ("y", "linear", ("b",), {"weight": "v"}, {}),
    ]  # fmt: skip
    return build("x", (2,), steps, "y", parameters)


def domain() -> str:
    """Boxes side by side."""
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0")]
    boxes = " ".join(
        f"(and (>= X_0 {i / 4}) (<= X_0 {(i + 1) / 4}) (>= X_1 -1) (<= X_1 1))" for i in range(-BOXES // 2, BOXES // 2)
    )
    return "\n".join([*lines, f"(assert (or {boxes}))"])


@pytest.mark.parametrize("points", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_point_ends_with_the_same_certificate(tmp_path: Path, points: int) -> None:
    write_onnx(network(1.0), tmp_path / "original.onnx")
    write_onnx(network(0.99), tmp_path / "compact.onnx")
    (tmp_path / "domain.vnnlib").write_text(domain())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(points), "0.03"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stdout
    killed, whole, kept, codes, shares, same = (list(column) for column in zip(*found["notes"], strict=True))
    assert all(killed)
    assert all(whole), "a file that is not the whole certificate stood in its place"
    assert set(codes) == {0}
    assert all(same), "the second run wrote another certificate"
    assert {0, BOXES} <= set(kept)
    assert all(share < 0.9 for share, n in zip(shares, kept, strict=True) if n == BOXES), "nothing was resumed"
    (tmp_path / "again.json").write_text(found["reference"])
    report = audit(tmp_path / "again.json", tmp_path / "original.onnx", tmp_path / "compact.onnx")
    assert report.verdict is Verdict.ACCEPT
    assert report.leaves > BOXES
