"""The unit of a sum is proposed from some of the leaves; leaves it did not look at may be far larger."""

import numpy as np

from verify.audit.exact import constant, settle


def test_larger_leaves_than_the_proposal_saw_are_settled() -> None:
    values = np.ones((1, 16))
    values[0, 1] = 2.0**30
    form = settle([constant(values, 0)], [])
    error = np.abs(form.body[:, 0] * 2.0**form.exponent - values)
    assert (error <= form.rem * 2.0**form.exponent).all()
