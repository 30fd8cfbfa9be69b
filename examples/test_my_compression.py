"""How to test a compression method of your own: copy this file, replace `compress` and the network, run pytest.

    pytest examples/test_my_compression.py

Three kinds of evidence, from quick to strong: laws on random networks, a share of fresh inputs with a stated
confidence, and a proof for every input of a box.
"""

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from verify import Box, Network, NetworkModule, evaluate, trace
from verify.statistical import row_hashes
from verify.testing import (
    assert_agreement,
    assert_deviation,
    assert_same_argmax,
    boxes,
    calibration_batches,
    inputs_inside,
    networks,
)


def compress(network: Network, batches: Sequence[NDArray[np.float32]]) -> Network:
    """Put your method here. This one rounds the weights to float16 and does not look at the calibration batches."""
    return network.with_parameters(
        {key: array.astype(np.float16).astype(array.dtype) for key, array in network.parameters.items()}
    )


def my_network() -> torch.nn.Module:
    """Put your trained network here."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()


def my_data(rows: int, seed: int) -> NDArray[np.float32]:
    """Put your data here, in the network's input format: one row per sample."""
    return np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)


ORIGINAL = trace(my_network(), torch.zeros(1, 4))
CALIBRATION = my_data(64, seed=1)
COMPACT = compress(ORIGINAL, [CALIBRATION])


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_compression_works_on_networks_it_has_never_seen(data: st.DataObject) -> None:
    """Convolutional networks, and calibration batches with constant inputs, equal rows, a single row."""
    network = data.draw(networks("conv", outputs=3))
    compact = compress(network, data.draw(calibration_batches(network)))
    assert compact.input_shape == network.input_shape
    assert compact.output_shape == network.output_shape
    points = data.draw(inputs_inside(data.draw(boxes(network))))
    difference = evaluate(network, points.reshape(-1, *network.input_shape)) - evaluate(
        compact, points.reshape(-1, *network.input_shape)
    )
    assert np.abs(difference).max() < 0.5


def test_it_runs_in_torch() -> None:
    outputs = NetworkModule(COMPACT)(torch.from_numpy(CALIBRATION))
    assert outputs.shape == (64, 3)


def test_same_answer_on_these_inputs() -> None:
    assert_same_argmax(ORIGINAL, COMPACT, my_data(200, seed=2))


def test_same_answer_on_nearly_all_inputs() -> None:
    """With confidence 99 %, at least 99 % of inputs get the same answer; the inputs are fresh, which is checked."""
    assert_agreement(
        ORIGINAL, COMPACT, my_data(2000, seed=3), at_least="0.99", confidence="0.99",
        calibration_rows=row_hashes(CALIBRATION),
    )  # fmt: skip


def test_every_input_of_a_box() -> None:
    """A proof: no input within 0.1 of this one makes any output deviate by more than 0.01."""
    box = Box.around(my_data(1, seed=4)[0], "0.1")
    result = assert_deviation(ORIGINAL, COMPACT, box, epsilon="0.01", timeout=30)
    assert result.upper <= 0.01
