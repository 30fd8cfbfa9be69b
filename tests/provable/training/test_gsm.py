"""Laws of global sparse momentum: exactly Q weights follow the objective, the others decay as stated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provable.errors import ScheduleError, TargetError, TrainingError
from provable.training import GSM, passive_steps
from provable.training.masks import exactly_top


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def backward(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (16,), generator=generator)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 12))
def test_exactly_the_count_is_selected_and_nothing_larger_is_left(scores: list[int], count: int) -> None:
    chosen = exactly_top(torch.tensor(scores, dtype=torch.float32), min(count, len(scores)))
    assert int(chosen.sum()) == min(count, len(scores))
    left, taken = torch.tensor(scores)[~chosen], torch.tensor(scores)[chosen]
    assert not len(left) or not len(taken) or left.max() <= taken.min()


@settings(deadline=None, max_examples=8)
@given(ratio=st.floats(0.02, 0.9), seed=st.integers(0, 99))
def test_exactly_q_weights_receive_gradient(ratio: float, seed: int) -> None:
    model = network(seed)
    optimizer = GSM(model.parameters(), lr=1.0, nonzero_ratio=ratio, momentum=0.0, weight_decay=1e-3)
    backward(model, seed)
    before = [(p, p.detach().clone()) for p in model.parameters() if p.ndim > 1]
    optimizer.step()
    moved = sum(int(((p.detach() - w + 1e-3 * w).abs() > 1e-12).sum()) for p, w in before)
    live = sum(int((p.grad != 0).sum()) for p, _ in before)
    assert optimizer.count == int(ratio * 80)
    assert moved == min(optimizer.count, live)


def test_ties_are_broken_the_same_way_every_time() -> None:
    p = nn.Parameter(torch.ones(4, 5))
    optimizer = GSM([p], lr=1.0, nonzero_ratio=0.35, momentum=0.0, weight_decay=0.5)
    p.grad = torch.ones(4, 5)
    optimizer.step()
    assert p.detach().flatten().tolist() == [-0.5] * 7 + [0.5] * 13


def test_an_unselected_weight_follows_the_closed_form() -> None:
    p, rate, decay, beta = nn.Parameter(torch.tensor([[2.0, 5.0]], dtype=torch.float64)), 0.1, 0.3, 0.9
    optimizer = GSM([p], lr=rate, nonzero_ratio=0.5, momentum=beta, weight_decay=decay)
    for _ in range(40):
        p.grad = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        optimizer.step()
    one_step = np.array([[1 - rate * decay, -rate * beta], [decay, beta]])  # (w, v) -> (w, v)
    expected = (np.linalg.matrix_power(one_step, 40) @ [2.0, 0.0])[0]
    assert p.detach()[0, 0].item() == pytest.approx(expected, rel=1e-6)
    assert passive_steps(lr=rate, weight_decay=decay, momentum=0.0) == int(np.ceil(np.log(1e-3) / np.log(0.97)))


def test_after_a_full_run_the_cut_costs_less_than_a_tenth_of_a_point_and_layers_differ() -> None:
    model = network()
    optimizer = GSM(model.parameters(), lr=0.1, nonzero_ratio=0.3, momentum=0.9, weight_decay=0.02)
    random = torch.Generator().manual_seed(0)
    x, fresh = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in (64, 4000))
    for _ in range(1500):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :4].argmax(1)).backward()
        optimizer.step()

    def accuracy() -> float:
        return float((model(fresh).argmax(1) == fresh[:, :4].argmax(1)).double().mean())

    before = accuracy()
    shares = optimizer.prune()
    assert before > 0.5
    assert abs(accuracy() - before) < 1e-3
    kept = sum(int((p != 0).sum()) for p in model.parameters() if p.ndim > 1)
    assert kept <= optimizer.count == 24
    assert shares[0] != shares[1]


def test_resuming_gives_the_same_bits() -> None:
    straight, resumed, again = network(), network(), network(3)
    options = {"lr": 0.02, "nonzero_ratio": 0.3}
    one, two, three = (GSM(m.parameters(), **options) for m in (straight, resumed, again))
    for model, optimizer in ((straight, one), (resumed, two)):
        for step in range(3):
            backward(model, step)
            optimizer.step()
    again.load_state_dict(resumed.state_dict())
    three.load_state_dict(two.state_dict())
    for model, optimizer in ((straight, one), (again, three)):
        backward(model, 7)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_served_is_refused() -> None:
    model = network()
    with pytest.raises(TargetError, match="strictly between"):
        GSM(model.parameters(), lr=0.1, nonzero_ratio=1.0)
    with pytest.raises(TargetError, match="is none"):
        GSM(model.parameters(), lr=0.1, nonzero_ratio=1e-3)
    with pytest.raises(TargetError, match="whole network"):
        GSM([{"params": model[0].parameters(), "nonzero_ratio": 0.2}, {"params": model[2].parameters()}], lr=0.1,
            nonzero_ratio=0.5)  # fmt: skip
    for rate, decay, factor in ((0.1, 0.0, "1"), (0.0, 1e-4, "1"), (1.0, 4.0, r"1\.")):
        with pytest.raises(ScheduleError, match=f"is multiplied by {factor}.* never vanishes; take 0 < lr"):
            GSM(model.parameters(), lr=rate, nonzero_ratio=0.1, weight_decay=decay)
    with pytest.raises(ScheduleError, match="never vanishes"):
        passive_steps(lr=0.0, weight_decay=1e-4)
    with pytest.raises(TargetError, match="0 weights with two or more axes is none; pass the weights of layers"):
        GSM([model[0].bias], lr=0.1, nonzero_ratio=0.5)
    with pytest.raises(TrainingError, match="momentum"):
        GSM(model.parameters(), lr=0.1, nonzero_ratio=0.1, momentum=1.0)
    with pytest.raises(TrainingError, match="closure"):
        GSM(model.parameters(), lr=0.1, nonzero_ratio=0.1).step(lambda: 0.0)
    model[2].weight.grad = torch.full_like(model[2].weight, float("inf"))
    for parameters, place in ((model.named_parameters(), r"2\.weight"), (model.parameters(), "parameter 2 of group 0")):
        with pytest.raises(TrainingError, match=f"gradient of '{place}' is not finite"):
            GSM(parameters, lr=0.1, nonzero_ratio=0.1).step()
