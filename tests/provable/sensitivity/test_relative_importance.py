"""Laws of the relative importance and of the event that its calibration maximum covers a fresh image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from provable.sensitivity import Sensitivity, over_consumers, relative_importance, relative_importance_per_image
from verify.errors import DataError

SHAPES = st.tuples(*(st.integers(1, 4) for _ in range(5)))


def draw(shape, seed, sparse=False):
    f, c, k, b, r = shape
    generator = np.random.default_rng(seed)
    weight, patches = generator.normal(size=(f, c, k)), generator.normal(size=(b, c, k, r))
    if sparse:
        weight[generator.random(weight.shape) < 0.4] = 0.0
        patches = np.maximum(patches, 0.0)
    return torch.from_numpy(weight), torch.from_numpy(patches)


def by_definition(weight, patches):
    """The formula with Python loops."""
    w, x = weight.numpy(), patches.numpy()
    importance = np.zeros((x.shape[0], x.shape[1]))
    for b in range(x.shape[0]):
        for f in range(w.shape[0]):
            for r in range(x.shape[3]):
                c = np.array([w[f, j] @ x[b, j, :, r] for j in range(x.shape[1])])
                for part in (np.maximum(c, 0), np.maximum(-c, 0)):
                    if part.sum() > 0:
                        importance[b] = np.maximum(importance[b], part / part.sum())
    return importance


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(0, 2**32), st.booleans())
def test_equals_its_definition(shape, seed, sparse):
    weight, patches = draw(shape, seed, sparse)
    found = relative_importance_per_image(weight, patches).numpy()
    np.testing.assert_allclose(found, by_definition(weight, patches), rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 3))
def test_neither_the_batch_nor_the_chunk_matters(shape, seed, chunk, cut):
    weight, patches = draw(shape, seed)
    whole = relative_importance(weight, patches)
    batches = [relative_importance(weight, part, chunk=chunk) for part in patches.split(cut)]
    torch.testing.assert_close(torch.stack(batches).amax(0), whole, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.integers(0, 2**32))
def test_in_the_unit_interval_and_the_largest_reaches_its_share(shape, seed):
    weight, patches = draw(shape, seed)
    importance = relative_importance_per_image(weight, patches)
    assert bool(((importance >= 0) & (importance <= 1)).all())
    assert bool((importance.sum(dim=1) >= 1 - 1e-12).all())  # some sum is positive, and its shares add up to 1


def test_removing_a_channel_changes_no_sum_by_more_than_its_importance():
    weight, patches = draw((5, 6, 4, 3, 7), 1)
    importance = relative_importance_per_image(weight, patches)
    contributions = torch.einsum("fck,bckr->bfcr", weight, patches)
    plus, minus = contributions.clamp(min=0).sum(2), (-contributions).clamp(min=0).sum(2)
    for j in range(6):
        share = importance[:, j, None, None]
        assert bool((contributions[:, :, j].clamp(min=0) <= share * plus * (1 + 1e-12)).all())
        assert bool(((-contributions[:, :, j]).clamp(min=0) <= share * minus * (1 + 1e-12)).all())


def test_largest_kernel_position_underestimates_and_breaks_the_bound():
    """Regression: the maximum over kernel positions, as a well-known implementation takes it, is not an upper bound."""
    weight = torch.ones(1, 2, 9, dtype=torch.float64)
    patches = torch.ones(1, 2, 9, 1, dtype=torch.float64)
    patches[0, 1] *= 0.5
    position_maximum = (patches[0, :, :, 0] / patches.sum(dim=(1, 2))[0, 0]).amax(dim=1)
    importance = relative_importance(weight, patches)
    torch.testing.assert_close(importance, torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))
    assert bool((importance > 8.9 * position_maximum).all())


def test_zero_over_zero_is_zero_and_tiny_sums_are_not():
    weight = torch.tensor([[[1.0], [1.0], [0.0]]], dtype=torch.float64)
    dead = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    assert relative_importance(weight, dead).tolist() == [0, 0, 0]
    tiny = torch.tensor([3e-300, 1e-300, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(relative_importance(weight, tiny), torch.tensor([0.75, 0.25, 0.0], dtype=torch.float64))


def test_depthwise_channels_are_all_or_nothing():
    weight = torch.randn(4, 1, 9, dtype=torch.float64)
    patches = torch.randn(2, 4, 9, 5, dtype=torch.float64)
    patches[:, 2] = 0
    assert relative_importance(weight, patches, groups=4).tolist() == [1, 1, 0, 1]


def test_groups_are_independent_layers():
    weight, patches = draw((6, 3, 2, 2, 4), 5)
    other = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    both = relative_importance(weight, torch.cat([patches, other], 1), groups=2)
    apart = [relative_importance(weight[:3], patches), relative_importance(weight[3:], other)]
    torch.testing.assert_close(both, torch.cat(apart))


def test_float32_agrees_with_float64_where_sums_do_not_cancel():
    weight, patches = draw((8, 16, 9, 4, 25), 7, sparse=True)
    fast = relative_importance(weight, patches, dtype=torch.float32)
    torch.testing.assert_close(fast.double(), relative_importance(weight, patches), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("weight", "patches", "groups"),
    [
        ((2, 3, 4), (1, 3, 5, 1), 1),
        ((2, 3), (1, 3, 1, 1), 1),
        ((2, 3, 1), (0, 3, 1, 1), 1),
        ((3, 1, 1), (1, 2, 1, 1), 2),
    ],
)
def test_refuses_shapes_that_do_not_fit(weight, patches, groups):
    with pytest.raises(DataError):
        relative_importance(torch.ones(weight), torch.ones(patches), groups=groups)


def test_refuses_values_that_are_not_finite():
    with pytest.raises(DataError, match="NaN"):
        relative_importance(torch.ones(1, 1, 1), torch.full((1, 1, 1, 1), torch.nan))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 2**32))
def test_the_record_does_not_depend_on_the_batches(cuts, channels, seed):
    g = np.round(np.random.default_rng(seed).random((sum(cuts), channels)), 1)  # rounding makes ties
    whole, running, start = Sensitivity.of(g), Sensitivity.empty(channels), 0
    for cut in cuts:
        running = running.then(Sensitivity.of(g[start : start + cut]))
        start += cut
    assert running.images == whole.images == len(g)
    np.testing.assert_array_equal(running.scores, whole.scores)
    np.testing.assert_array_equal(running.holders, whole.holders)
    np.testing.assert_allclose(whole.distribution.sum(), 1)


def test_several_consumers_take_the_maximum():
    np.testing.assert_array_equal(over_consumers([[0.1, 0.9]], torch.tensor([[0.5, 0.2]])), [[0.5, 0.9]])
    with pytest.raises(DataError):
        over_consumers([[0.1, 0.9]], [[0.1]])
    with pytest.raises(DataError):
        over_consumers()


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.full((1, 2), 1.5), np.full((1, 2), np.nan)])
def test_the_record_refuses_what_is_no_importance(bad):
    with pytest.raises(DataError):
        Sensitivity.of(bad)


def test_fresh_images_escape_at_most_at_the_promised_rate():
    """P(some g_j(x) > s_j) <= channels/(images + 1), marginally over calibration images and x."""
    channels, images, trials = 12, 119, 1500
    generator = np.random.default_rng(3)
    weight = torch.from_numpy(generator.normal(size=(4, channels, 1)))
    x = torch.from_numpy(np.maximum(generator.normal(size=(trials * (images + 1), channels, 1, 1)), 0))
    g = relative_importance_per_image(weight, x).numpy().reshape(trials, images + 1, channels)
    escaped = sum(bool((one[-1] > Sensitivity.of(one[:-1]).scores).any()) for one in g)
    assert 0 < escaped <= binom.ppf(1 - 1e-6, trials, channels / (images + 1))
