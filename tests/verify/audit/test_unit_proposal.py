"""The unit of a sum is proposed from some of the leaves; leaves it did not look at may be far larger."""

import numpy as np
import pytest

from verify.audit.form import Form, Term, constant, settle
from verify.audit.linear import image, linear_map

TWO = ((0, 1), (1, 1))  # the centre and one symbol


def test_larger_leaves_than_the_proposal_saw_are_settled() -> None:
    values = np.ones((1, 16))
    values[0, 1] = 2.0**30
    form = settle([constant(values, 0)], [])
    error = np.abs(form.body[:, 0] * 2.0**form.exponent - values)
    assert (error <= form.rem * 2.0**form.exponent).all()


def test_leaves_that_the_proposal_saw_as_zero_do_not_coarsen_the_others() -> None:
    body = np.ones((1, 2, 16))
    body[:, :, [0, 2, 4, 6, 8, 10, 12, 14]] = 0.0
    form = settle([Term(Form(-50, TWO, body, np.zeros((1, 16))))], [])
    assert (form.body * 2.0**form.exponent == body * 2.0**-50).all()
    assert not form.rem.any()


@pytest.mark.parametrize("in_order", [True, False])
def test_the_image_of_zeros_is_zero_in_every_unit(in_order: bool) -> None:
    body = np.zeros((2, 2, 3))
    body[0] = 2.0**30
    form = Form(-60, TWO, body, np.zeros((2, 3)))
    taps = np.array([[[0, 1]]]) if in_order else np.array([[[0, 1], [1, 0]]])
    weights = np.array([[[0.0, 2.0**40]]])
    image_of_zeros = settle(*image(linear_map(weights, np.zeros_like(weights), -50, taps, 2), form))
    assert not image_of_zeros.body[0].any()
    assert (image_of_zeros.rem[0] * 2.0**image_of_zeros.exponent <= 2.0**-60).all()


def test_a_sum_of_zeros_is_exact() -> None:
    zeros = np.zeros((2, 2, 3))
    settled = settle([Term(Form(-54, TWO, zeros, zeros[:, 0])), constant(zeros[:, 0], 0)], [])
    assert not settled.size.any()
