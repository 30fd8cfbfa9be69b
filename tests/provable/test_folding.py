"""Folding batch norm: the same function, no foldable norm left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.folding import fold_batch_norms
from provable.pipeline import compress
from verify.network.evaluate import evaluate
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import single_precision


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_folded_network_computes_the_same(recipes, data) -> None:
    network = data.draw(recipes).network()
    x = np.random.default_rng(0).normal(size=(3, *network.input_shape))
    folded = fold_batch_norms(network)
    np.testing.assert_allclose(evaluate(folded, x), evaluate(network, x), rtol=1e-8, atol=1e-8)
    assert folded.output == network.output


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_behind_a_layer_is_gone(sketch, bias: bool) -> None:
    s = sketch((2, 5, 5))
    network = s.network(s.add("relu", s.norm(s.conv("x", 4, 3, bias=bias))))
    assert [node.op for node in fold_batch_norms(network)] == ["conv", "relu"]


def test_norms_one_after_the_other_are_gone(sketch) -> None:
    s = sketch((2, 5, 5))
    network = s.network(s.norm(s.norm(s.conv("x", 4, 3))))
    folded = fold_batch_norms(network)
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 5))
    assert [node.op for node in folded] == ["conv"]
    np.testing.assert_allclose(evaluate(folded, x), evaluate(network, x), rtol=1e-8, atol=1e-8)


def test_a_layer_with_another_reader_keeps_its_norm(sketch) -> None:
    s = sketch((2, 5, 5))
    c = s.conv("x", 4, 3)
    network = s.network(s.add("add", s.norm(c), c))
    assert fold_batch_norms(network).digest() == network.digest()


def test_the_output_directory_has_the_folded_network(sketch, tmp_path) -> None:
    s = sketch((2, 6, 6), dtype="float32")
    x = s.add("relu", s.norm(s.conv("x", 6, 3)))
    network = single_precision(s.network(s.linear(s.add("mean", x, axes=(1, 2), keepdims=False), 3)))
    inputs = np.random.default_rng(0).normal(size=(30, 2, 6, 6)).astype(np.float32)
    result = compress(network, inputs, keep={"bytes": 0.7}, round_to=2)
    folded = read_onnx(result.save(tmp_path / "out") / "compact.folded.onnx")
    assert "batch_norm" not in {node.op for node in folded}
    np.testing.assert_allclose(evaluate(folded, inputs), evaluate(result.compact, inputs), rtol=1e-4, atol=1e-5)
    assert result.after.bytes <= 0.7 * result.before.bytes
