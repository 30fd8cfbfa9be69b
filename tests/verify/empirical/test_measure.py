"""Measurements agree with their definition, and bad data is refused with its place."""

import numpy as np
import pytest

from verify.empirical.measure import Comparison, compare
from verify.errors import DataError, MismatchError
from verify.network.graph import Network, build


def conv_net(seed: int, outputs: int = 3) -> Network:
    generator = np.random.default_rng(seed)
    steps = [
        (
            "c",
            "conv",
            ("x",),
            {"weight": "k"},
            {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1},
        ),
        ("r", "relu", ("c",), {}, {}),
        ("f", "reshape", ("r",), {}, {"shape": (4 * 5 * 5,)}),
        ("y", "linear", ("f",), {"weight": "w"}, {}),
    ]
    k, w = generator.standard_normal((4, 2, 3, 3)), generator.standard_normal((outputs, 100))
    return build("x", (2, 5, 5), steps, "y", {"k": k.astype(np.float32), "w": w.astype(np.float32)})


def test_both_engines_agree_and_match_the_definition() -> None:
    f, g = conv_net(0), conv_net(1)
    x = np.random.default_rng(2).standard_normal((7, 2, 5, 5))
    a, b = compare(f, g, x, batch_size=3), compare(f, g, x.reshape(7, -1), engine="torch", batch_size=2)
    assert np.allclose(a.original, b.original, rtol=1e-12, atol=1e-12)
    assert np.allclose(a.compact, b.compact, rtol=1e-12, atol=1e-12)
    gaps = np.abs(a.original - a.compact)
    assert a.deviation == gaps.max()
    assert a.deviations[a.worst] == a.deviation
    assert np.array_equal(a.per_output, gaps.max(axis=0))


def test_agreement_counts_ties_and_narrow_leads_against_the_claim() -> None:
    f = np.array([[1.0, 0.0], [1.0, 0.999], [0.0, 1.0], [0.5, 0.5]])
    g = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    both = Comparison(f, g)
    assert both.agrees().tolist() == [True, True, False, True]
    assert both.agrees(0.01).tolist() == [True, False, False, False]
    assert both.agreement == 0.75


def test_a_single_output_always_agrees() -> None:
    assert Comparison(np.zeros((2, 1)), np.ones((2, 1))).agrees(0.5).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.empty((0, 2, 5, 5)), "empty"),
        (np.float64(3), "empty"),
        (np.zeros((2, 5, 5)), "shape"),
        (np.full((3, 50), np.nan), "row 0"),
        (np.array(["a"]), "dtype"),
    ],
)
def test_bad_inputs_are_refused(inputs: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(conv_net(0), conv_net(1), inputs)


def test_unequal_outputs_are_refused() -> None:
    with pytest.raises(MismatchError, match="output"):
        compare(conv_net(0), conv_net(1, outputs=4), np.zeros((1, 50)))


def test_overflow_is_refused() -> None:
    f = build("x", (1,), [("y", "scale", ("x",), {"value": "v"}, {})], "y", {"v": np.array([1e300])})
    with pytest.raises(DataError, match="overflow"), np.errstate(over="ignore"):
        compare(f, f, np.array([[1e300]]))
