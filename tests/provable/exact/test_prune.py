"""Laws of exact pruning: nothing changes on the domain, and what must leave does."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from provable.errors import GroupingError, InputError
from provable.exact.merge import dependence
from provable.exact.prune import compress_exact
from provable.exact.zeros import zero_elements
from verify.errors import UnsupportedOperation
from verify.formal.backward.inactive import stable_elements
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import Network
from verify.spec.box import Box

FEW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def box_around(network: Network, seed: int, radius: float) -> Box:
    centre = np.random.default_rng(seed).normal(size=int(np.prod(network.input_shape)))
    return Box.from_floats(centre - radius, centre + radius)


def points(network: Network, box: Box, count: int = 200) -> np.ndarray:
    return box.sample(np.random.default_rng(1), count).reshape(count, *network.input_shape)


def perceptron(sketch, widths: tuple[int, ...], seed: int, dtype: str = "float64") -> Network:
    s = sketch((widths[0],), seed=seed, dtype=dtype)
    x = "x"
    for width in widths[1:-1]:
        x = s.add("relu", s.linear(x, width))
    return s.network(s.linear(x, widths[-1]))


@FEW
@given(data=st.data(), radius=st.sampled_from([0.01, 0.3, 2.0]), merge=st.booleans())
def test_nothing_changes_on_the_domain(recipes, data, radius: float, merge: bool) -> None:
    recipe = data.draw(recipes)
    network = recipe.network()
    box = box_around(network, recipe.seed, radius)
    try:
        result = compress_exact(network, [box], merge=merge)
    except (GroupingError, UnsupportedOperation):
        assume(False)
    x = points(network, box, 50)
    expected = evaluate(network, x)
    scale = 1.0 + np.abs(expected).max()
    assert np.abs(evaluate(result.compact, x) - expected).max() <= 1e-9 * scale
    assert result.after.parameters <= result.before.parameters + sum(n.shape[-1] for n in network if n.shape)


@FEW
@given(seed=st.integers(0, 10**6), radius=st.sampled_from([0.05, 0.5]), pieces=st.sampled_from([1, 8]))
def test_stable_elements_hold_on_samples(sketch, seed: int, radius: float, pieces: int) -> None:
    network = perceptron(sketch, (3, 12, 12, 2), seed)
    box = box_around(network, seed, radius)
    stable = stable_elements(network, [box], pieces=pieces)
    values = evaluate_values(network, points(network, box), stable)
    for name, known in stable.items():
        assert (values[name][:, known.inactive] == 0.0).all()
        assert (values[name][:, known.active] > 0.0).all()


def test_more_pieces_decide_more_elements_on_the_whole(sketch) -> None:
    """Not for every network: bounds are not monotone under splitting."""
    decided = [0, 0]
    for seed in range(20):
        network = perceptron(sketch, (3, 10, 10, 2), seed)
        for which, count in enumerate((1, 16)):
            found = stable_elements(network, [box_around(network, seed, 0.5)], pieces=count)
            decided[which] += sum(int((k.inactive | k.active).sum()) for k in found.values())
    assert decided[1] > decided[0]


@FEW
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), rank=st.integers(0, 4), inputs=st.integers(1, 6))
def test_the_rest_is_what_the_basis_says(seed: int, rows: int, rank: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, min(rank, inputs))) @ rng.normal(size=(min(rank, inputs), inputs))
    bias = rng.normal(size=rows)
    chosen = sorted(rng.choice(rows, size=rng.integers(0, rows + 1), replace=False).tolist())
    found = dependence(weight, bias, chosen)
    assert sorted((*found.basis, *found.rest)) == chosen or np.abs(found.coefficients).max(initial=0) <= 100
    assert len(found.basis) <= min(rank, inputs)
    x = rng.normal(size=(20, inputs))
    value = x @ weight.T + bias
    shown = value[:, list(found.basis)] @ found.coefficients.T + found.offset
    assert np.allclose(value[:, list(found.rest)], shown, atol=1e-7)


def test_a_layer_that_always_fires_shrinks_to_its_rank(sketch) -> None:
    s = sketch((2,), seed=3)
    hidden = s.linear("x", 9)
    s.parameters[f"{hidden}.bias"] = np.full(9, 100.0)
    network = s.network(s.linear(s.add("relu", hidden), 3, bias=False))
    box = Box.from_floats([-1.0, -1.0], [1.0, 1.0])
    result = compress_exact(network, [box])
    assert [len(kept) for kept in result.kept.values()] == [2]
    x = points(network, box)
    assert np.allclose(evaluate(result.compact, x), evaluate(network, x), rtol=1e-12, atol=1e-12)
    assert len(next(iter(compress_exact(network, [box], merge=False).kept.values()))) == 9


def test_a_layer_that_never_fires_keeps_one_neuron_and_all_bits(sketch) -> None:
    s = sketch((2,), seed=3)
    hidden = s.linear("x", 9)
    s.parameters[f"{hidden}.bias"] = np.full(9, -100.0)
    network = s.network(s.linear(s.add("relu", hidden), 3))
    box = Box.from_floats([-1.0, -1.0], [1.0, 1.0])
    result = compress_exact(network, [box])
    assert [len(kept) for kept in result.kept.values()] == [1]
    assert (evaluate(result.compact, points(network, box)) == evaluate(network, points(network, box))).all()
    assert {a.tobytes() for k, a in result.compact.parameters.items() if "bias" in k and a.size == 3} == {
        network.parameters[k].tobytes() for k in network.parameters if "bias" in k and network.parameters[k].size == 3
    }


def test_dead_channels_are_seen_through_pooling_and_flattening(sketch) -> None:
    s = sketch((1, 4, 4), seed=2)
    conv = s.conv("x", 5, 3)
    s.parameters[f"{conv}.bias"][[1, 3]] = -100.0
    pooled = s.pool(s.add("relu", conv), "max_pool", 2, 2)
    network = s.network(s.linear(s.flat(pooled), 3))
    box = Box.from_floats(np.full(16, -1.0), np.full(16, 1.0))
    result = compress_exact(network, [box])
    assert list(result.kept.values()) == [(0, 2, 4)]
    zeros = zero_elements(network, {n: k.inactive for n, k in stable_elements(network, [box]).items()})
    assert zeros[pooled][[1, 3]].all()
    assert not zeros[pooled][[0, 2, 4]].any()
    assert not zeros[network.output].any()


def test_a_union_of_boxes_needs_all_of_them(sketch) -> None:
    s = sketch((1,), seed=0)
    hidden = s.linear("x", 2)
    s.parameters[f"{hidden}.weight"] = np.array([[1.0], [-1.0]])
    s.parameters[f"{hidden}.bias"] = np.zeros(2)
    network = s.network(s.linear(s.add("relu", hidden), 1))
    left, right = Box.from_floats([-2.0], [-1.0]), Box.from_floats([1.0], [2.0])
    assert list(compress_exact(network, [left]).kept.values()) == [(1,)]
    assert list(compress_exact(network, [right]).kept.values()) == [(0,)]
    assert list(compress_exact(network, [left, right]).kept.values()) == [(0, 1)]


def test_domains_that_do_not_fit_are_refused(sketch) -> None:
    network = perceptron(sketch, (3, 4, 2), 0)
    with pytest.raises(InputError, match="2 input coordinates, the network has 3"):
        compress_exact(network, [Box.from_floats([0.0, 0.0], [1.0, 1.0])])
    with pytest.raises(InputError, match="no boxes"):
        compress_exact(network, [])
