"""The layer recursion bounds the network's deviation for every input, selection and depth."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.bounds import PrunedDense, dense_recursion, deterministic_error, measured_relative_error
from provable.bounds.recursion import through_affine, through_batch_norm, through_lipschitz, through_sum
from provable.sampling import DESIGNS
from provable.sensitivity import relative_importance
from verify.errors import DataError


def network(seed, widths):
    generator = np.random.default_rng(seed)
    return [(generator.normal(size=(o, i)), generator.normal(size=o)) for i, o in itertools.pairwise(widths)]


def pre_activations(layers, factors, x):
    values = []
    for (weight, bias), factor in zip(layers, factors, strict=True):
        values.append((weight * factor) @ x + bias)
        x = np.maximum(values[-1], 0)
    return values


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5), st.sampled_from(["pivotal", "top_k"]), st.integers(0, 2**32)
)
def test_recursion_bounds_every_layer(widths, design, seed):
    generator, layers = np.random.default_rng(seed), network(seed, widths)
    x = generator.normal(size=widths[0])
    pruned, factors, activation = [], [], x
    for weight, bias in layers:
        tensors = torch.from_numpy(weight)[:, :, None], torch.from_numpy(activation)[None, :, None, None]
        scores = relative_importance(*tensors).numpy()  # E_1 holds: the input itself was the calibration
        count = int(generator.integers(1, weight.shape[1] + 1))
        selection = DESIGNS[design].draw(scores, count, generator)
        factors.append(selection.factors())
        measured = measured_relative_error(weight, factors[-1], activation)
        relative = deterministic_error(scores, selection.kept) if design == "top_k" else measured
        assert measured <= relative + 1e-12
        pruned.append(PrunedDense(weight, factors[-1], bias, relative))
        activation = np.maximum(weight @ activation + bias, 0)
    original = pre_activations(layers, [np.ones(len(f)) for f in factors], x)
    changed = pre_activations(layers, factors, x)
    for bound, a, b in zip(dense_recursion(pruned, x), original, changed, strict=True):
        assert np.all(np.abs(a - b) <= bound * (1 + 1e-9) + 1e-9)


def test_nothing_removed_means_no_error():
    layers = [PrunedDense(w, np.ones(w.shape[1]), b, 0.0) for w, b in network(1, [3, 4, 2])]
    assert all(np.all(e == 0) for e in dense_recursion(layers, np.ones(3)))


def test_convolutional_residual_block():
    """Affine steps by callables: conv, batch norm, residual sum, relu, max pool."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 6, 6, generator=generator, dtype=torch.float64).relu()
    weight = torch.randn(4, 4, 3, 3, generator=generator, dtype=torch.float64)
    gamma, variance = torch.randn(4, generator=generator).double(), torch.rand(4, generator=generator).double() + 0.1
    factors = torch.tensor([1.3, 0.0, 1.0, 1.0], dtype=torch.float64).view(1, 4, 1, 1)

    def conv(a, w):
        return torch.nn.functional.conv2d(a, w, padding=1)

    def norm(a):
        return a * (gamma / (variance + 1e-5).sqrt()).view(1, -1, 1, 1)

    def block(w, a):
        return torch.nn.functional.max_pool2d((norm(conv(a, w)) + a).relu(), 2)

    parts = torch.stack([conv(x[:, [j]], weight[:, [j]]) for j in range(4)])
    mass = parts.abs().sum(0)[0].numpy()
    change = (conv(x, weight * factors) - conv(x, weight))[0].abs().numpy()
    relative = float((change / np.where(mass > 0, mass, 1)).max())
    zero = np.zeros((4, 6, 6))

    def magnitude(e):
        return conv(torch.from_numpy(e)[None], (weight * factors).abs())[0].numpy()

    error = through_affine(zero, magnitude, relative, mass)
    error = through_sum(through_batch_norm(error, gamma.numpy(), variance.numpy(), 1e-5), zero)
    error = torch.nn.functional.max_pool2d(torch.from_numpy(through_lipschitz(error))[None], 2)[0].numpy()
    deviation = (block(weight * factors, x) - block(weight, x))[0].abs().numpy()
    assert np.all(deviation <= error * (1 + 1e-12))


def test_refuses_a_negative_relative_error():
    with pytest.raises(DataError):
        through_affine(np.zeros(1), lambda e: e, -0.1, np.zeros(1))
