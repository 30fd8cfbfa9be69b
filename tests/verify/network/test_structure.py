"""structure.json and its safetensors file: strict reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import ModelError, UnsupportedOperation, VerifyError
from verify.network.graph import Network, build
from verify.network.structure import read_structure, structure_bytes, write_structure

NETWORK = build(
    "x",
    (4,),
    [
        ("fc", "linear", ["x"], {"weight": "fc.weight", "bias": "fc.bias"}, {}),
        ("act", "leaky_relu", ["fc"], {}, {"slope": 0.1}),
        ("out", "reshape", ["act"], {}, {"shape": (1, 3)}),
        ("gelu", "gelu", ["out"], {}, {"approximate": "tanh"}),
        ("mean", "mean", ["gelu"], {}, {"axes": (0,), "keepdims": True}),
    ],
    "mean",
    {"fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "fc.bias": np.array([0.1, -0.0, 1e-310])},
)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Path]:
    return write_structure(NETWORK, tmp_path)


def test_files_and_bits(written: tuple[Path, Path]) -> None:
    structure, weights = written
    assert (structure.name, weights.name) == ("structure.json", "compact.safetensors")
    again = read_structure(structure, weights)
    assert again.nodes == NETWORK.nodes
    assert again.digest() == NETWORK.digest()
    assert all(again.parameters[k].tobytes() == a.tobytes() for k, a in NETWORK.parameters.items())
    assert isinstance(again.node("mean").attributes["keepdims"], bool)
    record = json.loads(structure.read_text(), parse_float=lambda text: pytest.fail(f"float literal {text}"))
    assert record["digest"] == NETWORK.digest()
    assert structure_bytes(again) == structure.read_bytes()


def edited(change: Callable[[Any], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        record = json.loads(text)
        change(record)
        return json.dumps(record)

    return apply


def put(*path: Any, value: Any) -> Callable[[str], str]:
    def change(record: Any) -> None:
        for step in path[:-1]:
            record = record[step]
        record[path[-1]] = value

    return edited(change)


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "another weight shape": (put("parameters", "fc.weight", "shape", value=[4, 3]), "declared as"),
    "another dtype": (put("parameters", "fc.weight", "dtype", value="float64"), "declared as"),
    "unknown dtype": (put("parameters", "fc.weight", "dtype", value="int64"), "declared as"),
    "extra tensor declared": (put("parameters", "more", value={"dtype": "float32", "shape": []}), "lacks tensors"),
    "tensor not declared": (edited(lambda r: r["parameters"].pop("fc.bias")), "others"),
    "unknown key": (put("comment", value="hi"), "expected an object with the keys"),
    "missing key": (edited(lambda r: r.pop("output")), "expected an object with the keys"),
    "unknown key of a node": (put("nodes", 0, "note", value=1), "expected an object with the keys"),
    "duplicate key": (lambda text: text.replace('"version": 1', '"version": 1, "version": 1'), "duplicate key"),
    "NaN": (lambda text: text.replace('"version": 1', '"version": NaN'), "NaN"),
    "infinity": (put("nodes", 1, "attributes", "slope", value={"float": "inf"}), "digest"),
    "decimal": (put("nodes", 1, "attributes", "slope", value=0.5), "only integers"),
    "no hexadecimal": (put("nodes", 1, "attributes", "slope", value={"float": "zero"}), "hexadecimal"),
    "changed attribute": (put("nodes", 1, "attributes", "slope", value={"float": "0x1p-1"}), "digest does not fit"),
    "changed digest": (put("digest", value="0" * 64), "digest does not fit"),
    "changed name": (put("nodes", 4, "name", value="other"), "not defined by any node"),
    "other version": (put("version", value=2), "version 2"),
    "version true": (put("version", value=True), "version True"),
    "other format": (put("format", value="x"), "format 'x'"),
    "negative shape": (put("input", "shape", value=[-4]), "negative size"),
    "shape of texts": (put("input", "shape", value=["4"]), "list of integers"),
    "undefined input": (put("nodes", 0, "inputs", value=["z"]), "not defined before it"),
    "role that is no text": (put("nodes", 0, "parameters", "weight", value=7), "expected a text"),
    "attribute of no kind": (put("nodes", 1, "attributes", "slope", value=None), "neither a number"),
    "nodes that are no list": (put("nodes", value={}), "expected a list"),
    "no JSON": (lambda text: text[:50], "not valid JSON"),
    "deep nesting": (lambda text: "[" * 200_000, "not valid JSON"),
    "list at the top": (lambda text: "[]", "expected an object"),
    "long number": (lambda text: text.replace('"version": 1', f'"version": {"9" * 5000}'), "not valid JSON"),
}


@pytest.mark.parametrize("case", DAMAGE, ids=str)
def test_damage_is_refused(case: str, written: tuple[Path, Path]) -> None:
    change, message = DAMAGE[case]
    structure, weights = written
    structure.write_text(change(structure.read_text()))
    with pytest.raises(ModelError) as caught:
        read_structure(structure, weights)
    assert message in str(caught.value)
    assert "structure.json" in str(caught.value)


def test_unknown_op_is_named(written: tuple[Path, Path]) -> None:
    structure, weights = written
    structure.write_text(put("nodes", 1, "op", value="elu")(structure.read_text()))
    with pytest.raises(UnsupportedOperation, match="'elu' at node 'act'"):
        read_structure(structure, weights)


def test_weights_of_another_network(written: tuple[Path, Path]) -> None:
    structure, weights = written
    arrays = {key: np.array(array) for key, array in NETWORK.parameters.items()}
    arrays["fc.weight"][0, 0] += 1
    weights.write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(ModelError, match="do not belong together"):
        read_structure(structure, weights)
    arrays["fc.weight"][0, 0] = np.nan
    weights.write_bytes(safetensors.numpy.save(arrays))
    with pytest.raises(ModelError, match="NaN or infinity"):
        read_structure(structure, weights)


def test_missing_and_cut_files(written: tuple[Path, Path], tmp_path: Path) -> None:
    structure, weights = written
    with pytest.raises(ModelError, match=r"gone\.json: no such file; expected the graph"):
        read_structure(tmp_path / "gone.json", weights)
    with pytest.raises(ModelError, match=r"gone: no such file; expected the parameters"):
        read_structure(structure, tmp_path / "gone")
    content = weights.read_bytes()
    for length in (0, 7, 20, len(content) - 1):
        weights.write_bytes(content[:length])
        with pytest.raises(ModelError, match="not a safetensors file, or damaged"):
            read_structure(structure, weights)


CONTENT = structure_bytes(NETWORK)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(CONTENT) - 1), change=st.integers(1, 255))
def test_every_changed_byte_is_noticed(place: int, change: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("net")
    structure, weights = write_structure(NETWORK, folder)
    damaged = bytearray(CONTENT)
    damaged[place] ^= change
    structure.write_bytes(bytes(damaged))
    try:
        again: Network = read_structure(structure, weights)
    except VerifyError:
        return
    assert again.digest() == NETWORK.digest()  # white space, or another spelling of the same number
