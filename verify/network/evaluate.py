"""The reference semantics: a network's value in float64, one node after the other.

Float64 stands for real arithmetic here, up to rounding; it is not the deployed float32 run.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError
from verify.network.graph import Array, Network
from verify.network.operations import OPERATIONS


def evaluate(network: Network, inputs: Array, *, batch_size: int = 256) -> NDArray[np.float64]:
    """Outputs for a batch of inputs.

    Args:
        network: any network.
        inputs: ``(batch, *network.input_shape)``; converted to float64.
        batch_size: samples worked on at a time (bounds memory).

    Returns:
        ``(batch, *network.output_shape)`` in float64.

    Raises:
        DataError: the inputs have another shape or are not finite.
    """
    x = _checked(network, inputs)
    parts = [_run(network, x[i : i + batch_size], (network.output,))[0] for i in range(0, len(x), batch_size)]
    return np.concatenate(parts) if parts else np.empty((0, *network.output_shape))


def evaluate_values(network: Network, inputs: Array, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Values named `names` for one batch of inputs, each ``(batch, *shape)`` in float64."""
    wanted = tuple(names)
    return dict(zip(wanted, _run(network, _checked(network, inputs), wanted), strict=True))


def _checked(network: Network, inputs: Array) -> NDArray[np.float64]:
    x = np.asarray(inputs, dtype=np.float64)
    if x.shape[1:] != network.input_shape:
        raise DataError(f"inputs have shape {x.shape}, expected (batch, {', '.join(map(str, network.input_shape))})")
    if not np.isfinite(x).all():
        raise DataError("inputs hold NaN or infinity")
    return x


def _run(network: Network, x: NDArray[np.float64], wanted: tuple[str, ...]) -> list[NDArray[np.float64]]:
    values: dict[str, Array] = {network.input: x}
    last_use = {source: i for i, node in enumerate(network.nodes) for source in node.inputs}
    for i, node in enumerate(network.nodes):
        parameters = {role: array.astype(np.float64) for role, array in network.parameters_of(node).items()}
        values[node.name] = OPERATIONS[node.op].evaluate(node, [values[s] for s in node.inputs], parameters)
        for source in _finished(node.inputs, last_use, i):
            if source not in wanted:
                del values[source]
    return [np.broadcast_to(values[name], (len(x), *network.shape_of(name))) for name in wanted]


def _finished(sources: tuple[str, ...], last_use: dict[str, int], step: int) -> Iterator[str]:
    return (s for s in dict.fromkeys(sources) if last_use[s] == step)
