"""Bounds taken apart layer by layer: the parts add up, and none of them is negative."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripts.loading import SCRIPTS, load_script
from verify import Box
from verify.network.graph import Network, build


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return load_script("bench_layers")
    finally:
        sys.path.remove(str(SCRIPTS))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), shrunk=st.booleans())
def test_the_parts_add_up(layers: ModuleType, seed: int, widths: list[int], shrunk: bool) -> None:
    rng = np.random.default_rng(seed)
    original, compact, channels = _pair(rng, widths, shrunk)
    box = Box.from_floats([-1.0] * 3, [1.0] * 3)
    twin = layers.bench.Twin("twin", compact, channels)
    found = layers.profile(original, twin, box)
    gaps = [layer.gap for layer in found.layers]
    scale = 1e-9 * (1.0 + abs(found.bound) + sum(map(abs, gaps)))
    assert all(gap >= -scale for gap in gaps)
    assert found.at_maximum + sum(gaps) == pytest.approx(found.bound, abs=scale)
    assert all(layer.open <= layer.neurons for layer in found.layers)


def _pair(rng: np.random.Generator, widths: list[int], shrunk: bool) -> tuple[Network, Network, dict[str, Any]]:
    """Two networks that are alike, the second with the last neuron of every layer missing where there are several."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    values: dict[str, Any] = {}
    steps, previous, kept = [], "x", list(range(3))
    for i, width in enumerate([*widths, 2]):
        fan = 3 if i == 0 else widths[i - 1]
        hidden = i < len(widths)
        stay = list(range(width - (shrunk and hidden and width > 1)))
        weight, bias = rng.normal(size=(width, fan)).astype(np.float32), rng.normal(size=width).astype(np.float32)
        near = (weight[np.ix_(stay, kept)] * (1 + 0.01 * rng.normal(size=(len(stay), len(kept))))).astype(np.float32)
        first |= {f"w{i}": weight, f"b{i}": bias}
        second |= {f"w{i}": near, f"b{i}": bias[stay]}
        steps.append((f"h{i}", "linear", (previous,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        previous = f"h{i}"
        if hidden:
            steps.append((f"a{i}", "relu", (previous,), {}, {}))
            previous = f"a{i}"
            if len(stay) < width:
                values |= {name: {"axis": 0, "kept": stay} for name in (f"h{i}", f"a{i}")}
        kept = stay
    original, compact = (build("x", (3,), steps, previous, weights) for weights in (first, second))
    return original, compact, {"version": 1, "values": values}
