"""Messages of ONNX files: what ONNX's own library writes is read, field by field; everything else is refused."""

import struct
from typing import Any

import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor

from verify.audit import protobuf
from verify.audit.program import Malformed, Unsupported
from verify.audit.protobuf import Message, read_message

# kind -> (message of the ONNX library, fields that are read, fields that say nothing about what is computed)
KINDS: dict[str, tuple[Any, str, str]] = {
    "MODEL": (
        onnx.ModelProto, "ir_version graph opset_import",
        "producer_name producer_version domain model_version doc_string metadata_props"),
    "OPSET": (onnx.OperatorSetIdProto, "domain version", ""),
    "GRAPH": (onnx.GraphProto, "node initializer input output", "name doc_string value_info metadata_props"),
    "NODE": (
        onnx.NodeProto, "input output op_type attribute domain overload", "name doc_string metadata_props"),
    "ATTRIBUTE": (onnx.AttributeProto, "name f i s t floats ints type", "doc_string"),
    "TENSOR": (
        onnx.TensorProto,
        "dims data_type float_data int32_data int64_data name raw_data double_data data_location",
        "doc_string metadata_props"),
    "VALUE": (onnx.ValueInfoProto, "name type", "doc_string metadata_props"),
    "TYPE": (onnx.TypeProto, "tensor_type", "denotation"),
    "TENSORTYPE": (onnx.TypeProto.Tensor, "elem_type shape", ""),
    "SHAPE": (onnx.TensorShapeProto, "dim", ""),
    "DIM": (onnx.TensorShapeProto.Dimension, "dim_value dim_param", "denotation"),
}  # fmt: skip
NUMBERS = {
    FieldDescriptor.TYPE_INT64: (0, 1, 127, 128, -1, 2**62, 2**63 - 1, -(2**63)),
    FieldDescriptor.TYPE_UINT64: (0, 1, 2**63 - 1), FieldDescriptor.TYPE_INT32: (0, 1, -5, 2**31 - 1, -(2**31)),
    FieldDescriptor.TYPE_ENUM: (0, 1), FieldDescriptor.TYPE_FLOAT: (0.0, 1.5, -2.0**100),
    FieldDescriptor.TYPE_DOUBLE: (0.0, 1.5, -2.0**1000), FieldDescriptor.TYPE_STRING: ("", "name", "\u00e9" * 2048),
    FieldDescriptor.TYPE_BYTES: (b"", bytes(range(256))),
}  # fmt: skip
FIELDS = [(kind, field.name) for kind, (proto, _, _) in KINDS.items() for field in proto.DESCRIPTOR.fields]
PACKED = {"float_data": "f", "double_data": "d"}  # their bits are kept


def repeated(kind: str, name: str) -> bool:
    return hasattr(getattr(KINDS[kind][0](), name), "extend")


def written(proto: Any, **values: Any) -> bytes:
    """The message with these fields; a message in a field is an empty one, or two where there may be several."""
    made = proto()
    for name, value in values.items():
        place = getattr(made, name)
        if hasattr(place, "add"):
            for _ in range(value):
                place.add()
        elif hasattr(place, "extend"):
            place.extend(value)
        elif hasattr(place, "SetInParent"):
            place.SetInParent()
        else:
            setattr(made, name, value)
    return bytes(made.SerializeToString())


def plain(value: Any) -> Any:
    """What was read: messages by their fields, bytes as they are."""
    if isinstance(value, Message):
        return {k: plain(v) for k, v in value.values.items() if v not in ([], None)}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_every_field_is_read_or_known_to_say_nothing_or_refused(kind: str, name: str) -> None:
    proto, read, ignored = KINDS[kind]
    field, many = proto.DESCRIPTOR.fields_by_name[name], repeated(kind, name)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        samples = [(1, [{}]), (2, [{}, {}])] if many else [(None, {})]
    else:
        numbers = NUMBERS[field.type]
        samples = [(list(numbers), list(numbers)), ([], None)] if many else [(n, n) for n in numbers]
    for given, wanted in samples:
        data = memoryview(written(proto, **{name: given}))
        if name not in f"{read} {ignored}".split():
            if data:
                with pytest.raises(Unsupported):
                    read_message(kind, data)
            continue
        found = read_message(kind, data)
        if name in ignored.split():
            assert plain(found) == {}
        elif name in PACKED:
            assert b"".join(getattr(found, name)) == struct.pack(f"<{len(given)}{PACKED[name]}", *given)
        else:
            assert plain(found).get(name) == wanted or (not data and not wanted)
    assert all(getattr(read_message(kind, memoryview(b"")), n) in (None, []) for n in read.split())


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def tagged(number: int, wire: int, content: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(content)) if wire == 2 else b"") + content


CONTENT = {0: b"\1", 1: b"\0" * 8, 2: b"\0" * 8, 5: b"\0" * 4}


@pytest.mark.parametrize(("kind", "name"), [f for f in FIELDS if f[1] in KINDS[f[0]][1].split()])
def test_fields_have_their_wire_type_and_single_ones_come_once(kind: str, name: str) -> None:
    field = KINDS[kind][0].DESCRIPTOR.fields_by_name[name]
    many, number = repeated(kind, name), field.number
    own = {FieldDescriptor.TYPE_FLOAT: 5, FieldDescriptor.TYPE_DOUBLE: 1}.get(field.type, 0)
    words = field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    lawful = {2} if words else {own, 2} if many else {own}
    content = {**CONTENT, 2: b"" if words else CONTENT[2]}
    for wire in content:
        data = tagged(number, wire, content[wire])
        if wire in lawful:
            read_message(kind, memoryview(data))
        else:
            with pytest.raises(Malformed):
                read_message(kind, memoryview(data))
        if wire in lawful and not many:
            with pytest.raises(Malformed):
                read_message(kind, memoryview(data * 2))
        elif wire in lawful:
            once, twice = (getattr(read_message(kind, memoryview(data * n)), name) for n in (1, 2))
            assert plain(twice) == plain(once) * 2


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("DIM", tagged(1, 0, b"\xff" * 9 + b"\x02")), ("DIM", tagged(1, 0, b"\xff" * 10 + b"\x01")),
        ("DIM", tagged(1, 0, b"\x80" * 9 + b"\x02")), ("DIM", tagged(1, 0, b"\x80" * 10 + b"\x00")),
        ("DIM", tagged(1, 0, b"\x80")), ("DIM", tagged(1, 0, b"")), ("DIM", b"\x80"), ("DIM", varint(8)[:0] + b"\x88"),
        ("DIM", tagged(2, 2, b"\xff")), ("DIM", tagged(2, 2, b"n" * 4097)), ("DIM", tagged(3, 3, b"")),
        ("DIM", tagged(3, 4, b"")), ("DIM", tagged(3, 6, b"")), ("DIM", tagged(3, 7, b"")),
        ("DIM", tagged(0, 0, b"\1")), ("DIM", tagged(2**29, 0, b"\1")), ("DIM", tagged(2**32, 0, b"\1")),
        ("DIM", varint(2 << 3 | 2) + b"\x05abc"), ("DIM", varint(2 << 3 | 2) + b"\x01"), ("DIM", varint(3 << 3 | 2)),
        ("DIM", tagged(3, 1, b"\0" * 7)), ("DIM", tagged(3, 5, b"\0" * 3)), ("ATTRIBUTE", tagged(7, 2, b"\0" * 6)),
        ("ATTRIBUTE", tagged(7, 2, b"\0")), ("ATTRIBUTE", tagged(8, 2, b"\x80")), ("TENSOR", tagged(4, 2, b"\0" * 6)),
        ("TENSOR", tagged(10, 2, b"\0" * 12)), ("TENSOR", tagged(5, 2, b"\1\x80")),
        ("VALUE", tagged(2, 2, tagged(1, 2, b"") + b"\x88")),
    ],
)  # fmt: skip
def test_damaged_messages_are_refused(kind: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        read_message(kind, memoryview(data))


@pytest.mark.parametrize("number", [4, 15, 16, 2**28, 2**29 - 1])
def test_fields_that_are_not_listed_are_unsupported(number: int) -> None:
    for wire, content in CONTENT.items():
        with pytest.raises(Unsupported):
            read_message("DIM", memoryview(tagged(number, wire, content)))


def test_fields_follow_one_another() -> None:
    """After content of every length comes the next field."""
    for skipped in (
        tagged(3, 0, b"\xff\1"),
        tagged(3, 1, b"\7" * 8),
        tagged(3, 2, b"\7" * 300),
        tagged(3, 5, b"\7" * 4),
    ):
        found = read_message("DIM", memoryview(skipped * 2 + tagged(1, 0, b"\5") + skipped + tagged(2, 2, b"n")))
        assert found.values == {"dim_value": 5, "dim_param": "n"}


def test_numbers_are_read_in_both_forms() -> None:
    """Packed and one by one."""
    numbers = (0, 1, 127, 128, 2**63 - 1, 2**64 - 1, 2**63)
    packed = tagged(8, 2, b"".join(map(varint, numbers)))
    single = b"".join(tagged(8, 0, varint(n)) for n in numbers)
    for data in (packed, single):
        message = read_message("ATTRIBUTE", memoryview(data))
        assert message.ints == [0, 1, 127, 128, 2**63 - 1, -1, -(2**63)]
    floats, doubles = struct.pack("<2f", 1.5, -2.0), struct.pack("<2d", 1.5, -2.0)
    for data in (tagged(7, 2, floats), tagged(7, 5, floats[:4]) + tagged(7, 5, floats[4:])):
        assert read_message("ATTRIBUTE", memoryview(data)).floats == [1.5, -2.0]
    for data in (tagged(4, 2, floats), tagged(4, 5, floats[:4]) + tagged(4, 5, floats[4:])):
        assert b"".join(read_message("TENSOR", memoryview(data)).float_data) == floats
    for data in (tagged(10, 2, doubles), tagged(10, 1, doubles[:8]) + tagged(10, 1, doubles[8:])):
        assert b"".join(read_message("TENSOR", memoryview(data)).double_data) == doubles


def test_there_is_a_limit_to_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages of a file are counted together, however deep they lie; the next file begins anew."""
    monkeypatch.setattr(protobuf, "MAX_ITEMS", 7)

    def value(dims: int) -> memoryview:
        """A value with a type with a tensor type with a shape with so many dimensions."""
        shape = tagged(1, 2, b"") * dims
        return memoryview(tagged(2, 2, tagged(1, 2, tagged(2, 2, shape))))

    for _ in range(2):
        assert len(read_message("VALUE", value(3)).type.tensor_type.shape.dim) == 3
    with pytest.raises(Malformed, match="more than 7 messages"):
        read_message("VALUE", value(4))
