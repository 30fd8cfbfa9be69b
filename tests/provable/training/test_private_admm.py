"""Laws of privacy-preserving pruning: a true projection, no data, and convergence."""

import inspect
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.errors import ScheduleError, SyntheticError, TargetError, TrainingError
from provable.training import PrivateADMM, Synthetic, fix_zeros, release_zeros
from provable.training.patterns import patterns, project


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
        )


class Listener:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def stage(self, name: str, steps: int) -> None:
        self.heard += [name, steps]

    def step(self, what: str) -> None:
        self.heard.append(what)


SYNTHETIC = Synthetic((1, 4, 4), 0.0, 1.0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_the_projection_is_the_nearest_point_by_brute_force(seed: int) -> None:
    weight = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    found = project(weight, 0.5)
    assert torch.equal(project(found, 0.5), found)
    best = min(
        float((weight.flatten(0, 1)[i] * (1 - mask)).square().sum() + weight.flatten(0, 1)[1 - i].square().sum())
        for i in range(2)
        for mask in patterns()
    )
    assert float((weight - found).square().sum()) == pytest.approx(best, rel=1e-5)


def test_the_library_is_every_pattern_once() -> None:
    library = patterns()
    assert library.shape == (56, 3, 3)
    assert (library.flatten(1).sum(1) == 4).all()
    assert (library[:, 1, 1] == 1).all()
    assert len(library.flatten(1).unique(dim=0)) == 56


def test_no_argument_can_carry_data() -> None:
    parameters = inspect.signature(PrivateADMM).parameters
    names = ["model", "synthetic", "input_range", "connectivity", "layers", "count", "iterations", "lr"]
    assert list(parameters) == names
    assert parameters["synthetic"].annotation is Synthetic
    with pytest.raises(TypeError):
        PrivateADMM(network(), SYNTHETIC, input_range=(0.0, 1.0), loader=[])
    assert list(inspect.signature(PrivateADMM.step).parameters) == ["self"]
    assert list(inspect.signature(PrivateADMM.run).parameters) == ["self", "progress"]


def test_synthetic_inputs_have_the_range_and_levels_they_say() -> None:
    x = Synthetic((2, 3), -1.0, 1.0, levels=3).inputs(200)
    assert x.unique().tolist() == [-1, 0, 1]
    assert torch.equal(x, Synthetic((2, 3), -1.0, 1.0, levels=3).inputs(200))


def test_it_converges_to_the_structure_and_retraining_keeps_it() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    told = Listener()
    pruner = PrivateADMM(model, SYNTHETIC, input_range=(0.0, 1.0), lr=5e-3)
    pruned, residuals = pruner.run(told), pruner.residuals
    assert told.heard == ["layers", 2, "0", "2"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert [r.layer for r in residuals] == ["0", "2"]
    assert all(r.primal[-1] < 0.02 and r.primal[-1] < 0.1 * r.primal[0] for r in residuals)
    for i, kernels in ((0, 2), (2, 6)):
        sizes = (pruned[i].weight != 0).flatten(0, 1).flatten(1).sum(1)
        assert int((sizes > 0).sum()) == kernels
        assert int(sizes.max()) <= 4
    zeros = pruned[2].weight == 0
    fix_zeros(pruned)
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        pruned(SYNTHETIC.inputs(8)).pow(2).sum().backward()
        optimizer.step()
    release_zeros(pruned)
    assert (pruned[2].weight[zeros] == 0).all()


def test_a_run_goes_on_where_it_was_saved_to_the_same_bits() -> None:
    model, options = network(), {"input_range": (0.0, 1.0), "lr": 5e-3, "iterations": 5}
    whole, first, second = (PrivateADMM(model, SYNTHETIC, **options) for _ in range(3))
    straight = whole.run()
    first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.left == ("2",)
    with pytest.raises(ScheduleError, match="layer '2' is not pruned yet"):
        second.finish()
    second.step()
    assert second.residuals == whole.residuals
    resumed = second.finish()
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), straight.parameters(), strict=True))
    with pytest.raises(ScheduleError, match="all 2 layers are pruned"):
        second.step()
    other = PrivateADMM(model, SYNTHETIC, layers=["2"], **options)
    for state in (first.state_dict(), {}, {"weights": {}, "primal": {"0": [0.1]}}):
        with pytest.raises(TrainingError, match="not a state of PrivateADMM"):
            other.load_state_dict(state)


def test_a_frozen_model_can_be_pruned_and_stays_frozen() -> None:
    model = network().requires_grad_(False)
    pruned = PrivateADMM(model, SYNTHETIC, input_range=(0.0, 1.0), iterations=1).run()
    assert all(p.requires_grad for p in pruned.parameters())
    assert not any(p.requires_grad for p in model.parameters())


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(SyntheticError, match="finite low < high"):
        Synthetic((1, 4, 4), 1.0, 0.0)
    with pytest.raises(SyntheticError, match="at least 2 levels"):
        Synthetic((1, 4, 4), 0.0, 1.0, levels=1)
    with pytest.raises(SyntheticError, match=r"lie in \[0, 255\], the network's in \[0, 1\]"):
        PrivateADMM(network(), Synthetic((1, 4, 4), 0.0, 255.0), input_range=(0.0, 1.0))
    with pytest.raises(SyntheticError, match="cannot read inputs"):
        PrivateADMM(network(), Synthetic((2, 4, 4), 0.0, 1.0), input_range=(0.0, 1.0)).step()
    with pytest.raises(TargetError, match="keeps 0 of 4"):
        PrivateADMM(network(), SYNTHETIC, input_range=(0.0, 1.0), connectivity=0.01)
    with pytest.raises(SyntheticError, match="count 0"):
        PrivateADMM(network(), SYNTHETIC, input_range=(0.0, 1.0), count=0)
    for options in ({"iterations": 0}, {"lr": 0.0}, {"lr": float("nan")}):
        with pytest.raises(ScheduleError, match="never come near their projection"):
            PrivateADMM(network(), SYNTHETIC, input_range=(0.0, 1.0), **options)
    with pytest.raises(TargetError, match="'4' is none; it has 0, 2"):
        PrivateADMM(network(), SYNTHETIC, input_range=(0.0, 1.0), layers=["4"])
    with pytest.raises(TargetError, match="ungrouped 3x3"):
        PrivateADMM(nn.Sequential(nn.Linear(3, 2)), SYNTHETIC, input_range=(0.0, 1.0))
