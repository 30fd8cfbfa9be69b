"""A network as two plain files: ``structure.json`` (the graph) and ``<stem>.safetensors`` (the parameters).

structure.json, UTF-8, no floating-point literal anywhere::

    {"format": "provable-pruning structure", "version": 1,
     "input": {"name": "x", "shape": [3, 32, 32]}, "output": "linear",
     "nodes": [{"name": "relu", "op": "relu", "inputs": ["conv1"], "shape": [16, 32, 32],
                "parameters": {"weight": "conv1.weight"},
                "attributes": {"slope": {"float": "0x1.47ae140000000p-7"}, "groups": 1, "stride": [1, 1]}}],
     "parameters": {"conv1.weight": {"dtype": "float32", "shape": [16, 3, 3, 3]}},
     "digest": "SHA-256 of the network"}

All shapes are those of one sample. Attributes are integers, truth values, texts, lists of integers, or floats as
hexadecimal text. The reader is strict: duplicate or unknown keys, numbers with a point, NaN, a tensor that is
missing, left over, misshapen or of another type, and a digest that does not fit are all refused.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.numpy

from verify.errors import ModelError, UnsupportedOperation, VerifyError
from verify.network.files import read_bytes, write_bytes
from verify.network.graph import Array, Attribute, Network, Node, Shape

FORMAT, VERSION = "provable-pruning structure", 1
STRUCTURE_FILE = "structure.json"
MAX_STRUCTURE_BYTES = 1 << 26
_DTYPES = ("float16", "float32", "float64")


def write_structure(network: Network, folder: Path | str, stem: str = "compact") -> tuple[Path, Path]:
    """Write ``folder/structure.json`` and ``folder/<stem>.safetensors``, each atomically; returns both paths.

    Raises:
        ModelError: a parameter is not float16, float32 or float64.
        InputError: the folder cannot be written.
    """
    structure, weights = Path(folder) / STRUCTURE_FILE, Path(folder) / f"{stem}.safetensors"
    arrays = {key: _little_endian(key, array) for key, array in network.parameters.items()}
    write_bytes(weights, safetensors.numpy.save(arrays))
    write_bytes(structure, structure_bytes(network))
    return structure, weights


def structure_bytes(network: Network) -> bytes:
    """The content of structure.json; equal networks give equal bytes."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "input": {"name": network.input, "shape": list(network.input_shape)},
        "output": network.output,
        "nodes": [_node_record(node) for node in network.nodes],
        "parameters": {k: {"dtype": _dtype(k, a), "shape": list(a.shape)} for k, a in network.parameters.items()},
        "digest": network.digest(),
    }
    return _laid_out(record).encode()


def _laid_out(record: Mapping[str, Any]) -> str:
    """JSON with one line for every node and every parameter."""
    lines = [f"{_text_of(k)}: {_block(v) if k in ('nodes', 'parameters') else _text_of(v)}" for k, v in record.items()]
    return "{" + ",\n ".join(lines) + "}\n"


def _block(value: Any) -> str:
    if isinstance(value, dict):
        return "{\n  " + ",\n  ".join(f"{_text_of(k)}: {_text_of(v)}" for k, v in value.items()) + "}"
    return "[\n  " + ",\n  ".join(map(_text_of, value)) + "]"


def _text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def read_structure(structure: Path | str, weights: Path | str) -> Network:
    """The network in a structure.json and a safetensors file.

    Raises:
        ModelError: a file is missing, damaged or breaks a rule of the format, or the two do not belong together.
    """
    data = read_bytes(Path(structure), f"the graph of a network ({STRUCTURE_FILE})", MAX_STRUCTURE_BYTES)
    tensors = _read_tensors(Path(weights))
    try:
        network = _network(_parse(data), tensors, Path(weights).name)
    except UnsupportedOperation:
        raise
    except VerifyError as error:
        raise ModelError(f"{structure}: {error}") from error
    return network


def _node_record(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "inputs": list(node.inputs),
        "shape": list(node.shape),
        "parameters": dict(node.parameters),
        "attributes": {key: _plain(value) for key, value in node.attributes.items()},
    }


def _plain(value: Attribute) -> Any:
    if isinstance(value, float):
        return {"float": value.hex()}
    return list(value) if isinstance(value, tuple) else value


def _dtype(key: str, array: Array) -> str:
    name = array.dtype.newbyteorder("=").name
    if name not in _DTYPES:
        raise ModelError(f"parameter {key!r} has dtype {array.dtype}, expected one of {', '.join(_DTYPES)}")
    return name


def _little_endian(key: str, array: Array) -> Array:
    _dtype(key, array)
    return np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _parse(data: bytes) -> Any:
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise ModelError(f"not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ModelError(f"duplicate key among {sorted(k for k, _ in pairs)}")
    return record


def _no_number(text: str) -> NoReturn:
    raise ModelError(f"number {text}: only integers are allowed, floats are hexadecimal text")


def _read_tensors(path: Path) -> dict[str, Array]:
    data = read_bytes(path, "the parameters of a network (.safetensors)")
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: not a safetensors file, or damaged: {error}") from None


def _network(record: Any, tensors: Mapping[str, Array], weights: str) -> Network:
    fields = _object(record, "the file", ("format", "version", "input", "output", "nodes", "parameters", "digest"))
    if fields["format"] != FORMAT or fields["version"] != VERSION or isinstance(fields["version"], bool):
        raise ModelError(f"format {fields['format']!r} version {fields['version']!r}, expected {FORMAT!r} {VERSION}")
    start = _object(fields["input"], "input", ("name", "shape"))
    nodes = tuple(_node(n, i) for i, n in enumerate(_list(fields["nodes"], "nodes")))
    parameters = _parameters(fields["parameters"], tensors, weights)
    name, shape = _text(start["name"], "input name"), _shape(start["shape"], "input shape")
    network = Network(name, shape, nodes, _text(fields["output"], "output"), parameters)
    if network.digest() != fields["digest"]:
        raise ModelError(f"the digest does not fit: the graph and {weights} do not belong together, or were changed")
    return network


def _node(record: Any, index: int) -> Node:
    place = f"node {index}"
    fields = _object(record, place, ("name", "op", "inputs", "shape", "parameters", "attributes"))
    place = f"node {fields['name']!r}"
    roles = {k: _text(v, f"{place}: parameter {k}") for k, v in _object(fields["parameters"], place).items()}
    attributes = {k: _attribute(v, f"{place}: attribute {k}") for k, v in _object(fields["attributes"], place).items()}
    return Node(
        _text(fields["name"], f"{place}: name"),
        _text(fields["op"], f"{place}: op"),
        tuple(_text(i, f"{place}: input") for i in _list(fields["inputs"], f"{place}: inputs")),
        _shape(fields["shape"], f"{place}: shape"),
        roles,
        attributes,
    )


def _attribute(value: Any, place: str) -> Attribute:
    if isinstance(value, dict):
        text = _text(_object(value, place, ("float",))["float"], place)
        try:
            return float.fromhex(text)
        except (ValueError, OverflowError):
            raise ModelError(f"{place}: {text!r} is not a hexadecimal float") from None
    if isinstance(value, list):
        return _integers(value, place)
    if not isinstance(value, (bool, int, str)):
        raise ModelError(f"{place}: {value!r} is neither a number, a truth value, a text nor a list of integers")
    return value


def _parameters(record: Any, tensors: Mapping[str, Array], weights: str) -> dict[str, Array]:
    declared = _object(record, "parameters")
    if set(declared) != set(tensors):
        missing, extra = sorted(set(declared) - set(tensors)), sorted(set(tensors) - set(declared))
        raise ModelError(f"{weights} lacks tensors {missing[:5]} or has others {extra[:5]} than the graph declares")
    for key, entry in declared.items():
        fields = _object(entry, f"parameter {key!r}", ("dtype", "shape"))
        shape, dtype = _shape(fields["shape"], f"parameter {key!r}: shape"), fields["dtype"]
        found = tensors[key]
        if dtype not in _DTYPES or found.dtype.name != dtype or found.shape != shape:
            raise ModelError(
                f"parameter {key!r} is {found.dtype} {found.shape} in {weights}, declared as {dtype} {shape}"
            )
    return {key: tensors[key] for key in declared}


def _object(value: Any, place: str, keys: Sequence[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or (keys is not None and set(value) != set(keys)):
        wanted = "an object" if keys is None else f"an object with the keys {', '.join(keys)}"
        found = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise ModelError(f"{place}: expected {wanted}, found {found}")
    return value


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise ModelError(f"{place}: expected a list, found {type(value).__name__}")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{place}: expected a text, found {type(value).__name__}")
    return value


def _integers(value: Any, place: str) -> tuple[int, ...]:
    if not isinstance(value, list) or any(isinstance(i, bool) or not isinstance(i, int) for i in value):
        raise ModelError(f"{place}: expected a list of integers")
    return tuple(value)


def _shape(value: Any, place: str) -> Shape:
    sizes = _integers(value, place)
    if any(n < 0 for n in sizes):
        raise ModelError(f"{place}: negative size in {sizes}")
    return sizes
