"""Running a network node by node over all calibration inputs, keeping only the values that are still needed.

A `Run` computes values on demand. A value is dropped as soon as its last reader has been computed and every announced
demand has been served, so a sequential pass over a network costs one forward pass, not one per layer. Values too large
for memory are in files (room.py). Parameters of nodes not computed yet may be replaced while it runs.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from provable.compensation.target import ancestors
from provable.errors import CalibrationError
from provable.room import room
from verify.network.graph import Array, Network, Node
from verify.network.module import STEPS

ELEMENT_BY_ELEMENT = frozenset(
    {"relu", "leaky_relu", "clip", "sigmoid", "tanh", "gelu", "silu", "hardsigmoid", "hardswish", "scale", "divide",
     "shift", "batch_norm", "add", "subtract", "multiply"}
)  # fmt: skip
"""Ops that read of every sample only what they write: their result may take the place of a value nobody reads later."""


class Run:
    """One network's values over the calibration inputs.

    Args:
        network: what to run.
        inputs: (samples, *input_shape) float32.
        demands: every value that will be taken, as often as it will be taken.
        batch_size: samples per call of an operation (bounds temporary memory).
    """

    def __init__(self, network: Network, inputs: Tensor, demands: Iterable[str], *, batch_size: int = 64) -> None:
        announced = Counter(demands)
        needed = frozenset[str]().union(*(ancestors(network, name) for name in announced))
        self._network = network
        self._batch_size = batch_size
        self._nodes = {node.name: node for node in network}
        self._pending = announced + Counter(s for n in network if n.name in needed for s in dict.fromkeys(n.inputs))
        self._values: dict[str, Tensor] = {network.input: inputs}
        self._parameters: dict[str, tuple[Array, Tensor]] = {}

    def update(self, network: Network) -> None:
        """Continue with other parameters (same values, none of the changed nodes computed yet)."""
        self._network = network
        self._nodes = {node.name: node for node in network}

    def take(self, name: str) -> Tensor:
        """Value `name` for all samples, (samples, *shape); serves one announced demand.

        It is good until the run goes on past it: once nobody else needs it, a later value may take its memory.

        Raises:
            CalibrationError: it is not finite.
        """
        self._compute(name)
        value = self._values[name]
        self._release(name)
        if value.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(value))).all()):
            raise CalibrationError(f"value {name!r} is not finite on the calibration inputs: it overflows float32")
        return value

    def value(self, name: str) -> Tensor:
        """A value that is held now, without serving a demand."""
        return self._values[name]

    def replace(self, name: str, value: Tensor) -> None:
        """Another value in place of one that is held now: its parameters have changed."""
        self._values[name] = value

    def live(self) -> tuple[str, ...]:
        """Names of the values held now."""
        return tuple(self._values)

    def _compute(self, name: str) -> None:
        stack = [name]
        while stack:
            if stack[-1] in self._values:
                stack.pop()
                continue
            node = self._nodes[stack[-1]]
            missing = [source for source in node.inputs if source not in self._values]
            if missing:
                stack.extend(missing)
                continue
            self._values[node.name] = self._evaluate(node)
            for source in dict.fromkeys(node.inputs):
                self._release(source)

    def _release(self, name: str) -> None:
        self._pending[name] -= 1
        if self._pending[name] <= 0:
            del self._values[name]

    @torch.inference_mode()
    def _evaluate(self, node: Node) -> Tensor:
        parameters = {role: self._parameter(key) for role, key in node.parameters.items()}
        sources = [self._values[source] for source in node.inputs]
        step = STEPS[node.op](node, self._network)
        samples = max((len(source) for source in sources), default=1)
        result = self._room(node, samples)
        for start in range(0, samples, self._batch_size):
            chunk = slice(start, start + self._batch_size)
            result[chunk] = step(
                [source[chunk] if len(source) == samples else source for source in sources], parameters
            )
        return result

    def _room(self, node: Node, samples: int) -> Tensor:
        """Where a node's values go: fresh memory costs more than an activation's arithmetic."""
        for source in node.inputs if node.op in ELEMENT_BY_ELEMENT else ():
            value = self._values[source]
            private = self._pending[source] == 1 and source != self._network.input
            if private and value.shape == (samples, *node.shape) and value.dtype == torch.float32:
                return value
        return room((samples, *node.shape))

    def _parameter(self, key: str) -> Tensor:
        array = self._network.parameters[key]
        known = self._parameters.get(key)
        if known is None or known[0] is not array:
            known = (array, torch.from_numpy(np.array(array, dtype=np.float32)))
            self._parameters[key] = known
        return known[1]
