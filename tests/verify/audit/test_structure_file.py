"""structure.json and safetensors: the same program as the network's ONNX file, and nothing else is read."""

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.verify.audit.exact_semantics import exact_values, read
from verify.audit import Verdict, audit
from verify.audit.program import Malformed, Unsupported, fractions
from verify.audit.structure_file import MAX_HEADER, read_safetensors, read_structure
from verify.certificate.emit import emit_certificate
from verify.network.evaluate import evaluate
from verify.network.graph import build
from verify.network.structure import structure_bytes, write_structure
from verify.spec.box import Box
from verify.spec.deviation import Leaf

WINDOW = {"kernel": (2, 3), "stride": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1)}
CONV = {"stride": (1, 2), "padding": (0, 1, 1, 0), "dilation": (2, 1), "groups": 2}
NORM = {"weight": "g", "bias": "s", "mean": "m", "variance": "v"}
# name -> shape of the input, (op, parameters, attributes); "x x" reads the input twice
OPS: dict[str, tuple[tuple[int, ...], str, dict[str, str], dict[str, Any]]] = {
    "linear": ((4,), "linear", {"weight": "w"}, {}),
    "linear with a bias": ((4,), "linear", {"weight": "w", "bias": "b"}, {}),
    "linear of rows": ((2, 4), "linear", {"weight": "w", "bias": "b"}, {}),
    "conv": ((4, 4, 5), "conv", {"weight": "k"}, CONV),
    "conv with a bias": ((4, 4, 5), "conv", {"weight": "k", "bias": "c"}, CONV),
    "batch_norm": ((2, 3), "batch_norm", NORM, {"epsilon": 0.25}),
    "scale": ((2, 3), "scale", {"value": "q"}, {}),
    "divide": ((2, 3), "divide", {"value": "q"}, {}),
    "shift": ((2, 3), "shift", {"value": "q"}, {}),
    "add": ((3,), "add", {}, {}),
    "subtract": ((3,), "subtract", {}, {}),
    "relu": ((3,), "relu", {}, {}),
    "max_pool": ((2, 4, 5), "max_pool", {}, WINDOW),
    "average_pool": ((2, 4, 5), "average_pool", {}, {**WINDOW, "count_padding": False}),
    "average_pool that counts": ((2, 4, 5), "average_pool", {}, {**WINDOW, "count_padding": True}),
    "mean": ((2, 3, 4), "mean", {}, {"axes": (0, 2), "keepdims": False}),
    "mean that keeps": ((2, 3, 4), "mean", {}, {"axes": (1,), "keepdims": True}),
    "reshape": ((2, 6), "reshape", {}, {"shape": (3, 4)}),
    "transpose": ((2, 3, 4), "transpose", {}, {"permutation": (2, 0, 1)}),
    "slice": ((4, 5), "slice", {}, {"starts": (1, 0), "stops": (3, 5), "steps": (1, 2)}),
    "pad": ((2, 3), "pad", {}, {"padding": (1, 2, 3, 1), "value": -1.5}),
    "concat": ((2, 3), "concat", {}, {"axis": 1}),
    "concat of rows": ((2, 3), "concat", {}, {"axis": 0}),
}  # fmt: skip


def numbers() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = {"w": (3, 4), "b": (3,), "k": (6, 2, 2, 3), "c": (6,), "g": (2,), "s": (2,), "m": (2,), "q": (2, 3)}
    found = {name: draw.integers(1, 9, shape).astype(np.float32) for name, shape in shapes.items()}
    return {**found, "v": np.array([0.75, 3.75], np.float32)}


def network(name: str) -> Any:
    shape, op, roles, attributes = OPS[name]
    double = op in ("add", "subtract", "concat")
    steps: list[Any] = [("r", "relu", ("x",), {}, {}), ("y", op, ("x", "r") if double else ("r",), roles, attributes)]
    return build("x", shape, steps, "y", {key: numbers()[key] for key in roles.values()})


def files(net: Any) -> tuple[dict[str, Any], bytes]:
    """The structure as data, and the bytes of the safetensors file."""
    return json.loads(structure_bytes(net)), safetensors.numpy.save(dict(net.parameters))


def written(net: Any) -> tuple[bytes, bytes]:
    data, weights = files(net)
    return dumped(data), weights


def dumped(data: Any) -> bytes:
    return json.dumps(data).encode()


@pytest.mark.parametrize("name", OPS)
def test_an_op_is_the_onnx_operator_beside_it(name: str) -> None:
    net = network(name)
    data, weights = files(net)
    program = read_structure(dumped(data), weights)
    assert program.digest == read(net).digest
    assert program.float32
    x = np.random.default_rng(1).integers(-8, 9, net.input_shape)
    found = exact_values(program, [Fraction(int(v)) for v in x.ravel()])[-1]
    assert [float(v) for v in found] == pytest.approx(evaluate(net, x[None].astype(float)).ravel().tolist(), abs=1e-5)


@pytest.mark.parametrize("name", OPS)
def test_what_a_node_says_is_all_asked_for_and_nothing_is_left_over(name: str) -> None:
    data, weights = files(network(name))
    node = data["nodes"][1]
    roles = node["parameters"]
    tensor = next(iter(data["parameters"]), "none")
    changes: list[tuple[str, Any]] = [
        *(("attributes", {k: v for k, v in node["attributes"].items() if k != key}) for key in node["attributes"]),
        ("attributes", {**node["attributes"], "more": 1}), ("attributes", []), ("attributes", None),
        ("parameters", {**roles, "more": tensor}), ("parameters", []), ("parameters", None),
        *(("parameters", {k: v for k, v in roles.items() if k != r}) for r in roles if r != "bias"),
        *(("parameters", {**roles, r: "nothing"}) for r in roles),
        *(("parameters", {**roles, r: 1}) for r in roles),
        *(("parameters", {**roles, r: [tensor]}) for r in roles),
        ("inputs", []), ("inputs", ["nothing"]), ("inputs", [*node["inputs"][1:], "nothing"]), ("inputs", "x"),
        ("inputs", ["y"]), ("inputs", ["x", "r", "x"]), ("shape", [*node["shape"], 1]), ("shape", [1, *node["shape"]]),
        ("shape", [n + 1 for n in node["shape"]]), ("shape", node["shape"][:-1]), ("shape", [0]), ("shape", None),
        ("name", "r"), ("name", "x"), ("name", 1), ("op", 1),
    ]  # fmt: skip
    if node["op"] not in ("linear", "conv", "batch_norm"):
        changes.append(("parameters", {**roles, "bias": tensor}))
        data["parameters"][tensor] = data["parameters"].get(tensor, {"dtype": "float32", "shape": [1]})
        weights = weights if tensor != "none" else safetensors.numpy.save({"none": np.ones(1, np.float32)})
    read_structure(dumped(data), weights)
    for key, value in changes:
        changed = copy.deepcopy(data)
        changed["nodes"][1][key] = value
        with pytest.raises(Malformed):
            read_structure(dumped(changed), weights)


def test_inputs_of_a_node_are_as_many_as_its_op_takes() -> None:
    for name, lawful in (("add", {2}), ("relu", {1}), ("scale", {1}), ("concat of rows", {1, 2, 3})):
        data, weights = files(network(name))
        for count in (1, 2, 3):
            node = data["nodes"][1]
            node["inputs"] = ["x", "r", "x"][:count]
            node["shape"] = [2 * count, 3] if name == "concat of rows" else node["shape"]
            if count in lawful:
                read_structure(dumped(data), weights)
            else:
                with pytest.raises(Malformed):
                    read_structure(dumped(data), weights)


def test_no_axis_lies_in_front_of_the_first() -> None:
    data, weights = files(network("concat of rows"))
    data["nodes"][1] |= {"inputs": ["x"], "shape": [2, 3]}
    read_structure(dumped(data), weights)
    data["nodes"][1]["attributes"]["axis"] = -1
    with pytest.raises(Malformed):
        read_structure(dumped(data), weights)


def at(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value in its place, such as input/shape."""

    def change(data: dict[str, Any]) -> None:
        *path, last = key.split("/")
        for step in path:
            data = data[step]
        data[last] = value

    return change


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("format", "provable-pruning program", Malformed), ("version", 2, Unsupported), ("version", 0, Unsupported),
        ("version", True, Unsupported), ("version", "1", Unsupported), ("more", 1, Malformed),
        ("parameters", {}, Malformed),
        ("parameters", ["w", "b"], Malformed), ("parameters/more", {"dtype": "float32", "shape": []}, Malformed),
        ("parameters/w/shape", [4, 3], Malformed), ("parameters/w/dtype", "float64", Malformed),
        ("parameters/w/more", 1, Malformed), ("input", "x", Malformed), ("input/name", 7, Malformed),
        ("input/name", "z", Malformed), ("input/shape", [5], Malformed), ("input/shape", [], Malformed),
        ("input/shape", [4, 0], Malformed), ("input/shape", 4, Malformed), ("input/shape", [-4], Malformed),
        ("input/shape", [2**13, 2**13, 2], Unsupported), ("output", "nothing", Malformed), ("output", 1, Malformed),
        ("nodes", {}, Malformed), ("nodes", [1], Malformed),
    ],
)  # fmt: skip
def test_other_structures_are_refused(key: str, value: Any, error: type[Exception]) -> None:
    data, weights = files(network("linear with a bias"))
    at(key, value)(data)
    with pytest.raises(error):
        read_structure(dumped(data), weights)


def test_an_input_too_large_is_refused_before_anything_is_built() -> None:
    relu = {"name": "y", "op": "relu", "inputs": ["x"], "shape": [2**26 + 1], "parameters": {}, "attributes": {}}
    data = {
        "format": "provable-pruning structure", "version": 1, "input": {"name": "x", "shape": [2**26 + 1]},
        "output": "y", "nodes": [relu], "parameters": {}, "digest": "",
    }  # fmt: skip
    with pytest.raises(Unsupported):
        read_structure(dumped(data), stored({}))
    relu["shape"] = data["input"]["shape"] = [2]  # type: ignore[index]
    assert read_structure(dumped(data), stored({})).float32
    data |= {"output": "x", "nodes": []}
    assert read_structure(dumped(data), stored({})).output == "x"
    data["input"]["shape"] = [0]  # type: ignore[index]
    with pytest.raises(Malformed):
        read_structure(dumped(data), stored({}))


def test_ops_that_are_not_listed_are_unsupported() -> None:
    data, weights = files(network("relu"))
    for op in ("sigmoid", "Relu", ""):
        data["nodes"][1]["op"] = op
        with pytest.raises(Unsupported):
            read_structure(dumped(data), weights)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("pad", "value", {"float": "wide"}), ("batch_norm", "epsilon", {"float": "wide"}),
        ("pad", "value", {"float": "0x1p99999"}), ("pad", "value", "2.0"),
        ("pad", "value", {"float": "nan"}), ("pad", "value", {"float": "inf"}), ("pad", "value", {"float": 1}),
        ("pad", "value", {"float": "0x1" + "0" * 64}), ("pad", "padding", [1, 0, 0, 2, 0]),
        ("pad", "padding", [-1, 0, 0, 2]),
        ("average_pool", "count_padding", 1), ("average_pool", "kernel", [2]), ("average_pool", "kernel", "2"),
        ("mean", "axes", "1"), ("mean", "axes", [3]), ("mean", "axes", [-1]), ("mean", "keepdims", None),
        ("concat", "axis", 2), ("concat", "axis", -1), ("concat", "axis", True), ("conv", "groups", 0),
        ("conv", "groups", 3), ("conv", "groups", [2]), ("transpose", "permutation", [2, 0, 0]),
        ("transpose", "permutation", [0, 1]), ("slice", "steps", [1, 2, 1]), ("slice", "steps", [1]),
        ("slice", "starts", [1]), ("slice", "stops", [0, 5]), ("reshape", "shape", [3, 5]),
        ("reshape", "shape", [-1, 4]),
    ],
)  # fmt: skip
def test_damaged_attributes_are_refused(name: str, key: str, value: Any) -> None:
    data, weights = files(network(name))
    data["nodes"][1]["attributes"][key] = value
    with pytest.raises(Malformed):
        read_structure(dumped(data), weights)


@pytest.mark.parametrize("wrong", ["weight", "bias"])
def test_parameters_of_a_linear_op_have_their_shapes(wrong: str) -> None:
    """A weight that is no matrix, a bias of another length or rank, a sample without an axis."""
    node = {"name": "y", "op": "linear", "inputs": ["x"], "parameters": {"weight": "w", "bias": "b"}, "attributes": {}}
    cases = [((3,), (3,), (4,), (3,)), ((3, 4, 1), (3,), (4,), (3,)), ((3, 1), (3,), (), (3,)), ((1, 1), (1,), (), ())]
    if wrong == "bias":
        cases = [((3, 4), shape, (4,), (3,)) for shape in ((), (1,), (4,), (3, 1), (1, 3))]
    for weight, bias, x, y in cases:
        data = {
            "format": "provable-pruning structure", "version": 1, "input": {"name": "x", "shape": x}, "output": "y",
            "nodes": [{**node, "shape": y}], "digest": "",
            "parameters": {k: {"dtype": "float32", "shape": s} for k, s in (("w", weight), ("b", bias))},
        }  # fmt: skip
        weights = safetensors.numpy.save({k: np.ones(s, np.float32) for k, s in (("w", weight), ("b", bias))})
        with pytest.raises(Malformed):
            read_structure(dumped(data), weights)


@pytest.mark.parametrize(
    ("kinds", "value", "single"),
    [
        (("float32", "float32"), "0x1.8p-3", True), (("float32", "float32"), "0x1p-149", True),
        (("float32", "float32"), "0x0p0", True), (("float32", "float32"), "0x1.999999999999ap-4", False),
        (("float32", "float32"), "0x1p-150", False), (("float32", "float32"), "-0x1p128", False),
        (("float32", "float64"), "0x1p0", False), (("float64", "float64"), "0x1p0", False),
        (("float16", "float32"), "0x1p0", False), ((), "0x1p0", True), ((), "0x1.0000000000001p0", False),
    ],
)  # fmt: skip
def test_networks_are_float32_if_all_their_numbers_are(kinds: tuple[str, ...], value: str, single: bool) -> None:
    """The tensors, and what a pad fills its border with."""
    arrays = {key: np.ones(1, kind) for key, kind in zip("ab", kinds, strict=False)}
    steps: list[Any] = [("p", "pad", ("x",), {}, {"padding": (0, 1), "value": float.fromhex(value)})]
    steps += [(f"s{key}", "scale", (steps[-1][0],), {"value": key}, {}) for key in arrays]
    steps += [("y", "relu", (f"s{max(arrays)}" if arrays else "p",), {}, {})]
    assert read_structure(*written(build("x", (1,), steps, "y", arrays))).float32 is single


@pytest.mark.parametrize(("kind", "verdict"), [("float32", Verdict.ACCEPT), ("float64", Verdict.UNSUPPORTED)])
def test_structures_may_be_certified_for_executions_in_float32(tmp_path: Path, kind: str, verdict: Verdict) -> None:
    steps: list[Any] = [("h", "linear", ("x",), {"weight": "w"}, {}), ("y", "relu", ("h",), {}, {})]
    structure, weights = write_structure(build("x", (1,), steps, "y", {"w": np.full((1, 1), 0.1, kind)}), tmp_path)
    both: dict[str, Any] = {
        f"{n}{end}": f for n in ("original", "compact") for end, f in (("", structure), ("_weights", weights))
    }
    box, rule = Box.from_floats([0], [1]), "pair_zonotope"
    emit_certificate(
        tmp_path / "c.json", **both, boxes=[box], epsilon=Fraction(1, 10**6), lift=(), rule=rule,
        parameters={"symbols": 10}, trees=[Leaf()], arithmetic="float32",
    )  # fmt: skip
    assert audit(tmp_path / "c.json", **both).verdict is verdict


# safetensors


def stored(header: Any, body: bytes = b"", text: bytes | None = None) -> bytes:
    raw = dumped(header) if text is None else text
    return len(raw).to_bytes(8, "little") + raw + body


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_are_exact_in_every_type() -> None:
    values = np.array([[0.75, -3.0, 0.0], [1.0, 2.0**-10, 5.0]])
    for dtype in (np.float16, np.float32, np.float64):
        found = read_safetensors(safetensors.numpy.save({"b": values.astype(dtype), "a": values[0].astype(dtype)}))
        assert set(found) == {"a", "b"}
        for name, wanted in (("b", values), ("a", values[0])):
            kind, shape, read_ = found[name]
            assert (kind, shape, read_.mantissa.shape) == (np.dtype(dtype).name, wanted.shape, wanted.shape)
            assert fractions(read_) == [Fraction(v) for v in wanted.ravel()]
    halves = np.array([1.5, -2.0], np.float32).view(np.uint16)[1::2].tobytes()
    _, _, numbers_ = read_safetensors(stored({"h": entry("BF16", [2], 0, 4)}, halves))["h"]
    assert fractions(numbers_) == [Fraction(3, 2), -2]


def test_tensors_may_lie_in_any_order_and_be_empty() -> None:
    body = np.arange(4, dtype="<f4").tobytes()
    header = {
        "__metadata__": {"by": "someone"}, "late": entry("F32", [2], 8, 16), "early": entry("F32", [2, 1], 0, 8),
        "nothing": entry("F32", [0, 7], 8, 8), "last": entry("F64", [0], 16, 16),
    }  # fmt: skip
    found = read_safetensors(stored(header, body))
    assert [fractions(found[n][2]) for n in ("early", "late", "nothing", "last")] == [[0, 1], [2, 3], [], []]
    assert read_safetensors(stored({})) == {}
    assert read_safetensors(stored({}, text=b"{}" + b" " * 1000)) == {}


F4, ONE = np.ones(1, "<f4").tobytes(), entry("F32", [1], 0, 4)
LARGEST = (2**56 + 2).to_bytes(8, "little")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, b"\0" * 8, b"\2" + b"\0" * 6, stored({})[:-1], stored({}, F4), b"\3" + stored({})[1:],
        b"\12" + stored({})[1:], LARGEST + b"{}", stored([]),
        stored({}, text=b" {}"), stored({}, text=b"{} x"), stored({}, text=b'"{"'), stored({}, text=b"{"),
        stored({}, text=b'{"a": 1, "a": 1}'), stored({"__metadata__": []}), stored({"__metadata__": {"by": 1}}),
        stored({"__metadata__": {"by": "you", "in": 2}}), stored({"__metadata__": ["by"]}), stored({"a": 1}),
        stored({"a": ONE}), stored({"a": ONE}, F4[:3]), stored({"a": ONE}, F4 + b"\0"), stored({"a": ONE}, F4 * 2),
        stored({"a": {**ONE, "more": 1}}, F4), stored({"a": {**ONE, "shape": [1.0]}}, F4),
        stored({"a": {**ONE, "shape": 1}}, F4),
        stored({"a": entry("F32", [2], 0, 4)}, F4), stored({"a": entry("F32", [1], 0, 8)}, F4 * 2),
        stored({"a": entry("F32", [1], 4, 8)}, F4 * 2), stored({"a": entry("F32", [1], 4, 0)}, F4),
        stored({"a": {**ONE, "data_offsets": [0]}}, F4), stored({"a": {**ONE, "data_offsets": [0, 4, 4]}}, F4),
        stored({"a": {**ONE, "data_offsets": []}}, F4), stored({"a": {**ONE, "data_offsets": [-4, 0]}}, F4),
        stored({"a": ONE, "b": ONE}, F4), stored({"a": ONE, "b": entry("F32", [1], 8, 12)}, F4 * 3),
        stored({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, F4 * 3),
        stored({"a": entry("F32", [4], 0, 4)}, F4),
        stored({"a": ONE}, np.array([np.nan], "<f4").tobytes()), stored({"a": ONE, "b": entry("F32", [1], 4, 8)}, F4),
        stored({"a": entry("F32", [-1, -1], 0, 4)}, F4), stored({"a": entry("F64", [1], 0, 4)}, F4),
        stored({"a": entry("F16", [1], 0, 4)}, F4), stored({"a": entry("BF16", [1], 0, 4)}, F4),
        stored({}, text=b"{}" + b" " * (MAX_HEADER - 1)),
    ],
)  # fmt: skip
def test_other_safetensors_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_safetensors(data)


def test_headers_up_to_the_limit_are_read() -> None:
    assert read_safetensors(stored({}, text=b"{}" + b" " * (MAX_HEADER - 2))) == {}


@pytest.mark.parametrize("dtype", ["I64", "F8_E4M3", "f32", "", 1, None, ["F32"]])
def test_other_types_of_tensors_are_unsupported(dtype: Any) -> None:
    with pytest.raises(Unsupported):
        read_safetensors(stored({"a": entry(dtype, [0], 0, 0)}))


def test_tensors_too_large_are_unsupported() -> None:
    with pytest.raises(Unsupported):
        read_safetensors(stored({"a": entry("F32", [2**26 + 1], 0, 4)}, F4))
