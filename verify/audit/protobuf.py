"""The part of the protobuf wire format and of the ONNX schema that network files need, read strictly.

Every field of a message must be listed below; a singular field must not occur twice; lengths must fit exactly.
Refused as unsupported: external data, sparse and string tensors, functions, training information, subgraphs.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from verify.audit.program import Malformed, require, supported

MAX_ITEMS = 2**22  # messages in one file

# field number -> (name, type); "*" marks repeated fields, types in capitals are messages, "-" is read and ignored
_SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "MODEL": {
        1: ("ir_version", "int"), 2: ("", "-"), 3: ("", "-"), 4: ("", "-"), 5: ("", "-int"), 6: ("", "-"),
        7: ("graph", "GRAPH"), 8: ("opset_import", "OPSET*"), 14: ("", "-*"),
    },
    "OPSET": {1: ("domain", "str"), 2: ("version", "int")},
    "GRAPH": {
        1: ("node", "NODE*"), 2: ("", "-"), 5: ("initializer", "TENSOR*"), 10: ("", "-"), 11: ("input", "VALUE*"),
        12: ("output", "VALUE*"), 13: ("", "-*"), 16: ("", "-*"),
    },
    "NODE": {
        1: ("input", "str*"), 2: ("output", "str*"), 3: ("", "-"), 4: ("op_type", "str"),
        5: ("attribute", "ATTRIBUTE*"), 6: ("", "-"), 7: ("domain", "str"), 8: ("overload", "str"), 9: ("", "-*"),
    },
    "ATTRIBUTE": {
        1: ("name", "str"), 2: ("f", "float"), 3: ("i", "int"), 4: ("s", "bytes"), 5: ("t", "TENSOR"),
        7: ("floats", "float*"), 8: ("ints", "int*"), 13: ("", "-"), 20: ("type", "int"),
    },
    "TENSOR": {
        1: ("dims", "int*"), 2: ("data_type", "int"), 4: ("float_data", "fixed32*"), 5: ("int32_data", "int*"),
        7: ("int64_data", "int*"), 8: ("name", "str"), 9: ("raw_data", "bytes"), 10: ("double_data", "fixed64*"),
        12: ("", "-"), 14: ("data_location", "int"), 16: ("", "-*"),
    },
    "VALUE": {1: ("name", "str"), 2: ("type", "TYPE"), 3: ("", "-"), 4: ("", "-*")},
    "TYPE": {1: ("tensor_type", "TENSORTYPE"), 6: ("", "-")},
    "TENSORTYPE": {1: ("elem_type", "int"), 2: ("shape", "SHAPE")},
    "SHAPE": {1: ("dim", "DIM*")},
    "DIM": {1: ("dim_value", "int"), 2: ("dim_param", "str"), 3: ("", "-")},
}  # fmt: skip
_WIRE = {"int": 0, "fixed64": 1, "float": 5, "fixed32": 5}
_SIZE = {"fixed64": 8, "float": 4, "fixed32": 4}


@dataclass
class Message:
    """Field name -> value (a list for repeated fields); absent fields read as None or an empty list."""

    kind: str
    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values.get(name)


class _Count:
    """Messages still allowed."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS


def read_message(kind: str, data: memoryview, count: _Count | None = None) -> Message:
    """Parse one message of the given kind.

    Raises:
        Malformed: wrong wire format, or a singular field that occurs twice.
        Unsupported: a field outside the list above.
    """
    count = count or _Count()
    count.left -= 1
    require(count.left >= 0, f"more than {MAX_ITEMS} messages")
    schema = _SCHEMA[kind]
    values: dict[str, Any] = {name: [] for name, form in schema.values() if form.endswith("*") and name}
    for number, wire, content in _fields(data):
        supported(number in schema, f"field {number} of an ONNX {kind.lower()} message")
        name, form = schema[number]
        if form.startswith("-"):
            continue
        base = form.rstrip("*")
        items = _items(base, wire, content, form.endswith("*"), count)
        if form.endswith("*"):
            values[name] += items
        else:
            require(name not in values, f"field {name!r} of an ONNX {kind.lower()} message occurs twice")
            values[name] = items[0]
    return Message(kind, values)


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        require(0 < number < 2**29 and wire in (0, 1, 2, 5), "invalid protobuf tag: not an ONNX file, or damaged")
        if wire == 0:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        size = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            size, position = _varint(data, position)
        require(size <= len(data) - position, "a field is longer than its file: cut short, or not an ONNX file")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for i in range(10):
        require(position < len(data), "a number is cut short")
        byte = data[position]
        position += 1
        result |= (byte & 127) << (7 * i)
        if byte < 128:
            require(result < 2**64, "a number exceeds 64 bits")
            return result, position
    raise Malformed("a number exceeds 64 bits")


def _items(base: str, wire: int, content: Any, repeated: bool, count: _Count) -> list[Any]:
    if base.isupper() or base in ("str", "bytes"):
        require(wire == 2, "a field has the wrong wire type")
        if base == "bytes":
            return [content]
        return [read_message(base, content, count) if base.isupper() else _string(content)]
    if wire == 2 and repeated:
        return _packed(base, content)
    require(wire == _WIRE[base], "a field has the wrong wire type")
    return [_signed(content)] if base == "int" else _packed(base, content)


def _packed(base: str, content: memoryview) -> list[Any]:
    if base == "int":
        values, position = [], 0
        while position < len(content):
            value, position = _varint(content, position)
            values.append(_signed(value))
        return values
    require(len(content) % _SIZE[base] == 0, "a packed field is cut short")
    if base == "float":
        return [value for (value,) in struct.iter_unpack("<f", content)]
    return [bytes(content)]  # fixed32 and fixed64 stay raw bits


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _string(content: memoryview) -> str:
    require(len(content) <= 4096, "a name is longer than 4096 bytes")
    try:
        return bytes(content).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a name is not UTF-8") from None
