"""For test suites: random networks and domains as hypothesis strategies, and assertions about pairs of networks.

    networks ─► compact_twins        small networks of every op, and compact versions of them
    boxes ─► inputs_inside           domains over a network's input, and points inside
    calibration_batches              inputs as a compression method gets them

    assert_deviation                 every input of a domain, proved
    assert_agreement                 a share of inputs, with confidence
    assert_same_argmax               the given inputs
    assert_networks_equal            the same graph and bits

An example test file to copy is examples/test_my_compression.py. Importing this package loads hypothesis, not torch.
"""

from verify.testing.assertions import assert_agreement, assert_deviation, assert_networks_equal, assert_same_argmax
from verify.testing.domains import boxes, calibration_batches, inputs_inside
from verify.testing.networks import KINDS, networks
from verify.testing.subjects import as_network
from verify.testing.twins import Twin, compact_twins

__all__ = [
    "KINDS",
    "Twin",
    "as_network",
    "assert_agreement",
    "assert_deviation",
    "assert_networks_equal",
    "assert_same_argmax",
    "boxes",
    "calibration_batches",
    "compact_twins",
    "inputs_inside",
    "networks",
]
