"""The auditor as a single file: the same bytes from the same sources, and the same verdicts on its own."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts.loading import load_script
from verify.audit.__main__ import own_sources
from verify.certificate.issue import issue_certificate
from verify.formal.deviation import verify_deviation
from verify.network.graph import build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return load_script("build_auditor")


def test_the_same_sources_give_the_same_bytes(builder: ModuleType, tmp_path: Path) -> None:
    assert builder.build(tmp_path / "a.pyz") == builder.build(tmp_path / "b.pyz")
    assert (tmp_path / "a.pyz").stat().st_mode & 0o111


def test_it_judges_alone(builder: ModuleType, tmp_path: Path) -> None:
    for name, factor in (("f", 1.0), ("g", 1.5)):
        w = np.array([[factor]], np.float32)
        write_onnx(
            build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": w}), tmp_path / f"{name}.onnx"
        )
    box = Box.from_floats([0.0], [1.0])
    f, g = (build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": np.array([[k]], np.float32)})
            for k in (1.0, 1.5))  # fmt: skip
    found = verify_deviation(f, g, [box], timeout=5)
    paths = {"original": tmp_path / "f.onnx", "compact": tmp_path / "g.onnx"}
    assert isinstance(issue_certificate(tmp_path / "c.json", found, boxes=[box], **paths), tuple)
    builder.build(tmp_path / "audit.pyz")

    def run(compact: str) -> subprocess.CompletedProcess[str]:
        words = [tmp_path / "c.json", "--original", tmp_path / "f.onnx", "--compact", tmp_path / compact]
        command = [sys.executable, "-I", str(tmp_path / "audit.pyz"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)

    good, bad = run("g.onnx"), run("f.onnx")
    assert (good.returncode, bad.returncode) == (0, 1), good.stderr
    assert good.stdout.startswith("ACCEPT")
    lines, digest = own_sources()
    assert f"Auditor: {lines} lines of source, sha256 {digest}" in good.stdout


def test_lines_of_code_are_neither_blank_nor_words(builder: ModuleType) -> None:
    source = '"""Head.\n\nMore."""\n\nx = 1  # one\n# two\n\ndef f() -> str:\n    """Docs."""\n    return """a\nb"""\n'
    assert builder.code_lines(source) == 4
