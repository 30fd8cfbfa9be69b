"""Small networks to compress: a builder, and a strategy of random ones that mix every way channels can meet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from provable.channels import channel_groups
from provable.errors import GroupingError
from verify.network.graph import Network, Node, Shape, build
from verify.network.operations import infer_shape


class Sketch:
    """A network under construction: every method adds one node and returns its name."""

    def __init__(self, shape: Shape, seed: int = 0, dtype: str = "float64") -> None:
        self.generator, self.dtype = np.random.default_rng(seed), dtype
        self.shapes: dict[str, Shape] = {"x": shape}
        self.parameters: dict[str, np.ndarray] = {}
        self.steps: list[tuple[str, str, Sequence[str], dict[str, str], dict[str, Any]]] = []

    def network(self, output: str) -> Network:
        return build("x", self.shapes["x"], self.steps, output, self.parameters)

    def add(self, op: str, *inputs: str, parameters: dict[str, np.ndarray] | None = None, **attributes: Any) -> str:
        name = f"{op}_{len(self.steps)}"
        roles = {role: f"{name}.{role}" for role in parameters or {}}
        for role, array in (parameters or {}).items():
            self.parameters[roles[role]] = np.asarray(array, dtype=self.dtype)
        shapes = {role: self.parameters[key].shape for role, key in roles.items()}
        node = Node(name, op, inputs, (), roles, attributes)
        self.shapes[name] = infer_shape(node, [self.shapes[i] for i in inputs], shapes)
        self.steps.append((name, op, inputs, roles, attributes))
        return name

    def normal(self, *shape: int, fan_in: int = 1) -> np.ndarray:
        return self.generator.normal(size=shape) / math.sqrt(fan_in)

    def linear(self, x: str, out: int, bias: bool = True) -> str:
        n = self.shapes[x][-1]
        weight = {"weight": self.normal(out, n, fan_in=n)}
        return self.add("linear", x, parameters={**weight, **({"bias": self.normal(out)} if bias else {})})

    def conv(self, x: str, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> str:
        c, *spatial = self.shapes[x]
        rank = len(spatial)
        weight = self.normal(out, c // groups, *[kernel] * rank, fan_in=c // groups * kernel**rank)
        return self.add(
            "conv", x, parameters={"weight": weight, **({"bias": self.normal(out)} if bias else {})},
            stride=(stride,) * rank, padding=(kernel // 2,) * 2 * rank, dilation=(1,) * rank, groups=groups,
        )  # fmt: skip

    def norm(self, x: str) -> str:
        c = self.shapes[x][0]
        parameters = {role: self.normal(c) for role in ("weight", "bias", "mean")}
        return self.add(
            "batch_norm", x, parameters={**parameters, "variance": self.generator.uniform(0.5, 1.5, c)}, epsilon=1e-5
        )

    def pool(self, x: str, op: str, kernel: int, stride: int) -> str:
        rank = len(self.shapes[x]) - 1
        counts = {"count_padding": True} if op == "average_pool" else {}
        return self.add(
            op, x, kernel=(kernel,) * rank, stride=(stride,) * rank, padding=(0,) * 2 * rank, dilation=(1,) * rank,
            **counts,
        )  # fmt: skip

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        shape = self.shapes[x]
        starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.add("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def pad(self, x: str, axis: int, before: int, after: int, value: float = 0.0) -> str:
        rank = len(self.shapes[x])
        padding = [0] * 2 * rank
        padding[axis], padding[axis + rank] = before, after
        return self.add("pad", x, padding=tuple(padding), value=value)

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("reshape", x, shape=shape)

    def flat(self, x: str) -> str:
        return self.reshape(x, math.prod(self.shapes[x]))

    def transpose(self, x: str, *permutation: int) -> str:
        return self.add("transpose", x, permutation=permutation)

    def constant(self, op: str, x: str, *shape: int) -> str:
        return self.add(op, x, parameters={"value": self.generator.uniform(0.5, 2.0, shape)})

    def basic_block(self, x: str, width: int | None = None) -> str:
        """Residual block; a wider one halves the resolution and pads the shortcut with zero channels."""
        c, *spatial = self.shapes[x]
        out = width or c
        stride = 2 if out > c else 1
        y = self.add("relu", self.norm(self.conv(x, out, 3, stride)))
        y = self.norm(self.conv(y, out, 3))
        if out > c:
            for axis, n in enumerate(spatial, start=1):
                x = self.slice(x, axis, 0, n, 2)
            x = self.pad(x, 0, (out - c) // 2, out - c - (out - c) // 2)
        return self.add("relu", self.add("add", y, x))


def _attention_head(s: Sketch, x: str, heads: int, depth: int) -> str:
    """(tokens, heads * depth) -> (heads, tokens, depth)."""
    return s.transpose(s.reshape(x, s.shapes[x][0], heads, depth), 1, 0, 2)


MOVES: dict[str, Callable[[Sketch, str, int], str]] = {
    "conv": lambda s, x, n: s.conv(x, n, 3),
    "norm": lambda s, x, n: s.norm(x),
    "relu": lambda s, x, n: s.add("relu", x),
    "sigmoid": lambda s, x, n: s.add("sigmoid", x),
    "residual": lambda s, x, n: s.basic_block(x),
    "padded shortcut": lambda s, x, n: s.basic_block(x, s.shapes[x][0] + n),
    "projection": lambda s, x, n: s.add("add", s.conv(x, n), s.add("tanh", s.conv(x, n, 3))),
    "difference": lambda s, x, n: s.add("subtract", s.conv(x, s.shapes[x][0]), x),
    "gate": lambda s, x, n: s.add("multiply", x, s.add("sigmoid", s.conv(x, s.shapes[x][0]))),
    "concat": lambda s, x, n: s.add("concat", x, s.conv(x, n, 3), axis=0),
    "split": lambda s, x, n: _split(s, x, n, s.shapes[x][0]),
    "depthwise": lambda s, x, n: s.conv(x, s.shapes[x][0], 3, groups=s.shapes[x][0]),
    "depthwise twice": lambda s, x, n: s.conv(x, 2 * s.shapes[x][0], 1, groups=s.shapes[x][0]),
    "grouped": lambda s, x, n: s.conv(s.conv(x, 2 * n), 4 * n, 3, groups=2),
    "shuffle": lambda s, x, n: _shuffle(s, s.conv(x, 2 * n), 2),
    "max_pool": lambda s, x, n: s.pool(x, "max_pool", 2, 1),
    "average_pool": lambda s, x, n: s.pool(x, "average_pool", 2, 1),
    "scale by channel": lambda s, x, n: s.constant("scale", x, s.shapes[x][0], 1, 1),
    "shift everywhere": lambda s, x, n: s.constant("shift", x, *s.shapes[x]),
    "divide by columns": lambda s, x, n: s.constant("divide", x, s.shapes[x][2]),
    "scalar": lambda s, x, n: s.constant("scale", x),
    "pad channels": lambda s, x, n: s.pad(x, 0, n % 2, n, value=0.7),
    "pad rows": lambda s, x, n: s.pad(x, 1, 1, 0),
    "rows": lambda s, x, n: s.linear(x, s.shapes[x][2]),
    "every second channel": lambda s, x, n: s.slice(x, 0, 0, s.shapes[x][0], 2),
}  # fmt: skip


def _split(s: Sketch, x: str, n: int, c: int) -> str:
    """Two overlapping halves, one of them through a convolution."""
    return s.add("concat", s.conv(s.slice(x, 0, 0, c // 2 + 1), n), s.slice(x, 0, c // 2, c), axis=0)


def _shuffle(s: Sketch, x: str, groups: int) -> str:
    c, *spatial = s.shapes[x]
    y = s.transpose(s.reshape(x, groups, c // groups, *spatial), 1, 0, 2, 3)
    return s.reshape(y, c, *spatial)


def _flat_tail(s: Sketch, x: str, n: int) -> str:
    return s.linear(s.add("relu", s.linear(s.flat(x), 2 * n)), 3)


def _mean_tail(s: Sketch, x: str, n: int) -> str:
    return s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3)


def _token_tail(s: Sketch, x: str, n: int) -> str:
    """Channels last, one layer of multi-head attention with its residual sum, a class token."""
    c, h, w = s.shapes[x]
    tokens = s.linear(s.transpose(s.reshape(x, c, h * w), 1, 0), 4)
    token = s.add("constant", parameters={"value": s.normal(1, 4)})
    tokens = s.add("concat", token, tokens, axis=0)
    q, k, v = (_attention_head(s, s.linear(tokens, 2 * n), n, 2) for _ in range(3))
    mixed = s.transpose(s.add("attention", q, k, v, scale=0.5), 1, 0, 2)
    tokens = s.add("add", tokens, s.linear(s.reshape(mixed, h * w + 1, 2 * n), 4))
    tokens = s.add("add", tokens, s.linear(s.add("gelu", s.linear(tokens, 5), approximate="none"), 4))
    return s.linear(s.reshape(s.slice(tokens, 0, 0, 1), 4), 3)


TAILS = {"flat": _flat_tail, "mean": _mean_tail, "tokens": _token_tail}


@dataclass(frozen=True)
class Recipe:
    """A random network, told in few words: a convolution, some moves, one of three tails."""

    seed: int
    width: int
    moves: tuple[tuple[str, int], ...]
    tail: str

    def network(self) -> Network:
        s = Sketch((2, 5, 4), self.seed)
        x = s.conv("x", self.width, 3)
        for move, n in self.moves:
            if s.shapes[x][0] <= 24 and min(s.shapes[x][1:]) >= 2:
                x = MOVES[move](s, x, n)
        return s.network(TAILS[self.tail](s, x, 2))


RECIPES = st.builds(
    Recipe,
    seed=st.integers(0, 1000),
    width=st.integers(2, 4),
    moves=st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(2, 3)), max_size=6).map(tuple),
    tail=st.sampled_from(sorted(TAILS)),
).filter(lambda recipe: _can_shrink(recipe.network()))


def _can_shrink(network: Network) -> bool:
    try:
        return any(group.removable for group in channel_groups(network))
    except GroupingError:
        return False


@pytest.fixture(scope="session")
def sketch() -> type[Sketch]:
    return Sketch


@pytest.fixture(scope="session")
def recipes() -> st.SearchStrategy[Recipe]:
    return RECIPES


@pytest.fixture(scope="session")
def recipe() -> type[Recipe]:
    return Recipe
