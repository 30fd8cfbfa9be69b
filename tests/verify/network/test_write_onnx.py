"""The ONNX writer: what must survive the trip although formats differ, what is refused, what a file holds."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from verify.errors import InputError, ModelError
from verify.network.graph import Network, build
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import onnx_bytes, single_precision, write_onnx

SQUARE = np.arange(9, dtype=np.float32).reshape(3, 3)
ROW = np.arange(3, dtype=np.float32)


def network(steps: list[Any], parameters: dict[str, Any], shape: tuple[int, ...] = (2, 3)) -> Network:
    return build("x", shape, steps, steps[-1][0] if steps else "x", parameters)


SURVIVES: dict[str, Network] = {
    "shift behind a product without bias": network(
        [("m", "linear", ["x"], {"weight": "w"}, {}), ("s", "shift", ["m"], {"value": "b"}, {})],
        {"w": SQUARE, "b": ROW},
    ),
    "the same for vectors": network(
        [("m", "linear", ["x"], {"weight": "w"}, {}), ("s", "shift", ["m"], {"value": "b"}, {})],
        {"w": SQUARE, "b": ROW},
        (3,),
    ),
    "product of a value and its sigmoid": network(
        [("g", "sigmoid", ["x"], {}, {}), ("s", "multiply", ["g", "x"], {}, {})], {}
    ),
    "silu": network([("s", "silu", ["x"], {}, {})], {}),
    "no nodes": network([], {}),
    "one matrix read by vectors and by rows": network(
        [
            ("a", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
            ("m", "mean", ["a"], {}, {"axes": (0,), "keepdims": False}),
            ("c", "linear", ["m"], {"weight": "w", "bias": "b"}, {}),
        ],
        {"w": SQUARE, "b": ROW},
    ),
    "one tensor as weight and as summand": network(
        [("a", "linear", ["x"], {"weight": "w"}, {}), ("s", "shift", ["a"], {"value": "w"}, {})], {"w": SQUARE}, (3, 3)
    ),
    "constant added to a value": network(
        [("c", "constant", [], {"value": "t"}, {}), ("s", "add", ["x", "c"], {}, {})], {"t": np.stack([ROW, -ROW])}
    ),
    "a value nobody reads": network([("r", "relu", ["x"], {}, {}), ("t", "tanh", ["x"], {}, {})], {}),
    "negative zero and subnormal numbers": network(
        [("s", "shift", ["x"], {"value": "b"}, {})], {"b": np.array([-0.0, 1e-45, -1e-40], dtype=np.float32)}
    ),
    "half, single and double parameters": network(
        [
            ("a", "linear", ["x"], {"weight": "w", "bias": "b"}, {}),
            ("s", "scale", ["a"], {"value": "c"}, {}),
        ],
        {"w": SQUARE.astype(np.float16), "b": ROW, "c": np.array(0.1)},
    ),
    "names of every kind": network(
        [
            ("layer/1 (relu)", "relu", ["x"], {}, {}),
            ("x/output", "shift", ["layer/1 (relu)"], {"value": "ß.weight"}, {}),
        ],
        {"ß.weight": ROW},
    ),
    "auxiliary names that are taken": network(
        [
            ("y/product", "relu", ["x"], {}, {}),
            ("y", "linear", ["y/product"], {"weight": "y/shape", "bias": "b"}, {}),
            ("z", "reshape", ["y"], {}, {"shape": (3, 2)}),
        ],
        {"y/shape": SQUARE, "b": ROW},
    ),
    "clip on one side": network([("c", "clip", ["x"], {}, {"lower": -math.inf, "upper": 0.5})], {}),
}


@pytest.mark.parametrize("case", SURVIVES, ids=str)
def test_survives_the_trip(case: str) -> None:
    original = SURVIVES[case]
    again = read_onnx(onnx_bytes(original))
    assert again.nodes == original.nodes
    assert again.digest() == original.digest()


EPSILON = {"weight": "w", "bias": "b", "mean": "b", "variance": "w"}
REFUSED: dict[str, tuple[Network, str]] = {
    "name of a value and a parameter": (
        network([("s", "shift", ["x"], {"value": "s"}, {})], {"s": ROW}),
        "'s' names both a value and a parameter",
    ),
    "parameter without reader": (network([("r", "relu", ["x"], {}, {})], {"w": ROW}), "no node uses"),
    "double epsilon": (
        network([("n", "batch_norm", ["x"], EPSILON, {"epsilon": 1e-5})], {"w": ROW[1:], "b": ROW[:2]}),
        "epsilon = 1e-05 is no float32 number",
    ),
    "bound that float32 cannot hold": (
        network([("c", "clip", ["x"], {}, {"lower": 0.1, "upper": 0.5})], {}),
        "lower = 0.1 is no float32 number",
    ),
    "scalar samples": (network([("r", "relu", ["x"], {}, {})], {}, ()), "one axis"),
    "attention of rank 4": (
        network([("a", "attention", ["x", "x", "x"], {}, {"scale": 0.5})], {}, (2, 2, 3, 4)),
        "node 'a' (attention)",
    ),
    "long double": (
        network([("s", "shift", ["x"], {"value": "b"}, {})], {"b": ROW.astype(np.longdouble)}),
        "cannot be written",
    ),
    "empty name": (build("", (3,), [("r", "relu", [""], {}, {})], "r", {}), "empty name"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_onnx_cannot_hold_is_refused_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    original, message = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        write_onnx(original, tmp_path / "net.onnx")
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_single_precision_makes_a_double_network_writable() -> None:
    double = network([("n", "batch_norm", ["x"], EPSILON, {"epsilon": 1e-5})], {"w": np.ones(2), "b": np.zeros(2)})
    single = single_precision(double)
    assert single.node("n").attributes["epsilon"] == float(np.float32(1e-5))
    assert read_onnx(onnx_bytes(single)).digest() == single.digest()


def test_file_is_plain_and_reproducible(tmp_path: Path) -> None:
    original = SURVIVES["one matrix read by vectors and by rows"]
    write_onnx(original, tmp_path / "a.onnx")
    write_onnx(original, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    plain = (model.producer_name, model.doc_string, list(model.metadata_props), list(model.functions))
    assert plain == ("", "", [], [])
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)
    assert model.opset_import[0].version >= 17
    (declared,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in declared.type.tensor_type.shape.dim] == ["batch", 2, 3]
    assert sum(i.name == "w" for i in model.graph.initializer) == 1


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_onnx(SURVIVES["silu"], path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    monkeypatch.undo()
    write_onnx(SURVIVES["silu"], path)
    assert read_onnx(path).digest() == SURVIVES["silu"].digest()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_onnx(SURVIVES["silu"], tmp_path / "gone" / "net.onnx")
