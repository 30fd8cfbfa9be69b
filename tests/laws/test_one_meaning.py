"""A network means the same everywhere: reference interpreter, torch module, file formats, ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify.empirical.measure import compare
from verify.network.evaluate import evaluate
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_onnx import read_onnx
from verify.network.structure import read_structure, write_structure
from verify.network.write_onnx import write_onnx
from verify.testing import KINDS, assert_networks_equal, boxes, inputs_inside, networks

law = settings(
    deadline=None,
    max_examples=8,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def points(data: st.DataObject, network: Network) -> np.ndarray:
    found = data.draw(inputs_inside(data.draw(boxes(network))))
    return found.reshape(-1, *network.input_shape)


def size(values: np.ndarray) -> float:
    return max(1.0, float(np.abs(values).max(initial=0.0)))


@pytest.mark.parametrize("kind", KINDS)
@law
@given(data=st.data())
def test_files_give_the_network_back(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    network = data.draw(networks(kind))
    write_onnx(network, tmp_path / "net.onnx")
    assert_networks_equal(network, tmp_path / "net.onnx")
    assert_networks_equal(network, read_structure(*write_structure(network, tmp_path)))


@pytest.mark.parametrize("kind", KINDS)
@law
@given(data=st.data())
def test_the_torch_module_computes_the_reference(kind: str, data: st.DataObject) -> None:
    network = data.draw(networks(kind))
    x = points(data, network)
    expected = evaluate(network, x)
    found = NetworkModule(network, torch.float64)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-12 * size(expected)
    both = compare(network, network, x, engine="torch")
    assert both.deviation == 0.0
    assert both.agreement == 1.0


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@law
@given(data=st.data())
def test_onnx_runtime_computes_the_reference(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    network = data.draw(networks(kind))
    x = points(data, network).astype(np.float32)
    write_onnx(network, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    expected = evaluate(read_onnx(tmp_path / "net.onnx"), x)
    assert np.abs(found - expected).max() <= 1e-4 * size(expected)


@pytest.mark.parametrize("kind", KINDS)
@law
@given(data=st.data())
def test_samples_do_not_influence_each_other(kind: str, data: st.DataObject) -> None:
    network = data.draw(networks(kind))
    x = points(data, network)
    together, alone = evaluate(network, x), np.concatenate([evaluate(network, row[None]) for row in x])
    assert np.abs(together - alone).max() <= 1e-12 * size(together)
