"""Networks by path or name: every kind of source, and what goes wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from verify.errors import ModelError
from verify.network.load import load_module, load_network
from verify.network.read_export import trace
from verify.network.structure import write_structure
from verify.network.write_onnx import write_onnx

SOURCE = """
import torch
from torch import nn
def small(): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
def normal(): return nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4)).double()
def number(): return 3
def broken(): raise RuntimeError("no luck")
thing = 5
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_models_for_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_models_for_test", None)
    return tmp_path


def weights_of(module: nn.Module, path: Path, **changes: torch.Tensor) -> Path:
    safetensors.torch.save_file({**module.state_dict(), **changes}, path)
    return path


def test_every_kind_of_source_gives_the_equal_network(package: Path) -> None:
    module = load_module("my_models_for_test:small")
    weights = weights_of(module, package / "w.safetensors")
    network = trace(module, torch.rand(1, 3))
    write_onnx(network, package / "net.onnx")
    torch.export.save(torch.export.export(module, (torch.rand(1, 3),)), package / "net.pt2")
    (package / "x").mkdir()
    structure, parameters = write_structure(network, package / "x")
    sources = [package / "net.onnx", package / "net.pt2", structure, structure.parent, str(structure)]
    assert {load_network(s).digest() for s in sources} == {network.digest()}
    assert load_network(structure, weights=parameters).digest() == network.digest()
    found = load_network("my_models_for_test:small", weights=weights, example_shape=(3,))
    assert found.digest() == network.digest()


def test_factory_in_double_precision_with_counters(package: Path) -> None:
    module = load_module("my_models_for_test:normal")
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    safetensors.torch.save_file(state, package / "w.safetensors")
    network = load_network("my_models_for_test:normal", weights=package / "w.safetensors", example_shape=(2, 5))
    assert {a.dtype for a in network.parameters.values()} == {np.dtype(np.float64)}
    assert not load_module("my_models_for_test:normal").training


FACTORY_FAULTS = {
    "my_models_for_test:gone": "has no function or class 'gone'",
    "my_models_for_test:thing": "has no function or class 'thing'",
    "my_models_for_test:number": "returned int, expected a torch.nn.Module",
    "my_models_for_test:broken": "RuntimeError: no luck",
    "no_such_package.models:net": "importing 'no_such_package.models' failed",
}


@pytest.mark.parametrize("spec", FACTORY_FAULTS)
def test_faulty_factory(spec: str, package: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_network(spec, example_shape=(3,))
    assert FACTORY_FAULTS[spec] in str(caught.value)
    assert str(caught.value).startswith(spec)


def test_example_shape_is_needed(package: Path) -> None:
    with pytest.raises(ModelError, match="pass example_shape"):
        load_network("my_models_for_test:small")


def test_weights_must_fit(package: Path) -> None:
    module = load_module("my_models_for_test:small")
    spec = "my_models_for_test:small"
    extra = weights_of(module, package / "extra.safetensors", more=torch.zeros(1))
    with pytest.raises(ModelError, match=r"unexpected \['more'\]"):
        load_module(spec, extra)
    wrong = weights_of(module, package / "wrong.safetensors", **{"0.bias": torch.zeros(7)})
    with pytest.raises(ModelError, match="size mismatch"):
        load_module(spec, wrong)
    safetensors.torch.save_file({"0.bias": torch.zeros(4)}, package / "few.safetensors")
    with pytest.raises(ModelError, match="missing"):
        load_module(spec, package / "few.safetensors")
    torch.save(module.state_dict(), package / "w.pt")
    with pytest.raises(ModelError, match="pickled weights are never loaded"):
        load_module(spec, package / "w.pt")
    (package / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_module(spec, package / "junk.safetensors")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "net.h5").write_bytes(b"")
    for source, message in {
        "gone.onnx": "no such file; expected an ONNX file",
        "gone.pt2": "no such file; expected an exported program",
        "gone.json": "no such file; expected .onnx, .pt2",
        "gone": "no such file; expected .onnx, .pt2",
        "net.h5": "unknown kind of file; expected .onnx, .pt2",
        ".": r"structure.json: no such file; expected .onnx",
    }.items():
        with pytest.raises(ModelError) as caught:
            load_network(tmp_path / source)
        assert message in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_weights_beside_the_structure(package: Path) -> None:
    network = trace(load_module("my_models_for_test:small"), torch.rand(1, 3))
    structure, weights = write_structure(network, package)
    weights_of(load_module("my_models_for_test:small"), package / "other.safetensors")
    assert load_network(package).digest() == network.digest()  # compact.safetensors comes first
    weights.rename(package / "renamed.safetensors")
    with pytest.raises(ModelError, match=r"expected one \.safetensors file beside structure\.json, found other"):
        load_network(structure)
    with pytest.raises(ModelError, match="holds its own weights"):
        load_network(package / "net.onnx", weights=weights)


def test_loading_is_lazy() -> None:
    """The loader itself brings in neither torch nor onnx."""
    code = "import sys, verify.network.load; print({'torch', 'onnx', 'safetensors'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
