"""The verifier's own picture of a network: a list of nodes in single-assignment form, and parameters.

All shapes are those of ONE sample: the batch axis is not part of the graph, and every operation acts on
each sample alone. A batch of values of a node is an array ``(batch, *node.shape)``.

Parameters keep the bits of the file they came from (float32, float64, ...); the reference semantics of
a network is its value in real arithmetic, approximated by `verify.network.evaluate` in float64.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.errors import ModelError

Shape = tuple[int, ...]
Attribute = int | float | bool | str | tuple[int, ...]
Array = NDArray[Any]


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


@dataclass(frozen=True)
class Node:
    """One operation and the value it defines.

    Attributes:
        name: the value's unique name.
        op: key of `verify.network.operations.OPERATIONS`.
        inputs: names of the values it reads, defined before it.
        shape: shape of the value for one sample, without the batch axis.
        parameters: role ("weight", "bias", ...) -> key in `Network.parameters`.
        attributes: constants of the op ("stride", "axis", ...).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    parameters: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen(self.parameters))
        object.__setattr__(self, "attributes", _frozen(self.attributes))

    def __reduce__(self) -> tuple[Any, ...]:
        return Node, (self.name, self.op, self.inputs, self.shape, dict(self.parameters), dict(self.attributes))


@dataclass(frozen=True)
class Network:
    """A network with one input and one output, checked on construction.

    Attributes:
        input: name of the input value.
        input_shape: shape of one input sample, without the batch axis.
        nodes: operations in an order in which every value is defined before it is read.
        output: name of the output value.
        parameters: name -> read-only array.

    Raises:
        ModelError: a name is undefined or defined twice, a shape does not follow from the op, or a
            parameter is missing or holds NaN or infinity.
    """

    input: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    output: str
    parameters: Mapping[str, Array] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _frozen({k: _read_only(v) for k, v in self.parameters.items()}))
        _check(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (self.input, self.input_shape, self.nodes, self.output, dict(self.parameters))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def node(self, name: str) -> Node:
        """The node that defines value `name`."""
        if name not in self._by_name:
            raise ModelError(f"no value named {name!r} in the network")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def shape_of(self, name: str) -> Shape:
        """Shape of one sample of value `name`, the input included."""
        return self.input_shape if name == self.input else self.node(name).shape

    @property
    def output_shape(self) -> Shape:
        return self.shape_of(self.output)

    def parameters_of(self, node: Node) -> dict[str, Array]:
        """Role -> array for one node."""
        return {role: self.parameters[key] for role, key in node.parameters.items()}

    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """Value name -> the nodes that read it (empty for a value that nobody reads)."""
        readers: dict[str, list[Node]] = {self.input: []}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                readers[source].append(node)
            readers[node.name] = []
        return {name: tuple(nodes) for name, nodes in readers.items()}

    def with_parameters(self, changed: Mapping[str, Array]) -> "Network":
        """The same graph with some parameters replaced (same shapes)."""
        return replace(self, parameters={**self.parameters, **changed})

    def digest(self) -> str:
        """SHA-256 over the graph and the raw bits of the parameters: equal networks, equal digest."""
        state = hashlib.sha256(b"provable-pruning network v1\n")
        header = {
            "input": [self.input, list(self.input_shape)],
            "output": self.output,
            "nodes": [
                [n.name, n.op, list(n.inputs), list(n.shape), dict(sorted(n.parameters.items())),
                 {k: _plain(v) for k, v in sorted(n.attributes.items())}]
                for n in self.nodes
            ],
        }  # fmt: skip
        _absorb(state, json.dumps(header, sort_keys=True, ensure_ascii=True).encode())
        for key in sorted(self.parameters):
            array = self.parameters[key]
            _absorb(state, key.encode())
            _absorb(state, f"{array.dtype.newbyteorder('<').str}{array.shape}".encode())
            _absorb(state, np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return state.hexdigest()


def _absorb(state: Any, record: bytes) -> None:
    state.update(len(record).to_bytes(8, "little"))
    state.update(record)


def _plain(value: Attribute) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.hex() if isinstance(value, float) else value


def _read_only(array: Array) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _check(network: Network) -> None:
    from verify.network.operations import OPERATIONS  # the table imports the types above

    shapes: dict[str, Shape] = {network.input: network.input_shape}
    for key, array in network.parameters.items():
        if array.dtype.kind != "f":
            raise ModelError(f"parameter {key!r} has dtype {array.dtype}, expected floating point")
        if not np.isfinite(array).all():
            raise ModelError(f"parameter {key!r} holds NaN or infinity; a network must be finite")
    for node in network.nodes:
        _check_names(node, shapes, network.parameters)
        operation = OPERATIONS.get(node.op)
        if operation is None:
            from verify.errors import UnsupportedOperation

            raise UnsupportedOperation(node.op, node.name, OPERATIONS)
        expected = operation.infer(
            node, [shapes[i] for i in node.inputs], {r: network.parameters[k].shape for r, k in node.parameters.items()}
        )
        if expected != node.shape:
            raise ModelError(f"node {node.name!r} ({node.op}) declares shape {node.shape}, but its op gives {expected}")
        shapes[node.name] = node.shape
    if network.output not in shapes:
        raise ModelError(f"the output {network.output!r} is not defined by any node")


def _check_names(node: Node, shapes: Mapping[str, Shape], parameters: Mapping[str, Array]) -> None:
    if node.name in shapes:
        raise ModelError(f"value {node.name!r} is defined twice")
    for source in node.inputs:
        if source not in shapes:
            raise ModelError(f"node {node.name!r} reads {source!r}, which is not defined before it")
    for role, key in node.parameters.items():
        if key not in parameters:
            raise ModelError(f"node {node.name!r} needs parameter {key!r} as its {role}, which is missing")


def build(
    input_name: str,
    input_shape: Shape,
    steps: Sequence[tuple[str, str, Sequence[str], Mapping[str, str], Mapping[str, Attribute]]],
    output: str,
    parameters: Mapping[str, Array],
) -> Network:
    """A network from (name, op, inputs, parameters, attributes) steps; shapes are inferred.

    Raises:
        ModelError: as `Network`.
    """
    from verify.network.operations import infer_shape

    shapes: dict[str, Shape] = {input_name: tuple(input_shape)}
    nodes = []
    for name, op, inputs, roles, attributes in steps:
        node = Node(name, op, tuple(inputs), (), roles, attributes)
        _check_names(node, shapes, parameters)
        shape = infer_shape(node, [shapes[i] for i in inputs], {r: np.shape(parameters[k]) for r, k in roles.items()})
        shapes[name] = shape
        nodes.append(replace(node, shape=shape))
    return Network(input_name, tuple(input_shape), tuple(nodes), output, parameters)
