"""The constants are those that the proofs and the specification are about, and the schema is ONNX's own."""

import onnx
import pytest

from verify.audit import (
    backward,
    certificate,
    check,
    descent,
    exact,
    files,
    form,
    onnx_file,
    onnx_tensor,
    parts,
    planes,
    program,
    protobuf,
    rounding,
    rules,
    structure_file,
    transposed,
    upper,
)


def test_the_exact_range_is_the_one_of_the_proofs() -> None:
    """theory_notes/exact_audit.md; every sum of products stays below 2^52."""
    assert (exact.LIMB, exact.FORM_BITS, exact.LARGEST, exact.LONGEST_ROW) == (20, 40, 2**52, 2**11)
    assert 2 * exact.LARGEST <= 2**53
    assert exact.LONGEST_ROW * 2 ** (2 * exact.LIMB + 1) <= exact.LARGEST
    assert (upper.TERM_BITS, upper.LONGEST, upper.TOTAL_BITS, upper.MOST_PARTS) == (41, 2**9, 40, 2**11)
    assert upper.LONGEST * 2 ** (2 * (upper.TERM_BITS - exact.LIMB)) < exact.LARGEST
    assert upper.MOST_PARTS * (2**upper.TOTAL_BITS + 1) < exact.LARGEST
    assert (planes.SLOPE_BITS, planes.ONE, rules.BOUND_SHIFT) == (10, 1024.0, 1)
    assert 3 * planes.ONE * 2 ** (exact.FORM_BITS - rules.BOUND_SHIFT) < exact.LARGEST
    assert (backward.START_BITS, parts.DIGITS, descent.COLUMNS, form.CENTRE) == (30, 30, 0, ((0, 1),))
    assert certificate.MAX_DECISIONS * 2**parts.DIGITS <= 2 ** (upper.TERM_BITS - 1)


def test_rounding_of_float32_is_the_one_of_the_standard() -> None:
    assert (rounding.UNIT_ROUNDOFF, rounding.SMALLEST, rounding.LONGEST_SUM) == (-24, -149, 2**22)
    assert (rounding.LARGEST_SUM, rounding.MAGNITUDE_BITS) == (100, 28)
    assert rules.ROUNDING_SYMBOLS == 512


def test_the_limits_are_those_of_the_specification() -> None:
    assert (check.MAX_CERTIFICATE, files.MAX_FILE, files.MAX_DEPTH, files.MAX_DIGITS) == (2**30, 2**31, 64, 400)
    assert (certificate.MAX_DEPTH, certificate.MAX_INPUTS, certificate.MAX_DECISIONS) == (10_000, 2**20, 256)
    assert (protobuf.MAX_ITEMS, onnx_file.MAX_NODES, structure_file.MAX_HEADER) == (2**22, 100_000, 2**23)
    assert (program.LARGEST_TENSOR, transposed.LARGEST_MAP) == (2**26, 2**23)
    assert (list(onnx_file.OPSETS), structure_file._OPSET) == (list(range(8, 24)), 20)


MESSAGES = {
    "MODEL": (onnx.ModelProto, {"training_info", "functions", "configuration"}),
    "OPSET": (onnx.OperatorSetIdProto, set()),
    "GRAPH": (onnx.GraphProto, {"quantization_annotation", "sparse_initializer"}),
    "NODE": (onnx.NodeProto, {"device_configurations"}),
    "ATTRIBUTE": (
        onnx.AttributeProto,
        {"g", "graphs", "strings", "tensors", "sparse_tensor", "sparse_tensors", "tp", "type_protos", "ref_attr_name"},
    ),
    "TENSOR": (onnx.TensorProto, {"segment", "string_data", "uint64_data", "external_data"}),
    "VALUE": (onnx.ValueInfoProto, set()),
    "TYPE": (onnx.TypeProto, {"sequence_type", "map_type", "optional_type", "sparse_tensor_type", "opaque_type"}),
    "TENSORTYPE": (onnx.TypeProto.Tensor, set()),
    "SHAPE": (onnx.TensorShapeProto, set()),
    "DIM": (onnx.TensorShapeProto.Dimension, set()),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_schema_is_that_of_onnx(kind: str) -> None:
    """Every field has the number that ONNX gives it, and what is not read is refused or known to say nothing."""
    message, refused = MESSAGES[kind]
    theirs = {f.number: f for f in message.DESCRIPTOR.fields}
    ours = protobuf._SCHEMA[kind]
    assert set(ours) <= set(theirs)
    assert {theirs[n].name for n in set(theirs) - set(ours)} <= refused
    for number, (name, shape) in ours.items():
        assert name in ("", theirs[number].name)
        assert shape.endswith("*") == theirs[number].is_repeated
        assert bool(name) != shape.startswith("-")
    silent = {theirs[n].name for n, (name, _) in ours.items() if not name}
    assert not silent & {"input", "output", "node", "initializer", "dims", "raw_data", "type", "ints", "floats"}


def test_the_types_are_those_of_onnx() -> None:
    names = {onnx.TensorProto.FLOAT: ("float32", 4), onnx.TensorProto.FLOAT16: ("float16", 2)}
    names |= {onnx.TensorProto.DOUBLE: ("float64", 8), onnx.TensorProto.BFLOAT16: ("bfloat16", 2)}
    assert {key: name for key, (name, _) in names.items()} == onnx_tensor.FLOATS
    whole = {onnx.TensorProto.INT64: 8, onnx.TensorProto.INT32: 4}
    assert {key: size for key, (_, size) in names.items()} | whole == onnx_tensor._BYTES
    assert set(structure_file._TYPES.values()) == set(names.values())
    assert structure_file._TYPES["F16"][0] == "float16"
    assert structure_file._TYPES["BF16"][0] == "bfloat16"
    assert protobuf._WIRE == {"int": 0, "fixed64": 1, "float": 5, "fixed32": 5}
    assert protobuf._SIZE == {"fixed64": 8, "float": 4, "fixed32": 4}
