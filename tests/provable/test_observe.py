"""Statistics of the calibration pass: right, and independent of how the inputs were cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.calibration import as_batches, calibration_inputs, read_calibration
from provable.compensation import collect
from provable.compensation.moments import Moments
from provable.errors import CalibrationError
from provable.observe import observe
from provable.pipeline import prunable
from provable.sensitivity.relative_importance import relative_importance
from verify.network.evaluate import evaluate_values
from verify.network.graph import Network


def inputs_of(network: Network, count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, *network.input_shape)).astype(np.float32))


def convolutional(sketch, kernel: int = 3, stride: int = 1, rank: int = 2) -> Network:
    s = sketch((2, *[6] * rank), dtype="float32")
    hidden = s.add("relu", s.conv("x", 5, 3))
    out = s.norm(s.conv(hidden, 4, kernel, stride, bias=False))
    return s.network(s.linear(s.flat(out), 3))


@settings(max_examples=12, deadline=None)
@given(cells=st.integers(1, 4000), batch=st.integers(1, 7))
def test_statistics_do_not_depend_on_the_cut(sketch, cells: int, batch: int) -> None:
    network = convolutional(sketch)
    x = inputs_of(network, 7)
    groups = prunable(network, "inner")
    expected = observe(network, x, groups)
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(collect, "CELLS", cells)
        again = calibration_inputs(network, as_batches(list(x.split(batch))))
        found = observe(network, again, groups)
    assert (found.digest, found.rows) == (expected.digest, expected.rows)
    for name, known in expected.consumers.items():
        for field in ("sum_x", "gram", "cross", "energy"):
            a, b = getattr(found.consumers[name].moments[0], field), getattr(known.moments[0], field)
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max())
    for name, sensitivity in expected.sensitivities.items():
        np.testing.assert_allclose(found.sensitivities[name].scores, sensitivity.scores, rtol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "rank"), [(3, 1, 2), (3, 2, 2), (1, 1, 2), (3, 1, 1)])
def test_moments_are_those_of_unfolded_inputs(sketch, kernel: int, stride: int, rank: int) -> None:
    network = convolutional(sketch, kernel, stride, rank)
    x = inputs_of(network, 5)
    group = prunable(network, "inner")[0]
    found = observe(network, x, [group]).consumers[group.consumers[0].node]
    node = network.node(found.target.consumer)
    hidden = torch.from_numpy(evaluate_values(network, x.numpy(), [node.inputs[0]])[node.inputs[0]].copy())
    if rank == 1:  # torch unfolds images only
        hidden = hidden[:, :, None]
    shape = (1, kernel) if rank == 1 else (kernel, kernel)
    padding = (0, kernel // 2) if rank == 1 else kernel // 2
    patches = torch.nn.functional.unfold(hidden, shape, padding=padding, stride=(1, stride) if rank == 1 else stride)
    values = evaluate_values(network, x.numpy(), [found.target.end])[found.target.end]
    t = np.moveaxis(values, 1, -1).reshape(-1, 4)
    expected = Moments.of(patches.transpose(1, 2).reshape(-1, patches.shape[1]).numpy(), t)
    for field in ("count", "sum_x", "sum_t", "gram", "cross", "energy"):
        np.testing.assert_allclose(getattr(found.moments[0], field), getattr(expected, field), rtol=1e-4, atol=1e-3)
    stream = values.transpose(1, 0, *range(2, values.ndim)).reshape(4, -1).var(axis=1).sum()
    assert found.stream == pytest.approx(stream, rel=1e-5)


def test_sensitivity_is_the_largest_relative_importance(sketch) -> None:
    s = sketch((4,), dtype="float32")
    hidden = s.add("relu", s.linear("x", 6))
    network = s.network(s.linear(hidden, 3))
    x = inputs_of(network, 50)
    group = prunable(network, "inner")[0]
    found = observe(network, x, [group]).sensitivities[group.name]
    values = torch.from_numpy(evaluate_values(network, x.numpy(), [hidden])[hidden].copy())
    weight = torch.from_numpy(network.parameters[group.consumers[0].node + ".weight"].astype(np.float64))
    expected = relative_importance(weight[:, :, None], values[:, :, None, None])
    np.testing.assert_allclose(found.scores, expected.numpy(), rtol=1e-4)
    assert found.images == 50
    assert observe(network, x, [group], sensitivity_images=8).sensitivities[group.name].images == 8


def test_channels_behind_a_flatten_are_blocks(sketch) -> None:
    s = sketch((1, 4, 4), dtype="float32")
    hidden = s.add("relu", s.conv("x", 3, 3))
    network = s.network(s.linear(s.flat(hidden), 2))
    x = inputs_of(network, 20)
    group = prunable(network, "inner")[0]
    found = observe(network, x, [group]).sensitivities[group.name]
    values = torch.from_numpy(evaluate_values(network, x.numpy(), [hidden])[hidden].copy()).reshape(20, 3, 16, 1)
    weight = torch.from_numpy(network.parameters[group.consumers[0].node + ".weight"].astype(np.float64)).reshape(
        2, 3, 16
    )
    np.testing.assert_allclose(found.scores, relative_importance(weight, values).numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (np.zeros((0, 2, 6, 6), np.float32), "empty"),
        ([], "no batch"),
        (np.zeros((3, 6, 6), np.float32), r"shape \(3, 6, 6\), expected \(samples, 2, 6, 6\)"),
        (np.zeros((3, 2, 6, 6), np.uint8), "dtype torch.uint8, expected floating point"),
        (np.zeros((3, 2, 6, 6), np.complex64), "dtype complex64"),
        (np.full((3, 2, 6, 6), np.nan, np.float32), "NaN or infinity.*sample 0"),
        (np.full((3, 2, 6, 6), 1e300), "NaN or infinity"),
        ([np.zeros((1, 2, 6, 6), np.float32), np.full((2, 2, 6, 6), np.inf, np.float32)], "batch 1.*sample 0"),
        ([np.zeros((1, 2, 6, 6), np.float32), "x"], "batch 1 has type str"),
        (np.float32(3.0), "float32"),
        (7, "calibration is a int"),
        ("inputs.npy", "calibration is a str"),
    ],
)
def test_unusable_calibration_is_refused(sketch, calibration: object, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        calibration_inputs(convolutional(sketch), as_batches(calibration))


def test_reading_calibration_files(tmp_path) -> None:
    one, two = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    np.save(tmp_path / "a.npy", one)
    np.savez(tmp_path / "a.npz", only=one)
    np.savez(tmp_path / "b.npz", first=one, second=two)
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    (tmp_path / "text.npz").write_text("no archive")
    np.testing.assert_array_equal(read_calibration(tmp_path / "a.npy"), one)
    np.testing.assert_array_equal(read_calibration(tmp_path / "a.npz"), one)
    np.testing.assert_array_equal(read_calibration(tmp_path / "b.npz", "second"), two)
    for name, key, words in [
        ("b.npz", None, "2 arrays .first, second.; name one"),
        ("b.npz", "third", "no array 'third'"),
        ("object.npy", None, "not a readable"),
        ("cut.npy", None, "not a readable"),
        ("text.npz", None, "not a readable"),
        ("missing.npy", None, "no such file"),
        ("a.txt", None, "npy or .npz"),
    ]:
        with pytest.raises(CalibrationError, match=words):
            read_calibration(tmp_path / name, key)
