"""The verifier's graph -> an ONNX file that reads back as the equal network.

``read_onnx(write_onnx(network)) == network``: names, ops, attributes, parameter keys and bits, hence the
digest. The file holds the default operators of opset 20 (23 where there is attention), a symbolic first
axis called "batch", and nothing else: no producer, no doc strings, no metadata.

ONNX stores scalar attributes as float32; a network with an attribute that float32 cannot hold (an epsilon
of 1e-5 traced from a float64 module) is refused. `single_precision` gives the float32 twin that can be written.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from verify.errors import ModelError
from verify.network.files import MAX_BYTES, write_bytes
from verify.network.graph import Array, Network, Node, Shape

_OPSET, _OPSET_ATTENTION, _IR_VERSION = 20, 23, 10
_TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def write_onnx(network: Network, path: Path | str) -> None:
    """Write a network to an ONNX file, atomically.

    Raises:
        ModelError: the network holds something that ONNX cannot express exactly.
        InputError: the file cannot be written.
    """
    write_bytes(Path(path), onnx_bytes(network))


def onnx_bytes(network: Network) -> bytes:
    """The content of the ONNX file of a network; equal networks give equal bytes."""
    model = _Writer(network).model()
    if model.ByteSize() >= MAX_BYTES:
        raise ModelError(f"the network takes {model.ByteSize()} bytes, ONNX files hold less than {MAX_BYTES}")
    return cast(bytes, model.SerializeToString(deterministic=True))


def single_precision(network: Network) -> Network:
    """The network with parameters and scalar attributes rounded to float32."""
    parameters = {key: array.astype(np.float32) for key, array in network.parameters.items()}
    nodes = tuple(
        replace(n, attributes={k: _rounded(v) if isinstance(v, float) else v for k, v in n.attributes.items()})
        for n in network.nodes
    )
    return replace(network, nodes=nodes, parameters=parameters)


def _rounded(value: float) -> float:
    return float(np.float32(value))


class _Writer:
    """Collects ONNX nodes and initialisers for one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.readers = network.consumers()
        self.dtype = _common_dtype(network)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._written: dict[tuple[str, bool], str] = {}
        self._taken = {network.input, *(n.name for n in network.nodes)}
        _check_names(network, self._taken)
        self._taken |= set(network.parameters)
        self._turned = _turned_only(network)

    def model(self) -> onnx.ModelProto:
        for node in self.network.nodes:
            WRITERS[node.op](self, node)
        output = self.network.output
        if output == self.network.input:
            output = self.emit("Identity", [output], self.free_name(f"{output}/output"))
        ends = [(self.network.input, self.network.input_shape), (output, self.network.output_shape)]
        infos = [helper.make_tensor_value_info(n, _TYPES[self.dtype.name], ["batch", *s]) for n, s in ends]
        graph = helper.make_graph(self.nodes, "network", infos[:1], infos[1:], self.initializers)
        attention = any(node.op == "attention" for node in self.network.nodes)
        opset = helper.make_opsetid("", _OPSET_ATTENTION if attention else _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)

    def free_name(self, name: str) -> str:
        """`name`, or the first numbered form of it that is not taken; taken from now on."""
        candidate, count = name, 0
        while candidate in self._taken:
            count += 1
            candidate = f"{name}/{count}"
        self._taken.add(candidate)
        return candidate

    def emit(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def store(self, name: str, array: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def integers(self, node: Node, what: str, values: Sequence[int]) -> str:
        """A list of integers that an operator takes as an input."""
        return self.store(self.free_name(f"{node.name}/{what}"), np.array(values, dtype=np.int64))

    def scalar(self, node: Node, attribute: str) -> str:
        """A float attribute that an operator takes as an input."""
        value = cast(float, node.attributes[attribute])
        array = np.array(value, dtype=self.dtype)
        if float(array) != value:
            raise _inexact(node, attribute, self.dtype.name)
        return self.store(self.free_name(f"{node.name}/{attribute}"), array)

    def parameter(self, key: str, turned: bool = False) -> str:
        """Tensor that holds a parameter in the network's dtype; `turned`: its transpose."""
        if (key, turned) not in self._written:
            self._written[key, turned] = self._parameter(key, turned)
        return self._written[key, turned]

    def _parameter(self, key: str, turned: bool) -> str:
        array = self.network.parameters[key]
        if turned and key not in self._turned:
            return self.emit("Transpose", [self.parameter(key)], self.free_name(f"{key}/turned"), perm=[1, 0])
        self.store(key, array.T if turned else array)
        if array.dtype == self.dtype:
            return key
        return self.emit("Cast", [key], self.free_name(f"{key}/cast"), to=_TYPES[self.dtype.name])


def _common_dtype(network: Network) -> "np.dtype[Any]":
    """The widest type of the parameters; float32 without parameters."""
    dtypes = {array.dtype.newbyteorder("=") for array in network.parameters.values()}
    unknown = [d.name for d in dtypes if d.name not in _TYPES]
    if unknown:
        raise ModelError(f"parameters of type {', '.join(unknown)} cannot be written to ONNX")
    return max(dtypes, key=lambda d: d.itemsize, default=np.dtype(np.float32))


def _check_names(network: Network, values: set[str]) -> None:
    """ONNX has one name space for values and parameters, and the empty name means "left out"."""
    both = sorted(values & set(network.parameters))
    if both:
        raise ModelError(f"{both[0]!r} names both a value and a parameter; ONNX needs different names: rename one")
    if "" in values or "" in network.parameters:
        raise ModelError("a value or a parameter has the empty name, which ONNX does not allow")
    unused = set(network.parameters) - {k for n in network.nodes for k in n.parameters.values()}
    if unused:
        raise ModelError(f"parameters that no node uses cannot be written to ONNX: {', '.join(sorted(unused))}")
    if not network.input_shape:
        raise ModelError("a network whose samples are scalars cannot be written to ONNX: give them one axis")


def _is_product(network: Network, node: Node) -> bool:
    """A linear node that is written as MatMul (its samples have several axes)."""
    return node.op == "linear" and len(network.shape_of(node.inputs[0])) != 1


def _turned_only(network: Network) -> set[str]:
    """Parameters that are read as the second factor of a MatMul and nowhere else."""
    turned: set[str] = set()
    plain: set[str] = set()
    for node in network.nodes:
        for role, key in node.parameters.items():
            (turned if role == "weight" and _is_product(network, node) else plain).add(key)
    return turned - plain


def _inexact(node: Node, attribute: str, dtype: str) -> ModelError:
    return ModelError(
        f"node {node.name!r} ({node.op}): {attribute} = {node.attributes[attribute]!r} is no {dtype} number and cannot "
        "be written to ONNX exactly; write single_precision(network) instead"
    )


def _float(node: Node, attribute: str) -> float:
    """A float attribute that ONNX stores as float32."""
    value = cast(float, node.attributes[attribute])
    if _rounded(value) != value:
        raise _inexact(node, attribute, "float32")
    return value


def _ints(node: Node, attribute: str) -> Shape:
    return cast(Shape, node.attributes[attribute])


def _plain(operator: str) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.emit(operator, node.inputs, node.name)

    return write


def _with_float(operator: str, **names: str) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.emit(operator, node.inputs, node.name, **{onnx: _float(node, ours) for onnx, ours in names.items()})

    return write


def _with_value(operator: str) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.emit(operator, [node.inputs[0], writer.parameter(node.parameters["value"])], node.name)

    return write


def _apart(writer: _Writer, source: str) -> str:
    """The value behind an Identity, so that a reader does not fuse it with what follows."""
    return writer.emit("Identity", [source], writer.free_name(f"{source}/apart"))


def _shift(writer: _Writer, node: Node) -> None:
    source = node.inputs[0]
    if source != writer.network.input:
        before = writer.network.node(source)
        if "bias" not in before.parameters and _is_product(writer.network, before):
            source = _apart(writer, source)  # an Add directly behind a MatMul is read as its bias
    writer.emit("Add", [source, writer.parameter(node.parameters["value"])], node.name)


def _multiply(writer: _Writer, node: Node) -> None:
    inputs = list(node.inputs)
    for i, source in enumerate(inputs):
        if source != writer.network.input and writer.network.node(source).op == "sigmoid":
            inputs[i] = _apart(writer, source)  # x * Sigmoid(x) is read as silu
    writer.emit("Mul", inputs, node.name)


def _silu(writer: _Writer, node: Node) -> None:
    gate = writer.emit("Sigmoid", node.inputs, writer.free_name(f"{node.name}/sigmoid"))
    writer.emit("Mul", [node.inputs[0], gate], node.name)


def _linear(writer: _Writer, node: Node) -> None:
    weight, bias = node.parameters["weight"], node.parameters.get("bias")
    if not _is_product(writer.network, node):
        inputs = [node.inputs[0], writer.parameter(weight), *([writer.parameter(bias)] if bias else [])]
        writer.emit("Gemm", inputs, node.name, transB=1)
        return
    product = writer.free_name(f"{node.name}/product") if bias else node.name
    writer.emit("MatMul", [node.inputs[0], writer.parameter(weight, turned=True)], product)
    if bias:
        writer.emit("Add", [product, writer.parameter(bias)], node.name)


def _conv(writer: _Writer, node: Node) -> None:
    roles = [writer.parameter(node.parameters[r]) for r in ("weight", "bias") if r in node.parameters]
    kernel = writer.network.parameters[node.parameters["weight"]].shape[2:]
    writer.emit(
        "Conv", [*node.inputs, *roles], node.name, kernel_shape=kernel, strides=_ints(node, "stride"),
        pads=_ints(node, "padding"), dilations=_ints(node, "dilation"), group=node.attributes["groups"],
    )  # fmt: skip


def _batch_norm(writer: _Writer, node: Node) -> None:
    roles = [writer.parameter(node.parameters[r]) for r in ("weight", "bias", "mean", "variance")]
    writer.emit("BatchNormalization", [*node.inputs, *roles], node.name, epsilon=_float(node, "epsilon"))


def _layer_norm(writer: _Writer, node: Node) -> None:
    roles = [writer.parameter(node.parameters[r]) for r in ("weight", "bias") if r in node.parameters]
    rank = writer.network.parameters[node.parameters["weight"]].ndim
    writer.emit("LayerNormalization", [*node.inputs, *roles], node.name, axis=-rank, epsilon=_float(node, "epsilon"))


def _constant(writer: _Writer, node: Node) -> None:
    """The parameter repeated for every sample of the batch."""
    key = node.parameters["value"]
    batch = writer.emit("Shape", [writer.network.input], writer.free_name(f"{node.name}/batch"), start=0, end=1)
    sizes = writer.integers(node, "sizes", writer.network.parameters[key].shape)
    shape = writer.emit("Concat", [batch, sizes], writer.free_name(f"{node.name}/shape"), axis=0)
    writer.emit("Expand", [writer.parameter(key), shape], node.name)


def _clip(writer: _Writer, node: Node) -> None:
    bounds = [
        writer.scalar(node, side) if np.isfinite(cast(float, node.attributes[side])) else ""
        for side in ("lower", "upper")
    ]
    writer.emit("Clip", [*node.inputs, *bounds], node.name)


def _gelu(writer: _Writer, node: Node) -> None:
    writer.emit("Gelu", node.inputs, node.name, approximate=node.attributes["approximate"])


def _pool(writer: _Writer, node: Node, operator: str, **more: int) -> None:
    writer.emit(
        operator, node.inputs, node.name, kernel_shape=_ints(node, "kernel"), strides=_ints(node, "stride"),
        pads=_ints(node, "padding"), dilations=_ints(node, "dilation"), **more,
    )  # fmt: skip


def _max_pool(writer: _Writer, node: Node) -> None:
    _pool(writer, node, "MaxPool")


def _average_pool(writer: _Writer, node: Node) -> None:
    _pool(writer, node, "AveragePool", count_include_pad=int(cast(bool, node.attributes["count_padding"])))


def _mean(writer: _Writer, node: Node) -> None:
    axes = writer.integers(node, "axes", [a + 1 for a in _ints(node, "axes")])
    writer.emit("ReduceMean", [*node.inputs, axes], node.name, keepdims=int(cast(bool, node.attributes["keepdims"])))


def _reshape(writer: _Writer, node: Node) -> None:
    writer.emit("Reshape", [*node.inputs, writer.integers(node, "shape", [-1, *node.shape])], node.name)


def _transpose(writer: _Writer, node: Node) -> None:
    writer.emit("Transpose", node.inputs, node.name, perm=[0, *(a + 1 for a in _ints(node, "permutation"))])


def _slice(writer: _Writer, node: Node) -> None:
    rows = {k: _ints(node, k) for k in ("starts", "stops")}
    rows |= {"axes": tuple(range(1, len(node.shape) + 1)), "steps": _ints(node, "steps")}
    writer.emit("Slice", [*node.inputs, *(writer.integers(node, k, v) for k, v in rows.items())], node.name)


def _pad(writer: _Writer, node: Node) -> None:
    padding, rank = _ints(node, "padding"), len(node.shape)
    pads = writer.integers(node, "pads", [0, *padding[:rank], 0, *padding[rank:]])
    writer.emit("Pad", [*node.inputs, pads, writer.scalar(node, "value")], node.name)


def _along(operator: str) -> Callable[[_Writer, Node], None]:
    def write(writer: _Writer, node: Node) -> None:
        writer.emit(operator, node.inputs, node.name, axis=cast(int, node.attributes["axis"]) + 1)

    return write


def _attention(writer: _Writer, node: Node) -> None:
    rank = len(node.shape)
    if rank not in (2, 3):
        raise ModelError(
            f"node {node.name!r} (attention): ONNX takes (length, size) or (heads, length, size), not {node.shape}"
        )
    attributes: dict[str, Any] = {} if rank == 3 else {"q_num_heads": 1, "kv_num_heads": 1}
    if node.attributes["scale"] != 1.0 / math.sqrt(writer.network.shape_of(node.inputs[0])[-1]):  # the default
        attributes["scale"] = _float(node, "scale")
    writer.emit("Attention", node.inputs, node.name, **attributes)


WRITERS: dict[str, Callable[[_Writer, Node], None]] = {
    "linear": _linear, "conv": _conv, "batch_norm": _batch_norm, "layer_norm": _layer_norm, "attention": _attention,
    "scale": _with_value("Mul"), "divide": _with_value("Div"), "shift": _shift, "constant": _constant,
    "add": _plain("Add"), "subtract": _plain("Sub"), "multiply": _multiply, "matmul": _plain("MatMul"),
    "relu": _plain("Relu"), "sigmoid": _plain("Sigmoid"), "tanh": _plain("Tanh"), "erf": _plain("Erf"),
    "hardswish": _plain("HardSwish"), "silu": _silu, "gelu": _gelu, "clip": _clip,
    "leaky_relu": _with_float("LeakyRelu", alpha="slope"),
    "hardsigmoid": _with_float("HardSigmoid", alpha="alpha", beta="beta"),
    "max_pool": _max_pool, "average_pool": _average_pool, "mean": _mean,
    "reshape": _reshape, "transpose": _transpose, "slice": _slice, "pad": _pad,
    "concat": _along("Concat"), "softmax": _along("Softmax"),
}  # fmt: skip
