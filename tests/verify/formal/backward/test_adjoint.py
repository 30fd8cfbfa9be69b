"""`adjoint` is the transpose of the map: ``c . M x == M^T c . x``."""

import numpy as np
import pytest
import torch

from verify.formal.backward.adjoint import _APPLY, _COUNT, adjoint, roundings
from verify.formal.maps import AxisMean, Convolution, Dense, Diagonal, Gather, Map, WindowMean

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def convolution(shape, out, kernel, groups=1, **options):
    return Convolution(random(out, shape[0] // groups, *kernel), shape, groups=groups, **options)


MAPS = {
    "dense": Dense(random(3, 4)),
    "positions": Dense(random(3, 4), positions=5),
    "conv": convolution((2, 7, 6), 3, (3, 2), stride=(2, 3), padding=(1, 0, 2, 1), dilation=(1, 2)),
    "unreached": convolution((2, 8), 4, (3,), groups=2, stride=(4,), padding=(0, 0), dilation=(1,)),
    "cube": convolution((1, 4, 4, 4), 2, (2, 2, 2), stride=(1, 2, 1), padding=(1, 0, 0, 0, 1, 1), dilation=(1, 1, 2)),
    "diagonal": Diagonal(random(4), 4),
    "picked": Diagonal(random(5), 3, index=torch.tensor([0, 2, 2, 1, 0])),
    "gather": Gather(torch.tensor([3, -1, 0, 3]), 4),
    "identity": Gather(torch.arange(4), 4),
    "window": WindowMean(
        (2, 5, 4), (2, 2), torch.full((4, 4), 4.0).double(), stride=(1, 1), padding=(0, 0, 0, 1), dilation=(1, 1)
    ),
    "axes": AxisMean((2, 3, 4), (0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_adjoint_is_the_transpose(name):
    linear = MAPS[name]
    c, x = random(2, 3, linear.outputs), random(2, 3, linear.inputs)
    torch.testing.assert_close((c * linear(x)).sum(-1), (adjoint(linear, c) * x).sum(-1))


@pytest.mark.parametrize("name", MAPS)
def test_roundings_cover_the_number_of_terms_of_a_coefficient(name):
    linear = MAPS[name]
    matrix = linear(torch.eye(linear.inputs, dtype=torch.float64))  # row i: image of unit i
    assert roundings(linear) >= int((matrix != 0).sum(1).max())


def test_every_map_has_an_adjoint():
    def leaves(kind):
        return {kind} | {leaf for child in kind.__subclasses__() for leaf in leaves(child)}

    assert set(_APPLY) == set(_COUNT) == leaves(Map) - {Map}


def test_adjoint_is_differentiable():
    for linear in MAPS.values():
        c = random(1, 2, linear.outputs).requires_grad_()
        adjoint(linear, c).sum().backward()
        assert c.grad is not None
        assert np.isfinite(c.grad.numpy()).all()
