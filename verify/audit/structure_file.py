"""structure.json + safetensors (format of `verify.network.structure`, version 1) as programs of the auditor.

Shapes are those of one sample; there is no batch axis. The digest in structure.json is not used: the certificate
names both files by their own hashes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from verify.audit import program as p
from verify.audit.exact import Index, Real
from verify.audit.files import array, fields, read_json, text, whole
from verify.audit.program import Program, Shape, Step, require, supported

_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
MAX_HEADER = 2**23


@dataclass(frozen=True)
class Node:
    """One node of the file: its op, what it reads (names, with the shapes of their values), and its constants."""

    name: str
    op: str
    sources: tuple[str, ...]
    shapes: tuple[Shape, ...]
    roles: dict[str, Real]
    attributes: dict[str, Any]

    def ints(self, name: str) -> Shape:
        """A list of non-negative integers."""
        return tuple(whole(i, f"{self.name}.{name}", 0, 2**31) for i in array(self.attributes.get(name), self.name))

    def number(self, name: str) -> float:
        """A floating-point number, written {"float": hexadecimal}."""
        (value,) = fields(self.attributes.get(name), "float", f"{self.name}.{name}")
        try:
            return float.fromhex(text(value, f"{self.name}.{name}", 64))
        except (ValueError, OverflowError):
            raise p.Malformed(f"{self.name}.{name} is not a hexadecimal number") from None

    def flag(self, name: str) -> bool:
        value = self.attributes.get(name)
        require(isinstance(value, bool), f"{self.name}.{name} is not a truth value")
        return bool(value)

    def role(self, name: str) -> Real:
        require(name in self.roles, f"{self.name} has no {name}")
        return self.roles[name]

    @property
    def source(self) -> str:
        return self.sources[0]

    @property
    def shape(self) -> Shape:
        return self.shapes[0]


def read_structure(structure: bytes, weights: bytes) -> Program:
    """The network in a structure.json and its safetensors file.

    Raises:
        Malformed, Unsupported: as `onnx_file.read_onnx`.
    """
    top = fields(read_json(structure), "format version input output nodes parameters digest", "the structure")
    require(top[0] == "provable-pruning structure", "not a structure file")
    supported(top[1] == 1 and not isinstance(top[1], bool), f"structure version {top[1]}")
    source, shape = fields(top[2], "name shape", "input")
    tensors = read_safetensors(weights)
    require(isinstance(top[5], dict) and set(top[5]) == set(tensors), "the tensors are not those that are declared")
    for key, entry in top[5].items():
        kind, size = fields(entry, "dtype shape", f"parameter {key!r}")
        require((kind, tuple(array(size, key))) == tensors[key][:2], f"parameter {key!r} is not as declared")
    shapes = {text(source, "input.name"): _shape(shape, "input.shape")}
    steps = []
    for i, entry in enumerate(array(top[4], "nodes", 100_000)):
        node, declared = _node(entry, f"nodes[{i}]", shapes, {k: t[2] for k, t in tensors.items()})
        supported(node.op in OPERATIONS, f"op {node.op!r} at {node.name!r}; supported: {', '.join(sorted(OPERATIONS))}")
        require(len(node.sources) == (2 if node.op in ("add", "subtract") else 1) or node.op == "concat", node.name)
        step = OPERATIONS[node.op](node)
        p.bounded(prod(step.shape))
        require(step.shape == declared, f"{node.name!r} declares shape {declared}, its op gives {step.shape}")
        require(node.name not in shapes, f"value {node.name!r} is defined twice")
        shapes[node.name] = step.shape
        steps.append(step)
    output = text(top[3], "output")
    require(output in shapes, f"the output {output!r} is not defined")
    return p.finish(source, shapes[source], False, tuple(steps), output)


def _shape(value: Any, place: str) -> Shape:
    shape = tuple(whole(n, place, 1, 2**31) for n in array(value, place, 16))
    p.bounded(prod(shape))
    return shape


def _node(value: Any, place: str, shapes: dict[str, Shape], tensors: dict[str, Real]) -> tuple[Node, Shape]:
    name, op, inputs, shape, roles, attributes = fields(value, "name op inputs shape parameters attributes", place)
    sources = tuple(text(s, place) for s in array(inputs, place, 10_000))
    require(all(s in shapes for s in sources) and len(sources) >= 1, f"{place} reads a value not defined before it")
    require(isinstance(roles, dict) and isinstance(attributes, dict), f"{place}: parameters and attributes")
    require(all(isinstance(k, str) and k in tensors for k in roles.values()), f"{place}: unknown parameter")
    given = {role: tensors[key] for role, key in roles.items()}
    node = Node(text(name, place), text(op, place), sources, tuple(shapes[s] for s in sources), given, attributes)
    wanted = _CONTENT.get(node.op)
    if wanted is not None:
        optional = {"bias"} if node.op in ("linear", "conv") else set()
        require(set(roles) | optional == set(wanted[0].split()) | optional, f"{place}: parameters {sorted(roles)}")
        require(set(attributes) == set(wanted[1].split()), f"{place}: attributes {sorted(attributes)}")
    return node, _shape(shape, f"{place}.shape")


_CONTENT = {
    "linear": ("weight", ""), "conv": ("weight", "stride padding dilation groups"),
    "batch_norm": ("weight bias mean variance", "epsilon"),
    "scale": ("value", ""), "divide": ("value", ""), "shift": ("value", ""), "add": ("", ""), "subtract": ("", ""),
    "relu": ("", ""), "max_pool": ("", "kernel stride padding dilation"),
    "average_pool": ("", "kernel stride padding dilation count_padding"), "mean": ("", "axes keepdims"),
    "reshape": ("", "shape"), "transpose": ("", "permutation"), "slice": ("", "starts stops steps"),
    "pad": ("", "padding value"), "concat": ("", "axis"),
}  # fmt: skip


def read_safetensors(data: bytes) -> dict[str, tuple[str, Shape, Real]]:
    """Name -> (type, shape, numbers). The tensors must cover the data without gap, overlap or rest."""
    require(len(data) >= 8, "not a safetensors file")
    size = int.from_bytes(data[:8], "little")
    require(size <= min(MAX_HEADER, len(data) - 8), "a safetensors header longer than its file or the limit")
    header = read_json(data[8 : 8 + size])
    require(isinstance(header, dict) and data[8:9] == b"{", "a safetensors header is not an object")
    notes = header.pop("__metadata__", {})
    require(isinstance(notes, dict) and all(isinstance(v, str) for v in notes.values()), "__metadata__")
    body, entries = data[8 + size :], []
    for name, entry in header.items():
        kind, shape, offsets = fields(entry, "dtype shape data_offsets", f"tensor {name!r}")
        supported(kind in _TYPES, f"tensor {name!r} has type {str(kind)[:20]}")
        sizes = tuple(whole(n, f"tensor {name!r}", 0, 2**31) for n in array(shape, name, 16))
        begin, end = (whole(o, f"tensor {name!r}") for o in array(offsets, name, 2) + [-1] * (2 - len(offsets)))
        width = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[kind]
        require(end - begin == p.bounded(prod(sizes)) * width, f"tensor {name!r} has the wrong length")
        entries.append((begin, end, name, kind, sizes))
    at, result = 0, {}
    for begin, end, name, kind, sizes in sorted(entries):
        require(begin == at and end <= len(body), f"tensor {name!r} overlaps another, leaves a gap, or is cut short")
        result[name] = _TYPES[kind], sizes, p.from_bits(body[begin:end], _TYPES[kind]).reshape(*sizes)
        at = end
    require(at == len(body), "data behind the last tensor")
    return result


def _linear(node: Node) -> Step:
    weight, bias = node.role("weight"), node.roles.get("bias")
    require(weight.mantissa.ndim == 2, f"{node.name}: weight is not a matrix")
    require(bias is None or bias.mantissa.shape == weight.mantissa.shape[:1], f"{node.name}: bias does not fit")
    return p.linear(node.name, node.source, node.shape, weight, bias)


def _window(node: Node, kernel: Shape) -> p.Window:
    return p.Window(kernel, node.ints("stride"), node.ints("padding"), node.ints("dilation"))


def _conv(node: Node) -> Step:
    weight, bias = node.role("weight"), node.roles.get("bias")
    require(weight.mantissa.ndim >= 3, f"{node.name}: weight is not a kernel")
    require(bias is None or bias.mantissa.shape == weight.mantissa.shape[:1], f"{node.name}: bias does not fit")
    groups = whole(node.attributes["groups"], f"{node.name}.groups", 1)
    return p.convolution(
        node.name, node.source, node.shape, weight, bias, _window(node, weight.mantissa.shape[2:]), groups
    )


def _batch_norm(node: Node) -> Step:
    roles = [node.role(r) for r in ("weight", "bias", "mean", "variance")]
    return p.batch_norm(node.name, node.source, node.shape, roles, Fraction(node.number("epsilon")))


def _value(node: Node) -> Real:
    """The constant of an element-wise op: single, or broadcast to the input's shape."""
    numbers = node.role("value")
    have = numbers.mantissa.shape
    fits = len(have) <= len(node.shape)
    fits = fits and all(c in (1, n) for c, n in zip(have[::-1], node.shape[::-1], strict=False))
    require(fits, f"{node.name}: constant {have} does not broadcast to {node.shape}")
    return numbers.reshape() if numbers.mantissa.size == 1 else numbers.expand(node.shape)


def _of_two(sign: int) -> Callable[[Node], Step]:
    def translate(node: Node) -> Step:
        require(node.shapes[0] == node.shapes[1], f"{node.name}: shapes {node.shapes}")
        return Step(node.name, "sum", node.sources, node.shape, signs=(1, sign))

    return translate


def _moved(node: Node, taps: Index, fill: Real | None = None) -> Step:
    return p.gather(node.name, node.sources, taps.shape, taps, fill)


def _reshape(node: Node) -> Step:
    shape = node.ints("shape")
    require(prod(shape) == prod(node.shape), f"{node.name}: {node.shape} does not reshape to {shape}")
    return _moved(node, p.grid(node.shape).reshape(shape))


def _transpose(node: Node) -> Step:
    order = node.ints("permutation")
    require(sorted(order) == list(range(len(node.shape))), f"{node.name}: permutation {order}")
    return _moved(node, p.grid(node.shape).transpose(order))


def _slice(node: Node) -> Step:
    rows = [node.ints(k) for k in ("starts", "stops", "steps")]
    require(all(len(r) == len(node.shape) for r in rows), f"{node.name}: one start, stop and step per axis")
    ranges = list(zip(*rows, node.shape, strict=True))
    require(all(a < b <= n and s >= 1 for a, b, s, n in ranges), f"{node.name}: slice outside {node.shape}")
    return _moved(node, p.grid(node.shape)[tuple(slice(a, b, s) for a, b, s, _ in ranges)])


def _pad(node: Node) -> Step:
    padding, rank = node.ints("padding"), len(node.shape)
    require(len(padding) == 2 * rank, f"{node.name}: padding {padding}")
    p.bounded(prod(n + padding[i] + padding[i + rank] for i, n in enumerate(node.shape)))
    border = [(padding[i], padding[i + rank]) for i in range(rank)]
    fill = p.from_bits(np.array(node.number("value"), dtype="<f8").tobytes(), "float64").reshape()
    return _moved(node, np.pad(p.grid(node.shape), border, constant_values=-1), fill)


def _concat(node: Node) -> Step:
    axis = whole(node.attributes["axis"], f"{node.name}.axis", 0, len(node.shape) - 1)
    rest = {(*s[:axis], *s[axis + 1 :]) for s in node.shapes}
    require(len(rest) == 1 and len({len(s) for s in node.shapes}) == 1, f"{node.name}: shapes {node.shapes}")
    offsets = np.cumsum([0, *(prod(s) for s in node.shapes)]).tolist()
    parts = [p.grid(s) + offset for s, offset in zip(node.shapes, offsets, strict=False)]
    return _moved(node, np.concatenate(parts, axis=axis))


def _mean(node: Node) -> Step:
    axes = node.ints("axes")
    require(len(set(axes)) == len(axes) > 0 and max(axes) < len(node.shape), f"{node.name}: axes {axes}")
    return p.mean(node.name, node.source, node.shape, sorted(axes), node.flag("keepdims"))


def _average_pool(node: Node) -> Step:
    window = _window(node, node.ints("kernel"))
    return p.average_pool(node.name, node.source, node.shape, window, node.flag("count_padding"))


OPERATIONS: dict[str, Callable[[Node], Step]] = {
    "linear": _linear, "conv": _conv, "batch_norm": _batch_norm,
    "scale": lambda n: p.scaled(n.name, n.source, n.shape, _value(n), None),
    "shift": lambda n: p.scaled(n.name, n.source, n.shape, p.integers([1], ()), _value(n)),
    "divide": lambda n: p.divided(n.name, n.source, n.shape, _value(n)),
    "add": _of_two(1), "subtract": _of_two(-1),
    "relu": lambda n: Step(n.name, "relu", n.sources, n.shape),
    "max_pool": lambda n: p.max_pool(n.name, n.source, n.shape, _window(n, n.ints("kernel"))),
    "average_pool": _average_pool, "mean": _mean, "reshape": _reshape, "transpose": _transpose, "slice": _slice,
    "pad": _pad, "concat": _concat,
}  # fmt: skip
