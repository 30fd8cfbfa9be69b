"""The demo end to end on few boxes: what it writes, what it claims, and what it refuses."""

import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    import demo

    yield demo
    sys.path.remove(str(ROOT / "scripts"))


def call(demo: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    return demo.main()


def test_perceptron_from_start_to_report(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    few = ("--networks", "mlp", "--boxes", "1", "--processes", "1", "--output", str(output))
    assert call(demo, monkeypatch, *few) == 0
    shown = capsys.readouterr().out
    assert "1 of 1" in shown
    assert "image_000.json" in shown
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "every input in the box" in page
    assert "independent auditor" in page

    from verify.audit.check import Verdict, audit

    folder = output / "mlp"
    certificate = folder / "certificates" / "image_000.json"
    judged = audit(certificate, folder / "original.onnx", folder / "compact.onnx")
    assert judged.verdict is Verdict.ACCEPT
    assert judged.bound <= Fraction(json.loads(certificate.read_text())["claim"]["epsilon"])
    swapped = audit(certificate, folder / "compact.onnx", folder / "original.onnx")
    assert swapped.verdict is Verdict.REJECT
    assert demo.obstacle(output) == "", "an earlier output may be replaced"


def test_foreign_folder_is_left_alone(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert call(demo, monkeypatch, "--output", str(tmp_path)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_missing_parent_folder(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(demo, monkeypatch, "--output", str(tmp_path / "absent" / "out")) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_both_networks_meet_the_stated_figures(demo: ModuleType, tmp_path: Path) -> None:
    mlp, cnn = demo.run(demo.Settings(), tmp_path)
    assert all(box.audited == "accept" for box in mlp.boxes)
    assert sorted(box.ratio for box in mlp.boxes)[25] <= 1.2
    assert mlp.correct[1] >= 0.985
    assert cnn.correct[1] >= 0.98
    for outcome in (mlp, cnn):
        assert outcome.compression.after.flops <= 0.5 * outcome.compression.before.flops
