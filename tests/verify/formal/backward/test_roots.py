"""Bounds of whole boxes: reported apart from what can be certified; and neurons that are provably zero."""

import functools

import numpy as np
import torch

from verify.formal.backward import roots
from verify.formal.backward.bound import backward_bounds
from verify.formal.backward.inactive import inactive_elements
from verify.formal.backward.roots import backward_upper
from verify.formal.deviation import verify_deviation
from verify.formal.lift import align
from verify.network.module import NetworkModule
from verify.spec.box import Box


def box_of(network, radius):
    size = int(np.prod(network.input_shape))
    return Box.from_floats(np.full(size, -radius), np.full(size, radius))


def test_the_backward_bound_is_reported_apart_and_holds(twins):
    tighter = 0
    for seed in range(3):
        original, compact, channels = twins("deep", seed)
        box = box_of(original, 1.0)
        options = {"channels": channels, "timeout": 5.0, "attack": None, "symbols": 0, "ratio": 1e9, "floor": 1e9}
        with_it = verify_deviation(original, compact, [box], **options, backward=True)
        without = verify_deviation(original, compact, [box], **options)
        assert without.backward_upper is None
        assert with_it.upper == without.upper  # the certifiable bound is untouched
        tighter += with_it.backward_upper < with_it.upper
        x = torch.from_numpy(box.sample(np.random.default_rng(0), 200))
        f, g = (NetworkModule(n, torch.float64)(x).detach() for n in (original, compact))
        assert float((f - g).abs().max()) <= with_it.backward_upper + 1e-9
    assert tighter


def test_several_boxes_give_their_worst(twins, monkeypatch):
    original, compact, channels = twins("dense", 2)
    lift = align(original, compact, channels)
    plain = functools.partial(backward_bounds, iterations=0, inner_iterations=0)
    monkeypatch.setattr(roots, "backward_bounds", plain)
    boxes = [box_of(original, r) for r in (0.1, 1.0)]
    single = [backward_upper(original, compact, lift, [b], seconds=1e6) for b in boxes]
    assert backward_upper(original, compact, lift, boxes, seconds=1e6) == max(single)


def test_without_time_there_is_no_bound(twins):
    original, compact, channels = twins("dense", 2)
    lift = align(original, compact, channels)
    assert backward_upper(original, compact, lift, [box_of(original, 1.0)], seconds=0.0) is None


def test_inactive_neurons_never_fire(twins):
    found = 0
    for seed in range(3):
        original, _, _ = twins("dense", seed)
        box = box_of(original, 0.5)
        zero = inactive_elements(original, box)
        x = torch.from_numpy(box.sample(np.random.default_rng(seed), 300))
        values = NetworkModule(original, torch.float64).values(x, tuple(zero))
        for name, mask in zero.items():
            found += int(mask.sum())
            assert not (values[name].detach().numpy()[:, mask] > 0).any()
    assert found  # dead units exist in these networks
