"""Operations that are affine in their value inputs and carry parameters, and sums of values."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from verify.network.graph import Array, Node, Shape
from verify.network.operations.operation import Operation, require


class Linear(Operation):
    """``y[..., o] = sum_i weight[o, i] x[..., i] + bias[o]``."""

    name = "linear"
    roles = ("weight",)
    optional_roles = ("bias",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), weight = inputs, parameters["weight"]
        require(len(weight) == 2 and bool(x) and x[-1] == weight[1], node, f"weight {weight} does not fit input {x}")
        require(parameters.get("bias", weight[:1]) == weight[:1], node, f"bias does not fit weight {weight}")
        return (*x[:-1], weight[0])

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        y = inputs[0] @ parameters["weight"].T
        return y + parameters["bias"] if "bias" in parameters else y


class Conv(Operation):
    """Cross-correlation over the trailing axes of ``(channels, *spatial)``.

    Attributes: `stride`, `dilation` per spatial axis; `padding` = (begins..., ends...) of zeros; `groups`.
    """

    name = "conv"
    roles = ("weight",)
    optional_roles = ("bias",)
    attribute_names = ("stride", "padding", "dilation", "groups")
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), weight = inputs, parameters["weight"]
        groups = cast(int, node.attributes["groups"])
        require(len(weight) == len(x) + 1 >= 3, node, f"weight {weight} does not fit input {x}")
        require(weight[1] * groups == x[0] and weight[0] % groups == 0, node, f"{groups} groups do not fit {weight}")
        require(parameters.get("bias", weight[:1]) == weight[:1], node, f"bias does not fit weight {weight}")
        return (weight[0], *window_shape(node, x[1:], weight[2:]))

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        x, weight, groups = inputs[0], parameters["weight"], cast(int, node.attributes["groups"])
        rank = weight.ndim - 2
        patches = windows(node, x, weight.shape[2:], 0.0)  # (batch, c, *out, *k)
        batch, out = x.shape[0], patches.shape[2 : 2 + rank]
        patches = patches.reshape(batch, groups, weight.shape[1], *out, -1)
        patches = np.moveaxis(patches, 2, -2).reshape(batch, groups, int(np.prod(out)), -1)  # (b, g, p, c/g*k)
        kernels = weight.reshape(groups, weight.shape[0] // groups, -1)  # (g, o/g, c/g*k)
        y = np.matmul(kernels[None], np.swapaxes(patches, 2, 3)).reshape(batch, weight.shape[0], *out)
        return y + parameters["bias"].reshape(-1, *[1] * rank) if "bias" in parameters else cast(Array, y)


class BatchNorm(Operation):
    """Batch normalisation with fixed statistics: ``weight (x - mean) / sqrt(variance + epsilon) + bias``."""

    name = "batch_norm"
    roles = ("weight", "bias", "mean", "variance")
    attribute_names = ("epsilon",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,) = inputs
        for role in self.roles:
            require(parameters[role] == x[:1], node, f"{role} {parameters[role]} does not fit input {x}")
        return x

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        x = inputs[0]
        p = {role: parameters[role].reshape(-1, *[1] * (x.ndim - 2)) for role in self.roles}
        scale = p["weight"] / np.sqrt(p["variance"] + cast(float, node.attributes["epsilon"]))
        return (x - p["mean"]) * scale + p["bias"]


class _WithConstant(Operation):
    """Element-wise combination with a constant that broadcasts to the input's shape."""

    roles = ("value",)
    linear = True
    elementwise = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        (x,), constant = inputs, parameters["value"]
        fits = len(constant) <= len(x) and all(c in (1, s) for c, s in zip(constant[::-1], x[::-1], strict=False))
        require(fits, node, f"constant {constant} does not broadcast to input {x}")
        return x


class Scale(_WithConstant):
    """``x * value``."""

    name = "scale"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] * parameters["value"]


class Divide(_WithConstant):
    """``x / value``, kept apart from `scale` because 1/value is not a floating-point number."""

    name = "divide"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] / parameters["value"]


class Shift(_WithConstant):
    """``x + value``."""

    name = "shift"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] + parameters["value"]


class Constant(Operation):
    """A value that does not depend on the input (a class token)."""

    name = "constant"
    arity = 0
    roles = ("value",)
    linear = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        return parameters["value"]

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return parameters["value"][None]


class _OfTwo(Operation):
    arity = 2
    linear = True
    elementwise = True

    def shape(self, node: Node, inputs: Sequence[Shape], parameters: Mapping[str, Shape]) -> Shape:
        require(inputs[0] == inputs[1], node, f"shapes {inputs[0]} and {inputs[1]} differ")
        return inputs[0]


class Add(_OfTwo):
    """``a + b``, equal shapes."""

    name = "add"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] + inputs[1]


class Subtract(_OfTwo):
    """``a - b``, equal shapes."""

    name = "subtract"

    def evaluate(self, node: Node, inputs: Sequence[Array], parameters: Mapping[str, Array]) -> Array:
        return inputs[0] - inputs[1]


def window_shape(node: Node, spatial: Shape, kernel: Shape) -> Shape:
    """Number of window positions per spatial axis, from the node's stride, padding and dilation."""
    stride, padding, dilation = (cast(Shape, node.attributes[k]) for k in ("stride", "padding", "dilation"))
    rank = len(spatial)
    require(len(stride) == len(dilation) == rank and len(padding) == 2 * rank, node, "one value per spatial axis")
    require(min(stride) >= 1 and min(dilation) >= 1 and min(padding) >= 0, node, "negative padding or zero stride")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = [n + padding[i] + padding[i + rank] for i, n in enumerate(spatial)]
    require(all(n >= r for n, r in zip(sizes, reach, strict=True)), node, f"kernel {kernel} exceeds input {spatial}")
    return tuple((n - r) // s + 1 for n, r, s in zip(sizes, reach, stride, strict=True))


def windows(node: Node, x: Array, kernel: Shape, fill: float) -> Array:
    """All windows of ``(batch, c, *spatial)`` as a view ``(batch, c, *positions, *kernel)``."""
    stride, padding, dilation = (cast(Shape, node.attributes[k]) for k in ("stride", "padding", "dilation"))
    rank = len(kernel)
    borders = [(0, 0), (0, 0), *((padding[i], padding[i + rank]) for i in range(rank))]
    padded = np.pad(x, borders, constant_values=fill) if any(padding) else x
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None)] * 2 + [slice(None, None, s) for s in stride] + [slice(None, None, d) for d in dilation]
    result: Array = view[tuple(steps)]
    return result


AFFINE: tuple[Operation, ...] = (
    Linear(), Conv(), BatchNorm(), Scale(), Divide(), Shift(), Constant(), Add(), Subtract(),
)  # fmt: skip
