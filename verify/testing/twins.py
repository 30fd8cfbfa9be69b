"""Hypothesis strategy for compact versions of a network, made without any compression method.

    perturbed   every parameter times (1 + noise)
    rounded     weights and biases rounded to float16
    sliced      channels of one layer removed from its producer to its consumers, with the map kept -> original
    same        the network itself

A twin is what a verifier gets: it need not be a good one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from verify.network.graph import Network
from verify.testing.slicing import removable_layers, without_channels

HOWS = ("perturbed", "rounded", "sliced", "same")


@dataclass(frozen=True)
class Twin:
    """A compact network and how it corresponds to its original.

    Attributes:
        compact: inputs and outputs as the original's.
        channels: content of ``channels.json``: empty unless channels were removed.
        how: one of `HOWS`.
    """

    compact: Network
    channels: Mapping[str, Any]
    how: str


@st.composite
def compact_twins(draw: st.DrawFn, network: Network, hows: Sequence[str] = HOWS) -> Twin:
    """Twins of `network`; without a layer to slice, "sliced" falls back to "perturbed"."""
    how = draw(st.sampled_from(list(hows)))
    if how == "sliced":
        layers = removable_layers(network)
        if layers:
            name = draw(st.sampled_from(layers))
            width = network.shape_of(name)[0]
            kept = draw(st.sets(st.integers(0, width - 1), min_size=1, max_size=max(1, width - 1)))
            compact, channels = without_channels(network, name, sorted(kept))
            return Twin(compact, channels, how)
        how = "perturbed"
    return Twin(_MADE[how](draw, network), {"version": 1, "values": {}}, how)


def _perturbed(draw: st.DrawFn, network: Network) -> Network:
    size = 2.0 ** -draw(st.integers(1, 12))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    return network.with_parameters(
        {
            key: (array * (1.0 + size * generator.uniform(-1.0, 1.0, array.shape))).astype(array.dtype)
            for key, array in network.parameters.items()
        }
    )


def _rounded(draw: st.DrawFn, network: Network) -> Network:
    keys = {k for node in network for role, k in node.parameters.items() if role in ("weight", "bias")}
    limit = float(np.finfo(np.float16).max)
    return network.with_parameters(
        {
            k: np.clip(network.parameters[k], -limit, limit).astype(np.float16).astype(network.parameters[k].dtype)
            for k in keys
        }
    )


def _same(draw: st.DrawFn, network: Network) -> Network:
    return network


_MADE: dict[str, Callable[[st.DrawFn, Network], Network]] = {
    "perturbed": _perturbed,
    "rounded": _rounded,
    "same": _same,
}
