"""The table of scripts/bench_completeness.py: three methods, one number."""

import numpy as np
import pytest

from tests.scripts.loading import load_script


@pytest.fixture(scope="module")
def bench():
    return load_script("bench_completeness")


def agreement(bench, networks, seconds, tolerance):
    rng = np.random.default_rng(1)
    for _ in range(networks):
        outcome = bench.outcome(bench.random_instance(rng), seconds, tolerance)
        assert outcome.sound()
        assert max(outcome.errors()) <= 2 * tolerance


def test_a_few_small_networks_agree(bench):
    agreement(bench, 2, 30.0, 1e-3)


@pytest.mark.slow
def test_many_small_networks_agree_to_the_solvers_tolerance(bench):
    agreement(bench, 40, 60.0, 1e-6)
