"""Which axes of a node's parameters follow the channels of which value.

Surgery slices along them, the cost model counts along them: one statement of the fact serves both.
"""

from collections.abc import Mapping
from typing import TypeAlias

from provable.channels import reads_channels
from verify.network.graph import Network, Node

Followed: TypeAlias = tuple[str | None, ...]  # per axis of the parameter: a value name, or None where it stays


def followed(network: Network, node: Node, axes: Mapping[str, int]) -> dict[str, Followed]:
    """Role -> the value whose channels each axis of that parameter holds.

    A parameter axis shorter than the value's channel axis (grouped convolution) holds its first positions:
    all groups are alike.

    Args:
        network: the network.
        node: one of its nodes.
        axes: value name -> channel axis; values without one stay whole.
    """
    if node.op in ("linear", "conv"):
        return _layer(network, node, axes)
    shapes = {role: array.shape for role, array in network.parameters_of(node).items()}
    if node.name not in axes:
        return {role: (None,) * len(shape) for role, shape in shapes.items()}
    if node.op == "batch_norm":
        follows = node.name if axes[node.name] == 0 else None
        return dict.fromkeys(shapes, (follows,))
    return {role: _broadcast(node, shape, axes[node.name]) for role, shape in shapes.items()}


def _layer(network: Network, node: Node, axes: Mapping[str, int]) -> dict[str, Followed]:
    channel_axis = 0 if node.op == "conv" else len(node.shape) - 1
    rows = node.name if axes.get(node.name) == channel_axis else None
    columns = node.inputs[0] if reads_channels(network, node, axes) else None
    kernel = (None,) * (network.parameters_of(node)["weight"].ndim - 2)
    return {role: (rows, columns, *kernel) if role == "weight" else (rows,) for role in node.parameters}


def _broadcast(node: Node, shape: tuple[int, ...], axis: int) -> Followed:
    """A constant aligned with the value's last axes; along an axis of size 1 one number serves all channels."""
    own_axis = axis - (len(node.shape) - len(shape))
    return tuple(node.name if i == own_axis and size > 1 else None for i, size in enumerate(shape))
