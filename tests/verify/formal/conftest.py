"""Random pairs of small networks: an original, a compact twin with fewer channels, and the channels it kept."""

from itertools import pairwise

import numpy as np
import pytest

from verify.network.graph import build

NO_PADDING = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}


class Twins:
    """Builds both networks step by step: every parameter is given for the original, and cut for the twin."""

    def __init__(self, rng, shape, noise):
        self.rng, self.noise = rng, noise
        self.shape = tuple(shape)
        self.names, self.steps = {"x": None}, []
        self.parameters = ({}, {})
        self.last, self.counter = "x", 0
        self.input_shape = tuple(shape)

    def kept(self, name):
        return self.names[name]

    def add(self, op, inputs, kept, parameters=(), attributes=None, twin_attributes=None):
        """`parameters`: role -> (array, axes that follow the output's kept, axes that follow the input's kept)."""
        name = f"v{self.counter}"
        self.counter += 1
        roles = {}
        for role, (array, out_axes, in_axes) in dict(parameters).items():
            key = f"{name}.{role}"
            roles[role] = key
            cut = array
            for axes, index in ((out_axes, kept), (in_axes, self.names[inputs[0]] if inputs else None)):
                for axis in axes:
                    if index is not None:
                        cut = np.take(cut, index, axis=axis)
            changed = cut + self.noise * self.rng.standard_normal(cut.shape).astype(array.dtype) * (cut != 0)
            if role == "variance":
                changed = np.abs(changed)
            self.parameters[0][key], self.parameters[1][key] = array, changed.astype(array.dtype)
        self.steps.append(
            (name, op, tuple(inputs), roles, dict(attributes or {}), dict(twin_attributes or attributes or {}))
        )
        self.names[name] = kept
        self.last = name
        return name

    def linear(self, n_in, n_out, kept, scale=1.0):
        weight = (self.rng.standard_normal((n_out, n_in)) * scale / np.sqrt(n_in)).astype(np.float32)
        bias = (self.rng.standard_normal(n_out) * 0.3 * scale).astype(np.float32)
        if n_out > 3:
            weight[0] = 0.0  # a unit that is its bias
            weight[1], bias[1] = weight[2], bias[2]  # a tie
            bias[3] = -50.0 * scale  # a dead unit
        return self.add("linear", [self.last], kept, {"weight": (weight, [0], [1]), "bias": (bias, [0], [])})

    def draw(self, n):
        """A random non-empty selection of channels, in any order; None keeps everything."""
        if n < 2 or self.rng.random() < 0.2:
            return None
        count = int(self.rng.integers(1, n))
        return [int(i) for i in self.rng.permutation(n)[:count]]

    def op(self, op, attributes=None, kept="same", inputs=None, parameters=(), twin_attributes=None):
        inputs = inputs or [self.last]
        kept = self.names[inputs[0]] if kept == "same" else kept
        return self.add(op, inputs, kept, parameters, attributes, twin_attributes)

    def build(self):
        """(original, compact, channels)."""
        networks = [
            build("x", self.input_shape, [(*s[:4], s[4 + i]) for s in self.steps], self.last, self.parameters[i])
            for i in (0, 1)
        ]
        values = {n: {"axis": 0, "kept": k} for n, k in self.names.items() if k is not None}
        return *networks, {"version": 1, "values": values}


def mlp(rng, widths=(3, 6, 5, 2), noise=0.05, scale=1.0, activation=("relu", {})):
    """Dense networks; dead, tied and duplicate units included."""
    twins = Twins(rng, widths[:1], noise)
    for n_in, n_out in pairwise(widths[:-1]):
        twins.linear(n_in, n_out, twins.draw(n_out), scale)
        twins.op(*activation)
    twins.linear(*widths[-2:], None, scale)
    return twins.build()


def branches(rng, noise=0.05):
    """Two branches whose error symbols come to be between each other's, joined by a sum."""
    t = Twins(rng, (3,), noise)
    kept = t.draw(6)
    ends = []
    for depth in (2, 1):
        t.last, width = "x", 3
        for _ in range(depth):
            t.linear(width, 6, kept)
            t.op("relu")
            width = 6
        ends.append(t.last)
    t.op("add", inputs=ends)
    t.op("subtract", inputs=[t.last, ends[0]])
    t.op("relu")
    t.linear(6, 2, None)
    return t.build()


def convolutional(rng, noise=0.02):
    """conv, batch norm, max and average pooling, depthwise, residual add, concat, slice, pad, transpose, linear."""
    t = Twins(rng, (2, 6, 5), noise)

    def conv(source, c_in, c_out, kept, size=3, groups=1, **attributes):
        weight = (rng.standard_normal((c_out, c_in // groups, size, size)) * 0.5 / np.sqrt(c_in)).astype(np.float32)
        bias = (rng.standard_normal(c_out) * 0.2).astype(np.float32)
        inputs_axis = [1] if groups == 1 else []
        options = {**NO_PADDING, "groups": groups, **attributes}
        twin = dict(options)
        if groups > 1 and kept is not None:
            twin["groups"] = len(kept)
        roles = {"weight": (weight, [0], inputs_axis), "bias": (bias, [0], [])}
        return t.add("conv", [source], kept, roles, options, twin)

    inner = t.draw(5)
    a = conv("x", 2, 5, inner, padding=(1, 0, 1, 1), stride=(1, 1))
    roles = {
        r: (np.abs(rng.standard_normal(5)).astype(np.float32) + 0.2, [0], [])
        for r in ("weight", "bias", "mean", "variance")
    }
    t.op("batch_norm", {"epsilon": 1e-5}, parameters=roles)
    a = t.op("relu")
    b = conv(a, 5, 5, inner, size=3, groups=5, padding=(1, 1, 1, 1))
    b = t.op("add", inputs=[a, b])
    t.op("relu")
    t.op("max_pool", {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 0, 0, 1), "dilation": (1, 1)})
    p = t.op(
        "average_pool",
        {
            "kernel": (2, 2),
            "stride": (1, 1),
            "padding": (0, 1, 1, 0),
            "dilation": (1, 1),
            "count_padding": bool(rng.integers(2)),
        },
    )
    c = conv(p, 5, 4, t.draw(4), size=2, dilation=(1, 1))
    c = t.op("relu")
    both = t.add("concat", [p, p], None if inner is None else [*inner, *(5 + k for k in inner)], attributes={"axis": 0})
    m = t.op("mean", {"axes": (1, 2), "keepdims": False}, inputs=[both])
    r = t.op("mean", {"axes": (2,), "keepdims": True}, inputs=[c])
    return _head(t, m, r, c)


def _head(t, m, r, c):
    kept_c = t.names[c]
    shape = build("x", t.input_shape, [(*s[:4], s[4]) for s in t.steps], t.last, t.parameters[0]).shape_of(r)
    rows = shape[1] * shape[2]
    flat = None if kept_c is None else [k * rows + j for k in kept_c for j in range(rows)]
    twin = {"shape": ((4 if kept_c is None else len(kept_c)) * rows,)}
    r = t.op("reshape", {"shape": (4 * rows,)}, kept=flat, inputs=[r], twin_attributes=twin)
    n = 10
    joined_kept = [*(t.names[m] or range(10)), *(n + k for k in (flat if flat is not None else range(4 * rows)))]
    j = t.add("concat", [m, r], joined_kept, attributes={"axis": 0})
    size = n + 4 * rows
    weight = (t.rng.standard_normal((6, size)) / np.sqrt(size)).astype(np.float32)
    t.add("linear", [j], None, {"weight": (weight, [0], [1])})
    t.op("reshape", {"shape": (2, 3)})
    t.op("transpose", {"permutation": (1, 0)})
    t.op("slice", {"starts": (0, 0), "stops": (3, 2), "steps": (2, 1)})
    t.op("pad", {"padding": (0, 1, 0, 0), "value": 0.5})
    value = t.rng.standard_normal((2, 3)).astype(np.float32)
    t.op("scale", parameters={"value": (value, [], [])})
    t.op("shift", parameters={"value": (value + 1, [], [])})
    t.op("divide", parameters={"value": (np.abs(value) + 0.5, [], [])})
    k = t.add("constant", [], None, {"value": (value, [], [])})
    t.op("subtract", inputs=[t.steps[-2][0], k])
    return t.build()


FAMILIES = {
    "dense": lambda rng: mlp(rng),
    "deep": lambda rng: mlp(rng, (2, 5, 5, 5, 5, 5, 3)),
    "unpruned": lambda rng: mlp(rng, (3, 1, 1, 2)),
    "large": lambda rng: mlp(rng, scale=2.0**20, noise=2.0**10),
    "small": lambda rng: mlp(rng, scale=2.0**-20, noise=2.0**-25),
    "branches": branches,
    "convolutional": convolutional,
    **{
        op: (lambda rng, op=op, attributes=attributes: mlp(rng, activation=(op, attributes)))
        for op, attributes in {
            "leaky_relu": {"slope": 0.1}, "clip": {"lower": -0.5, "upper": 1.0},
            "hardsigmoid": {"alpha": 0.2, "beta": 0.5}, "gelu": {"approximate": "tanh"},
            "sigmoid": {}, "tanh": {}, "erf": {}, "silu": {}, "hardswish": {},
        }.items()
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def twins():
    """``twins(family, seed)`` -> original, compact, channels."""
    return lambda family, seed: FAMILIES[family](np.random.default_rng(seed))


@pytest.fixture(scope="session")
def families():
    """Names of the families of pairs."""
    return tuple(FAMILIES)
