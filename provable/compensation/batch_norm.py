"""Batch-norm re-estimation: the statistics of every batch norm become those of the values it really sees.

    mean, variance <- over calibration inputs and positions, layer by layer in network order

Removing channels shifts what later layers see; the norms put mean and scale back. No weight changes. It is what many
practitioners do after pruning, and weaker than least squares, which moves the intercepts as well.

Theory: theory_notes/compensation.md. Not claimed: that the loss falls; it usually does.
"""

from collections import Counter

from torch import Tensor

from provable.compensation.collect import mean_and_variance
from provable.execution import Run
from verify.network.graph import Array, Network

_STATISTICS = ("mean", "variance")


def reestimated(network: Network, inputs: Tensor) -> Network:
    """The network with the statistics of its batch norms measured on the inputs; shared statistics stay.

    Args:
        network: the original's shapes; removed channels are read by nobody.
        inputs: (samples, *input_shape) float32.
    """
    uses = Counter(key for node in network for key in node.parameters.values())
    norms = [n for n in network if n.op == "batch_norm" and all(uses[n.parameters[role]] == 1 for role in _STATISTICS)]
    run = Run(network, inputs, [node.inputs[0] for node in norms])
    for node in norms:
        found = dict(zip(_STATISTICS, mean_and_variance(run.take(node.inputs[0]).numpy(), 1), strict=True))
        changed: dict[str, Array] = {}
        for role, statistic in found.items():
            key = node.parameters[role]
            changed[key] = statistic.astype(network.parameters[key].dtype)
        network = network.with_parameters(changed)
        run.update(network)
    return network
