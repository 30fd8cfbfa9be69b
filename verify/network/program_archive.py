"""Opening a ``.pt2`` file (`torch.export.save`) without running anything that is in it.

`torch.export.load` unpickles sample inputs, evaluates symbolic expressions as Python and turns names
into generated code. So this file never hands the original to torch. It takes the archive apart with the
standard library and writes a new one that holds only

    the graph           every name, target, argument and expression checked against a grammar
    raw tensors         entries that are plain bytes; pickled ones are refused
    nothing else        sample inputs, metadata, guards, compiled code and extra files are left behind

and lets torch load that. What the grammar does not know is refused, never passed on.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch.export import ExportedProgram

from verify.errors import ModelError
from verify.network.files import MAX_BYTES, read_bytes

_MAX_JSON_BYTES = 1 << 28
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_KEY = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_TARGET = re.compile(r"torch\.ops\.aten\.[a-z_0-9]+\.[A-Za-z_0-9]+|_operator\.(getitem|add|sub|mul|floordiv|neg)")
_EXPRESSION = re.compile(
    r"(Symbol\('[a-z][a-z0-9]{0,15}'(, (positive|nonnegative|integer)=True){0,3}\)|Integer\(-?[0-9]{1,9}\)"
    r"|(Mul|Add|Min|Max|FloorDiv)\(|\)|, ){1,50}"
)
_FILES = {"weights": re.compile(r"weight_[0-9]+"), "constants": re.compile(r"tensor_[0-9]+")}
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def load_program(path: Path) -> ExportedProgram:
    """The exported program in a ``.pt2`` file.

    Raises:
        ModelError: the file is missing, damaged, or holds pickled or unknown parts.
    """
    data = read_bytes(path, "an exported program (.pt2)")
    try:
        return _load(_rebuilt(data))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # torch reports damage by many kinds of exception
        first = (str(error).splitlines() or ["no message"])[0]
        raise ModelError(f"{path}: not a .pt2 file that torch can load: {type(error).__name__}: {first}") from error


def _load(archive: bytes) -> ExportedProgram:
    from torch.export.pt2_archive._package import load_pt2  # unlike torch.export.load, without older formats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_pt2(io.BytesIO(archive)).exported_programs["model"]


def _rebuilt(data: bytes) -> bytes:
    """A new archive from the checked parts of the old one."""
    parts = _parts(data)
    kept = {
        "archive_format": b"pt2",
        "archive_version": _exactly(parts, "archive_version", b"0"),
        ".data/version": b"6\n",
        "byteorder": _exactly(parts, "byteorder", b"little"),
        "models/model.json": _dump(_program(_json(parts, "models/model.json"))),
        "data/sample_inputs/model.pt": b"",
    }
    for kind in _FILES:
        kept |= _payloads(parts, kind)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in kept.items():
            archive.writestr(f"model/{name}", content)
    return target.getvalue()


def _parts(data: bytes) -> dict[str, bytes]:
    """Entry name without the archive's own folder -> content."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise ModelError(f"not a .pt2 file, or cut short: {error}") from None
    with archive:
        entries = archive.infolist()
        if sum(e.file_size for e in entries) > MAX_BYTES:
            raise ModelError(f"unpacks to more than {MAX_BYTES} bytes")
        parts = {e.filename.partition("/")[2]: archive.read(e) for e in entries}
    if len(parts) != len(entries):
        raise ModelError("two entries of the archive have the same name")
    if any(name.startswith("data/aotinductor/") for name in parts):
        raise ModelError("holds compiled code, which is never run")
    return parts


def _exactly(parts: Mapping[str, bytes], name: str, expected: bytes) -> bytes:
    if parts.get(name) != expected:
        raise ModelError(f"{name} is {parts.get(name)!r}, expected {expected!r}")
    return expected


def _payloads(parts: Mapping[str, bytes], kind: str) -> dict[str, bytes]:
    """The list of raw tensors of one kind, and their bytes."""
    where = f"data/{kind}/model_{kind}_config.json"
    config = _field(_json(parts, where), "config", where)
    kept: dict[str, bytes] = {}
    for key, entry in config.items():
        _match(_KEY, key, "tensor name")
        name = _field(entry, "path_name", key)
        if entry.get("use_pickle") is not False or not _FILES[kind].fullmatch(str(name)):
            raise ModelError(f"tensor {key!r} is stored as a pickle or object ({name!r}); pickles are never loaded")
        if f"data/{kind}/{name}" not in parts:
            raise ModelError(f"tensor {key!r}: entry {name!r} is missing")
        kept[f"data/{kind}/{name}"] = parts[f"data/{kind}/{name}"]
    checked = {key: {**entry, "tensor_meta": _tensor_meta(entry["tensor_meta"])} for key, entry in config.items()}
    return kept | {where: _dump({"config": checked})}


def _program(record: dict[str, Any]) -> dict[str, Any]:
    """The checked graph, with everything that is not needed left out."""
    module = _field(record, "graph_module", "the program")
    return {
        "graph_module": {
            "graph": _graph(_field(module, "graph", "the program")),
            "signature": _signature(_field(module, "signature", "the program")),
            "module_call_graph": [{"fqn": "", "signature": _call(_field(module, "module_call_graph", "the program"))}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {"aten": _whole(record["opset_version"]["aten"])},
        "range_constraints": {_match(_NAME, k, "symbol"): _range(v) for k, v in record["range_constraints"].items()},
        "schema_version": {k: _whole(record["schema_version"][k]) for k in ("major", "minor")},
        "verifiers": ["TRAINING"],
        "torch_version": "",
        "guards_code": [],
    }


def _call(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """How the program is called: one positional tensor in, one tensor out."""
    names = entries[0]["signature"]["forward_arg_names"] if entries and entries[0].get("fqn") == "" else None
    checked = [_match(_NAME, n, "argument") for n in names or ["x"]]
    return {
        "inputs": [],
        "outputs": [],
        "in_spec": _in_spec(),
        "out_spec": _spec(_LEAF),
        "forward_arg_names": checked,
    }


def _spec(tree: dict[str, Any]) -> str:
    return json.dumps([1, tree])


def _in_spec() -> str:
    """One positional argument, no keywords."""
    arguments = {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]}
    keywords = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    return _spec({"type": "builtins.tuple", "context": "null", "children_spec": [arguments, keywords]})


def _graph(graph: dict[str, Any]) -> dict[str, Any]:
    for name in ("sym_bool_values", "sym_float_values", "custom_obj_values"):
        if graph.get(name):
            raise ModelError(f"the graph computes with {name}, which is not supported")
    return {
        "inputs": [_argument(a) for a in graph["inputs"]],
        "outputs": [_argument(a) for a in graph["outputs"]],
        "nodes": [_node(n) for n in graph["nodes"]],
        "tensor_values": {_match(_NAME, k, "tensor"): _tensor_meta(v) for k, v in graph["tensor_values"].items()},
        "sym_int_values": {_match(_NAME, k, "size"): _size(v) for k, v in graph["sym_int_values"].items()},
        "sym_bool_values": {},
        "is_single_tensor_return": False,
        "custom_obj_values": {},
        "sym_float_values": {},
    }


def _node(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "target": _match(_TARGET, node["target"], "operator"),
        "inputs": [
            {"name": _argument_name(i["name"]), "arg": _argument(i["arg"]), "kind": _whole(i["kind"])}
            for i in node["inputs"]
        ],
        "outputs": [_argument(o) for o in node["outputs"]],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": _match(_NAME, node["name"], "node") if node.get("name") is not None else None,
    }


def _argument_name(name: Any) -> str:
    return "" if name == "" else _match(_NAME, name, "argument")


def _argument(argument: dict[str, Any]) -> dict[str, Any]:
    """An argument of a kind that can only be a tensor name, a number, a size or a plain word."""
    if not isinstance(argument, dict) or len(argument) != 1:
        raise ModelError(f"malformed argument {argument!r}")
    ((kind, value),) = argument.items()
    check = _ARGUMENTS.get(kind)
    if check is None:
        raise ModelError(f"an operator has an argument of kind {kind!r}, which is not supported")
    return {kind: check(value)}


def _tensor_name(value: Any) -> dict[str, str]:
    return {"name": _match(_NAME, value["name"], "tensor")}


def _optional_tensor(value: dict[str, Any]) -> dict[str, Any]:
    return {"as_none": True} if "as_none" in value else {"as_tensor": _tensor_name(value["as_tensor"])}


def _size_argument(value: dict[str, Any]) -> dict[str, Any]:
    return (
        {"as_int": _whole(value["as_int"])}
        if "as_int" in value
        else {"as_name": _match(_NAME, value["as_name"], "size")}
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"expected an integer, found {value!r}")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and value in ("Infinity", "-Infinity"):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ModelError(f"expected a number, found {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ModelError(f"expected true or false, found {value!r}")
    return value


def _word(value: Any) -> str:
    return _match(re.compile(r"[a-z_]{0,20}"), value, "text argument")


def _device(value: Any) -> dict[str, Any]:
    return {"type": "cpu", "index": None}


def _each(check: Any) -> Any:
    return lambda values: [check(v) for v in values]


_ARGUMENTS: dict[str, Any] = {
    "as_none": _truth, "as_tensor": _tensor_name, "as_tensors": _each(_tensor_name),
    "as_optional_tensor": _optional_tensor, "as_optional_tensors": _each(_optional_tensor),
    "as_int": _whole, "as_ints": _each(_whole), "as_float": _number, "as_floats": _each(_number),
    "as_bool": _truth, "as_bools": _each(_truth), "as_string": _word,
    "as_sym_int": _size_argument, "as_sym_ints": _each(_size_argument),
    "as_scalar_type": _whole, "as_memory_format": _whole, "as_layout": _whole, "as_device": _device,
}  # fmt: skip


def _size(value: dict[str, Any]) -> dict[str, Any]:
    """A size: an integer, or an expression of symbols and integers."""
    if "as_int" in value:
        return {"as_int": _whole(value["as_int"])}
    expression = value["as_expr"]
    hint = expression.get("hint")
    return {
        "as_expr": {
            "expr_str": _match(_EXPRESSION, expression["expr_str"], "expression"),
            "hint": None if hint is None else {"as_int": _whole(hint["as_int"])},
        }
    }


def _range(value: dict[str, Any]) -> dict[str, Any]:
    return {k: None if value[k] is None else _whole(value[k]) for k in ("min_val", "max_val")}


def _tensor_meta(meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "dtype": _whole(meta["dtype"]),
        "sizes": [_size(s) for s in meta["sizes"]],
        "requires_grad": _truth(meta["requires_grad"]),
        "device": {"type": "cpu", "index": None},
        "strides": [_size(s) for s in meta["strides"]],
        "storage_offset": _size(meta["storage_offset"]),
        "layout": _whole(meta["layout"]),
    }


def _signature(signature: dict[str, Any]) -> dict[str, Any]:
    outputs = signature["output_specs"]
    if [list(o) for o in outputs] != [["user_output"]]:
        kinds = sorted({k for o in outputs for k in o})
        raise ModelError(f"expected one tensor as output, found {len(outputs)} outputs ({', '.join(kinds)})")
    inputs = [_input_spec(s) for s in signature["input_specs"]]
    count = sum("user_input" in s for s in inputs)
    if count != 1:
        raise ModelError(f"expected one input tensor, found {count}")
    return {
        "input_specs": inputs,
        "output_specs": [{"user_output": {"arg": _argument(outputs[0]["user_output"]["arg"])}}],
    }


def _input_spec(spec: dict[str, Any]) -> dict[str, Any]:
    ((kind, value),) = spec.items()
    if kind == "user_input":
        return {kind: {"arg": _argument(value["arg"])}}
    if kind not in ("parameter", "buffer", "tensor_constant"):
        raise ModelError(f"an input of kind {kind!r} is not supported")
    own = f"{kind}_name"
    checked: dict[str, Any] = {"arg": _tensor_name(value["arg"]), own: _match(_KEY, value[own], "tensor name")}
    if kind == "buffer":
        checked["persistent"] = _truth(value["persistent"])
    return {kind: checked}


def _match(pattern: re.Pattern[str], text: Any, what: str) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ModelError(f"{what} {str(text)[:100]!r} is not of a form that is allowed")
    return text


def _field(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise ModelError(f"{where}: no field {name!r}")
    return record[name]


def _json(parts: Mapping[str, bytes], name: str) -> dict[str, Any]:
    if name not in parts:
        raise ModelError(f"entry {name} is missing: not written by torch.export.save of a supported version")
    if len(parts[name]) > _MAX_JSON_BYTES:
        raise ModelError(f"entry {name} is larger than {_MAX_JSON_BYTES} bytes")
    record = json.loads(parts[name], object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(record, dict):
        raise ModelError(f"entry {name} is not an object")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ModelError(f"duplicate key among {sorted(k for k, _ in pairs)[:5]}")
    return record


def _no_constant(text: str) -> NoReturn:
    raise ModelError(f"number {text} is not allowed")


def _dump(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()
