"""A network of the verifier as a torch module: fast, batched, differentiable.

Each op of the table is one torch expression, in the dtype asked for; the parameters are ordinary
`torch.nn.Parameter`, so that attacks can differentiate with respect to inputs and training methods
with respect to weights. The reference semantics is `verify.network.evaluate`, in float64.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from verify.errors import DataError
from verify.network.graph import Array, Network, Node, Shape
from verify.network.operations.pooling import AveragePool

Roles = Mapping[str, Tensor]
Step = Callable[[list[Tensor], Roles], Tensor]
_FIXED_ROLES = ("mean", "variance")  # statistics: no gradient


class NetworkModule(nn.Module):
    """The network as a torch module.

    Args:
        network: any network.
        dtype: of parameters and arithmetic, torch.float32 or torch.float64.

    Attributes:
        attribute_of: parameter key -> attribute name in this module (dots become underscores).
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network
        self.attribute_of = self._register(network, dtype)
        self._steps = [(node, STEPS[node.op](node, network)) for node in network.nodes]
        self._last_use = {source: i for i, node in enumerate(network.nodes) for source in node.inputs}

    def _register(self, network: Network, dtype: torch.dtype) -> dict[str, str]:
        fixed = {key for node in network.nodes for role, key in node.parameters.items() if role in _FIXED_ROLES}
        names: dict[str, str] = {}
        for key, array in network.parameters.items():
            name = self._free_name(key)
            tensor = torch.tensor(np.asarray(array, order="C").astype(np.float64), dtype=dtype)
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=key not in fixed))
            names[key] = name
        return names

    def _free_name(self, key: str) -> str:
        name = "".join(c if c.isalnum() else "_" for c in key) or "_"
        while hasattr(self, name):
            name += "_"
        return name

    def parameter(self, key: str) -> nn.Parameter:
        """The parameter with a key of the network."""
        return cast(nn.Parameter, getattr(self, self.attribute_of[key]))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(batch, *output_shape)`` for inputs ``(batch, *input_shape)``."""
        return self._run(x, (self.network.output,))[self.network.output]

    def values(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """The values called `names` for a batch of inputs, each ``(batch, *shape)``."""
        return self._run(x, tuple(names))

    def to_network(self) -> Network:
        """The network with the parameters as they are now, in the dtype they came with."""
        return self.network.with_parameters(
            {k: _as_array(self.parameter(k), a.dtype) for k, a in self.network.parameters.items()}
        )

    def _run(self, x: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
        if x.shape[1:] != self.network.input_shape:
            raise DataError(f"inputs have shape {tuple(x.shape)}, expected (batch, *{self.network.input_shape})")
        values: dict[str, Tensor] = {self.network.input: x}
        for i, (node, step) in enumerate(self._steps):
            roles = {role: self.parameter(key) for role, key in node.parameters.items()}
            values[node.name] = step([values[s] for s in node.inputs], roles)
            for source in set(node.inputs):
                if self._last_use[source] == i and source not in wanted:
                    del values[source]
        return {name: self._whole(values, name, len(x)) for name in wanted}

    def _whole(self, values: Mapping[str, Tensor], name: str, batch: int) -> Tensor:
        """A value for the whole batch (constants are computed once)."""
        if name not in values:
            raise DataError(f"no value named {name!r} in the network")
        return values[name].expand(batch, *values[name].shape[1:])


def _as_array(parameter: nn.Parameter, dtype: "np.dtype[np.generic]") -> Array:
    return parameter.detach().cpu().numpy().astype(dtype)


def _pointwise(function: Callable[[Tensor], Tensor]) -> Callable[[Node, Network], Step]:
    return lambda node, network: lambda x, p: function(x[0])


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node, Network], Step]:
    return lambda node, network: lambda x, p: function(x[0], x[1])


def _with_value(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node, Network], Step]:
    return lambda node, network: lambda x, p: function(x[0], p["value"])


def _linear(node: Node, network: Network) -> Step:
    return lambda x, p: functional.linear(x[0], p["weight"], p.get("bias"))


def _padded(node: Node, rank: int, fill: float) -> tuple[Callable[[Tensor], Tensor], Shape]:
    """A function that applies uneven padding beforehand, and the even padding that is left to the op."""
    padding = cast(Shape, node.attributes["padding"])
    begins, ends = padding[:rank], padding[rank:]
    if begins == ends:
        return lambda x: x, begins
    return lambda x: functional.pad(x, _torch_padding(begins, ends), value=fill), (0,) * rank


def _torch_padding(begins: Shape, ends: Shape) -> list[int]:
    """Torch lists the last axis first, as (begin, end) pairs."""
    return [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]


def _conv(node: Node, network: Network) -> Step:
    stride, dilation = (cast(Shape, node.attributes[k]) for k in ("stride", "dilation"))
    rank, groups = len(stride), cast(int, node.attributes["groups"])
    if rank > 3:
        raise DataError(f"node {node.name!r}: torch convolves over at most 3 axes, not {rank}")
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    pad, padding = _padded(node, rank, 0.0)
    return lambda x, p: function(pad(x[0]), p["weight"], p.get("bias"), stride, padding, dilation, groups)


def _batch_norm(node: Node, network: Network) -> Step:
    epsilon = cast(float, node.attributes["epsilon"])

    def step(x: list[Tensor], p: Roles) -> Tensor:
        return functional.batch_norm(x[0], p["mean"], p["variance"], p["weight"], p["bias"], False, 0.0, epsilon)

    return step


def _leaky_relu(node: Node, network: Network) -> Step:
    slope = cast(float, node.attributes["slope"])
    return lambda x, p: functional.leaky_relu(x[0], slope)


def _clip(node: Node, network: Network) -> Step:
    lower, upper = cast(float, node.attributes["lower"]), cast(float, node.attributes["upper"])
    return lambda x, p: torch.clamp(x[0], lower, upper)


def _gelu(node: Node, network: Network) -> Step:
    approximate = cast(str, node.attributes["approximate"])
    return lambda x, p: functional.gelu(x[0], approximate=approximate)


def _hardsigmoid(node: Node, network: Network) -> Step:
    alpha, beta = cast(float, node.attributes["alpha"]), cast(float, node.attributes["beta"])
    return lambda x, p: torch.clamp(alpha * x[0] + beta, 0.0, 1.0)


def _max_pool(node: Node, network: Network) -> Step:
    kernel, stride, dilation = (cast(Shape, node.attributes[k]) for k in ("kernel", "stride", "dilation"))
    rank = len(kernel)
    if rank > 3:
        raise DataError(f"node {node.name!r}: torch pools over at most 3 axes, not {rank}")
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    pad, padding = _padded(node, rank, -math.inf)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):  # torch allows half the kernel at most
        begins, padding = padding, (0,) * rank
        return lambda x, p: function(
            functional.pad(x[0], _torch_padding(begins, begins), value=-math.inf), kernel, stride, padding, dilation
        )
    return lambda x, p: function(pad(x[0]), kernel, stride, padding, dilation)


def _average_pool(node: Node, network: Network) -> Step:
    """Sum over windows as a depthwise convolution with ones, then the divisor of each position."""
    kernel, stride, dilation = (cast(Shape, node.attributes[k]) for k in ("kernel", "stride", "dilation"))
    rank, source = len(kernel), network.shape_of(node.inputs[0])
    if rank > 3:
        raise DataError(f"node {node.name!r}: torch pools over at most 3 axes, not {rank}")
    padding = cast(Shape, node.attributes["padding"])
    if not any(padding) and set(dilation) == {1}:
        pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
        return lambda x, p: pool(x[0], kernel, stride)
    counts = torch.from_numpy(AveragePool.counts(node, source[1:]))
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    pad, even = _padded(node, rank, 0.0)

    def step(x: list[Tensor], p: Roles) -> Tensor:
        ones = x[0].new_ones(source[0], 1, *kernel)
        return convolve(pad(x[0]), ones, None, stride, even, dilation, source[0]) / counts.to(x[0])

    return step


def _mean(node: Node, network: Network) -> Step:
    axes, keep = [a + 1 for a in cast(Shape, node.attributes["axes"])], bool(node.attributes["keepdims"])
    return lambda x, p: x[0].mean(dim=axes, keepdim=keep)


def _reshape(node: Node, network: Network) -> Step:
    return lambda x, p: x[0].reshape(x[0].shape[0], *node.shape)


def _transpose(node: Node, network: Network) -> Step:
    order = (0, *(a + 1 for a in cast(Shape, node.attributes["permutation"])))
    return lambda x, p: x[0].permute(order)


def _slice(node: Node, network: Network) -> Step:
    starts, stops, steps = (cast(Shape, node.attributes[k]) for k in ("starts", "stops", "steps"))
    index = (slice(None), *(slice(a, b, s) for a, b, s in zip(starts, stops, steps, strict=True)))
    return lambda x, p: x[0][index]


def _pad(node: Node, network: Network) -> Step:
    padding, fill = cast(Shape, node.attributes["padding"]), cast(float, node.attributes["value"])
    rank = len(padding) // 2
    pairs = _torch_padding(padding[:rank], padding[rank:])
    return lambda x, p: functional.pad(x[0], pairs, value=fill)


def _concat(node: Node, network: Network) -> Step:
    axis = cast(int, node.attributes["axis"]) + 1

    def step(x: list[Tensor], p: Roles) -> Tensor:
        batch = max(part.shape[0] for part in x)
        return torch.cat([part.expand(batch, *part.shape[1:]) for part in x], dim=axis)

    return step


def _softmax(node: Node, network: Network) -> Step:
    axis = cast(int, node.attributes["axis"]) + 1
    return lambda x, p: torch.softmax(x[0], dim=axis)


def _layer_norm(node: Node, network: Network) -> Step:
    epsilon = cast(float, node.attributes["epsilon"])
    return lambda x, p: functional.layer_norm(x[0], p["weight"].shape, p["weight"], p.get("bias"), epsilon)


def _attention(node: Node, network: Network) -> Step:
    scale = cast(float, node.attributes["scale"])
    return lambda x, p: torch.softmax(torch.matmul(x[0], x[1].transpose(-1, -2)) * scale, dim=-1) @ x[2]


STEPS: dict[str, Callable[[Node, Network], Step]] = {
    "linear": _linear, "conv": _conv, "batch_norm": _batch_norm,
    "scale": _with_value(torch.mul), "divide": _with_value(torch.div), "shift": _with_value(torch.add),
    "constant": lambda node, network: lambda x, p: p["value"][None],
    "add": _of_two(torch.add), "subtract": _of_two(torch.sub), "multiply": _of_two(torch.mul),
    "matmul": _of_two(torch.matmul),
    "relu": _pointwise(torch.relu), "sigmoid": _pointwise(torch.sigmoid), "tanh": _pointwise(torch.tanh),
    "erf": _pointwise(torch.erf), "silu": _pointwise(functional.silu), "hardswish": _pointwise(functional.hardswish),
    "leaky_relu": _leaky_relu, "clip": _clip, "gelu": _gelu, "hardsigmoid": _hardsigmoid,
    "max_pool": _max_pool, "average_pool": _average_pool, "mean": _mean,
    "reshape": _reshape, "transpose": _transpose, "slice": _slice, "pad": _pad, "concat": _concat,
    "softmax": _softmax, "layer_norm": _layer_norm, "attention": _attention,
}  # fmt: skip
