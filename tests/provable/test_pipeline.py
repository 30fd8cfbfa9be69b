"""Laws of compression from end to end, on random networks and on the reference networks."""

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.calibration import LOOKED_AT, directions
from provable.compensation.network_refinement import NetworkSchedule
from provable.cost import count_flops, count_parameters
from provable.errors import BudgetError, CalibrationError, GroupingError, InputError
from provable.pipeline import compress
from provable.recipes import RECIPES
from provable.reference import accuracy, load, mlp
from verify.errors import ModelError
from verify.network.evaluate import evaluate
from verify.network.graph import Network

ANYWHERE = sorted(set(RECIPES) - {"similarity"})  # that one needs batch norm; tested with its score
recipe_names = st.sampled_from(ANYWHERE)
LABELS = np.arange(12) % 2  # of `inputs_of`, for the recipes that need some


def inputs_of(network: Network, count: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *network.input_shape)).astype(np.float32)


def perceptron(sketch) -> Network:
    s = sketch((5,), seed=1, dtype="float32")
    x = "x"
    for width in (12, 10):
        x = s.add("relu", s.linear(x, width))
    return s.network(s.linear(x, 3))


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(), name=recipe_names, compensation=st.sampled_from(["none", "least_squares", "two_sided"]),
    kind=st.sampled_from(["flops", "params", "channels"]), fraction=st.floats(0.4, 1.0),
)  # fmt: skip
def test_any_network_any_recipe_meets_its_budget(
    recipes, data, name: str, compensation: str, kind: str, fraction
) -> None:
    network = data.draw(recipes).network()
    try:
        result = compress(network, inputs_of(network), keep={kind: fraction}, recipe=name, compensation=compensation,
                          scope="all", generator=0, labels=LABELS)  # fmt: skip
    except BudgetError:
        assert kind != "channels"
        return
    assert result.surgery_error <= 1e-5
    assert (result.after.flops, result.after.parameters) == (
        count_flops(result.compact),
        count_parameters(result.compact),
    )
    new = [array.size for key, array in result.compact.parameters.items() if key not in network.parameters]
    assert not new or compensation != "none"
    if name != "pfp-sampled" and kind != "channels":
        reached = result.after.flops if kind == "flops" else result.after.parameters - sum(new)
        assert reached <= fraction * (result.before.flops if kind == "flops" else result.before.parameters)
    for report in result.groups:
        assert report.kept == len(result.kept.get(report.group, range(report.total)))
        assert report.loss >= 0.0
    assert json.loads(json.dumps(dict(result.channels)))["version"] == 1
    assert np.isfinite(evaluate(result.compact, inputs_of(network))).all()
    assert result.table()


@settings(max_examples=15, deadline=None)
@given(data=st.data(), name=recipe_names)
def test_keeping_everything_returns_the_network(recipes, data, name: str) -> None:
    network = data.draw(recipes).network()
    result = compress(network, inputs_of(network), keep={"flops": 1.0}, recipe=name, scope="all", labels=LABELS)
    assert result.compact.digest() == network.digest()


@pytest.mark.parametrize("name", ANYWHERE)
def test_same_seed_same_network_and_batches_do_not_matter(sketch, name: str) -> None:
    network = perceptron(sketch)
    x, labels = inputs_of(network, 30), np.arange(30) % 3
    first = compress(network, x, keep={"flops": 0.5}, recipe=name, generator=7, labels=labels)
    batches = [torch.from_numpy(part) for part in np.array_split(x, 4)]
    random = np.random.default_rng(7)
    again = compress(network, iter(batches), keep={"flops": 0.5}, recipe=name, generator=random, labels=labels)
    assert first.compact.digest() == again.compact.digest()
    assert first.calibration_rows == again.calibration_rows


def test_a_torch_generator_decides_the_draws(sketch) -> None:
    network = perceptron(sketch)
    x = inputs_of(network, 30)

    def digest(seed: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        return compress(network, x, keep={"flops": 0.5}, recipe="volume", generator=generator).compact.digest()

    assert digest(1) == digest(1)
    assert len({digest(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", ["greedy", "volume"])
def test_duplicated_channels_cost_nothing(sketch, name: str) -> None:
    """Every hidden unit twice: half of them can leave without any change of the function."""
    network = perceptron(sketch)
    keys = [k for k in network.parameters if k.endswith("weight")]
    doubled = dict(network.parameters)
    for first, second in pairwise(keys):
        bias = first.replace("weight", "bias")
        doubled[first], doubled[bias] = np.repeat(doubled[first], 2, 0), np.repeat(doubled[bias], 2)
        doubled[second] = np.repeat(doubled[second], 2, 1) / 2
    nodes = tuple(n if n.shape == (3,) else replace(n, shape=(2 * n.shape[0],)) for n in network)
    twice = replace(network, nodes=nodes, parameters=doubled)
    x = inputs_of(network, 200)
    result = compress(twice, x, keep={"channels": 0.5}, recipe=name)
    np.testing.assert_allclose(evaluate(result.compact, x), evaluate(network, x), atol=1e-4)


def test_compensation_lowers_the_error(sketch) -> None:
    network = perceptron(sketch)
    x, fresh = inputs_of(network, 400), np.random.default_rng(5).normal(size=(200, 5))
    errors = {}
    for compensation in ("none", "least_squares"):
        result = compress(network, x, keep={"channels": 0.6}, recipe="pfp", compensation=compensation)
        errors[compensation] = np.square(evaluate(result.compact, fresh) - evaluate(network, fresh)).mean()
    assert errors["least_squares"] < 0.5 * errors["none"]


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_reference_networks_keep_their_accuracy_at_half_the_work(kind: str) -> None:
    reference = load(kind)
    result = compress(reference.module, reference.calibration.images[:400], keep={"flops": 0.5})
    assert result.after.flops <= 0.5 * result.before.flops
    assert result.state_dict is not None
    before = accuracy(reference.module, reference.held_out)
    assert accuracy(result.module(), reference.held_out) >= before - 0.03


def test_state_dict_fits_the_users_own_class() -> None:
    reference = load("mlp")
    calibration = reference.calibration.images
    result = compress(reference.module, calibration[:200], keep={"channels": 0.5})
    small = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10))
    assert result.state_dict is not None
    small.load_state_dict(dict(result.state_dict))
    x = torch.as_tensor(calibration[:20])
    with torch.no_grad():
        np.testing.assert_allclose(small(x).numpy(), evaluate(result.compact, x.numpy()), atol=1e-4)


def test_a_module_without_a_place_for_the_intercept_gets_no_state_dict() -> None:
    torch.manual_seed(0)  # with other weights, half of the units may be dead: nothing to refit, no intercept
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2, bias=False)).eval()
    result = compress(module, torch.rand(50, 4), keep={"channels": 0.5})
    assert result.state_dict is None
    assert any("no state_dict" in note for note in result.notes)


def test_few_images_are_said_to_be_few(sketch) -> None:
    network = perceptron(sketch)
    result = compress(network, inputs_of(network, 4), keep={"channels": 0.6})
    assert any("only 4 samples" in report.note for report in result.groups)
    one = compress(network, inputs_of(network, 1), keep={"channels": 0.6})
    assert np.isfinite(evaluate(one.compact, inputs_of(network, 3))).all()


def test_repeated_calibration_inputs_are_noticed(sketch) -> None:
    network = perceptron(sketch)
    inputs = inputs_of(network, 20)
    assert not any("distinct" in note for note in compress(network, inputs, keep={"channels": 0.6}).notes)
    constant = np.repeat(inputs[:1], 20, axis=0)
    result = compress(network, constant, keep={"channels": 0.6})
    assert any("only 1 of the 20 calibration inputs are distinct" in note for note in result.notes)
    assert "distinct" in result.table()
    assert any("vary in 0 directions only (rank 0, where independent ones could have 5)" in n for n in result.notes)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), count=st.integers(1, 600), dimension=st.integers(1, 20), rank=st.integers(0, 20),
       scale=st.sampled_from([1e-30, 1.0, 1e30]))  # fmt: skip
def test_the_rank_of_the_calibration_inputs(seed: int, count: int, dimension: int, rank: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    rank = min(rank, dimension)
    basis = np.linalg.qr(random.normal(size=(dimension, dimension)))[0][:rank]
    data = random.normal(size=(count, rank)) @ basis + random.normal(size=dimension)
    looked_at = len(data[:: -(-count // LOOKED_AT)])
    found, possible = directions(torch.from_numpy((scale * data).astype(np.float32)))
    assert possible == min(looked_at - 1, dimension)
    assert found <= min(rank, looked_at - 1)
    assert found == rank or looked_at < 3 * rank


@pytest.mark.parametrize(
    ("compensation", "more"),
    [("least_squares", []), ("two_sweeps", ["sweep 2"]), ("refine_network", ["refine the network"])],
)
def test_stages_are_announced(sketch, monkeypatch, compensation: str, more: list[str]) -> None:
    monkeypatch.setattr("provable.pipeline.NetworkSchedule", partial(NetworkSchedule, steps=6))
    network, seen = perceptron(sketch), list[tuple[str, object]]()

    class Listener:
        def stage(self, name: str, steps: int) -> None:
            seen.append((name, steps))

        def step(self, what: str) -> None:
            seen.append(("step", what))

    compress(network, inputs_of(network, 20), keep={"channels": 0.5}, compensation=compensation, progress=Listener())
    names = [name for name, _ in seen]
    assert [n for n in names if n != "step"] == ["observe", "select and compensate", *more]
    assert names.count("step") == sum(int(str(steps)) for name, steps in seen if name != "step")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"recipe": "magic"}, InputError, "unknown recipe 'magic'; known: greedy"),
        ({"compensation": "magic"}, InputError, "unknown compensation"),
        ({"scope": "some"}, InputError, "unknown scope"),
        ({"floor": 0}, InputError, "floor"),
        ({"generator": -1}, InputError, "seed"),
        ({"keep": {"flops": 0.01}}, BudgetError, "cannot be met"),
        ({"keep": {"watts": 0.5}}, BudgetError, "unknown budget"),
        ({"model": "net.onnx"}, InputError, "model is a str"),
        ({"calibration": np.full((3, 5), np.nan)}, CalibrationError, "NaN"),
        ({"calibration": np.full((3, 5), 3e38)}, CalibrationError, "not finite on the calibration inputs"),
    ],
)
def test_bad_input_is_refused_by_name(sketch, change: dict, kind: type[Exception], words: str) -> None:
    network = perceptron(sketch)
    arguments = {"model": network, "calibration": inputs_of(network), "keep": {"flops": 0.5}, **change}
    with pytest.raises(kind, match=words):
        compress(arguments.pop("model"), arguments.pop("calibration"), **arguments)


def test_networks_that_cannot_be_pruned_or_traced_are_refused(sketch) -> None:
    s = sketch((4,), dtype="float32")
    with pytest.raises(GroupingError, match="no channel of the network can leave"):
        compress(s.network(s.linear("x", 3)), np.zeros((2, 4), np.float32), keep={"flops": 0.5})
    s = sketch((4, 3, 3), dtype="float32")
    stream = s.conv("x", 6, 3)
    network = s.network(s.linear(s.flat(s.add("add", s.add("relu", stream), stream)), 2))
    with pytest.raises(GroupingError, match="scope 'inner'"):
        compress(network, inputs_of(network), keep={"flops": 0.5})
    broken = mlp()
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        compress(broken, torch.rand(5, 64), keep={"flops": 0.5})

    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError):
        compress(Branches(), torch.rand(5, 4), keep={"flops": 0.5})
