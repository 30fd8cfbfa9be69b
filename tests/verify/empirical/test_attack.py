"""The attack tells the truth: points lie in the exact box, deviations replay, planted maxima are found."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.empirical.ascent import Pair
from verify.empirical.attack import attack_batch, attack_deviation
from verify.errors import MismatchError, SpecificationError
from verify.network.evaluate import evaluate
from verify.network.graph import Network, build
from verify.spec.box import Box


def dense(generator: np.random.Generator, widths: tuple[int, ...]) -> Network:
    """Linear layers with ReLU between them."""
    steps, parameters, source = [], {}, "x"
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        parameters[f"w{i}"] = generator.standard_normal((b, a)).astype(np.float32)
        parameters[f"b{i}"] = generator.standard_normal(b).astype(np.float32)
        steps.append((f"h{i}", "linear", (source,), {"weight": f"w{i}", "bias": f"b{i}"}, {}))
        source = f"h{i}"
        if i + 2 < len(widths):
            steps.append((f"r{i}", "relu", (source,), {}, {}))
            source = f"r{i}"
    return build("x", widths[:1], steps, source, parameters)


def twin(network: Network, generator: np.random.Generator, size: float) -> Network:
    noise = {k: a + size * generator.standard_normal(a.shape).astype(a.dtype) for k, a in network.parameters.items()}
    return network.with_parameters(noise)


@given(
    st.integers(0, 10**6), st.sampled_from([(1, 3, 1), (3, 8, 2), (5, 10, 10, 4)]), st.sampled_from([0.0, 1e-3, 0.3])
)
@settings(deadline=None, max_examples=12)
def test_every_find_is_inside_and_replays(seed: int, widths: tuple[int, ...], size: float) -> None:
    generator = np.random.default_rng(seed)
    f = dense(generator, widths)
    g = twin(f, generator, size)
    center, radius = generator.standard_normal(widths[0]), Fraction(int(generator.integers(0, 50)), 70)
    box = Box.around(center.astype(np.float32), radius)
    attack = attack_deviation(f, g, box, generator=generator, samples=50, steps=5, hops=1)
    difference = evaluate(f, attack.input[None])[0] - evaluate(g, attack.input[None])[0]
    assert attack.inside
    assert box.contains(attack.input)
    assert np.array_equal(attack.input.astype(np.float32).astype(float), attack.input)
    assert attack.deviation == np.abs(difference).max() == attack.sign * difference[attack.output]
    assert attack.per_output.max() == pytest.approx(attack.deviation, rel=1e-9, abs=1e-12)
    assert attack.evaluations > 50


def test_affine_pair_reaches_the_exact_maximum() -> None:
    """|W x| over a box has its maximum at a corner that the signs give."""
    generator = np.random.default_rng(1)
    f, g = dense(generator, (12, 3)), dense(generator, (12, 3))
    low, high = -generator.random(12).astype(np.float32), generator.random(12).astype(np.float32)
    difference = f.parameters["w0"].astype(float) - g.parameters["w0"].astype(float)
    shift = f.parameters["b0"].astype(float) - g.parameters["b0"].astype(float)
    middle, radius = (low.astype(float) + high) / 2, (high.astype(float) - low) / 2
    best = (np.abs(difference @ middle + shift) + np.abs(difference) @ radius).max()
    attack = attack_deviation(f, g, Box.from_floats(low, high), generator=generator)
    assert attack.deviation == pytest.approx(best, rel=1e-12)


def test_gradient_beats_random_search_in_many_dimensions() -> None:
    """A deviation that is active on a 2^-60 share of the box: sums of 60 inputs above 0.9 of their maximum."""
    w = np.ones((1, 60), np.float32)
    parameters = {"w": w, "b": np.array([-54.0], np.float32), "v": np.ones((1, 1), np.float32)}
    steps = [
        ("h", "linear", ("x",), {"weight": "w", "bias": "b"}, {}),
        ("r", "relu", ("h",), {}, {}),
        ("y", "linear", ("r",), {"weight": "v"}, {}),
    ]
    f = build("x", (60,), steps, "y", parameters)
    g = f.with_parameters({"v": np.zeros((1, 1), np.float32)})
    box = Box.from_floats(np.zeros(60), np.ones(60))
    random = attack_deviation(f, g, box, generator=np.random.default_rng(0), steps=0)
    full = attack_deviation(f, g, box, generator=np.random.default_rng(0))
    assert random.deviation == 0.0
    assert full.deviation == pytest.approx(6.0)


def test_equal_networks_deviate_nowhere() -> None:
    f = dense(np.random.default_rng(3), (4, 6, 2))
    assert attack_deviation(f, f, Box.around(np.zeros(4), 1), generator=np.random.default_rng(0)).deviation == 0.0


def test_same_generator_same_find() -> None:
    f = dense(np.random.default_rng(3), (4, 9, 2))
    g = twin(f, np.random.default_rng(4), 0.1)
    finds = [attack_deviation(f, g, Box.around(np.zeros(4), 1), generator=np.random.default_rng(7)) for _ in "ab"]
    assert finds[0].deviation == finds[1].deviation
    assert np.array_equal(finds[0].input, finds[1].input)


def test_decimal_bounds_are_kept_exactly() -> None:
    """0.1 is no float: the attack stays below it although its nearest float32 lies above."""
    f = build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": np.ones((1, 1))})
    g = f.with_parameters({"w": np.zeros((1, 1))})
    box = Box((Fraction(0),), (Fraction(1, 10),))
    assert np.float32(0.1) > Fraction(1, 10)
    attack = attack_deviation(f, g, box, generator=np.random.default_rng(0))
    assert attack.inside
    assert Fraction(attack.deviation) < Fraction(1, 10)
    assert attack.deviation == float(np.nextafter(np.float32(0.1), np.float32(0)))


def test_a_coordinate_without_any_float_is_admitted() -> None:
    f = build("x", (2,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": np.ones((1, 2))})
    g = f.with_parameters({"w": np.zeros((1, 2))})
    box = Box((Fraction(1, 10), Fraction(0)), (Fraction(1, 10), Fraction(1)))
    assert not attack_deviation(f, g, box, generator=np.random.default_rng(0)).inside


def test_time_limit_is_kept() -> None:
    f = dense(np.random.default_rng(3), (200, 300, 300, 10))
    g = twin(f, np.random.default_rng(4), 0.01)
    attack = attack_deviation(
        f, g, Box.around(np.zeros(200), 1), generator=np.random.default_rng(0), steps=10**6, hops=10**6, seconds=0.5
    )
    assert attack.seconds < 5
    assert attack.deviation > 0


def test_batch_stays_in_every_box_and_finds_what_it_says() -> None:
    generator = np.random.default_rng(5)
    f = dense(generator, (3, 12, 2))
    g = twin(f, generator, 0.2)
    low = torch.from_numpy(generator.standard_normal((40, 3)))
    high = low + torch.from_numpy(generator.random((40, 3)))
    points, values = attack_batch(Pair.of(f, g), low, high, generator=generator)
    assert bool(((points >= low) & (points <= high)).all())
    replay = np.abs(evaluate(f, points.numpy()) - evaluate(g, points.numpy())).max(axis=1)
    assert (replay >= values.numpy() - 1e-9).all()
    assert (values.numpy() > 0).all()


def test_misfits_are_refused() -> None:
    generator = np.random.default_rng(0)
    f, wide, other = dense(generator, (3, 4, 2)), dense(generator, (4, 4, 2)), dense(generator, (3, 4, 3))
    box = Box.around(np.zeros(3), 1)
    for g, where in ((wide, box), (other, box), (f, Box.around(np.zeros(4), 1))):
        with pytest.raises(MismatchError):
            attack_deviation(f, g, where, generator=generator)
    with pytest.raises(SpecificationError, match="samples=0"):
        attack_deviation(f, f, box, generator=generator, samples=0)
