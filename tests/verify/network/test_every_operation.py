"""Laws that hold for every op of the table, on random networks that contain it.

A new op needs one entry in `MAKERS`; the registry test fails until it has one, a writer and a torch expression.
"""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import Network, build
from verify.network.module import STEPS, NetworkModule
from verify.network.operations import OPERATIONS
from verify.network.read_onnx import read_onnx
from verify.network.structure import read_structure, write_structure
from verify.network.write_onnx import WRITERS, onnx_bytes, single_precision

FLOATS = st.sampled_from([0.0, 1.0, -0.5, 0.0999755859375, 2.5])


class Sketch:
    """A network under construction; every choice is drawn from `draw`."""

    def __init__(self, draw: Any, dtypes: tuple[Any, ...]) -> None:
        self.draw, self.dtypes = draw, dtypes
        self.random = np.random.default_rng(draw(st.integers(0, 2**20)))
        self.steps: list[Any] = []
        self.parameters: dict[str, Any] = {}
        shapes = [(3,), (1,), (2, 4), (3, 1), (2, 5, 6), (4, 6, 6), (1, 4, 4), (2, 3, 3, 4)]
        self.shapes: dict[str, tuple[int, ...]] = {"x": draw(st.sampled_from(shapes))}

    def source(self, fits: Callable[[tuple[int, ...]], bool] = lambda s: True) -> str:
        """A value whose shape fits; if there is none, one is made by a reshape."""
        found = [name for name, shape in self.shapes.items() if fits(shape)]
        return self.draw(st.sampled_from(found)) if found else self.reshaped(fits)

    def reshaped(self, fits: Callable[[tuple[int, ...]], bool]) -> str:
        name, shape = next(reversed(self.shapes.items()))
        size = math.prod(shape)
        forms = [(size,), (size, 1), (1, size), (1, 1, size), (1, size, 1, 1)]
        return self.add("reshape", [name], shape=next(f for f in forms if fits(f)))

    def parameter(self, shape: tuple[int, ...], scale: float = 1.0, offset: float = 0.0, sign: bool = True) -> str:
        array = self.random.normal(size=shape) * scale if sign else self.random.uniform(0.5, 1.5, size=shape)
        key = f"p{len(self.parameters)}.weight"
        dtype = self.draw(st.sampled_from(self.dtypes))
        self.parameters[key] = np.asarray(array + offset).astype(dtype)
        return key

    def add(self, op: str, inputs: list[str], roles: dict[str, str] | None = None, **attributes: Any) -> str:
        name = f"{op}_{len(self.steps)}"
        self.steps.append((name, op, inputs, roles or {}, attributes))
        self.shapes = {n.name: n.shape for n in self.network().nodes} | {"x": self.shapes["x"]}
        self.shapes = {"x": self.shapes.pop("x"), **self.shapes}
        return name

    def network(self) -> Network:
        return build("x", self.shapes["x"], self.steps, self.steps[-1][0], self.parameters)

    def whole(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))


def structured(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 1


def image(shape: tuple[int, ...]) -> bool:
    return 2 <= len(shape) <= 4


def sequence(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3)


def window(s: Sketch, spatial: tuple[int, ...]) -> dict[str, Any]:
    """Kernel, stride, padding and dilation that fit."""
    dilation = tuple(s.whole(1, 2) for _ in spatial)
    kernel = tuple(s.whole(1, max(1, min(3, 1 + (n - 1) // d))) for n, d in zip(spatial, dilation, strict=True))
    stride = tuple(s.whole(1, 3) for _ in spatial)
    padding = tuple(s.whole(0, k - 1) for k in kernel * 2)
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def linear(s: Sketch) -> None:
    x = s.source(structured)
    width, out = s.shapes[x][-1], s.whole(1, 4)
    roles = {"weight": s.parameter((out, width), width**-0.5)}
    if s.whole(0, 1):
        roles["bias"] = s.parameter((out,))
    s.add("linear", [x], roles)


def conv(s: Sketch) -> None:
    x = s.source(image)
    channels, *spatial = s.shapes[x]
    form = window(s, tuple(spatial))
    groups = s.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    shape = (groups * s.whole(1, 2), channels // groups, *form.pop("kernel"))
    roles = {"weight": s.parameter(shape, math.prod(shape[1:]) ** -0.5)}
    if s.whole(0, 1):
        roles["bias"] = s.parameter(shape[:1])
    s.add("conv", [x], roles, **form, groups=groups)


def batch_norm(s: Sketch) -> None:
    x = s.source(structured)
    shape = s.shapes[x][:1]
    roles = {
        r: s.parameter(shape, sign=r not in ("weight", "variance")) for r in ("weight", "bias", "mean", "variance")
    }
    s.add("batch_norm", [x], roles, epsilon=float(np.float32(1e-5)))


def with_value(op: str) -> Callable[[Sketch], None]:
    def make(s: Sketch) -> None:
        x = s.source()
        shape = s.shapes[x]
        kept = shape[s.whole(0, len(shape)) :]
        constant = tuple(1 if s.whole(0, 3) == 0 else n for n in kept)
        s.add(op, [x], {"value": s.parameter(constant, sign=op == "shift")})

    return make


def constant(s: Sketch) -> None:
    like = s.source()
    name = s.add("constant", [], {"value": s.parameter(s.shapes[like])})
    s.add(s.draw(st.sampled_from(["add", "subtract", "multiply"])), [like, name])


def of_two(op: str) -> Callable[[Sketch], None]:
    def make(s: Sketch) -> None:
        x = s.source()
        same = [n for n, shape in s.shapes.items() if shape == s.shapes[x]]
        s.add(op, [x, s.draw(st.sampled_from(same))])

    return make


def matmul(s: Sketch) -> None:
    x = s.source(lambda shape: len(shape) >= 2)
    rank = len(s.shapes[x])
    turned = s.add("transpose", [x], permutation=(*range(rank - 2), rank - 1, rank - 2))
    s.add("matmul", s.draw(st.permutations([x, turned])))


def attention(s: Sketch) -> None:
    x = s.source(sequence)
    width = s.shapes[x][-1]
    value = s.add("linear", [x], {"weight": s.parameter((s.whole(1, 3), width))})
    s.add("attention", [x, x, value], scale=0.5)


def activation(op: str, **attributes: Any) -> Callable[[Sketch], None]:
    def make(s: Sketch) -> None:
        drawn = {k: s.draw(v) if isinstance(v, st.SearchStrategy) else v for k, v in attributes.items()}
        s.add(op, [s.source()], **drawn)

    return make


def clip(s: Sketch) -> None:
    bounds = s.draw(st.sampled_from([(-1.0, 1.0), (0.0, 6.0), (-math.inf, 0.5), (-0.25, math.inf), (0.0, 0.0)]))
    s.add("clip", [s.source()], lower=bounds[0], upper=bounds[1])


def silu(s: Sketch) -> None:
    """Also the product of a value and its sigmoid, which must not turn into silu."""
    x = s.source()
    s.add("silu", [x])
    if s.whole(0, 1):
        gate = s.add("sigmoid", [x])
        s.add("multiply", s.draw(st.permutations([x, gate])))


def pool(op: str) -> Callable[[Sketch], None]:
    def make(s: Sketch) -> None:
        x = s.source(image)
        more = {"count_padding": bool(s.whole(0, 1))} if op == "average_pool" else {}
        s.add(op, [x], **window(s, s.shapes[x][1:]), **more)

    return make


def mean(s: Sketch) -> None:
    x = s.source(structured)
    axes = s.draw(st.lists(st.integers(0, len(s.shapes[x]) - 1), min_size=1, unique=True))
    s.add("mean", [x], axes=tuple(axes), keepdims=bool(s.whole(0, 1)))


def reshape(s: Sketch) -> None:
    x = s.source()
    shape = s.shapes[x]
    forms = [shape, (math.prod(shape),), (1, *shape), (*shape, 1), shape[::-1]]
    s.add("reshape", [x], shape=s.draw(st.sampled_from(forms)))


def transpose(s: Sketch) -> None:
    x = s.source(structured)
    s.add("transpose", [x], permutation=tuple(s.draw(st.permutations(range(len(s.shapes[x]))))))


def slice_(s: Sketch) -> None:
    x = s.source(structured)
    starts = tuple(s.whole(0, n - 1) for n in s.shapes[x])
    stops = tuple(s.whole(a + 1, n) for a, n in zip(starts, s.shapes[x], strict=True))
    s.add("slice", [x], starts=starts, stops=stops, steps=tuple(s.whole(1, 3) for _ in starts))


def pad(s: Sketch) -> None:
    x = s.source(structured)
    padding = tuple(s.whole(0, 2) for _ in s.shapes[x] * 2)
    s.add("pad", [x], padding=padding, value=s.draw(st.sampled_from([0.0, 1.5, -0.25])))


def concat(s: Sketch) -> None:
    x = s.source(structured)
    axis = s.whole(0, len(s.shapes[x]) - 1)
    rest = [n for n, shape in s.shapes.items() if without(shape, axis) == without(s.shapes[x], axis)]
    s.add("concat", [x, *s.draw(st.lists(st.sampled_from(rest), max_size=2))], axis=axis)


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...] | None:
    return (len(shape), *shape[:axis], *shape[axis + 1 :]) if axis < len(shape) else None


def softmax(s: Sketch) -> None:
    x = s.source(structured)
    s.add("softmax", [x], axis=s.whole(0, len(s.shapes[x]) - 1))


def layer_norm(s: Sketch) -> None:
    x = s.source(structured)
    shape = s.shapes[x][-s.whole(1, len(s.shapes[x])) :]
    roles = {"weight": s.parameter(shape)}
    if s.whole(0, 1):
        roles["bias"] = s.parameter(shape)
    s.add("layer_norm", [x], roles, epsilon=0.125)


MAKERS: dict[str, Callable[[Sketch], None]] = {
    "linear": linear, "conv": conv, "batch_norm": batch_norm, "constant": constant, "matmul": matmul,
    "scale": with_value("scale"), "divide": with_value("divide"), "shift": with_value("shift"),
    "add": of_two("add"), "subtract": of_two("subtract"), "multiply": of_two("multiply"),
    "relu": activation("relu"), "sigmoid": activation("sigmoid"), "tanh": activation("tanh"),
    "erf": activation("erf"), "silu": silu, "hardswish": activation("hardswish"), "clip": clip,
    "leaky_relu": activation("leaky_relu", slope=FLOATS),
    "hardsigmoid": activation("hardsigmoid", alpha=FLOATS, beta=FLOATS),
    "gelu": activation("gelu", approximate=st.sampled_from(["none", "tanh"])),
    "max_pool": pool("max_pool"), "average_pool": pool("average_pool"), "mean": mean, "reshape": reshape,
    "transpose": transpose, "slice": slice_, "pad": pad, "concat": concat, "softmax": softmax,
    "layer_norm": layer_norm, "attention": attention,
}  # fmt: skip


@st.composite
def networks(draw: Any, op: str, dtypes: tuple[Any, ...] = (np.float32,)) -> Network:
    """Small networks that contain `op`."""
    sketch = Sketch(draw, dtypes)
    others = st.lists(st.sampled_from(sorted(MAKERS)), max_size=2)
    for name in [*draw(others), op, *draw(others)]:
        MAKERS[name](sketch)
    return sketch.network()


def points(network: Network, count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, *network.input_shape)).astype(np.float32)


def run(data: bytes, inputs: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def scale(values: Any) -> float:
    return max(1.0, float(np.abs(values).max(initial=0.0)))


def test_every_op_has_a_case_a_writer_and_a_torch_expression() -> None:
    assert set(MAKERS) == set(WRITERS) == set(STEPS) == set(OPERATIONS)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_onnx_round_trip(op: str, data: Any) -> None:
    """Reading what was written gives the equal network, and the file is valid and plain."""
    dtypes = data.draw(
        st.sampled_from([(np.float32,), (np.float64,), (np.float16, np.float32), (np.float32, np.float64)])
    )
    network = data.draw(networks(op, dtypes))
    content = onnx_bytes(network)
    again = read_onnx(content)
    assert again.nodes == network.nodes
    assert again.digest() == network.digest()
    assert onnx_bytes(again) == content
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_onnxruntime_agrees(op: str, data: Any) -> None:
    """The written file computes what the graph means, at any batch size."""
    network = data.draw(networks(op))
    content = onnx_bytes(network)
    for count in (1, 32):
        inputs = points(network, count)
        expected = evaluate(network, inputs)
        found = run(content, inputs)
        assert np.abs(found - expected).max(initial=0.0) <= 1e-5 * scale(expected)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_module_agrees(op: str, data: Any) -> None:
    """The torch module computes the same in float64, for every value of the network, and gives gradients."""
    network = data.draw(networks(op, (np.float32, np.float64)))
    module = NetworkModule(network, torch.float64)
    inputs = points(network, 3).astype(np.float64)
    x = torch.tensor(inputs, requires_grad=True)
    names = [n.name for n in network]
    expected, found = evaluate_values(network, inputs, names), module.values(x, names)
    for name in names:
        value = found[name].detach().numpy()
        assert value.shape == expected[name].shape
        assert np.abs(value - expected[name]).max(initial=0.0) <= 1e-12 * scale(expected[name])
    module(x).sum().backward()
    assert module.to_network().digest() == network.digest()


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_structure_round_trip(op: str, data: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    network = data.draw(networks(op, (np.float16, np.float32, np.float64)))
    structure, weights = write_structure(network, tmp_path_factory.mktemp("net"))
    assert read_structure(structure, weights).digest() == network.digest()


@settings(max_examples=20, deadline=None)
@given(data=st.data(), op=st.sampled_from(sorted(OPERATIONS)))
def test_copies_and_single_precision(data: Any, op: str) -> None:
    """Networks survive pickling between processes; rounding twice is rounding once."""
    network = data.draw(networks(op, (np.float64,)))
    assert pickle.loads(pickle.dumps(network)).digest() == copy.deepcopy(network).digest() == network.digest()
    single = single_precision(network)
    assert single_precision(single).digest() == single.digest()
    assert {a.dtype for a in single.parameters.values()} <= {np.dtype(np.float32)}
