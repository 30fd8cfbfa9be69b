"""Which elements of a network's values are 0 for every input of a domain, from ReLUs that never fire there.

Zeros pass through operations that only move, sum, average or compare non-negative elements. Everything else counts as
not zero. Theory: theory_notes/exact_pruning.md. Not claimed: that every zero element is found.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.network.graph import Network, Node
from verify.network.operations import OPERATIONS

Mask = NDArray[np.bool_]

PASSING = frozenset({"reshape", "transpose", "slice", "concat", "max_pool", "average_pool", "mean", "add"})
"""An output element is 0 if every element it reads is; run on 0/1 indicators, these operations show which do."""


def zero_elements(network: Network, inactive: Mapping[str, Mask]) -> dict[str, Mask]:
    """Value -> True where the element is 0 on the whole domain.

    Args:
        inactive: ReLU node -> True where its output is 0 on the whole domain.
    """
    zeros: dict[str, Mask] = {network.input: np.zeros(network.input_shape, dtype=np.bool_)}
    for node in network:
        zeros[node.name] = _zeros(node, [zeros[name] for name in node.inputs], inactive)
    return zeros


def _zeros(node: Node, inputs: list[Mask], inactive: Mapping[str, Mask]) -> Mask:
    if node.op == "relu":
        return inputs[0] | inactive.get(node.name, np.zeros(node.shape, dtype=np.bool_))
    padded_with_zero = node.op == "pad" and node.attributes["value"] == 0
    if node.op not in PASSING and not padded_with_zero:
        return np.zeros(node.shape, dtype=np.bool_)
    indicators: list[NDArray[Any]] = [np.where(zero, 0.0, 1.0)[None] for zero in inputs]
    return np.asarray(OPERATIONS[node.op].evaluate(node, indicators, {})[0] == 0.0)
