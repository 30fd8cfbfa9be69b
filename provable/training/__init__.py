"""Methods that compress while training; every result ends in the surgery of `provable.surgery` and goes to `verify`."""

from provable.training.clusters import CollapsePlan, collapse_plan, plan_of
from provable.training.csgd import CSGD, collapse_steps
from provable.training.trim import cluster_spread, trim

__all__ = ["CSGD", "CollapsePlan", "cluster_spread", "collapse_plan", "collapse_steps", "plan_of", "trim"]
