"""Laws of Taylor importance: gates, their twin in batch norm's parameters, curvature, and who is shown labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provable.channels import channel_groups
from provable.errors import CalibrationError
from provable.observe import observe
from provable.pipeline import compress
from provable.recipes import RECIPES
from provable.reference import load
from provable.selection.finding import Finding, Inquiry
from provable.sensitivity import taylor
from provable.sensitivity.gates import Gates
from verify.network.graph import Network
from verify.network.module import NetworkModule
from verify.network.read_export import trace


def removable(network: Network, inner: bool = False) -> tuple:
    return tuple(g for g in channel_groups(network) if g.removable and g.consumers and (g.inner or not inner))


def data(network: Network, count: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(count, *network.input_shape)).astype(np.float32))
    return x, random.integers(0, 2, count)


def squared(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return 0.5 * outputs.square().sum()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_gate_at_zero_is_removal_and_its_derivative_is_the_slope(recipes, data) -> None:
    from provable.surgery import masked

    network = data.draw(recipes).network()
    groups = removable(network)
    gates = Gates(network, groups, torch.float64)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *network.input_shape)))
    opened = [z.detach().clone() for z in gates.open()]
    opened[0][0] = 0.0
    kept = {groups[0].name: tuple(range(1, len(groups[0].slots)))}
    with torch.no_grad():
        expected = NetworkModule(masked(network, kept), torch.float64)(x)
        np.testing.assert_allclose(gates.outputs(x, opened), expected, atol=1e-9)


def test_gates_agree_with_batch_norms_own_parameters_on_residual_stages() -> None:
    """gamma dL/dgamma + beta dL/dbeta = dL/dz, to 1e-6."""
    reference = load("cnn")
    x = torch.from_numpy(reference.calibration.images[:32])
    y = reference.calibration.labels[:32]
    network = trace(reference.module, x[:1])
    groups = tuple(g for g in removable(network) if len(g.norms) == len(g.producers))
    assert any(not g.inner for g in groups)
    found = taylor.gate_derivatives(Gates(network, groups, torch.float64), x, y)
    module = NetworkModule(network, torch.float64)
    taylor.classification_loss(module(x.double()), torch.from_numpy(y)).backward()
    for group, derivative in zip(groups, found, strict=True):
        if not group.inner:
            continue  # a stream's gate sits behind every norm that feeds it; see the next test
        norm = network.node(group.norms[0])
        twin = sum(module.parameter(norm.parameters[r]) * module.parameter(norm.parameters[r]).grad
                   for r in ("weight", "bias"))  # fmt: skip
        np.testing.assert_allclose(derivative[0], twin.detach(), rtol=1e-6, atol=1e-9)


def test_gates_of_a_residual_stream_sum_over_its_readers() -> None:
    """A stream's gate, through the ReLU behind its sum: the value's gradient times the value, at every consumer."""
    reference = load("cnn")
    x = torch.from_numpy(reference.calibration.images[:8])
    y = reference.calibration.labels[:8]
    network = trace(reference.module, x[:1])
    group = next(g for g in removable(network) if not g.inner and len(g.consumers) > 1)
    (found,) = taylor.gate_derivatives(Gates(network, (group,), torch.float64), x, y)
    gates = Gates(network, (group,), torch.float64)
    step, z = 1e-6, torch.ones(len(group.slots), dtype=torch.float64)
    label = torch.from_numpy(y)
    for slot in range(3):
        shifted = [z + s * step * torch.eye(len(z), dtype=torch.float64)[slot] for s in (1, -1)]
        high, low = (taylor.classification_loss(gates.outputs(x, [v]), label) for v in shifted)
        assert float((high - low) / (2 * step)) == pytest.approx(float(found[0, slot]), rel=1e-5, abs=1e-7)


@pytest.fixture
def separate(sketch) -> Network:
    """A linear layer whose hidden units reach different outputs: the Hessian in the gates is diagonal."""
    s = sketch((4,), seed=3, dtype="float64")
    network = s.network(s.linear(s.linear("x", 3), 3, bias=False))
    key = [k for k in network.parameters if k.endswith("weight")][1]
    return network.with_parameters({key: np.diag([0.5, -1.5, 2.0])})


def test_first_order_is_the_slope_of_shrinking_a_filter(separate: Network) -> None:
    (group,) = removable(separate)
    x, y = data(separate)
    gates = Gates(separate, (group,), torch.float64)
    (slope,) = taylor.gate_derivatives(gates, x, y, batch=len(x), loss=squared)
    with torch.no_grad():
        for slot in range(3):
            z = torch.ones(3, dtype=torch.float64)
            z[slot] -= 1e-7
            shrunk = squared(gates.outputs(x, [z]), torch.from_numpy(y))
            rise = float(shrunk - squared(gates.outputs(x, [torch.ones(3).double()]), torch.from_numpy(y)))
            assert rise == pytest.approx(-1e-7 * float(slope[0, slot]), rel=1e-4)


def test_second_order_is_exact_for_removal_where_the_hessian_is_diagonal(separate: Network) -> None:
    (group,) = removable(separate)
    x, y = data(separate)
    gates = Gates(separate, (group,), torch.float64)
    generator = torch.Generator().manual_seed(0)
    (estimate,) = taylor.removal_estimates(gates, x, y, generator, batch=len(x), probes=1, loss=squared)
    with torch.no_grad():
        whole = squared(gates.outputs(x, [torch.ones(3).double()]), torch.from_numpy(y))
        for slot in range(3):
            z = torch.ones(3, dtype=torch.float64)
            z[slot] = 0.0
            drop = float(whole - squared(gates.outputs(x, [z]), torch.from_numpy(y)))
            assert float(estimate[0, slot]) == pytest.approx(drop, rel=1e-9)


def test_the_output_variant_estimates_the_squared_change_of_the_output(separate: Network) -> None:
    """The network is linear in each gate: removal changes output j by exactly df/dz_j."""
    (group,) = removable(separate)
    x, _ = data(separate, 400)
    gates = Gates(separate, (group,), torch.float64)
    (found,) = taylor.output_derivatives(gates, x, torch.Generator().manual_seed(1), batch=1)
    with torch.no_grad():
        outputs = gates.outputs(x, [torch.ones(3).double()])
    np.testing.assert_allclose(found.square().mean(0), outputs.square().mean(0), rtol=1e-9)


@pytest.mark.parametrize("name", ["taylor", "taylor-parameters", "taylor-second-order", "taylor-output"])
def test_a_channel_without_influence_scores_zero_and_leaves_first(sketch, name: str) -> None:
    s = sketch((5,), seed=2, dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 6)), 3))
    _, second = [k for k in network.parameters if k.endswith("weight")]
    silent = network.parameters[second].copy()
    silent[:, 4] = 0.0
    network = network.with_parameters({second: silent})
    x, y = data(network)
    groups = removable(network)
    inquiry = Inquiry(network, x, y, groups, observe(network, x, groups), np.random.default_rng(0))
    (finding,) = RECIPES[name].look(inquiry).values()
    assert finding.scores[4] == 0.0
    assert finding.removals()[0][0] == 4
    result = compress(network, x, keep={"channels": 5 / 6}, recipe=name, labels=y)
    assert result.kept[groups[0].name] == (0, 1, 2, 3, 5)


def test_ties_and_moving_averages() -> None:
    assert Finding(np.array([1.0, 0.0, 0.0])).removals()[0] == (2, 1, 0)
    rows = torch.tensor([[1.0], [2.0], [4.0]])
    assert float(taylor.moving_average(rows, 0.5)) == 0.5 * (0.5 * 1 + 0.5 * 2) + 0.5 * 4


def test_the_moving_average_is_reproducible_from_a_seed() -> None:
    reference = load("mlp")
    network = trace(reference.module, torch.zeros(1, 64))
    x = torch.from_numpy(reference.calibration.images[:96])

    def average(seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        (first, *_) = taylor.output_derivatives(Gates(network, removable(network)), x, generator)
        return taylor.moving_average(first.square()).numpy()

    np.testing.assert_array_equal(average(1), average(1))
    assert np.any(average(1) != average(2))


def test_labels_are_asked_for_and_checked(sketch) -> None:
    s = sketch((5,), dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 6)), 3))
    x, y = data(network)
    with pytest.raises(CalibrationError, match=r"--labels .*taylor-output"):
        compress(network, x, keep={"flops": 0.5}, recipe="taylor")
    for bad in (y[:-1], y - 5, y.astype(float)):
        with pytest.raises(CalibrationError, match="labels have"):
            compress(network, x, keep={"flops": 0.5}, recipe="taylor", labels=bad)
    with pytest.raises(CalibrationError, match="label 7 of a network with 3 classes"):
        compress(network, x, keep={"flops": 0.5}, recipe="taylor", labels=np.full(len(x), 7))
    single = s.network(s.linear("linear_0", 1))
    with pytest.raises(CalibrationError, match="taylor-output"):
        compress(single, x, keep={"flops": 0.5}, recipe="taylor", labels=y)
    assert compress(single, x, keep={"flops": 0.5}, recipe="taylor-output").after.flops > 0


def test_unlabelled_recipes_are_never_shown_labels(sketch, monkeypatch) -> None:
    import provable.pipeline as pipeline

    s = sketch((5,), dtype="float32")
    network = s.network(s.linear(s.add("relu", s.linear("x", 6)), 3))
    x, y = data(network)
    seen: list[object] = []

    def watched(recipe, inquiry):
        seen.append(inquiry.labels)
        return recipe.look(inquiry) if recipe.look else {}

    monkeypatch.setattr(pipeline, "_look", watched)
    for recipe in ("greedy", "taylor-output"):
        compress(network, x, keep={"flops": 0.5}, recipe=recipe, labels=y)
    assert seen == [None, None]
    compress(network, x, keep={"flops": 0.5}, recipe="taylor", labels=y)
    assert seen[-1] is not None
    assert replace(RECIPES["taylor"], labels=False) != RECIPES["taylor"]
