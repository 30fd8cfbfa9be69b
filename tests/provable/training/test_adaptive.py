"""Laws of adaptive channel and layer pruning."""

import pytest
import torch
from torch import nn

from provable.cost import count_parameters
from provable.errors import ScheduleError, TargetError
from provable.training import Adaptive, ResidualGate, remove_idle
from verify.network.read_export import trace


def block(width: int) -> ResidualGate:
    branch = nn.Sequential(
        nn.Conv2d(4, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4),
    )  # fmt: skip
    return ResidualGate(branch, nn.Identity(), nn.ReLU())


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), block(6), block(5), nn.Flatten(),
            nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 3),
        )  # fmt: skip


EXAMPLE = torch.zeros(1, 1, 4, 4)


def prepared() -> tuple[nn.Sequential, Adaptive]:
    model = network()
    return model, Adaptive(model, EXAMPLE, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rhos", "closed"),
    [((-3.0, 0.1, 1.0), (False, False)), ((0.5, -9.0, 9.0), (True, False)), ((0.0, 0.0, -1.0), (True, True))],
)
def test_the_count_in_the_loss_is_that_of_the_smaller_network(
    rhos: tuple[float, ...], closed: tuple[bool, bool]
) -> None:
    model, pruner = prepared()
    with torch.no_grad():
        for share, rho in zip(pruner.shares.values(), rhos, strict=True):
            share.rho.fill_(rho)
        for gate, shut in zip(pruner._gates.values(), closed, strict=True):
            gate.strength.fill_(0.01 if shut else 1.0)
    counted = float(pruner.parameters().detach())
    model = pruner.finish(slack=1.0).eval()
    result = remove_idle(model, EXAMPLE)
    assert count_parameters(result.compact) == counted


def test_the_start_is_the_whole_network() -> None:
    _, pruner = prepared()
    assert pruner.start == count_parameters(trace(network(), EXAMPLE))
    with pytest.raises(ScheduleError, match="of the parameters are left"):
        pruner.finish()


def test_a_closed_block_leaves_the_exact_shortcut() -> None:
    gate = block(3).eval()
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(gate(x), torch.relu(x))
    with torch.no_grad():
        gate.strength.fill_(0.01)
    gate.update()
    assert torch.equal(gate(x), torch.relu(x))
    gate.train()(x).sum().backward()
    assert gate.strength.grad is not None


def test_masks_keep_the_largest_channels_and_shares_get_gradients() -> None:
    model, pruner = prepared()
    share = next(iter(pruner.shares.values()))
    with torch.no_grad():
        share.rho.fill_(0.0)
        share._score[0].copy_(torch.tensor([3.0, 1.0, 2.0, 0.0, 5.0, 0.5]))
    assert share.count() == 3
    assert share.mask().detach().round().tolist() == [1, 0, 1, 0, 1, 0]
    noise = torch.Generator().manual_seed(0)
    (model.train()(torch.randn(4, 1, 4, 4, generator=noise)).pow(2).sum() + pruner.penalty()).backward()
    assert all(s.rho.grad is not None and float(s.rho.grad) != 0 for s in pruner.shares.values())
    assert all(g.strength.grad is not None and float(g.strength.grad) != 0 for g in pruner._gates.values())


@pytest.mark.slow
def test_training_reaches_the_target_by_itself_and_resumes() -> None:
    model, pruner = prepared()
    optimizer, noise = torch.optim.Adam(model.parameters(), lr=0.03), torch.Generator().manual_seed(0)
    for _ in range(120):
        x = torch.randn(8, 1, 4, 4, generator=noise)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), x[:, 0, 0, :3].argmax(1)) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
    again, other = prepared()
    again.load_state_dict(model.state_dict())
    assert float(other.parameters().detach()) == float(pruner.parameters().detach())
    result = remove_idle(pruner.finish().eval(), EXAMPLE)
    assert count_parameters(result.compact) <= 0.52 * pruner.start


@pytest.mark.slow
def test_both_kinds_of_removal_occur_and_nobody_says_where() -> None:
    """One number for the whole network; which block goes and what each layer keeps are outcomes."""
    model = network()
    pruner = Adaptive(model, EXAMPLE, 0.5, blocks_l1=0.5)
    optimizer, noise = torch.optim.Adam(model.parameters(), lr=0.03), torch.Generator().manual_seed(0)
    for _ in range(400):
        x = torch.randn(16, 1, 4, 4, generator=noise)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), x[:, 0, 0, :3].argmax(1)) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
        left = float(pruner.parameters().detach())
        if left <= 0.52 * pruner.start and any(m.closed for m in model if isinstance(m, ResidualGate)):
            break
    counts = [share.count() for share in pruner.shares.values()]
    model = pruner.finish().eval()
    assert sum(m.branch is None for m in model if isinstance(m, ResidualGate)) >= 1
    assert any(count < size for count, size in zip(counts, (6, 5, 7), strict=True))
    result = remove_idle(model, EXAMPLE)
    assert count_parameters(result.compact) == left <= 0.52 * pruner.start


def test_impossible_targets_are_refused() -> None:
    for target in (0.0, 1.0):
        with pytest.raises(TargetError, match="0 < target < 1"):
            Adaptive(network(), EXAMPLE, target)
    with pytest.raises(TargetError, match="one channel per layer"):
        Adaptive(network(), EXAMPLE, 0.01)
