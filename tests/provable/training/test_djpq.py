"""Laws of joint pruning and quantisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.cost import flops_by_node
from provable.errors import GroupingError, ScheduleError, TrainingError
from provable.training import DJPQ, LearnedQuantiser, remove_idle


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
        )


BATCH = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def pruner_of(model: nn.Module, **options: object) -> DJPQ:
    return DJPQ(model, BATCH, **{"gamma": 1e-3, "beta": 0.1, "generator": torch.Generator().manual_seed(0), **options})


@settings(deadline=None, max_examples=40)
@given(largest=st.floats(0.1, 10), bits=st.integers(2, 12), seed=st.integers(0, 99))
def test_the_quantiser_is_within_half_a_step_inside_the_range(largest: float, bits: int, seed: int) -> None:
    quantiser = LearnedQuantiser(largest, bits)
    x = (torch.rand(50, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * largest
    assert (quantiser(x) - x).abs().max() <= quantiser.step() / 2 * (1 + 1e-4)
    assert quantiser.bits() == bits
    assert len(quantiser(torch.linspace(-largest, largest, 5000)).unique()) <= 2**bits - 1
    with torch.no_grad():
        quantiser.log_step -= 1.0
    assert quantiser.bits() > bits
    clipped = float(quantiser(torch.tensor([2 * largest])).detach())
    assert abs(clipped - largest) <= float(quantiser.step()) / 2 * (1 + 1e-4)


def test_small_values_vanish_and_powers_of_two_are_kept() -> None:
    quantiser = LearnedQuantiser(1.0, 5, lower=0.3, restricted=True)
    assert quantiser.bits() == 8
    assert quantiser(torch.tensor([0.29, -0.1])).tolist() == [0, 0]
    quantiser(torch.tensor([0.9, -3.0])).sum().backward()
    assert quantiser.log_exponent.grad is not None
    assert torch.isfinite(quantiser.log_exponent.grad)


def close(pruner: DJPQ, slots: dict[int, list[int]]) -> None:
    with torch.no_grad():
        for i, gate in enumerate(pruner.gates.values()):
            gate.log_deviation.fill_(-20.0)
            gate.mean[slots.get(i, [])] = 0.0


def test_bops_are_those_of_the_smaller_network_and_the_soft_ones_agree() -> None:
    pruner = pruner_of(network(), bits=4)
    close(pruner, {0: [1, 3], 1: [0]})
    pruner.layers["2"].weight.log_step.data += 1.0
    rows = {row.layer: row for row in pruner.report()}
    soft = float(pruner.soft_bops())
    model = pruner.finish().eval()
    compact = remove_idle(model, BATCH[:1]).compact
    flops = flops_by_node(compact)
    expected = sum(
        count * rows[name].weight_bits * rows[name].activation_bits
        for name, count in zip(rows, flops.values(), strict=True)
    )
    assert sum(row.bops for row in rows.values()) == expected
    assert rows["5"].inputs == 8
    assert list(rows) == ["0", "2", "5"], "the first and the last layer are counted"
    assert soft <= expected <= 1.5 * soft
    with pytest.raises(ScheduleError, match="finished already"):
        pruner.finish()


def test_soft_bops_tend_to_the_counted_ones() -> None:
    pruner = pruner_of(network(), bits=4)
    close(pruner, {0: [2]})
    assert float(pruner.soft_bops()) == pytest.approx(pruner.bops(), rel=1e-3)


def test_finish_computes_what_the_gated_model_did_up_to_activation_rounding() -> None:
    pruner = pruner_of(network(), bits=14)
    close(pruner, {0: [1]})
    with torch.no_grad():
        next(iter(pruner.gates.values())).mean[0] = 0.7
    before = pruner._model.eval()(BATCH).detach()
    after = pruner.finish().eval()(BATCH)
    assert (after - before).abs().max() <= 5e-3 * before.abs().max()
    assert list(after.shape) == [8, 5]


@pytest.mark.slow
def test_a_larger_beta_gives_fewer_bit_operations() -> None:
    def train(beta: float) -> int:
        model = network()
        pruner = pruner_of(model, beta=beta)
        optimizer, noise = torch.optim.Adam(model.parameters(), lr=0.02), torch.Generator().manual_seed(2)
        for _ in range(60):
            x = torch.randn(16, 1, 4, 4, generator=noise)
            optimizer.zero_grad()
            (nn.functional.cross_entropy(model(x), x[:, 0, 0].argmax(1)) + pruner.penalty()).backward()
            optimizer.step()
        return pruner.bops()

    weak, strong = train(0.01), train(1.0)
    assert strong < weak < network_bops()


def network_bops() -> int:
    return pruner_of(network()).float_bops()


def test_state_dicts_carry_gates_and_quantisers() -> None:
    one, two = network(), network(1)
    first, second = pruner_of(one), pruner_of(two)
    close(first, {0: [1]})
    two.load_state_dict(one.state_dict())
    assert first.report() == second.report()
    with torch.no_grad():
        assert torch.equal(one.eval()(BATCH), two.eval()(BATCH))


class Stream(nn.Module):
    """The only channels that may leave are written by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.head((x + self.second(x)).flatten(1))


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(GroupingError, match="nothing to put a gate on"):
        pruner_of(Stream())
    with pytest.raises(TrainingError, match="gamma, beta"):
        pruner_of(network(), beta=-1.0)
    with pytest.raises(TrainingError, match="bits >= 2"):
        LearnedQuantiser(1.0, 1)
    with pytest.raises(TrainingError, match="lower < largest"):
        LearnedQuantiser(1.0, 4, lower=2.0)
