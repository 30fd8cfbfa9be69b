"""ReLU outputs that are zero for every input of a box: removing them changes nothing there.

Serra, Kumar & Ramalingam, Lossless compression of deep neural networks, 2020. The bounds are those of the backward
pass over one network, so "zero" is proved in real arithmetic. Nothing is claimed outside the box.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from verify.formal.backward.bound import analyse
from verify.formal.backward.tape import record_separate
from verify.network.graph import Network
from verify.spec.box import Box


def inactive_elements(network: Network, box: Box) -> dict[str, NDArray[np.bool_]]:
    """ReLU node -> array of the value's shape, True where the output is zero on the whole box.

    Raises:
        UnsupportedOperation: a node has no bound propagation rule.
    """
    tape, _ = record_separate(network, network)
    low, high = (torch.from_numpy(v)[None] for v in box.outward())
    known = analyse(tape, low, high)
    nodes = {node.name: node for node in network.nodes if node.op == "relu"}
    return {
        name: (known[tape.names[name]].z.upper[0] <= 0.0).numpy().reshape(node.shape) for name, node in nodes.items()
    }
