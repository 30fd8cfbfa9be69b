"""A user's own module takes the compact state_dict and computes what the compact network computes."""

import numpy as np
import pytest
import torch
from torch import nn

from provable.errors import StateError
from provable.state_dict import shrink_state_dict
from provable.surgery import shrink
from verify.network.evaluate import evaluate
from verify.network.read_export import trace


class Net(nn.Module):
    def __init__(self, width: int = 6, hidden: int = 5) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width)
        self.hidden, self.head = nn.Linear(16 * width, hidden), nn.Linear(hidden, 3)
        self.register_buffer("temperature", torch.tensor(2.5))

    def forward(self, x):
        return self.head(torch.relu(self.hidden(torch.relu(self.norm(self.conv(x))).flatten(1))))


@pytest.fixture(scope="module")
def module() -> Net:
    net = Net()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for tensor in (*net.parameters(), net.norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    net.norm.num_batches_tracked.fill_(17)
    return net.eval()


@pytest.fixture(scope="module")
def network(module):
    return trace(module, torch.ones(1, 2, 4, 4))


def test_the_users_class_loads_it(module, network):
    surgery = shrink(network, {"conv": [0, 4, 5], "hidden": [1, 2]})
    state = shrink_state_dict(module.state_dict(), network, surgery)
    compact = Net(3, 2).eval()
    compact.load_state_dict(state)
    x = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(compact(x).detach().numpy(), evaluate(surgery.compact, x.numpy()), rtol=1e-4, atol=1e-5)
    assert list(state) == list(module.state_dict())
    assert int(state["norm.num_batches_tracked"]) == 17
    assert float(state["temperature"]) == 2.5


def test_dtypes_and_bits_are_kept_and_memory_is_not_shared(module, network):
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in module.state_dict().items()}
    state = shrink_state_dict(half, network, shrink(network, {"conv": [0, 4, 5]}))
    assert state["conv.weight"].dtype == torch.bfloat16
    assert torch.equal(state["conv.weight"], half["conv.weight"][[0, 4, 5]])
    assert all(state[k].data_ptr() != half[k].data_ptr() for k in half)


def test_compensated_values_replace_the_sliced_ones(module, network):
    surgery = shrink(network, {"hidden": [1, 2]})
    repaired = surgery.compact.with_parameters({"head.bias": surgery.compact.parameters["head.bias"] + 1})
    state = shrink_state_dict(module.state_dict(), network, surgery, values=repaired)
    assert torch.equal(state["head.bias"], torch.from_numpy(repaired.parameters["head.bias"].copy()))
    assert state["hidden.weight"].shape == (2, 96)


class Tied(nn.Module):
    def __init__(self, hidden: int = 5) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, hidden), nn.Linear(hidden, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.d(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


def test_tied_weights_stay_tied():
    module = Tied().eval()
    network = trace(module, torch.ones(1, 4))
    surgery = shrink(network, {"c": [0, 3]})
    repaired = surgery.compact.with_parameters({"a.weight": surgery.compact.parameters["a.weight"] * 2})
    for values in (None, repaired):
        state = shrink_state_dict(module.state_dict(), network, surgery, values=values)
        assert state["b.weight"] is state["a.weight"]
        compact = Tied(2).eval()
        compact.load_state_dict(state)
        expected = evaluate(values or surgery.compact, np.ones((1, 4)))
        np.testing.assert_allclose(compact(torch.ones(1, 4)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_tied_tensors_that_must_differ_are_refused(module, network):
    """A module that ties what its graph does not share."""
    state = dict(module.state_dict())
    state["norm.running_mean"] = state["conv.bias"]
    surgery = shrink(network, {"conv": [0, 4, 5]})
    assert shrink_state_dict(state, network, surgery)["norm.running_mean"].shape == (3,)
    repaired = surgery.compact.with_parameters({"conv.bias": surgery.compact.parameters["conv.bias"] + 1})
    with pytest.raises(StateError, match=r"'norm.running_mean' and 'conv.bias' are one tensor"):
        shrink_state_dict(state, network, surgery, values=repaired)


def test_foreign_state_dicts_are_refused(module, network):
    surgery = shrink(network, {"conv": [0, 4, 5]})
    state = dict(module.state_dict())
    with pytest.raises(StateError, match=r"has no 'conv\.weight', which shrinks"):
        shrink_state_dict({k: v for k, v in state.items() if k != "conv.weight"}, network, surgery)
    with pytest.raises(StateError, match=r"'conv.weight' has shape \(4, 2, 3, 3\), the network's \(6, 2, 3, 3\)"):
        shrink_state_dict({**state, "conv.weight": state["conv.weight"][:4]}, network, surgery)
    with pytest.raises(StateError, match="not that of the compact network"):
        shrink_state_dict(state, network, surgery, values=network)
    lacking = {k: v for k, v in state.items() if k != "head.bias"}
    shrink_state_dict(lacking, network, surgery, values=surgery.compact)
    repaired = surgery.compact.with_parameters({"head.bias": surgery.compact.parameters["head.bias"] + 1})
    with pytest.raises(StateError, match=r"no place for the new values of 'head\.bias'"):
        shrink_state_dict(lacking, network, surgery, values=repaired)
