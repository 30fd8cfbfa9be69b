"""Laws of the unfolded networks: the plain CNN inside, the pursuit they are, and that they learn."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from provable.errors import InputError
from provable.reference import load
from provable.sparse_coding import Convolution, Problem, UnfoldedNetwork
from provable.sparse_coding.pursuit import _pass
from provable.sparse_coding.unfolded import KINDS, MNIST_LAYERS, Layer

SMALL = (Layer(6, 3, 1), Layer(8, 3, 2), Layer(10, 2, 1))


def network(kind: str, unfoldings: int, seed: int = 0) -> UnfoldedNetwork:
    generator = torch.Generator().manual_seed(seed)
    return UnfoldedNetwork((1, 8, 8), SMALL, 10, unfoldings=unfoldings, kind=kind, generator=generator)


def test_without_unfolding_it_is_the_plain_cnn_bit_for_bit() -> None:
    model = network("ml-ista", 0)
    convolutions = []
    for layer, filters, bias in zip(SMALL, model.filters, model.biases, strict=True):
        conv = nn.Conv2d(filters.shape[1], layer.channels, layer.kernel, layer.stride)
        conv.weight.data, conv.bias.data = filters.data.clone(), bias.data.flatten().clone()
        convolutions += [conv, nn.ReLU()]
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for i, parameter in enumerate(model.biases):
        parameter.data.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(i))
        convolutions[2 * i].bias.data = parameter.data.flatten().clone()
    plain = nn.Sequential(*convolutions, nn.Flatten(), model.classifier)
    y = x
    for conv, relu in zip(plain[:-2:2], plain[1:-2:2], strict=True):
        y = relu(functional.conv2d(y, conv.weight, stride=conv.stride) + conv.bias.view(1, -1, 1, 1))
    assert torch.equal(model(x), model.classifier(y.flatten(1)))
    assert torch.allclose(model(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("kind", ["ml-ista", "ml-fista", "layered"])
def test_unfolding_adds_no_parameters(kind: str) -> None:
    counts = {sum(p.numel() for p in network(kind, n).parameters()) for n in (0, 1, 5)}
    assert len(counts) == 1
    assert sum(p.numel() for p in network("ml-lista", 1).parameters()) > counts.pop()


def test_an_unfolding_is_a_pass_of_the_pursuit() -> None:
    """With steps mu_i and biases -tau_i, codes that stay non-negative move as in ML-ISTA."""
    model = network("ml-ista", 1).double()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dictionaries, shape = [], (1, 8, 8)
    for layer, filters in zip(SMALL, model.filters, strict=True):
        dictionaries.append(Convolution(filters.detach(), shape, layer.stride))
        shape = dictionaries[-1].code_shape
    problem = Problem(x, tuple(dictionaries), (0.1, 0.05, 0.02))
    steps, product = problem.steps(), 1.0
    for i, step in enumerate(steps):
        product *= step
        model.steps[i].data.fill_(step)
        model.biases[i].data.fill_(-product * problem.penalties[i])
    with torch.no_grad():
        start = model._start(x)[-1]
        (first, *_), _ = _pass(problem, start, steps)
        assert torch.allclose(model.codes(x)[0], first.clamp(min=0.0), atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_of_one_is_allowed_at_the_start(seed: int) -> None:
    """|| D_i || = 1: larger steps than 2 / || D_i ||^2 make the iterations diverge."""
    model, size = network("ml-ista", 1, seed), (8, 8)
    for layer, filters in zip(SMALL, model.filters, strict=True):
        identity = torch.eye(filters.shape[1] * size[0] * size[1]).view(-1, filters.shape[1], *size)
        matrix = functional.conv2d(identity, filters.detach(), stride=layer.stride).flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1.0, abs=0.02)
        size = ((size[0] - layer.kernel) // layer.stride + 1,) * 2


@pytest.mark.parametrize("kind", ["ml-ista", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])])
def test_every_kind_learns(kind: str) -> None:
    data = load("cnn").calibration
    x, y = torch.from_numpy(data.images[:96]), torch.from_numpy(data.labels[:96])
    model = network(kind, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None for p in model.filters)


def test_seeds_and_bad_shapes() -> None:
    assert torch.equal(network("ml-ista", 1, 3).filters[0], network("ml-ista", 1, 3).filters[0])
    assert not torch.equal(network("ml-ista", 1, 3).filters[0], network("ml-ista", 1, 4).filters[0])
    assert UnfoldedNetwork((1, 28, 28), MNIST_LAYERS, 10, unfoldings=1)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(InputError, match="does not fit"):
        UnfoldedNetwork((1, 8, 8), MNIST_LAYERS, 10, unfoldings=1)
    with pytest.raises(InputError, match="kind is one of"):
        UnfoldedNetwork((1, 8, 8), SMALL, 10, unfoldings=1, kind="magic")
    with pytest.raises(InputError, match="unfoldings"):
        UnfoldedNetwork((1, 8, 8), SMALL, 10, unfoldings=-1)
