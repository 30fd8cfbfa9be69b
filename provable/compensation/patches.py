"""The unfolded input of a linear or convolution node: one column per output position, one row per weight column.

    conv:    row (channel, kernel position), column (image, output position)
    linear:  row = input feature,            column (image, leading position)

so that the node's output is weight.reshape(n, -1) @ patches, plus its bias. Theory: theory_notes/compensation.md.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from provable.compensation.moments import Matrix
from verify.network.graph import Array, Network, Node
from verify.network.operations.affine import windows


@dataclass(frozen=True)
class Part:
    """One group of a grouped convolution; a plain convolution or linear layer is a single part.

    Attributes:
        rows: its output rows.
        channels: its input channels.
        kernel: coordinates per input channel.
    """

    rows: slice
    channels: slice
    kernel: int

    @property
    def dimension(self) -> int:
        """Number of coordinates of one patch."""
        return int(self.channels.stop - self.channels.start) * self.kernel

    def coordinates(self, positions: tuple[int, ...]) -> NDArray[np.intp]:
        """Coordinates within this part's patch of the input channels `positions` (those of other parts are skipped)."""
        inside = [p - self.channels.start for p in positions if self.channels.start <= p < self.channels.stop]
        return (np.array(inside, dtype=np.intp)[:, None] * self.kernel + np.arange(self.kernel)).ravel()


def parts(network: Network, node: Node) -> tuple[Part, ...]:
    """The parts of a linear or conv node."""
    shape = network.parameters[node.parameters["weight"]].shape
    groups = cast(int, node.attributes.get("groups", 1))
    rows, channels, kernel = shape[0] // groups, shape[1], int(np.prod(shape[2:], dtype=np.int64))
    return tuple(
        Part(slice(i * rows, (i + 1) * rows), slice(i * channels, (i + 1) * channels), kernel) for i in range(groups)
    )


def unfold(node: Node, part: Part, kernel_shape: tuple[int, ...], inputs: Array) -> Matrix:
    """Patches of one part: (dimension, samples) in float64, for inputs (batch, *shape)."""
    if node.op == "linear":
        return np.ascontiguousarray(inputs.reshape(-1, inputs.shape[-1]).T, dtype=np.float64)
    rank = len(kernel_shape)
    view = windows(node, inputs[:, part.channels], kernel_shape, 0.0)  # (b, c, *positions, *kernel)
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    return view.transpose(order).astype(np.float64, order="C").reshape(part.dimension, -1)


def outputs(node: Node, part: Part, values: Array) -> Matrix:
    """Output values (batch, *shape) of one part in the same layout: (rows, samples) in float64."""
    if node.op == "linear":
        return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T, dtype=np.float64)
    chosen = values[:, part.rows]
    return np.moveaxis(chosen, 1, 0).astype(np.float64, order="C").reshape(chosen.shape[1], -1)
