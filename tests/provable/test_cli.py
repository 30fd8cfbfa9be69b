"""The command and its output directory: complete or absent, readable by everything that comes after."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from provable import artifacts
from provable.artifacts import write_artifacts
from provable.cli import main
from provable.errors import OutputError
from provable.pipeline import compress
from provable.records import Compression
from provable.reference import load, weights_file
from verify.network.evaluate import evaluate
from verify.network.load import load_network
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import write_onnx
from verify.statistical.disjoint import read_calibration_rows, row_hashes

FILES = {
    "original.onnx", "compact.onnx", "compact.safetensors", "structure.json", "channels.json", "layers.json",
    "layers.txt", "calibration_rows.json", "summary.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, sketch) -> Path:
    """A folder with a small model file and calibration inputs."""
    folder = tmp_path_factory.mktemp("workplace")
    s = sketch((5,), seed=1, dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 8)), 3))
    write_onnx(network, folder / "net.onnx")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def result(workplace: Path) -> Compression:
    return compress(read_onnx(workplace / "net.onnx"), np.load(workplace / "x.npy"), keep={"channels": 0.5})


def run(workplace: Path, out: Path, *more: str, model: str = "net.onnx") -> int:
    words = ["compress", str(workplace / model), "--calibration", str(workplace / "x.npy"), "--keep", "channels=0.5"]
    return main([*words, "--out", str(out), *more])


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if ".partial-" in name or ".old-" in name]


def test_the_directory_holds_everything_and_agrees_with_itself(workplace: Path, tmp_path: Path, capsys) -> None:
    assert run(workplace, tmp_path / "out") == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "original.onnx").read_bytes() == (workplace / "net.onnx").read_bytes()
    x = np.load(workplace / "x.npy")
    original, compact = read_onnx(out / "original.onnx"), read_onnx(out / "compact.onnx")
    assert load_network(out).digest() == compact.digest()
    assert [node.name for node in original] == [node.name for node in compact]
    channels = json.loads((out / "channels.json").read_text())["values"]
    for node in compact:
        shape = list(original.shape_of(node.name))
        if node.name in channels:
            shape[channels[node.name]["axis"]] = len(channels[node.name]["kept"])
        assert tuple(shape) == node.shape
    assert json.loads((out / "calibration_rows.json").read_text()) == {"version": 1, "rows": row_hashes(x)}
    assert read_calibration_rows(out / "calibration_rows.json")
    layers = json.loads((out / "layers.json").read_text())
    assert layers["groups"][0]["kept"] == 4
    assert isinstance(layers["groups"][0]["bound"]["vacuous"], bool)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["settings"]["keep"] == {"channels": 0.5}
    assert summary["after"]["flops"] < summary["before"]["flops"]
    assert summary["digests"] == {"original": original.digest(), "compact": compact.digest()}
    printed = capsys.readouterr().out
    assert "4/8" in printed
    assert (out / "layers.txt").read_text() in printed
    assert leftovers(tmp_path) == []
    assert np.abs(evaluate(compact, x) - evaluate(original, x)).mean() < 1.0


def test_a_factory_with_weights_gives_a_state_dict_for_its_class(tmp_path: Path) -> None:
    x = load("mlp").calibration.images[:100]
    np.savez(tmp_path / "x.npz", x=x, y=np.zeros(3))
    names = ["--weights", str(weights_file("mlp")), "--calibration", str(tmp_path / "x.npz"), "--key", "x"]
    assert (
        main(["compress", "provable.reference:mlp", *names, "--keep", "channels=0.5", "--out", f"{tmp_path}/out"]) == 0
    )
    state = safetensors.numpy.load_file(tmp_path / "out" / "state_dict.safetensors")
    small = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10))
    small.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    with torch.no_grad():
        found = small(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, evaluate(read_onnx(tmp_path / "out" / "compact.onnx"), x), atol=1e-4)


def test_an_exported_program_is_read(workplace: Path, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    torch.export.save(torch.export.export(module, (torch.rand(1, 5),)), tmp_path / "net.pt2")
    (workplace / "net.pt2").write_bytes((tmp_path / "net.pt2").read_bytes())
    assert run(workplace, tmp_path / "out", "--recipe", "volume", "--seed", "3", model="net.pt2") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_existing_directories(workplace: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(workplace, out) == 0
    before = (out / "summary.json").read_bytes()
    assert run(workplace, out) == 3
    assert "exists already" in capsys.readouterr().err
    assert (out / "summary.json").read_bytes() == before
    (out / "note.txt").write_text("from an earlier run")
    assert run(workplace, out, "--force") == 0
    assert {path.name for path in out.iterdir()} == FILES
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("years of work")
    assert run(workplace, foreign, "--force") == 3
    assert (foreign / "chapter1.tex").exists()
    (tmp_path / "file").write_text("")
    assert run(workplace, tmp_path / "file", "--force") == 3
    assert run(workplace, tmp_path / "missing" / "out") == 3
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("step", ["_fill", "_install"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(result, tmp_path: Path, monkeypatch, step: str, failure) -> None:
    real = artifacts._fill

    def broken(*arguments: object) -> None:
        if step == "_fill":
            real(*arguments)  # type: ignore[arg-type]
        raise failure

    monkeypatch.setattr(artifacts, step, broken)
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else OutputError):
        write_artifacts(result, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_failed_replacement_puts_the_old_directory_back(result, tmp_path: Path, monkeypatch) -> None:
    result.save(tmp_path / "out")
    real, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OutputError, match="Input/output error"):
        result.save(tmp_path / "out", force=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--keep", "flops"], "expected KIND=FRACTION"),
        (["--keep", "flops=half"], "expected KIND=FRACTION"),
        (["--keep", "flops=0.0001"], "cannot be met"),
        (["--keep", "joules=0.5"], "unknown budget"),
        (["--recipe", "magic"], "unknown recipe"),
        (["--seed", "-1"], "seed"),
        (["--seed", "x"], "seed"),
        (["--key", "x", "--calibration", "x.txt"], "npy or .npz"),
        (["--calibration", "missing.npy"], "no such file"),
        (["--weights", "w.safetensors"], "holds its own weights"),
    ],
)
def test_bad_input_ends_with_code_3_and_writes_nothing(
    workplace, tmp_path, capsys, change: list[str], words: str
) -> None:
    try:
        code = run(workplace, tmp_path / "out", *change)
    except SystemExit as stop:
        code = stop.code
    assert code == 3
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("model", "words"),
    [("missing.onnx", "no such file"), ("x.npy", "unknown kind of file"), ("cut.onnx", "cut.onnx"), ("no:such", "no")],
)
def test_unreadable_models(workplace: Path, tmp_path: Path, capsys, model: str, words: str) -> None:
    (workplace / "cut.onnx").write_bytes((workplace / "net.onnx").read_bytes()[:-20])
    assert run(workplace, tmp_path / "out", model=model) == 3
    assert words in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_ends_with_code_130(workplace: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("provable.pipeline.compress", interrupted)
    assert run(workplace, tmp_path / "out") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_budget_options_reach_the_pipeline(workplace: Path, tmp_path: Path, capsys) -> None:
    words = ["compress", str(workplace / "net.onnx"), "--calibration", str(workplace / "x.npy"), "--keep", "bytes=0.8"]
    assert main([*words, "--floor", "0.3", "--round-to", "2", "--batch-size", "4", "--out", str(tmp_path / "a")]) == 0
    settings = json.loads((tmp_path / "a" / "summary.json").read_text())["settings"]
    assert (settings["keep"], settings["floor"], settings["round_to"], settings["batch"]) == ({"bytes": 0.8}, 0.3, 2, 4)
    assert "bytes" in capsys.readouterr().out
    assert main([*words, "--floor", "nobody=2", "--out", str(tmp_path / "b")]) == 3
    assert "no group 'nobody'" in capsys.readouterr().err
    assert main([*words, "--floor", "2", "--floor", "x=2", "--out", str(tmp_path / "b")]) == 3
    assert "either one number" in capsys.readouterr().err
