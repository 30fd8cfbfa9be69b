"""Budgets: what may stay of a network, counted in what the user has to pay for.

flops.py        multiply-adds of convolutions and linear layers
parameters.py   stored numbers
bytes.py        stored bytes
latency.py      measured time of one call
channels.py     the same share of every group
problem.py      the interface they share

A new kind is one file and one line here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from provable.budgets.bytes import Bytes
from provable.budgets.channels import Channels
from provable.budgets.flops import Flops
from provable.budgets.latency import Latency
from provable.budgets.parameters import Parameters
from provable.budgets.problem import Kind

BUDGETS: Mapping[str, Kind] = MappingProxyType(
    {"flops": Flops(), "parameters": Parameters(), "bytes": Bytes(), "latency": Latency(), "channels": Channels()}
)

__all__ = ["BUDGETS", "Bytes", "Channels", "Flops", "Kind", "Latency", "Parameters"]
