"""torch modules and exported programs -> the verifier's graph.

``module -> torch.export (eval mode, batch 1) -> run_decompositions({}) -> Network``. The empty table keeps
convolution, linear maps, normalisation and attention whole, and the program functional and bit-identical to eager.
Parameters bear the names of the state_dict. A node with parameters bears the name of the module that owns them
("layer1.0.conv1"), any other the name of its node in the exported program ("relu_1").

Scalar arguments (an epsilon, a slope) of a float32 program are float32 numbers, as its kernels take them, and
therefore survive a trip through an ONNX file; those of a float64 program stay double.
Not claimed: that eager float32 computes these values; it rounds.
"""

import copy
import operator
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from verify.errors import ModelError, UnsupportedOperation
from verify.network.aten_operators import OPERATORS, Call
from verify.network.evaluate import evaluate
from verify.network.graph import Network
from verify.network.lowering import Constant, Lowering, Value, check_size
from verify.network.program_archive import load_program

_DTYPES = {torch.float16: np.float16, torch.float32: np.float32, torch.float64: np.float64}
_MOVES = ("view", "reshape", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "clone", "contiguous",
          "detach", "alias", "lift_fresh_copy", "flatten")  # fmt: skip
_FOLDED = (
    *_MOVES, "add", "sub", "rsub", "mul", "div", "neg", "slice", "select", "cat", "arange", "zeros", "ones", "full",
    "_to_copy", "to", "pow", "sqrt", "rsqrt", "exp", "reciprocal", "index_select", "full_like", "zeros_like",
    "ones_like",
)  # fmt: skip
_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size")
_INTEGERS = {operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg}


def trace(module: nn.Module, example: Tensor) -> Network:
    """The network that a torch module computes in eval mode.

    Args:
        module: any module that `torch.export` can follow; it is left as it is (a copy is exported).
        example: one input with batch size 1, ``(1, *input_shape)``.

    Raises:
        ModelError: the module cannot be exported, or mixes samples, or has several inputs or outputs.
        UnsupportedOperation: it uses an operator that the graph does not know.
    """
    if example.ndim < 2 or example.shape[0] != 1:
        raise ModelError(f"the example input has shape {tuple(example.shape)}, expected (1, ...): one sample, batch 1")
    if example.dtype not in _DTYPES:
        raise ModelError(f"the example input has dtype {example.dtype}, expected float16, float32 or float64")
    twin = _copy(module)
    network = read_export(_export(twin, example.detach().cpu()))
    _compare(network, twin, example.detach().cpu())
    return network


def read_export(program: ExportedProgram) -> Network:
    """The network that an exported program computes; its batch axis must be 1 or dynamic.

    Raises:
        ModelError: it mixes samples, changes its buffers (batch norm in training mode), or has several
            inputs or outputs.
        UnsupportedOperation: it uses an operator that the graph does not know.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = program.run_decompositions({})
    if program.graph_signature.buffers_to_mutate:
        names = ", ".join(sorted(program.graph_signature.buffers_to_mutate.values()))
        raise ModelError(f"the program changes buffers while it runs ({names}): export the module after .eval()")
    return _Reader(program).read()


def read_pt2(path: Path | str) -> Network:
    """The network in a ``.pt2`` file; nothing in the file is unpickled or run (`program_archive`).

    Raises:
        ModelError: as `read_export`; or the file is missing, damaged, or holds pickled tensors.
        UnsupportedOperation: it uses an operator that the graph does not know.
    """
    try:
        return read_export(load_program(Path(path)))
    except UnsupportedOperation:
        raise
    except ModelError as error:
        raise ModelError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _copy(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).cpu().eval()
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot be copied before export: {_cause(error)}") from error


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,))
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be traced by torch.export: {_cause(error)}. Remove Python control flow "
            "that depends on tensor values, or hand over an ONNX file instead"
        ) from error


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}".rstrip(".")


def _compare(network: Network, module: nn.Module, example: Tensor) -> None:
    """Refuse a graph that does not reproduce the module's own output."""
    with torch.no_grad():
        output = module(example)
    if not isinstance(output, Tensor):
        raise ModelError(f"the output of {type(module).__name__} is a {type(output).__name__}, expected one tensor")
    expected = output.double().numpy()
    found = evaluate(network, example.double().numpy())
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
    difference = float(np.abs(found.reshape(expected.shape) - expected).max(initial=0.0))
    limit = (1e-2 if example.dtype == torch.float16 else 1e-3) * scale
    if not difference <= limit:
        raise ModelError(
            f"the graph read from {type(module).__name__} differs from the module by {difference:.3g} on the example"
        )


class _Reader:
    """One pass over the nodes of an exported program."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.tensors = _tensors(program)
        self.keys = _shared_keys(self.tensors)
        self.values: dict[fx.Node, Any] = {}

    def read(self) -> Network:
        results = [s for s in self.program.graph_signature.output_specs if s.kind == OutputKind.USER_OUTPUT]
        if len(results) != 1:
            raise ModelError(f"the module has {len(results)} outputs, expected 1 tensor")
        self.lowering, self.dtype = self._input()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op not in ("placeholder", "output", "get_attr"):
                raise UnsupportedOperation(str(node.target), node.name, OPERATORS, node.op)
        output = self._output(results[0].arg.name)
        if not isinstance(output, Value):
            raise ModelError("the output does not depend on the input")
        return self.lowering.network(output)

    def _output(self, name: str) -> Any:
        return next((v for node, v in self.values.items() if node.name == name), None)

    def _input(self) -> tuple[Lowering, "np.dtype[Any]"]:
        specs = {s.arg.name: s for s in self.program.graph_signature.input_specs}
        inputs = [s.arg.name for s in specs.values() if s.kind == InputKind.USER_INPUT]
        if len(inputs) != 1:
            raise ModelError(f"the module has {len(inputs)} inputs ({', '.join(inputs)}), expected 1 tensor")
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in inputs:
                lowering, dtype = _start(node, self.tensors)
                self.values[node] = lowering.input
            elif node.op == "placeholder":
                self.values[node] = self._constant(specs[node.name].target, node)
        return lowering, dtype

    def _constant(self, target: str | None, node: fx.Node) -> Constant | None:
        if target is None or target not in self.tensors:
            return None  # an object that is no tensor: refused where it is used
        key = self.keys[target]
        return Constant(_array(self.tensors[key]), key, key) if _readable(self.tensors[key]) else None

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._item(node)
        arguments = _bound(node)
        resolved = {name: self._resolve(value, node) for name, value in arguments.items()}
        if node.target in _INTEGERS:
            return node.target(*resolved.values())
        target = str(node.target)
        stem = target.split(".")[1] if target.startswith("aten.") else ""
        if stem in _CHECKS:
            return None
        if target == "aten.sym_size.int":
            return resolved["self"].shape[resolved["dim"]]
        if stem in _FOLDED and not any(isinstance(v, Value) for v in _flat(resolved.values())):
            return self._fold(node, stem, resolved)
        return self._operator(node, target, resolved)

    def _operator(self, node: fx.Node, target: str, arguments: Mapping[str, Any]) -> Any:
        handler = OPERATORS.get(target)
        if handler is None:
            raise UnsupportedOperation(target, node.name, OPERATORS)
        defaults = {a.name: a.default_value for a in _schema(node) if a.has_default_value()}
        defaults |= dict.fromkeys((a.name for a in _schema(node) if not a.has_default_value()), None)
        call = Call(target, self._name(node), arguments, defaults, self.lowering, self.dtype)
        result = handler(call)
        call.finish()
        return result

    def _name(self, node: fx.Node) -> str:
        """The owner of the node's weight, or the name of the node, if no value or parameter has it."""
        candidates = []
        for argument in node.args:
            constant = self.values.get(argument) if isinstance(argument, fx.Node) else None
            if isinstance(constant, Constant) and constant.key.endswith((".weight", ".running_mean")):
                candidates.append(constant.key.rpartition(".")[0])
        name = next((c for c in candidates if self.lowering.free_name(c) == c), node.name)
        while name in self.keys.values():
            name += "/value"
        return self.lowering.free_name(name)

    def _item(self, node: fx.Node) -> Any:
        source, index = node.args
        value = self.values[source] if isinstance(source, fx.Node) else None
        if isinstance(value, tuple) and isinstance(index, int):
            return value[index]
        if index != 0:
            raise UnsupportedOperation(f"getitem {index}", node.name, OPERATORS, f"a further output of {source}")
        return value

    def _resolve(self, argument: Any, node: fx.Node) -> Any:
        if isinstance(argument, fx.Node):
            value = self.values.get(argument)
            if value is None:
                raise UnsupportedOperation(str(node.target), node.name, OPERATORS, f"it reads {argument.name}")
            return value
        if isinstance(argument, (list, tuple)):
            return [self._resolve(a, node) for a in argument]
        return argument

    def _fold(self, node: fx.Node, stem: str, arguments: Mapping[str, Any]) -> Constant:
        """Carry out an operator on constants, in their own type."""
        meta = node.meta.get("val")
        if isinstance(meta, Tensor):
            check_size(tuple(int(n) for n in meta.shape), node.name)
        tensors = {name: _tensor(value) for name, value in arguments.items()}
        positional = [tensors[a.name] for a in _schema(node) if a.name in tensors and not a.kwarg_only]
        named = {a.name: tensors[a.name] for a in _schema(node) if a.name in tensors and a.kwarg_only}
        result = node.target(*positional, **named)  # type: ignore[operator]
        floats = [c for c in arguments.values() if isinstance(c, Constant)]
        key = floats[0].key if len(floats) == 1 and stem in _MOVES else node.name
        return Constant(_array(result), key, key)


def _start(node: fx.Node, tensors: Mapping[str, Tensor]) -> tuple[Lowering, "np.dtype[Any]"]:
    meta = node.meta.get("val")
    if not isinstance(meta, Tensor) or meta.dtype not in _DTYPES:
        raise ModelError(f"input {node.name!r} is not a tensor of float16, float32 or float64")
    sizes = list(meta.shape)
    batch = sizes[0] if sizes else 0
    if len(sizes) < 2 or not all(isinstance(n, int) for n in sizes[1:]):
        raise ModelError(f"input {node.name!r} of shape {sizes}: expected a batch axis and fixed axes after it")
    if isinstance(batch, int) and batch != 1:
        raise ModelError(
            f"input {node.name!r} was exported with batch size {batch}: export with 1 or a dynamic batch axis"
        )
    name = node.name
    while name in tensors:
        name += "/value"
    return Lowering(name, (1, *sizes[1:]), 0, symbolic=not isinstance(batch, int)), np.dtype(_DTYPES[meta.dtype])


def _tensors(program: ExportedProgram) -> dict[str, Tensor]:
    """Parameters, buffers and constants by name."""
    constants = {k: v for k, v in program.constants.items() if isinstance(v, Tensor)}
    return {**constants, **{k: v for k, v in program.state_dict.items() if isinstance(v, Tensor)}}


def _shared_keys(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> the first name of the same memory, so that tied weights are one parameter."""
    first: dict[tuple[Any, ...], str] = {}
    keys = {}
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        keys[name] = first.setdefault(place, name) if tensor.numel() else name
    return keys


def _readable(tensor: Tensor) -> bool:
    return tensor.dtype in _DTYPES or not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    if not _readable(tensor):
        raise ModelError(f"a tensor has dtype {tensor.dtype}, which is not supported; convert the module to float32")
    return tensor.detach().cpu().numpy()


def _tensor(value: Any) -> Any:
    if isinstance(value, Constant):
        return torch.from_numpy(np.array(value.array))
    return [_tensor(v) for v in value] if isinstance(value, list) else value


def _schema(node: fx.Node) -> list[Any]:
    schema = getattr(node.target, "_schema", None)
    return list(schema.arguments) if schema is not None else []


def _bound(node: fx.Node) -> dict[str, Any]:
    """Arguments of a call by the names of the operator's schema."""
    names = [a.name for a in _schema(node)] or [str(i) for i in range(len(node.args))]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else (value,)
