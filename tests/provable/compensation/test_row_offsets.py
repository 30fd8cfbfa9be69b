"""The patch Gram matrix by row offsets is the unfolded one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.compensation.moments import Moments
from provable.compensation.patches import outputs, parts, unfold
from provable.compensation.row_offsets import applies, row_moments


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    rank=st.integers(1, 3),
    data=st.data(),
    groups=st.sampled_from([1, 2]),
    with_aim=st.booleans(),
)
def test_equals_the_unfolded_moments(sketch, seed, rank, data, groups, with_aim) -> None:
    random = np.random.default_rng(seed)
    kernel = tuple(data.draw(st.integers(2 if axis == 0 else 1, 3)) for axis in range(rank))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(2 * rank))
    s = sketch((2 * groups, *(5,) * rank), seed)
    name = s.add(
        "conv", "x", parameters={"weight": random.normal(size=(2 * groups, 2, *kernel))},
        stride=(1, *(data.draw(st.integers(1, 2)) for _ in range(rank - 1))), padding=padding,
        dilation=(1, *(data.draw(st.integers(1, 2)) for _ in range(rank - 1))), groups=groups,
    )  # fmt: skip
    network = s.network(name)
    node = network.node(name)
    assert applies(node, kernel)
    x = random.normal(size=(3, *network.input_shape)).astype(np.float32) + 1.0
    aim = random.normal(size=(3, *node.shape)).astype(np.float32) if with_aim else None
    for part in parts(network, node):
        patches = unfold(node, part, kernel, x)
        values = outputs(node, part, aim) if aim is not None else np.zeros((0, patches.shape[1]))
        expected, found = Moments.of(patches.T, values.T), row_moments(node, part, kernel, x, aim)
        assert found.count == expected.count
        for field in ("sum_x", "sum_t", "gram", "cross", "energy"):
            right, left = getattr(expected, field), getattr(found, field)
            np.testing.assert_allclose(left, right, rtol=0.0, atol=1e-10 * max(np.abs(right).max(initial=0.0), 1e-9))


@pytest.mark.parametrize(("stride", "kernel"), [(2, 3), (1, 1)])
def test_strided_rows_and_single_rows_are_unfolded(sketch, stride, kernel) -> None:
    s = sketch((2, 6, 6))
    network = s.network(s.conv("x", 3, kernel, stride))
    assert not applies(network.nodes[0], (kernel, kernel))
