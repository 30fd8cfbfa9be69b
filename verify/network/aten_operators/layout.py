"""Operators of ATen that move, repeat, drop or pass on elements."""

import math

import numpy as np

from verify.network.aten_operators.call import Call, Handler, Result
from verify.network.extents import bounds, resolved
from verify.network.lowering import Constant, Operand, Value, broadcast, normal_axis


def _view(call: Call) -> Result:
    value = call.value()
    target = call.get("shape" if "shape" in call.arguments else "size")
    return call.lowering.view(call.name, value, resolved(call.name, value.shape, target))


def _flatten(call: Call) -> Result:
    value = call.value()
    first, last = (normal_axis(call.get(n), len(value.shape), call.name) for n in ("start_dim", "end_dim"))
    middle = math.prod(value.shape[first : last + 1])
    return call.lowering.view(call.name, value, (*value.shape[:first], middle, *value.shape[last + 1 :]))


def _unflatten(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    parts = resolved(call.name, (value.shape[axis],), call.get("sizes"))
    return call.lowering.view(call.name, value, (*value.shape[:axis], *parts, *value.shape[axis + 1 :]))


def _squeeze(call: Call) -> Result:
    """Axes of length 1 disappear, others stay (torch ignores them)."""
    value = call.value()
    rank, given = len(value.shape), call.get("dim")
    if given is None:
        raise call.refuse("squeeze of all axes depends on the batch size")
    listed = [given] if isinstance(given, int) else list(given)
    gone = {a for a in (normal_axis(g, rank, call.name) for g in listed) if value.shape[a] == 1}
    batch = value.batch
    if batch is not None:
        batch = None if batch in gone else batch - sum(a < batch for a in gone)
    shape = tuple(n for i, n in enumerate(value.shape) if i not in gone)
    return call.lowering.reshape(call.name, value, shape, batch)


def _unsqueeze(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape) + 1, call.name)
    batch = None if value.batch is None else value.batch + (axis <= value.batch)
    return call.lowering.reshape(call.name, value, (*value.shape[:axis], 1, *value.shape[axis:]), batch)


def _permute(call: Call) -> Result:
    value = call.value()
    axes = tuple(normal_axis(a, len(value.shape), call.name) for a in call.get("dims"))
    return call.lowering.transpose(call.name, value, axes)


def _t(call: Call) -> Result:
    """A matrix turned over; a vector stays."""
    value = call.value()
    return call.lowering.transpose(call.name, value, tuple(reversed(range(len(value.shape)))))


def _transpose(call: Call) -> Result:
    value = call.value()
    order = list(range(len(value.shape)))
    i, j = (normal_axis(call.get(n), len(order), call.name) for n in ("dim0", "dim1"))
    order[i], order[j] = order[j], order[i]
    return call.lowering.transpose(call.name, value, tuple(order))


def _expand(call: Call) -> Result:
    value, sizes = call.value(), call.get("size")
    lead = len(sizes) - len(value.shape)
    target = tuple(value.shape[i - lead] if n == -1 else n for i, n in enumerate(sizes))
    full = broadcast((value.shape, target), call.name)
    batch = None if value.batch is None else value.batch + lead
    return call.lowering.expand(call.name, value, full, batch)


def _slice(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    start, stop = call.get("start"), call.get("end")
    size = value.shape[axis]
    limits = bounds(call.name, size, 0 if start is None else start, size if stop is None else stop, call.get("step"))
    return call.lowering.slice(call.name, value, {axis: limits})


def _narrow(call: Call) -> Result:
    value, start = call.value(), call.get("start")
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    first = start + value.shape[axis] if start < 0 else start
    return call.lowering.slice(call.name, value, {axis: (first, first + call.get("length"), 1)})


def _select(call: Call) -> Result:
    return call.lowering.select(call.name, call.value(), call.get("dim"), call.get("index"))


def _index_select(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    return call.lowering.pick(call.name, value, axis, [int(i) for i in call.required("index").array.reshape(-1)])


def _unbind(call: Call) -> Result:
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    names = [f"{call.name}/{i}" for i in range(value.shape[axis])]
    return tuple(call.lowering.select(name, value, axis, i) for i, name in enumerate(names))


def _split(call: Call) -> Result:
    """split.Tensor, split_with_sizes and chunk."""
    value = call.value()
    axis = normal_axis(call.get("dim"), len(value.shape), call.name)
    size = value.shape[axis]
    sizes = call.get("split_sizes" if "split_sizes" in call.arguments else "split_size")
    if call.target == "aten.chunk.default":
        sizes = -(-size // call.get("chunks"))
    if isinstance(sizes, int):
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
    ends = np.cumsum(sizes).tolist()
    pieces = enumerate(zip(sizes, ends, strict=True))
    return tuple(call.lowering.slice(f"{call.name}/{i}", value, {axis: (e - n, e, 1)}) for i, (n, e) in pieces)


def _cat(call: Call) -> Result:
    operands: list[Operand] = call.get("tensors")
    first = next(o for o in operands if isinstance(o, Value))
    axis = normal_axis(call.get("dim"), len(first.shape), call.name)
    parts = []
    for operand in operands:
        if isinstance(operand, Constant):
            if operand.array.ndim != len(first.shape):
                raise call.refuse(f"joined with a constant of shape {operand.array.shape}")
            parts.append(call.lowering.constant(f"{operand.key}/value", operand, first.batch))
        else:
            parts.append(call.lowering.fit(call.name, operand, operand.shape, first.batch))
    return call.lowering.concat(call.name, parts, axis)


def _stack(call: Call) -> Result:
    operands: list[Operand] = call.get("tensors")
    if not all(isinstance(o, Value) for o in operands):
        raise call.refuse("stacked constants")
    values = [o for o in operands if isinstance(o, Value)]
    axis = normal_axis(call.get("dim"), len(values[0].shape) + 1, call.name)
    raised = []
    for value in values:
        batch = None if value.batch is None else value.batch + (axis <= value.batch)
        shape = (*value.shape[:axis], 1, *value.shape[axis:])
        raised.append(call.lowering.reshape(call.lowering.free_name(f"{call.name}/part"), value, shape, batch))
    return call.lowering.concat(call.name, raised, axis)


def _pad(call: Call) -> Result:
    value, pads = call.value(), list(call.get("pad"))
    if call.target == "aten.pad.default" and call.get("mode") != "constant":
        raise call.refuse(f"mode {call.get('mode')!r}")
    if min(pads, default=0) < 0:
        raise call.refuse(f"negative padding {pads}")
    rank, fill = len(value.shape), call.get("value")
    begins, ends = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):  # the last axis comes first
        begins[rank - 1 - i], ends[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return call.lowering.pad(
        call.name, value, tuple(begins), tuple(ends), 0.0 if fill is None else call.number("value")
    )


def _same(call: Call) -> Result:
    return call.value("input") if "input" in call.arguments else call.value()


def _dropout(call: Call) -> Result:
    call.get("p")
    if call.get("train"):
        raise call.refuse("dropout in training mode: call .eval() on the module")
    return call.value("input")


def _to(call: Call) -> Result:
    """A conversion to the network's own type changes nothing."""
    kind = str(call.get("dtype")).removeprefix("torch.")
    if kind != call.dtype.name and call.get("dtype") is not None:
        raise call.refuse(f"conversion to {kind}")
    return call.value()


LAYOUT: dict[str, Handler] = {
    "view": _view,
    "reshape": _view,
    "_unsafe_view": _view,
    "flatten.using_ints": _flatten,
    "unflatten.int": _unflatten,
    "squeeze": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "unsqueeze": _unsqueeze,
    "permute": _permute,
    "transpose.int": _transpose,
    "t": _t,
    "expand": _expand,
    "slice.Tensor": _slice,
    "narrow": _narrow,
    "select.int": _select,
    "index_select": _index_select,
    "unbind.int": _unbind,
    "split.Tensor": _split,
    "split_with_sizes": _split,
    "chunk": _split,
    "cat": _cat,
    "concat": _cat,
    "stack": _stack,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "clone": _same,
    "contiguous": _same,
    "alias": _same,
    "detach": _same,
    "lift_fresh_copy": _same,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "_to_copy": _to,
    "to.dtype": _to,
}
