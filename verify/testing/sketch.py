"""A small network under construction: every choice is drawn by hypothesis, so that failures shrink.

Parameters come from a drawn seed. Two styles: multiples of 1/8 in [-1, 1], easy to read in a counterexample, and
normal numbers. Scales follow the fan-in, so that values stay near one through many layers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from verify.network.graph import Array, Attribute, Network, Node, Shape, build
from verify.network.operations import infer_shape

Value = TypeVar("Value")


@dataclass
class Sketch:
    """Steps so far; `newest` is the value that the next block works on.

    Attributes:
        draw: hypothesis' draw function.
        input_shape: shape of one input sample.
        dtype: of the parameters.
        simple: parameters are multiples of 1/8.
        limit: blocks keep values at or below this many elements where they can.
    """

    draw: st.DrawFn
    input_shape: Shape
    random: np.random.Generator
    dtype: type[np.floating]
    simple: bool
    limit: int = 256
    shapes: dict[str, Shape] = field(default_factory=dict)
    steps: list[tuple[str, str, tuple[str, ...], Mapping[str, str], Mapping[str, Attribute]]] = field(
        default_factory=list
    )
    parameters: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = {"x": self.input_shape}

    @property
    def newest(self) -> str:
        """Name of the last value."""
        return next(reversed(self.shapes))

    @property
    def shape(self) -> Shape:
        """Shape of the last value."""
        return self.shapes[self.newest]

    def add(
        self,
        op: str,
        inputs: Sequence[str] | None = None,
        *,
        roles: Mapping[str, str] | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> str:
        """Append a node that reads `inputs` (default: the newest value); returns its name."""
        name = f"{op}_{len(self.steps)}"
        sources = (self.newest,) if inputs is None else tuple(inputs)
        node = Node(name, op, sources, (), roles or {}, attributes or {})
        known = {role: self.parameters[key].shape for role, key in node.parameters.items()}
        self.shapes[name] = infer_shape(node, [self.shapes[s] for s in sources], known)
        self.steps.append((name, op, sources, node.parameters, node.attributes))
        return name

    def parameter(self, shape: Shape, *, scale: float = 1.0, positive: bool = False) -> str:
        """Key of a new parameter: around zero with size `scale`, or in [1/2, 3/2] if positive."""
        if positive:
            array = 0.5 + self.random.integers(0, 9, shape) / 8 if self.simple else self.random.uniform(0.5, 1.5, shape)
        elif self.simple:
            array = self.random.integers(-8, 9, shape) / 8 * 2.0 ** round(math.log2(scale))
        else:
            array = self.random.standard_normal(shape) * scale
        key = f"p{len(self.parameters)}"
        self.parameters[key] = np.asarray(array, dtype=self.dtype)
        return key

    def whole(self, low: int, high: int) -> int:
        """A drawn whole number, simplest at `low`."""
        return self.draw(st.integers(low, max(low, high)))

    def flag(self) -> bool:
        """A drawn truth value, simplest at False."""
        return bool(self.whole(0, 1))

    def pick(self, options: Sequence[Value]) -> Value:
        """One of the options, simplest the first."""
        return options[self.whole(0, len(options) - 1)]

    def like(self, shape: Shape) -> list[str]:
        """Names of all values of that shape, the newest first."""
        return [name for name, other in reversed(self.shapes.items()) if other == shape]

    def ensure(self, fits: Callable[[Shape], bool]) -> None:
        """Reshape the newest value unless its shape fits."""
        if not fits(self.shape):
            size = math.prod(self.shape)
            forms = [(size,), (1, size), (size, 1), (1, 1, size)]
            self.add("reshape", attributes={"shape": next(form for form in forms if fits(form))})

    def network(self) -> Network:
        """The network whose output is the newest value."""
        return build("x", self.input_shape, self.steps, self.newest, self.parameters)
