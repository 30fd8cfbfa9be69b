"""The examples run, and do what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example() -> ModuleType:
    """The training loop, imported."""
    spec = importlib.util.spec_from_file_location("compress_while_training", EXAMPLES / "compress_while_training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stopped_training_run_goes_on_to_the_same_result(example: ModuleType, tmp_path: Path, capsys) -> None:
    straight = example.main(["--steps", "400"])
    report = capsys.readouterr().out
    resumable = ["--steps", "400", "--checkpoint", str(tmp_path / "run.pt")]
    assert example.main([*resumable, "--stop", "250"]) == 0.0
    assert "stopped after 250 steps" in capsys.readouterr().out
    assert example.main(resumable) == straight > 0.85
    assert capsys.readouterr().out == report


def test_three_lines_are_enough(example: ModuleType) -> None:
    text = (EXAMPLES / "compress_while_training.py").read_text(encoding="utf-8")
    marked = [line for line in text.splitlines() if line.rstrip()[-3:] in ("# 1", "# 2", "# 3")]
    assert len(marked) == 3
    assert ["DPF(" in marked[0], ".step()" in marked[1], ".finish()" in marked[2]] == [True] * 3
