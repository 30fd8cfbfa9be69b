"""Every method that keeps its state in the model: a run that is resumed from a checkpoint ends in the same bits."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from provable.errors import TrainingError
from provable.training import DJPQ, DPF, DPP, SPP, Adaptive, ResidualGate

IMAGES = torch.randn(48, 1, 4, 4, generator=torch.Generator().manual_seed(7))


def network(seed: int) -> nn.Sequential:
    """A convolution, a gated block, and two linear layers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        branch = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4),
        )  # fmt: skip
        gate = ResidualGate(branch, nn.Identity(), nn.ReLU())
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), gate, nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 3)
        )


@dataclass
class Run:
    """A model under a method, with what a user saves: the states of model, optimiser, method and generator."""

    model: nn.Module
    method: Any
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    def train(self, steps: range) -> None:
        """A user's own loop."""
        images = near(self.model)
        for step in steps:
            rows = slice(8 * (step % 6), 8 * (step % 6) + 8)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images[rows]), images[rows, 0, 0, :3].argmax(1))
            penalty = getattr(self.method, "penalty", lambda: torch.zeros(()))
            (loss + penalty()).backward()
            self.optimizer.step()
            getattr(self.method, "step", lambda: None)()

    def saved(self) -> dict[str, Any]:
        """Through a file, read back without pickled objects."""
        own = self.method.state_dict() if hasattr(self.method, "state_dict") else {}
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "method": own,
            "generator": self.generator.get_state(),
        }  # fmt: skip
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
        return loaded

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue there."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        if hasattr(self.method, "load_state_dict"):
            self.method.load_state_dict(state["method"])


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
METHODS: dict[str, Callable[[nn.Module, torch.Generator], Any]] = {
    "dpf": lambda model, _: DPF(model, sparsity=0.6, steps=8, period=2),
    "dpp weights": lambda model, g: DPP(model, 3, "weight", 12, generator=g),
    "dpp filters": lambda model, g: DPP(model, 0.5, "filter", 12, generator=g),
    "spp": lambda model, g: SPP(model, 0.5, 60, period=2, step=0.3, generator=g, kind="row"),
    "djpq": lambda model, g: DJPQ(model, near(model), gamma=1e-3, beta=0.1, generator=g),
    "adaptive": lambda model, _: Adaptive(model, near(model)[:1], 0.5, blocks_l1=0.05),
}


def near(model: nn.Module) -> Tensor:
    """The images, where the model is, and of its type."""
    return IMAGES.to(next(model.parameters()))


def run_of(name: str, seed: int, device: str = "cpu") -> Run:
    model, generator = network(seed).to(device), torch.Generator().manual_seed(seed)
    method = METHODS[name](model, generator)
    return Run(model, method, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), generator)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_ends_in_the_same_bits(name: str) -> None:
    straight, first, second = run_of(name, 0), run_of(name, 0), run_of(name, 5)
    straight.train(range(10))
    first.train(range(5))
    second.load(first.saved())
    second.train(range(5, 10))
    found, expected = second.model.state_dict(), straight.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert torch.equal(answers(second.model), answers(straight.model))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_everything_stays_where_the_model_is(name: str, device: str) -> None:
    run = run_of(name, 0, device)
    run.train(range(4))
    held = [*run.model.parameters(), *run.model.buffers()]
    assert {tensor.device.type for tensor in held} == {device}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in held)


@pytest.mark.parametrize("name", METHODS)
def test_everything_moves_with_the_model(name: str) -> None:
    """To another type here, as it would to another device: nothing of a method is left behind, and training goes on."""
    run = run_of(name, 0)
    run.train(range(2))
    run.model.double()
    run.optimizer.state.clear()  # as with any torch optimiser, its momentum stays where it was
    run.train(range(2, 5))
    held = [*run.model.parameters(), *run.model.buffers()]
    assert {tensor.dtype for tensor in held if tensor.is_floating_point()} == {torch.float64}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in held)


def test_a_checkpoint_says_which_blocks_are_closed() -> None:
    first, second = run_of("adaptive", 0), run_of("adaptive", 5)
    gate = first.model[2]
    assert isinstance(gate, ResidualGate)
    with torch.no_grad():
        gate.strength.fill_(0.01)
    gate.update()
    second.load(first.saved())
    assert torch.equal(answers(second.model), answers(first.model))


@pytest.mark.parametrize("name", ["dpf", "dpp weights", "spp"])
@pytest.mark.parametrize("state", [{}, {"time": -1}, {"time": 3, "reached": 0.5, "masks": 1}, {"time": "late"}])
def test_the_state_of_something_else_is_refused(name: str, state: dict[str, Any]) -> None:
    method = run_of(name, 0).method
    before = method.state_dict()
    with pytest.raises(TrainingError, match="is not a state of"):
        method.load_state_dict(state)
    assert method.state_dict() == before


def answers(model: nn.Module) -> Tensor:
    """What it computes in evaluation mode."""
    training = model.training
    with torch.no_grad():
        y: Tensor = model.eval()(IMAGES)
    model.train(training)
    return y
