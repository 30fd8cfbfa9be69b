"""The table of layers says before what was promised, how surely, on what it rests, and after what was measured."""

import re

import numpy as np
import pytest

from provable.pipeline import compress


def result_of(sketch, recipe: str, images: int):
    s = sketch((6,), dtype="float32")
    hidden = s.add("relu", s.linear("x", 12))
    network = s.network(s.linear(hidden, 3))
    inputs = np.random.default_rng(0).normal(size=(images, 6)).astype(np.float32)
    return compress(network, inputs, keep={"channels": 0.5}, recipe=recipe)


@pytest.mark.parametrize("recipe", ["pfp-sampled", "pivotal", "pfp"])
def test_a_probability_is_said_and_never_rounded_up(sketch, recipe: str) -> None:
    result = result_of(sketch, recipe, 137)
    (bound,) = [report.bound for report in result.groups]
    text = " ".join(result.table().split())
    said = float(re.search(r"holds with probability at least ([0-9.]+)", text)[1])
    assert bound.confidence - 1e-4 <= said <= bound.confidence < 1.0
    assert bound.name in text
    assert bound.assumption in text
    assert f"{bound.value:.3g}" in text
    assert ("nothing" in text) == bound.vacuous


def test_with_fewer_images_than_channels_nothing_is_promised(sketch) -> None:
    result = result_of(sketch, "pfp-sampled", 5)
    text = " ".join(result.table().split())
    assert "delta >= 1: holds with no probability at this number of images" in text
    assert "nothing" in text


def test_a_certain_bound_says_so_beside_what_was_measured(sketch) -> None:
    result = result_of(sketch, "greedy", 40)
    (report,) = result.groups
    text = " ".join(result.table().split())
    assert "bound (volume bound" in text
    assert "holds for sure" in text
    assert "assumes: none on the data" in text
    assert all(f"{value:.3g}" in text for value in (report.loss, report.held_out_loss))
