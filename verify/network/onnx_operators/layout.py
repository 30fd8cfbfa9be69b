"""Operators of ONNX that move, repeat, drop or pass on elements."""

import math
from dataclasses import replace

import numpy as np

from verify.errors import ModelError
from verify.network.extents import bounds, even_parts, resolved
from verify.network.lowering import Constant, Value, broadcast, normal_axis
from verify.network.onnx_operators.call import Call, Handler, Result


def _flatten(call: Call) -> Result:
    value = call.value()
    axis = call.attributes.get("axis", 1)
    axis = axis + len(value.shape) if axis < 0 else axis
    return call.lowering.view(call.name, value, (math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


def _reshape(call: Call) -> Result:
    value, target = call.value(), call.integers(1, "shape")
    if target is None:
        raise ModelError(f"node {call.name!r} (Reshape): its shape is missing")
    copies = not call.attributes.get("allowzero", 0)
    return call.lowering.view(call.name, value, resolved(call.name, value.shape, target, copies))


def _squeeze(call: Call) -> Result:
    value, axes = call.value(), call.integers(1, "axes")
    if not axes and call.lowering.symbolic:
        raise call.refuse("without axes; what it drops would depend on the batch size")
    axes = axes or tuple(i for i, n in enumerate(value.shape) if n == 1)
    gone = {normal_axis(a, len(value.shape), call.name) for a in axes}
    if any(value.shape[a] != 1 for a in gone):
        raise ModelError(f"node {call.name!r} (Squeeze): axes {axes} of {value.shape} are not all of length 1")
    batch = value.batch
    if batch is not None:
        batch = None if batch in gone else batch - sum(a < batch for a in gone)
    shape = tuple(n for i, n in enumerate(value.shape) if i not in gone)
    return call.lowering.reshape(call.name, value, shape, batch)


def _unsqueeze(call: Call) -> Result:
    value, axes = call.value(), call.integers(1, "axes") or ()
    rank = len(value.shape) + len(axes)
    new = {normal_axis(a, rank, call.name) for a in axes}
    old = [i for i in range(rank) if i not in new]
    if len(new) != len(axes):
        raise ModelError(f"node {call.name!r} (Unsqueeze): axes {axes} repeat")
    shape = [1] * rank
    for place, size in zip(old, value.shape, strict=True):
        shape[place] = size
    batch = None if value.batch is None else old[value.batch]
    return call.lowering.reshape(call.name, value, tuple(shape), batch)


def _transpose(call: Call) -> Result:
    value = call.value()
    permutation = tuple(call.attributes.get("perm", reversed(range(len(value.shape)))))
    return call.lowering.transpose(call.name, value, permutation)


def _slice(call: Call) -> Result:
    value = call.value()
    starts, stops = call.integers(1, "starts"), call.integers(2, "ends")
    if starts is None or stops is None:
        raise ModelError(f"node {call.name!r} (Slice): its starts or ends are missing")
    axes = call.integers(3, "axes") or tuple(range(len(starts)))
    steps = call.integers(4, "steps") or (1,) * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps):
        raise ModelError(f"node {call.name!r} (Slice): starts, ends, axes and steps differ in number")
    ranges = {}
    for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
        if step < 1:
            raise call.refuse(f"step {step}")
        axis = normal_axis(axis, len(value.shape), call.name)
        ranges[axis] = bounds(call.name, value.shape[axis], start, stop, step)
    return call.lowering.slice(call.name, value, ranges)


def _split(call: Call) -> Result:
    value, count = call.value(), len(call.outputs)
    axis = normal_axis(call.attributes.get("axis", 0), len(value.shape), call.name)
    size = value.shape[axis]
    if call.attributes.get("num_outputs", count) != count:
        raise ModelError(f"node {call.name!r} (Split): num_outputs differs from its {count} outputs")
    sizes = call.integers(1, "split") or even_parts(size, count)
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 1:
        raise ModelError(f"node {call.name!r} (Split): parts {sizes} of an axis of {size}")
    ends = np.cumsum(sizes).tolist()
    pieces = zip(call.outputs, sizes, ends, strict=True)
    return tuple(call.lowering.slice(name, value, {axis: (end - n, end, 1)}) for name, n, end in pieces)


def _concat(call: Call) -> Result:
    values = [o for o in call.operands if isinstance(o, Value)]
    first, rank = values[0], len(values[0].shape)
    axis = normal_axis(call.attributes.get("axis", 1), rank, call.name)
    parts = []
    for operand in call.operands:
        if isinstance(operand, Constant):
            if operand.array.ndim != rank or (first.batch is not None and operand.array.shape[first.batch] != 1):
                raise ModelError(f"node {call.name!r} (Concat): {operand.key!r} has shape {operand.array.shape}")
            parts.append(call.lowering.constant(f"{operand.tensor or operand.key}/value", operand, first.batch))
        elif operand is not None:
            parts.append(call.lowering.fit(call.name, operand, operand.shape, first.batch))
    return call.lowering.concat(call.name, parts, axis)


def _gather(call: Call) -> Result:
    value, indices = call.value(), call.required(1, "indices").array
    axis = normal_axis(call.attributes.get("axis", 0), len(value.shape), call.name)
    size = value.shape[axis]
    if indices.dtype.kind != "i" or ((indices < -size) | (indices >= size)).any() or indices.size == 0:
        raise ModelError(f"node {call.name!r} (Gather): indices outside an axis of {size}")
    if indices.ndim == 0:
        return call.lowering.select(call.name, value, axis, int(indices))
    if indices.ndim > 1:
        raise call.refuse("indices of rank above 1")
    return call.lowering.pick(call.name, value, axis, [int(i) % size for i in indices])


def _pad(call: Call) -> Result:
    value = call.value()
    if call.attributes.get("mode", "constant") != "constant":
        raise call.refuse(f"mode {call.attributes['mode']!r}")
    pads = call.integers(1, "pads")
    rank = len(value.shape)
    axes = [normal_axis(a, rank, call.name) for a in call.integers(3, "axes") or range(rank)]
    if pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        raise call.refuse(f"pads {pads}")
    begins, ends = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
    return call.lowering.pad(call.name, value, tuple(begins), tuple(ends), call.number(2, "value", 0.0))


def _expand(call: Call) -> Result:
    operand, shape = call.operand(0), call.required(1, "shape")
    target = tuple(int(i) for i in shape.array.reshape(-1))
    if isinstance(operand, Constant):
        full = broadcast((operand.array.shape, target), call.name)
        expanded = replace(operand, array=np.broadcast_to(operand.array, full), tensor=call.name)
        if shape.sized and full[:1] == (1,):
            return call.lowering.constant(call.name, expanded, 0)
        return expanded
    value = call.value()
    full = broadcast((value.shape, target), call.name)
    batch = None if value.batch is None else value.batch + len(full) - len(value.shape)
    return call.lowering.expand(call.name, value, full, batch)


def _identity(call: Call) -> Result:
    return call.value()


def _dropout(call: Call) -> Result:
    training = call.constant(2, "training mode")
    if training is not None and bool(training.array):
        raise call.refuse("training mode")
    return call.value()


def _cast(call: Call) -> Result:
    """A conversion that loses nothing."""
    target = {1: 4, 10: 2, 11: 8}.get(call.attributes.get("to", 0), 0)
    if call.op == "Cast" and target < call.dtype.itemsize:
        raise call.refuse(f"conversion of {call.dtype} values to ONNX type {call.attributes.get('to')}")
    if call.op == "CastLike" and not isinstance(call.operand(1), Value):
        raise call.refuse("conversion of a value to the type of a constant")
    return call.value()


LAYOUT: dict[str, Handler] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast,
}
