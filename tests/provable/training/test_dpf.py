"""Laws of dynamic pruning with feedback."""

import pytest
import torch
from torch import nn

from provable.errors import ScheduleError, TargetError, TrainingError
from provable.training import DPF, sparsity
from provable.training.masks import dense_weight


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def loss(model: nn.Module, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.cross_entropy(
        model(torch.randn(16, 6, generator=generator)), torch.randint(4, (16,), generator=generator)
    )


def test_the_gradient_is_that_of_the_masked_model_and_masked_weights_move() -> None:
    model, plain = network(), network()
    pruner = DPF(model, sparsity=0.5, steps=1, period=1)
    pruner.step()
    plain.load_state_dict(
        {"0.weight": model[0].weight, "0.bias": model[0].bias, "2.weight": model[2].weight, "2.bias": model[2].bias}
    )
    loss(model).backward()
    loss(plain).backward()
    dense = dense_weight(model[0])
    assert torch.equal(dense.grad, plain[0].weight.grad)
    hidden = model[0].weight == 0
    before = dense.detach().clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (dense.detach() != before)[hidden & (dense.grad != 0)].all()
    assert (hidden & (dense.grad != 0)).any()


def test_sparsity_follows_the_cubic_schedule_and_masks_change_only_at_the_period() -> None:
    model = network()
    pruner = DPF(model, sparsity=0.8, steps=20, begin=4, initial=0.1, period=3)
    optimizer, last = torch.optim.SGD(model.parameters(), lr=0.5), None
    for time in range(1, 28):
        optimizer.zero_grad()
        loss(model, time).backward()
        optimizer.step()
        pruner.step()
        now = torch.cat([m.mask.flatten() for m in pruner._masks.values()])
        if time % 3 or time < 4:
            assert last is None or torch.equal(now, last)
        else:
            share = 0.8 + (0.1 - 0.8) * (1 - min((time - 4) / 20, 1)) ** 3
            assert int((now == 0).sum()) == round(share * 80)
        last = now
    assert pruner.done
    shares = sparsity(pruner.finish())
    assert shares["0"] * 48 + shares["2"] * 32 == pytest.approx(64)


def test_a_weight_pruned_early_returns_when_its_gradient_insists() -> None:
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, 0.5, 0.6]]))
    model = nn.Sequential(layer)
    pruner = DPF(model, sparsity=0.4, steps=1, period=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(12):
        pruner.step()
        seen.append(bool(layer.weight[0, 0] != 0))
        optimizer.zero_grad()
        (-layer(torch.tensor([[1.0, 0.0, 0.0]]))).sum().backward()
        optimizer.step()
    assert not seen[0]
    assert seen[-1]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_checkpoint_resume_and_finish(scope: str) -> None:
    def run(model: nn.Module, pruner: DPF, steps: range) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for step in steps:
            optimizer.zero_grad()
            loss(model, step).backward()
            optimizer.step()
            pruner.step()

    straight, halves, again = network(), network(), network(5)
    pruners = [DPF(m, sparsity=0.75, steps=10, period=4, scope=scope) for m in (straight, halves, again)]
    run(straight, pruners[0], range(14))
    run(halves, pruners[1], range(7))
    again.load_state_dict(halves.state_dict())
    pruners[2].load_state_dict(pruners[1].state_dict())
    with pytest.raises(ScheduleError, match="ends after 12 steps"):
        pruners[2].finish()
    run(again, pruners[2], range(7, 14))
    one, two = pruners[0].finish(), pruners[2].finish()
    assert one.state_dict().keys() == network().state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    if scope == "layer":
        assert set(sparsity(one).values()) == {0.75}


def test_impossible_requests_are_refused() -> None:
    for options in ({"sparsity": 1.0, "steps": 5}, {"sparsity": 0.5, "steps": 5, "initial": 0.6}):
        with pytest.raises(TargetError, match="initial <= sparsity"):
            DPF(network(), **options)
    with pytest.raises(TargetError, match="leaves none of the 80 weights of 0, 2"):
        DPF(network(), 0.999, 5)
    with pytest.raises(TargetError, match="leaves none of the 32 weights of 2"):
        DPF(network(), 0.985, 5, scope="layer")
    with pytest.raises(ScheduleError, match="steps >= 1"):
        DPF(network(), 0.5, 0)
    with pytest.raises(TargetError, match="scope"):
        DPF(network(), 0.5, 5, scope="row")
    with pytest.raises(TrainingError, match="no linear or convolution layer 'x'"):
        DPF(network(), 0.5, 5, layers=["x"])
    model = network()
    DPF(model, 0.5, 5)
    with pytest.raises(TrainingError, match="parametrised already"):
        DPF(model, 0.5, 5)
