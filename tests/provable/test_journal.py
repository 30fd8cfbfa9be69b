"""A killed run continues to the identical result; a changed setting starts afresh; no half-written file counts."""

import os
from pathlib import Path

import numpy as np
import pytest

from provable import journal as journal_file
from provable.artifacts import write_artifacts
from provable.cli import main
from provable.errors import OutputError
from provable.journal import Journal
from provable.pipeline import compress
from verify.network.graph import Network
from verify.network.write_onnx import single_precision, write_onnx


class Killed(BaseException):
    """As if the process had been killed."""


def residual(sketch) -> Network:
    s = sketch((2, 6, 6), seed=3)
    x = s.add("relu", s.norm(s.conv("x", 6, 3)))
    for _ in range(2):
        x = s.basic_block(x)
    return single_precision(s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3)))


def inputs(count: int = 40) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 2, 6, 6)).astype(np.float32)


class Fuse:
    """A listener that ends the run after some steps of the main stage."""

    def __init__(self, steps: int) -> None:
        self.left, self.seen, self.burning = steps, 0, False

    def stage(self, name: str, steps: int) -> None:
        self.burning = name == "select and compensate"

    def step(self, what: str) -> None:
        self.seen += self.burning
        if self.burning and self.seen > self.left:
            raise Killed


slow = pytest.mark.slow
CASES = [
    ("greedy", "refine"),
    ("greedy", "refine_network"),
    pytest.param("volume", "two_sided", marks=slow),
    pytest.param("pfp-sampled", "least_squares", marks=slow),
]


def files(result, folder: Path) -> dict[str, bytes]:
    write_artifacts(result, folder)
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("summary.json", "layers.txt")}


@pytest.mark.parametrize(("recipe", "compensation"), CASES)
def test_resumed_equals_uninterrupted(sketch, tmp_path: Path, monkeypatch, recipe: str, compensation: str) -> None:
    """Killed after every single site in turn: each run adds one site, and the end is the same to the last bit."""
    from provable.compensation.network_refinement import NetworkSchedule
    from provable.compensation.refinement import Schedule

    monkeypatch.setattr("provable.pipeline.Schedule", lambda: Schedule(steps=6))
    monkeypatch.setattr("provable.pipeline.NetworkSchedule", lambda: NetworkSchedule(steps=6))
    network, x = residual(sketch), inputs()
    options = {"keep": {"flops": 0.6}, "recipe": recipe, "compensation": compensation, "generator": 5}
    whole = compress(network, x, **options)
    kills = 0
    while True:
        try:
            resumed = compress(network, x, **options, progress=Fuse(kills), journal=tmp_path / "journal")
            break
        except Killed:
            kills += 1
    assert kills == len(whole.layers)  # the last attempt only had to replay
    assert any("continued an interrupted run" in note for note in resumed.notes)
    assert files(resumed, tmp_path / "resumed") == files(whole, tmp_path / "whole")
    assert resumed.layers == whole.layers
    assert resumed.groups == whole.groups


def test_a_refinement_of_the_whole_network_goes_on_where_it_stopped(sketch, tmp_path: Path, monkeypatch) -> None:
    """Killed after every check in turn."""
    from provable.compensation.network_refinement import NetworkSchedule

    monkeypatch.setattr("provable.pipeline.NetworkSchedule", lambda: NetworkSchedule(steps=9, checks=3))
    network, x = residual(sketch), inputs()
    options = {"keep": {"flops": 0.6}, "compensation": "refine_network", "generator": 5}
    whole = compress(network, x, **options)
    real, steps = Journal.keep_descent, []

    def killed(self: Journal, descent) -> None:
        real(self, descent)
        steps.append(descent.step)
        raise Killed

    monkeypatch.setattr(Journal, "keep_descent", killed)
    for _ in range(3):
        with pytest.raises(Killed):
            compress(network, x, **options, journal=tmp_path / "journal")
    resumed = compress(network, x, **options, journal=tmp_path / "journal")
    assert steps == [3, 6, 9]
    assert files(resumed, tmp_path / "resumed") == files(whole, tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        {"keep": {"flops": 0.7}},
        pytest.param({"generator": 6}, marks=slow),
        {"x": inputs(39)},
        pytest.param({"recipe": "greedy"}, marks=slow),
    ],
)
def test_a_changed_setting_starts_afresh_and_says_so(sketch, tmp_path: Path, change: dict) -> None:
    network, options = residual(sketch), {"keep": {"flops": 0.6}, "recipe": "volume", "generator": 5}
    with pytest.raises(Killed):
        compress(network, inputs(), **options, progress=Fuse(2), journal=tmp_path / "journal")
    options |= change
    x = options.pop("x", inputs())
    fresh = compress(network, x, **options)
    found = compress(network, x, **options, journal=tmp_path / "journal")
    assert any("started afresh" in note for note in found.notes)
    assert found.compact.digest() == fresh.compact.digest()


def test_a_write_cut_short_leaves_no_half_of_a_step(sketch, tmp_path: Path, monkeypatch) -> None:
    network, folder = residual(sketch), tmp_path / "journal"
    real = os.replace

    def broken(source: str, target: Path) -> None:
        if Path(target).name == "site-0001.safetensors":
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(Killed):
        compress(network, inputs(), keep={"flops": 0.6}, journal=folder)
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == ["allocation.json", "run.json", "site-0000.safetensors"]
    resumed = compress(network, inputs(), keep={"flops": 0.6}, journal=folder)
    assert resumed.compact.digest() == compress(network, inputs(), keep={"flops": 0.6}).compact.digest()


def test_a_removal_cut_short_leaves_no_run_to_continue(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "run.json").write_text('{"key": "k"}')
    (folder / "site-0000.safetensors").write_bytes(b"")
    monkeypatch.setattr(journal_file.shutil, "rmtree", lambda *arguments, **options: None)
    Journal(folder).discard()
    journal = Journal(folder)
    monkeypatch.undo()
    journal.open("k")
    assert "afresh" in journal.said
    assert not folder.exists()


def test_the_command_continues_and_cleans_up(sketch, tmp_path: Path, monkeypatch, capsys) -> None:
    write_onnx(residual(sketch), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", inputs())
    words = ["compress", str(tmp_path / "net.onnx"), "--calibration", str(tmp_path / "x.npy"), "--keep", "flops=0.6"]
    real = Journal.write

    def interrupted(self: Journal, index: int, *more) -> None:
        real(self, index, *more)
        if index == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        assert main([*words, "--out", str(tmp_path / "out")]) == 130
    assert (tmp_path / ".out.unfinished" / "site-0001.safetensors").exists()
    assert not (tmp_path / "out").exists()
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "continued an interrupted run: 2 layers were finished" in capsys.readouterr().out
    assert not (tmp_path / ".out.unfinished").exists()


def test_a_damaged_journal_is_refused_by_name(sketch, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        compress(residual(sketch), inputs(), keep={"flops": 0.6}, progress=Fuse(2), journal=tmp_path / "journal")
    (tmp_path / "journal" / "site-0000.safetensors").write_bytes(b"half")
    with pytest.raises(OutputError, match=r"site-0000\.safetensors: damaged"):
        compress(residual(sketch), inputs(), keep={"flops": 0.6}, journal=tmp_path / "journal")
