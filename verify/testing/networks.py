"""Hypothesis strategy for small networks.

    kind          input        blocks drawn from (common ones more often)
    dense         (n,)         linear, activations, constants, skips
    conv          (c, h, w)    convolution (grouped, strided), batch norm, pooling, activations, a dense head
    residual      (n,) or img  additive skips, convolution or linear, batch norm, ReLU
    transformer   (t, n)       attention, layer norm, linear, GELU, skips
    any           all          every op of the table

Piecewise-linear networks (those that the formal engine splits exactly) come with `piecewise_linear=True`.
"""

import math
from collections.abc import Collection

import numpy as np
from hypothesis import strategies as st

from verify.errors import SpecificationError
from verify.network.graph import Network, Shape
from verify.network.operations import OPERATIONS
from verify.testing.blocks import BLOCKS, Block, linear, residual
from verify.testing.sketch import Sketch

LINEAR_OPS = frozenset(name for name, operation in OPERATIONS.items() if operation.linear)
PIECEWISE_LINEAR_OPS = LINEAR_OPS | {"relu", "leaky_relu", "clip", "hardsigmoid", "max_pool"}
LARGEST_VALUE = 400  # elements; a network whose values outgrow it stops growing

_DENSE = (
    "linear relu linear sigmoid tanh linear leaky_relu clip gelu silu linear hardsigmoid scale shift divide constant "
    "add batch_norm slice concat residual"
)
_CONV = "conv relu conv batch_norm conv max_pool average_pool leaky_relu clip hardswish pad mean add scale shift concat"
_RESIDUAL = "residual relu linear batch_norm conv add max_pool average_pool"
_TRANSFORMER = "attention layer_norm linear gelu residual softmax transpose matmul erf multiply mean"

KINDS: dict[str, tuple[tuple[str, ...], tuple[Shape, ...]]] = {
    "dense": (tuple(_DENSE.split()), ((2,), (1,), (3,), (5,))),
    "conv": (tuple(_CONV.split()), ((1, 4, 4), (2, 4, 5), (3, 6, 6))),
    "residual": (tuple(_RESIDUAL.split()), ((3,), (2, 4, 4), (4,))),
    "transformer": (tuple(_TRANSFORMER.split()), ((2, 3), (3, 4))),
    "any": (("residual", *BLOCKS), ((2,), (3,), (2, 3), (2, 4, 4), (1, 3, 5), (2, 2, 3, 3))),
}
_ALL_BLOCKS: dict[str, Block] = {**BLOCKS, "residual": residual}


@st.composite
def networks(
    draw: st.DrawFn,
    kind: str = "dense",
    *,
    containing: str | None = None,
    ops: Collection[str] | None = None,
    piecewise_linear: bool = False,
    input_shape: Shape | None = None,
    outputs: int | None = None,
    max_blocks: int = 5,
    dtype: type[np.floating] = np.float32,
) -> Network:
    """Small valid networks.

    Args:
        kind: a row of the table in this file's head.
        containing: an op that every network has.
        ops: draw from these alone, repeated ones more often; "residual" is a block of conv or linear, batch norm,
            ReLU and a sum. The kind then only sets the input shapes. Reshapes appear where an op needs one.
        piecewise_linear: leave out every op that is not piecewise linear.
        input_shape: of one sample; drawn if None.
        outputs: end with a linear layer to that many outputs; with None the output has any shape.
        max_blocks: number of blocks drawn, a block is one op or a few.
        dtype: of the parameters.

    Raises:
        SpecificationError: an unknown kind or op, or nothing left to draw from.
    """
    names, shapes = _choices(kind, ops, piecewise_linear, containing)
    shape = draw(st.sampled_from(shapes)) if input_shape is None else tuple(input_shape)
    sketch = Sketch(draw, shape, np.random.default_rng(draw(st.integers(0, 2**16))), dtype, simple=draw(st.booleans()))
    chosen = draw(st.lists(st.sampled_from(names), min_size=0 if containing or outputs else 1, max_size=max_blocks))
    if containing is not None:
        chosen.insert(draw(st.integers(0, len(chosen))), containing)
    for name in chosen:
        if name == containing or math.prod(sketch.shape) <= LARGEST_VALUE:
            _ALL_BLOCKS[name](sketch)
    if outputs is not None:
        _head(sketch, outputs)
    return sketch.network()


def _choices(
    kind: str, ops: Collection[str] | None, piecewise_linear: bool, containing: str | None
) -> tuple[list[str], tuple[Shape, ...]]:
    if kind not in KINDS:
        raise SpecificationError(f"unknown kind of network {kind!r}; known: {', '.join(KINDS)}")
    unknown = ({containing} - {None} | set(ops or ())) - set(_ALL_BLOCKS)
    if unknown:
        raise SpecificationError(f"unknown ops {sorted(map(str, unknown))}; known: {', '.join(sorted(_ALL_BLOCKS))}")
    names = list(KINDS[kind][0] if ops is None else ops)
    if piecewise_linear:
        names = [name for name in names if name == "residual" or name in PIECEWISE_LINEAR_OPS]
    if not names:
        raise SpecificationError("no op is left to draw networks from")
    return names, KINDS[kind][1]


def _head(sketch: Sketch, outputs: int) -> None:
    """Flatten and map linearly to the outputs."""
    if len(sketch.shape) != 1:
        sketch.add("reshape", attributes={"shape": (math.prod(sketch.shape),)})
    linear(sketch, outputs)
