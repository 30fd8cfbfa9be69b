"""Strategies give valid networks for every op of the table, honest twins, and points inside exact boxes."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify.errors import SpecificationError
from verify.formal.lift import align
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.operations import OPERATIONS
from verify.testing import KINDS, boxes, calibration_batches, compact_twins, inputs_inside, networks
from verify.testing.blocks import BLOCKS
from verify.testing.networks import PIECEWISE_LINEAR_OPS
from verify.testing.slicing import removable_layers, without_channels

few = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
some = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def test_every_op_of_the_table_has_a_block() -> None:
    assert set(BLOCKS) == set(OPERATIONS)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@few
@given(st.data())
def test_every_op_is_generated_and_evaluates(op: str, data: st.DataObject) -> None:
    network = data.draw(networks("any", containing=op, max_blocks=3))
    assert op in {node.op for node in network}
    points = data.draw(inputs_inside(data.draw(boxes(network))))
    outputs = evaluate(network, points.reshape(-1, *network.input_shape))
    assert outputs.shape == (len(points), *network.output_shape)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("kind", KINDS)
@few
@given(st.data())
def test_arguments_are_kept(kind: str, data: st.DataObject) -> None:
    network = data.draw(networks(kind, outputs=4, dtype=np.float64))
    assert network.output_shape == (4,)
    assert {a.dtype for a in network.parameters.values()} <= {np.dtype(np.float64)}
    plain = data.draw(networks(kind, piecewise_linear=True))
    assert {node.op for node in plain} <= PIECEWISE_LINEAR_OPS
    skips = data.draw(networks("residual", ops=["residual"]))
    assert "add" in {node.op for node in skips}
    shaped = data.draw(networks("dense", input_shape=(7,), ops=["linear", "relu"]))
    assert shaped.input_shape == (7,)
    assert {node.op for node in shaped} <= {"linear", "relu"}


@pytest.mark.parametrize(
    "arguments",
    [{"kind": "wide"}, {"ops": ["magic"]}, {"containing": "magic"}, {"ops": ["tanh"], "piecewise_linear": True}],
)
def test_bad_arguments_are_refused(arguments: dict[str, object]) -> None:
    @settings(max_examples=1, database=None)
    @given(networks(**arguments))  # type: ignore[arg-type]
    def drawn(network: object) -> None:
        raise AssertionError(network)

    with pytest.raises(SpecificationError):
        drawn()


@some
@given(st.data())
def test_twins_fit_their_original(data: st.DataObject) -> None:
    network = data.draw(networks("any", max_blocks=4))
    twin = data.draw(compact_twins(network))
    assert twin.compact.input_shape == network.input_shape
    assert twin.compact.output_shape == network.output_shape
    assert [n.name for n in twin.compact] == [n.name for n in network]
    x = np.random.default_rng(0).standard_normal((3, *network.input_shape))
    assert np.isfinite(evaluate(twin.compact, x)).all()
    if twin.how == "same":
        assert twin.compact.digest() == network.digest()


@pytest.mark.parametrize("kind", ["dense", "conv"])
@some
@given(st.data())
def test_sliced_twin_is_the_original_with_those_channels_cut_off(kind: str, data: st.DataObject) -> None:
    """Removing channels equals setting their columns in every consumer to zero; the kept values agree one by one."""
    network = data.draw(networks(kind, ops=SLICEABLE[kind], outputs=3, max_blocks=5))
    layers = removable_layers(network)
    if not layers:
        return
    name = data.draw(st.sampled_from(layers))
    kept = sorted(data.draw(st.sets(st.integers(0, network.shape_of(name)[0] - 1), min_size=1)))
    compact, channels = without_channels(network, name, kept)
    x = np.random.default_rng(1).standard_normal((4, *network.input_shape))
    names = list(channels["values"])
    large, small = evaluate_values(network, x, names), evaluate_values(compact, x, names)
    for value, entry in channels["values"].items():
        assert np.allclose(large[value][:, entry["kept"]], small[value], rtol=1e-12, atol=1e-12)
    assert compact.shape_of(name)[0] == len(kept)
    assert align(network, compact, channels) is not None
    if len(kept) == network.shape_of(name)[0]:
        assert np.allclose(evaluate(network, x), evaluate(compact, x), rtol=1e-12, atol=1e-12)


SLICEABLE = {
    "dense": ["linear", "relu", "tanh", "linear", "batch_norm", "shift", "scale"],
    "conv": ["conv", "relu", "batch_norm", "max_pool", "average_pool", "conv", "shift"],
}


def test_slicing_is_often_possible() -> None:
    """The test above must not pass by finding nothing to slice."""
    hits = []

    @settings(deadline=None, max_examples=60, database=None, derandomize=True)
    @given(networks("dense", ops=SLICEABLE["dense"], outputs=3))
    def count(network: object) -> None:
        hits.append(bool(removable_layers(network)))  # type: ignore[arg-type]

    count()
    assert sum(hits) >= 15


@some
@given(st.data())
def test_points_lie_in_the_exact_box(data: st.DataObject) -> None:
    network = data.draw(networks("any", max_blocks=1))
    box = data.draw(boxes(network, radius=0.5, center=3.0))
    assert box.dimension == math.prod(network.input_shape)
    assert all(high - low <= 1 for low, high in zip(box.lower, box.upper, strict=True))
    points = data.draw(inputs_inside(box))
    assert all(box.contains(point) for point in points)
    assert np.array_equal(points.astype(np.float32), points)


@some
@given(st.data())
def test_boxes_without_thin_coordinates_have_a_volume(data: st.DataObject) -> None:
    box = data.draw(boxes(data.draw(networks()), thin=False))
    assert all(low < high for low, high in zip(box.lower, box.upper, strict=True))


@some
@given(st.data())
def test_calibration_batches_have_the_input_shape(data: st.DataObject) -> None:
    network = data.draw(networks("conv", max_blocks=1))
    batches = data.draw(calibration_batches(network, min_rows=2, max_rows=5, max_batches=3))
    assert 1 <= len(batches) <= 3
    assert all(2 <= len(b) <= 5 and b.shape[1:] == network.input_shape and b.dtype == np.float32 for b in batches)
