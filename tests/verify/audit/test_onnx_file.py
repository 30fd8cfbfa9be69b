"""ONNX files as programs: which files are networks, what a program takes over from them, which sums become biases."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.verify.audit.exact_semantics import exact_values
from verify.audit import onnx_file, program
from verify.audit.onnx_file import read_onnx
from verify.audit.program import Malformed, Program, Unsupported, fractions

W = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
B = np.array([5, -6, 7, -8], np.float32)
Node = tuple[str, list[str], list[str]] | tuple[str, list[str], list[str], dict[str, Any]]
Change = Callable[[onnx.ModelProto], object]


def model(nodes: list[Node], shape: tuple[Any, ...] = (1, 3), kind: int = TensorProto.FLOAT, **tensors: Any) -> Any:
    """A network from "x" to "y" with these nodes (operator, inputs, outputs, attributes) and constants."""
    made = [helper.make_node(op, reads, writes, **dict(*more)) for op, reads, writes, *more in nodes]
    ends = [helper.make_tensor_value_info(n, kind, s) for n, s in (("x", shape), ("y", None))]
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in tensors.items()]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def read(made: Any, *changes: Change) -> Program:
    for change in changes:
        change(made)
    return read_onnx(made.SerializeToString())


def relu(*changes: Change) -> Program:
    return read(model([("Relu", ["x"], ["y"])]), *changes)


def product(*changes: Change) -> Program:
    """y = x W; W is an initializer."""
    return read(model([("MatMul", ["x", "W"], ["y"])], W=W), *changes)


def refused(error: type[Exception], build: Callable[..., Program], *changes: Change) -> None:
    with pytest.raises(error):
        build(*changes)


# the file


def test_a_program_has_the_names_of_its_file() -> None:
    found = read(model([("MatMul", ["x", "W"], ["h"]), ("Relu", ["h"], ["y"])], W=W))
    assert (found.input, found.input_shape, found.batch, found.output) == ("x", (1, 3), True, "y")
    assert [(s.name, s.kind, s.inputs, s.shape) for s in found.steps] == [
        ("h", "affine", ("x",), (1, 4)), ("y", "relu", ("h",), (1, 4))
    ]  # fmt: skip
    assert exact_values(found, [Fraction(v) for v in (1, -2, 0)])[-1] == [max(v, 0) for v in (W[0] - 2 * W[1]).tolist()]
    alone = read(model([("MatMul", ["W", "x"], ["y"])], (3,), W=W.T))
    assert (alone.input_shape, alone.batch) == ((3,), False)
    assert read(model([("Relu", ["x"], ["y"])], (1, 2, 3))).batch


def opset(version: int, domain: str = "") -> Change:
    return lambda m: m.opset_import.append(helper.make_opsetid(domain, version))


def without(field: str) -> Change:
    return lambda m: m.ClearField(field)


def test_the_default_operator_set_is_named_once() -> None:
    named: Change = lambda m: m.opset_import[0].ClearField("domain")  # noqa: E731
    assert relu(named).digest == relu(opset(3, "ai.onnx.ml")).digest == relu().digest
    for version in (8, 23):
        relu(without("opset_import"), opset(version))
    for version in (7, 24, 0, -1):
        refused(Unsupported, relu, without("opset_import"), opset(version))
    refused(Unsupported, relu, without("opset_import"))
    refused(Unsupported, relu, opset(13))
    refused(Unsupported, relu, opset(1, "other"), opset(2, "other"))
    refused(Unsupported, relu, without("opset_import"), opset(13, "ai.onnx"))
    refused(Malformed, relu, without("graph"))
    refused(Malformed, relu, without("ir_version"))
    refused(Malformed, relu, without("graph"), without("ir_version"))


def test_there_is_a_limit_to_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_NODES", 2)
    nodes: list[Node] = [("Relu", ["x"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["y"])]
    read(model(nodes[:2]), lambda m: setattr(m.graph.output[0], "name", "b"))
    with pytest.raises(Unsupported):
        read(model(nodes))


def test_there_is_a_limit_to_results(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, fits in ((8, True), (7, False)):
        monkeypatch.setattr(program, "LARGEST_TENSOR", limit)
        made = model([("MatMul", ["x", "W"], ["y"])], (1, 2, 1), W=W[:1])
        if fits:
            read(made)
        else:
            with pytest.raises(Unsupported):
                read(made)


def named(place: str, name: str) -> Change:
    """Give another name to graph/input/0 and the like."""

    def change(m: Any) -> None:
        for key in place.split("/"):
            m = m[int(key)] if key.isdigit() else getattr(m, key)
        m.name = name

    return change


def more(field: str, *values: Any) -> Change:
    return lambda m: getattr(m.graph, field).extend(values)


OTHER = helper.make_tensor_value_info("other", TensorProto.FLOAT, (1, 3))
CONSTANT = helper.make_tensor_value_info("W", TensorProto.FLOAT, (3, 4))


def test_a_network_has_one_input_and_one_output() -> None:
    for field in ("input", "output"):
        refused(Malformed, relu, more(field, OTHER))
        refused(Malformed, relu, lambda m, field=field: m.graph.ClearField(field))  # type: ignore[misc]
    first: Change = lambda m: m.graph.input.insert(0, CONSTANT)  # noqa: E731
    assert product(first).digest == product(more("input", CONSTANT)).digest == product().digest
    assert relu(lambda m: setattr(m.graph.output[0], "name", "x")).output == "x"
    refused(Malformed, product, named("graph/output/0", "W"))
    refused(Malformed, relu, named("graph/output/0", "nothing"))
    refused(Malformed, relu, lambda m: m.graph.output[0].ClearField("name"))
    refused(Malformed, relu, lambda m: m.graph.input[0].ClearField("name"))


def test_every_name_stands_for_one_tensor() -> None:
    again = numpy_helper.from_array(W, "W")
    refused(Malformed, product, more("initializer", again))
    refused(Malformed, product, more("initializer", numpy_helper.from_array(W, "")))
    refused(Malformed, product, lambda m: m.graph.initializer[0].ClearField("name"))
    refused(Malformed, product, more("node", helper.make_node("Relu", ["x"], ["y"])))
    refused(Malformed, product, more("node", helper.make_node("Relu", ["x"], ["x"])))
    refused(Malformed, product, more("node", helper.make_node("Relu", ["x"], ["W"])))
    refused(Malformed, product, more("node", helper.make_node("Identity", ["x"], ["y"])))
    refused(Malformed, product, more("node", helper.make_node("Identity", ["W"], ["x"])))
    assert product(more("node", helper.make_node("Relu", ["x"], ["z"]))).output == "y"


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [
        ((1, 3), (1, 3)), (("batch", 3), (1, 3)), ((None, 3), (1, 3)), ((0, 3), (1, 3)), ((3,), (3,)), ((1,), (1,)),
        ((1, 1), (1, 1)), (("n", 2, 3), (1, 2, 3)), ((1, 2, 3, 4), (1, 2, 3, 4)),
    ],
)  # fmt: skip
def test_the_first_axis_is_1_or_symbolic(shape: tuple[Any, ...], read_as: tuple[int, ...]) -> None:
    assert read(model([("Relu", ["x"], ["y"])], shape)).input_shape == read_as


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((2, 3), Unsupported), ((-1, 3), Unsupported), ((4, 1), Unsupported), ((1, "n"), Malformed),
        ((1, 0), Malformed),
        ((1, 3, None), Malformed), (("n",), Malformed), ((0,), Malformed), ((-3,), Malformed), ((1, -3), Malformed),
        ((), Malformed), ((1, 2, -1), Malformed), (("n", "n"), Malformed), ((2, 1, 1), Unsupported),
        ((3, 0), Unsupported),
    ],
)  # fmt: skip
def test_other_shapes_of_inputs_are_refused(shape: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        read(model([("Relu", ["x"], ["y"])], shape))


def test_an_input_is_a_tensor_of_numbers() -> None:
    refused(Malformed, relu, lambda m: m.graph.input[0].ClearField("type"))
    refused(Malformed, relu, lambda m: m.graph.input[0].type.ClearField("tensor_type"))
    refused(Malformed, relu, lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"))
    refused(Unsupported, relu, lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type"))
    for kind in range(24):
        made = model([("Relu", ["x"], ["y"])], kind=kind)
        if kind in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            assert read(made).float32 is (kind == TensorProto.FLOAT)
        else:
            with pytest.raises(Unsupported):
                read(made)


def test_networks_are_float32_if_all_numbers_that_they_read_are() -> None:
    wide = W.astype(np.float64)
    assert product().float32
    assert not read(model([("MatMul", ["x", "W"], ["y"])], W=wide)).float32
    assert product(more("initializer", numpy_helper.from_array(wide, "unused"))).float32
    assert read(model([("Reshape", ["x", "s"], ["y"])], s=np.array([1, 3, 1]))).float32  # integers are no numbers
    for late in (W.astype(np.float16), wide):
        nodes: list[Node] = [
            ("Constant", [], ["c"], {"value": numpy_helper.from_array(late)}), ("MatMul", ["x", "W"], ["h"]),
            ("Relu", ["h"], ["r"]), ("MatMul", ["r", "t"], ["y"]), ("Transpose", ["c"], ["t"]),
        ]  # fmt: skip
        nodes = [nodes[0], nodes[4], *nodes[1:4]]
        assert not read(model(nodes, W=W)).float32
        assert read(model(nodes[2:4], W=W), named("graph/output/0", "r")).float32


# nodes


def test_nodes_are_of_the_default_operator_set() -> None:
    assert relu(lambda m: setattr(m.graph.node[0], "domain", "ai.onnx")).digest == relu().digest
    refused(Unsupported, relu, lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"))
    refused(Unsupported, relu, lambda m: setattr(m.graph.node[0], "overload", "other"))
    refused(Unsupported, relu, lambda m: setattr(m.graph.node[0], "op_type", "Tanh"))
    refused(Unsupported, relu, lambda m: m.graph.node[0].ClearField("op_type"))


@pytest.mark.parametrize(
    ("outputs", "error"),
    [([], Malformed), ([""], Malformed), (["", ""], Malformed), (["", "y"], Unsupported), (["y", "mask"], Unsupported)],
)
def test_nodes_have_one_output(outputs: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        read(model([("Dropout", ["x"], outputs)]))
    with pytest.raises((Malformed, Unsupported)):
        read(model([("Relu", ["x"], ["y"]), ("Relu", ["x"], outputs)]))
    assert read(model([("Dropout", ["x"], ["y", ""])])).output == "x"


def test_operands_are_defined_before_they_are_read_or_left_out() -> None:
    bias = read(model([("Gemm", ["x", "W", ""], ["y"])], W=W))
    assert bias.digest == read(model([("Gemm", ["x", "W"], ["y"])], W=W)).digest
    for nodes in (
        [("Relu", ["nothing"], ["y"])], [("Relu", ["h"], ["y"]), ("Relu", ["x"], ["h"])], [("Relu", ["y"], ["y"])],
        [("Gemm", ["x", "W", "nothing"], ["y"])], [("Identity", ["nothing"], ["y"])],
    ):  # fmt: skip
        with pytest.raises(Malformed):
            read(model(nodes, W=W))
    with pytest.raises((Malformed, Unsupported)):
        read(model([("Relu", [""], ["y"])]))


def test_attributes_that_no_operator_asks_for_are_unsupported() -> None:
    for attributes in ({"slope": 1.0}, {"slope": 0}, {"axes": [1]}, {"mode": "this"}):
        with pytest.raises(Unsupported):
            read(model([("Relu", ["x"], ["y"], attributes)]))
        nodes: list[Node] = [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "b"], ["y"], attributes)]
        with pytest.raises(Unsupported):
            read(model(nodes, W=W, b=B))


def gemm(*attributes: AttributeProto) -> Program:
    made = model([("Gemm", ["x", "W"], ["y"])], W=W)
    made.graph.node[0].attribute.extend(attributes)
    return read_onnx(made.SerializeToString())


def pool(*attributes: AttributeProto) -> Program:
    made = model([("MaxPool", ["x"], ["y"], {"kernel_shape": [2]})], (1, 1, 4))
    made.graph.node[0].attribute.extend(attributes)
    return read_onnx(made.SerializeToString())


KINDS = AttributeProto


def attribute(name: str, kind: int | None, **values: Any) -> AttributeProto:
    made = AttributeProto(name=name, **values)
    if kind is not None:
        made.type = kind
    return made


def test_attributes_are_read_with_their_type() -> None:
    plain = gemm().digest
    assert gemm(attribute("alpha", KINDS.FLOAT, f=1.0), attribute("transA", KINDS.INT, i=0)).digest == plain
    assert gemm(attribute("transB", KINDS.INT)).digest == plain  # 0 is not written
    narrow = pool().digest
    assert pool(attribute("auto_pad", KINDS.STRING, s=b"NOTSET")).digest == narrow
    assert pool(attribute("pads", KINDS.INTS, ints=[0, 0])).digest == narrow
    assert pool(attribute("strides", KINDS.INTS, ints=[2])).steps[0].shape == (1, 1, 2)
    wide = model([("Pad", ["x"], ["y"], {"pads": [0, 0, 0, 1]})])
    wide.opset_import[0].version = 10
    zero = read(wide).digest
    for value, same in ((attribute("value", KINDS.FLOAT), True), (attribute("value", KINDS.FLOAT, f=0.0), True),
                        (attribute("value", KINDS.FLOAT, f=2.5), False)):  # fmt: skip
        del wide.graph.node[0].attribute[1:]
        wide.graph.node[0].attribute.append(value)
        found = read(wide)
        assert exact_values(found, [Fraction(1)] * 3)[-1] == [1, 1, 1, Fraction(value.f)]
        assert (found.digest == zero) is same or found.digest != zero
    constant = attribute("value", KINDS.TENSOR, t=numpy_helper.from_array(B[:3]))
    made = model([("Constant", [], ["c"]), ("Add", ["x", "c"], ["y"])])
    made.graph.node[0].attribute.append(constant)
    assert exact_values(read(made), [Fraction(0)] * 3)[-1] == B[:3].tolist()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (attribute("", KINDS.INT, i=1), Malformed), (AttributeProto(type=KINDS.INT, i=1), Malformed),
        (attribute("strides", KINDS.INTS, ints=[1], i=1), Malformed),
        (attribute("strides", KINDS.INT, ints=[1]), Malformed),
        (attribute("strides", KINDS.INTS, i=1), Malformed), (attribute("strides", KINDS.INTS, f=1.0), Malformed),
        (attribute("strides", KINDS.INTS, s=b"1"), Malformed),
        (attribute("strides", KINDS.INTS, ints=[1], floats=[1.0]), Unsupported),
        (attribute("ceil_mode", KINDS.INT, f=0.0), Malformed), (attribute("ceil_mode", KINDS.FLOAT, i=0), Malformed),
        (attribute("ceil_mode", KINDS.INT, i=0, s=b""), Malformed),
        (attribute("ceil_mode", KINDS.FLOAT, f=0.0), Malformed),
        (attribute("ceil_mode", KINDS.TENSOR), Malformed),
        (attribute("ceil_mode", KINDS.INT, t=TensorProto()), Malformed),
        (attribute("auto_pad", KINDS.STRING, i=0), Malformed), (attribute("auto_pad", KINDS.INT, i=0), Malformed),
        (attribute("auto_pad", KINDS.STRING), Unsupported),
        (attribute("auto_pad", KINDS.STRING, s=b"SAME_UPPER"), Unsupported),
        (attribute("auto_pad", KINDS.STRING, s=b"\xff"), Unsupported),
        (attribute("strides", KINDS.FLOATS), Unsupported), (attribute("strides", KINDS.INTS), Malformed),
        (attribute("strides", KINDS.FLOATS, floats=[1.0]), Unsupported),
        (attribute("strides", None, ints=[1]), Unsupported),
        (attribute("strides", KINDS.STRINGS), Unsupported), (attribute("strides", KINDS.GRAPH), Unsupported),
        (attribute("strides", KINDS.UNDEFINED, ints=[1]), Unsupported),
    ],
)  # fmt: skip
def test_other_attributes_are_refused(value: AttributeProto, error: type[Exception]) -> None:
    with pytest.raises(error):
        pool(value)


def test_an_attribute_comes_once() -> None:
    with pytest.raises(Malformed):
        gemm(attribute("transB", KINDS.INT, i=0), attribute("transB", KINDS.INT, i=0))


# biases


@pytest.mark.parametrize(
    ("shape", "rows", "bias", "steps"),
    [
        ((1, 3), 4, (4,), ["y"]), ((1, 3), 4, (1, 4), ["y"]), ((1, 3), 4, (), ["h", "y"]),
        ((1, 3), 4, (1,), ["h", "y"]),
        ((1, 3), 1, (1,), ["y"]), ((1, 3), 1, (), ["y"]), ((1, 3), 1, (1, 1), ["y"]), ((1, 2, 3), 4, (4,), ["y"]),
        ((1, 2, 3), 4, (1, 1, 4), ["y"]), ((1, 2, 3), 4, (2, 4), ["h", "y"]), ((1, 4, 3), 4, (4, 1), ["h", "y"]),
        ((1, 2, 3), 1, (1,), ["y"]), ((1, 2, 3), 1, (2, 1), ["h", "y"]), ((3,), 4, (4,), ["y"]),
        ((1, 2, 3), 2, (2, 1), ["h", "y"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_a_constant_added_to_a_product_is_its_bias(
    shape: tuple[int, ...], rows: int, bias: tuple[int, ...], steps: list[str], first: bool
) -> None:
    """Where it has as many elements as the last axis, along it; the values are the same in every case."""
    added = np.arange(2, 2 + np.prod(bias, dtype=int), dtype=np.float32).reshape(bias)
    weight = W[:, :rows]
    nodes: list[Node] = [("MatMul", ["x", "W"], ["h"]), ("Add", ["b", "h"] if first else ["h", "b"], ["y"])]
    found = read(model(nodes, shape, W=weight, b=added))
    assert [s.name for s in found.steps] == steps
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    assert exact_values(found, [Fraction(float(v)) for v in x.ravel()])[-1] == (x @ weight + added).ravel().tolist()
    if steps == ["y"]:
        bias_of = found.steps[0].bias
        assert bias_of is not None
        assert fractions(bias_of) == np.broadcast_to(added, (x @ weight).shape).ravel().tolist()


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ([("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "b"], ["y"])], "h"),
        ([("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "b"], ["a"]), ("Add", ["h", "a"], ["y"])], "y"),
        ([("MatMul", ["x", "W"], ["h"]), ("Relu", ["h"], ["r"]), ("Add", ["r", "b"], ["y"])], "y"),
        ([("MatMul", ["x", "W"], ["h"]), ("Sub", ["h", "b"], ["y"])], "y"),
        ([("Gemm", ["x", "W"], ["h"]), ("Add", ["h", "b"], ["y"])], "y"),
        ([("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "h"], ["y"])], "y"),
        ([("MatMul", ["x", "W"], ["h"]), ("MatMul", ["x", "W"], ["k"]), ("Add", ["h", "k"], ["y"])], "y"),
    ],
)  # fmt: skip
def test_other_sums_are_steps_of_their_own(nodes: list[Node], output: str) -> None:
    """The product is the output or read twice, or there is something between, or no constant is added."""
    found = read(model(nodes, W=W, b=B), named("graph/output/0", output))
    assert [s.name for s in found.steps] == [writes[0] for _, _, writes in nodes]


def test_a_bias_stands_at_the_place_of_its_sum() -> None:
    nodes: list[Node] = [("MatMul", ["x", "W"], ["h"]), ("Relu", ["x"], ["r"]), ("Add", ["h", "b"], ["y"])]
    assert [s.name for s in read(model(nodes, W=W, b=B)).steps] == ["r", "y"]


@pytest.mark.parametrize(
    "nodes",
    [
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "b", "b"], ["y"])],
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h"], ["y"])],
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "s"], ["y"])],
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "big"], ["y"])],
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", ""], ["y"])],
        [("MatMul", ["x", "W"], ["h"]), ("Add", ["h", "c"], ["y"])],
    ],
)  # fmt: skip
def test_what_cannot_be_added_is_refused(nodes: list[Node]) -> None:
    """Three operands, one, integers, a constant of more axes, none, another length."""
    with pytest.raises((Malformed, Unsupported)):
        read(model(nodes, W=W, b=B, s=np.arange(4), big=B[None, None], c=B[:3]))
