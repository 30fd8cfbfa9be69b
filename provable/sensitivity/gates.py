"""Gates: one factor z = 1 per slot of every channel group, at the weights with which its consumers read it.

    W'[:, j] = z_j W[:, j]   at every consumer,     dL/dz_j = sum over consumers of < W[:, j], dL/dW[:, j] >

z_j = 0 is exactly what removing slot j does. No gate module is inserted anywhere. Behind a batch norm with scale
gamma and shift beta, with positively homogeneous ops (ReLU, pooling) up to the consumers, the same derivative is
gamma dL/dgamma + beta dL/dbeta. Proof: theory_notes/scores.md.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from provable.channels import ChannelGroup
from verify.network.graph import Network
from verify.network.module import NetworkModule


class Gates:
    """A network as a function of its inputs and of one gate vector per group.

    Args:
        network: the original.
        groups: the gated groups; their gate vectors are given and returned in this order.
        dtype: of the arithmetic.
    """

    def __init__(self, network: Network, groups: Sequence[ChannelGroup], dtype: torch.dtype = torch.float32) -> None:
        self._module = NetworkModule(network, dtype).requires_grad_(False)
        self._readings = [(i, *_owners(network, group)) for i, group in enumerate(groups)]
        self.sizes = tuple(len(group.slots) for group in groups)
        self._dtype = dtype

    def open(self) -> tuple[Tensor, ...]:
        """All gates at 1, ready to be differentiated."""
        return tuple(torch.ones(size, dtype=self._dtype, requires_grad=True) for size in self.sizes)

    def outputs(self, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Outputs ``(batch, *output_shape)`` with the gates applied."""
        changed: dict[str, Tensor] = {}
        for index, keys, owners in self._readings:
            padded = torch.cat([gates[index], gates[index].new_ones(1)])
            for key, owner in zip(keys, owners, strict=True):
                name = self._module.attribute_of[key]
                weight = changed.get(name, self._module.parameter(key))
                changed[name] = weight * padded[owner].view(1, -1, *[1] * (weight.ndim - 2))
        result: Tensor = functional_call(self._module, changed, (x.to(self._dtype),))
        return result


def _owners(network: Network, group: ChannelGroup) -> tuple[list[str], list[Tensor]]:
    """Weight keys of the group's consumers, and for each column the slot that owns it (the last index: none)."""
    keys, owners = [], []
    for consumer in group.consumers:
        key = network.node(consumer.node).parameters["weight"]
        width = network.parameters[key].shape[1]
        owner = np.full(width, len(group.slots), dtype=np.int64)
        for slot, positions in enumerate(consumer.positions):
            owner[[p % width for p in positions]] = slot  # a grouped convolution's groups share columns
        keys.append(key)
        owners.append(torch.from_numpy(owner))
    return keys, owners
