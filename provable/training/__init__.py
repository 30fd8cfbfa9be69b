"""Methods that compress while training; every result ends in the surgery of `provable.surgery` and goes to `verify`."""

from provable.training.adaptive import Adaptive, ResidualGate
from provable.training.clusters import CollapsePlan, collapse_plan, plan_of
from provable.training.csgd import CSGD, collapse_steps
from provable.training.djpq import DJPQ
from provable.training.dpf import DPF
from provable.training.dpp import DPP
from provable.training.gsm import GSM, passive_steps
from provable.training.idle import remove_idle
from provable.training.masks import fix_zeros, release_zeros, sparsity
from provable.training.private_admm import PrivateADMM, Synthetic
from provable.training.quantiser import LearnedQuantiser
from provable.training.spp import SPP
from provable.training.trim import cluster_spread, trim

__all__ = [
    "CSGD", "DJPQ", "DPF", "DPP", "GSM", "SPP", "Adaptive", "CollapsePlan", "LearnedQuantiser", "PrivateADMM",
    "ResidualGate", "Synthetic", "cluster_spread", "collapse_plan", "collapse_steps",
    "fix_zeros", "passive_steps", "plan_of", "release_zeros", "remove_idle", "sparsity", "trim",
]  # fmt: skip
