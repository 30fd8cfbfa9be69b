"""How each op of the table enters a random network: one function per op, joined to its name below.

A block reads the newest value of a sketch, reshapes it first if its shape does not fit, and appends one node (or the
few that the op makes sense with). Attributes are float32 numbers, as file formats want them. A new op of the table
needs one line here; a test fails until it has one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from verify.network.graph import Shape
from verify.testing.sketch import Sketch

Block = Callable[[Sketch], None]


def _ranked(low: int, high: int = 9) -> Callable[[Shape], bool]:
    return lambda shape: low <= len(shape) <= high


def linear(s: Sketch, outputs: int | None = None) -> None:
    s.ensure(_ranked(1))
    width, out = s.shape[-1], outputs or s.whole(1, 5)
    roles = {"weight": s.parameter((out, width), scale=width**-0.5)}
    if s.flag():
        roles["bias"] = s.parameter((out,))
    s.add("linear", roles=roles)


def conv(s: Sketch) -> None:
    s.ensure(_ranked(2, 4))
    channels, *spatial = s.shape
    form = _window(s, tuple(spatial))
    groups = s.pick([g for g in range(1, channels + 1) if channels % g == 0])
    shape = (groups * s.whole(1, 3 if groups < 3 else 1), channels // groups, *form.pop("kernel"))
    roles = {"weight": s.parameter(shape, scale=math.prod(shape[1:]) ** -0.5)}
    if s.flag():
        roles["bias"] = s.parameter(shape[:1])
    s.add("conv", roles=roles, attributes={"groups": groups, **form})


def _window(s: Sketch, spatial: Shape) -> dict[str, Any]:
    """Kernel, stride, dilation and padding that fit."""
    dilation = tuple(s.pick([1, 1, 2]) for _ in spatial)
    kernel = tuple(s.whole(1, min(3, 1 + (n - 1) // d)) for n, d in zip(spatial, dilation, strict=True))
    return {
        "kernel": kernel,
        "stride": tuple(s.whole(1, 2) for _ in spatial),
        "padding": tuple(s.whole(0, k - 1) for k in kernel * 2),
        "dilation": dilation,
    }


def batch_norm(s: Sketch) -> None:
    s.ensure(_ranked(1))
    shape = s.shape[:1]
    roles = {role: s.parameter(shape, positive=role in ("weight", "variance")) for role in _NORM_ROLES}
    s.add("batch_norm", roles=roles, attributes={"epsilon": 2.0**-10})


_NORM_ROLES = ("weight", "bias", "mean", "variance")


def with_constant(s: Sketch, op: str, positive: bool) -> None:
    trailing = s.shape[s.whole(0, len(s.shape)) :]
    shape = tuple(s.pick([n, 1]) for n in trailing)
    s.add(op, roles={"value": s.parameter(shape, positive=positive)})


def constant(s: Sketch) -> None:
    """A constant, and a sum or a difference that makes use of it."""
    source = s.newest
    made = s.add("constant", [], roles={"value": s.parameter(s.shape)})
    s.add(s.pick(["add", "subtract"]), [source, made])


def of_two(s: Sketch, op: str) -> None:
    """Combines the newest value with one of the same shape: a branch, or itself if nothing else is there."""
    source = s.newest
    s.add(op, [source, s.pick(s.like(s.shape)[::-1])])


def residual(s: Sketch) -> None:
    """``x + branch(x)`` with a branch that keeps the shape."""
    source, shape = s.newest, s.shape
    if len(shape) == 3:
        kernel = s.parameter((shape[0], shape[0], 3, 3), scale=(9 * shape[0]) ** -0.5)
        form = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
        s.add("conv", roles={"weight": kernel}, attributes={"groups": 1, **form})
        batch_norm(s)
    else:
        s.ensure(_ranked(1))
        source, shape = s.newest, s.shape
        s.add("linear", roles={"weight": s.parameter((shape[-1], shape[-1]), scale=shape[-1] ** -0.5)})
    s.add("relu")
    s.add("add", [source, s.newest])


def activation(s: Sketch, op: str) -> None:
    s.add(op)


def leaky_relu(s: Sketch) -> None:
    s.add("leaky_relu", attributes={"slope": s.pick([0.125, 0.0, 0.0999755859375, -0.5, 1.0, 1.5])})


def clip(s: Sketch) -> None:
    lower, upper = s.pick([(0.0, 6.0), (-1.0, 1.0), (-math.inf, 0.5), (-0.25, math.inf), (0.0, 0.0)])
    s.add("clip", attributes={"lower": lower, "upper": upper})


def gelu(s: Sketch) -> None:
    s.add("gelu", attributes={"approximate": s.pick(["none", "tanh"])})


def hardsigmoid(s: Sketch) -> None:
    alpha, beta = s.pick([(0.25, 0.5), (1.0, 0.0), (-0.5, 0.5)])
    s.add("hardsigmoid", attributes={"alpha": alpha, "beta": beta})


def max_pool(s: Sketch) -> None:
    s.ensure(_ranked(2, 4))
    s.add("max_pool", attributes=_window(s, s.shape[1:]))


def average_pool(s: Sketch) -> None:
    s.ensure(_ranked(2, 4))
    s.add("average_pool", attributes={"count_padding": s.flag(), **_window(s, s.shape[1:])})


def mean(s: Sketch) -> None:
    s.ensure(_ranked(1))
    axes = [axis for axis in range(len(s.shape)) if s.flag()] or [len(s.shape) - 1]
    s.add("mean", attributes={"axes": tuple(axes), "keepdims": s.flag()})


def reshape(s: Sketch) -> None:
    size = math.prod(s.shape)
    s.add("reshape", attributes={"shape": s.pick([(size,), s.shape[::-1], (*s.shape, 1), (1, *s.shape)])})


def transpose(s: Sketch) -> None:
    rank = len(s.shape)
    turn = s.whole(0, max(0, rank - 1))
    s.add("transpose", attributes={"permutation": tuple((axis + turn) % rank for axis in range(rank))})


def slice_(s: Sketch) -> None:
    s.ensure(_ranked(1))
    starts = tuple(s.whole(0, n - 1) for n in s.shape)
    stops = tuple(n - s.whole(0, n - 1 - a) for a, n in zip(starts, s.shape, strict=True))
    steps = tuple(s.whole(1, 2) for _ in s.shape)
    s.add("slice", attributes={"starts": starts, "stops": stops, "steps": steps})


def pad(s: Sketch) -> None:
    s.ensure(_ranked(1))
    room = 1 if math.prod(n + 2 for n in s.shape) <= s.limit else 0
    padding = tuple(s.whole(0, room) for _ in s.shape * 2)
    s.add("pad", attributes={"padding": padding, "value": s.pick([0.0, 1.5, -0.25])})


def concat(s: Sketch) -> None:
    """Joins the newest value with values of the same shape (itself included)."""
    s.ensure(_ranked(1))
    same, axis = s.like(s.shape), s.whole(0, len(s.shape) - 1)
    more = [s.pick(same) for _ in range(s.whole(0, 2))] if 3 * math.prod(s.shape) <= s.limit else []
    s.add("concat", [same[0], *more], attributes={"axis": axis})


def matmul(s: Sketch) -> None:
    """``X X^T``."""
    s.ensure(_ranked(2))
    source, rank = s.newest, len(s.shape)
    s.add("scale", roles={"value": s.parameter((1,), scale=s.shape[-1] ** -0.5)})
    scaled = s.newest
    turned = s.add("transpose", [source], attributes={"permutation": (*range(rank - 2), rank - 1, rank - 2)})
    s.add("matmul", [scaled, turned])


def softmax(s: Sketch) -> None:
    s.ensure(_ranked(1))
    s.add("softmax", attributes={"axis": s.whole(0, len(s.shape) - 1)})


def layer_norm(s: Sketch) -> None:
    s.ensure(_ranked(1))
    shape = s.shape[-s.whole(1, len(s.shape)) :]
    roles = {"weight": s.parameter(shape, positive=True)}
    if s.flag():
        roles["bias"] = s.parameter(shape)
    s.add("layer_norm", roles=roles, attributes={"epsilon": 0.125})


def attention(s: Sketch) -> None:
    """One head of self-attention, query, key and value from linear maps."""
    s.ensure(_ranked(2, 3))
    source, width = s.newest, s.shape[-1]
    head = s.whole(1, 3)
    made = [
        s.add("linear", [source], roles={"weight": s.parameter((n, width), scale=width**-0.5)})
        for n in (head, head, s.whole(1, 3))
    ]
    s.add("attention", made, attributes={"scale": float(np.float32(head**-0.5))})


BLOCKS: dict[str, Block] = {
    "linear": linear, "conv": conv, "batch_norm": batch_norm, "constant": constant,
    "scale": partial(with_constant, op="scale", positive=False),
    "divide": partial(with_constant, op="divide", positive=True),
    "shift": partial(with_constant, op="shift", positive=False),
    "add": partial(of_two, op="add"), "subtract": partial(of_two, op="subtract"),
    "multiply": partial(of_two, op="multiply"),
    "relu": partial(activation, op="relu"), "sigmoid": partial(activation, op="sigmoid"),
    "tanh": partial(activation, op="tanh"), "erf": partial(activation, op="erf"),
    "silu": partial(activation, op="silu"), "hardswish": partial(activation, op="hardswish"),
    "leaky_relu": leaky_relu, "clip": clip, "gelu": gelu, "hardsigmoid": hardsigmoid,
    "max_pool": max_pool, "average_pool": average_pool, "mean": mean, "reshape": reshape, "transpose": transpose,
    "slice": slice_, "pad": pad, "concat": concat, "matmul": matmul, "softmax": softmax, "layer_norm": layer_norm,
    "attention": attention,
}  # fmt: skip
