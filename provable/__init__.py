"""provable proposes: a smaller network without retraining, with bounds stated before and losses measured after.

    model + calibration inputs
        │
        ▼
    observe ──► sensitivity ──► sampling / selection ──► compensation ──► surgery ──► compact network
    (one pass:  (importance     (which channels stay,    (exact least     (smaller,    + channels.json
    moments,    with a bound)   with a theorem)          squares on the   == masked)   + layers.json
    maxima)              └──────── allocation ────────┘  compressed net)
                             (how many per layer)

Nothing here has to be trusted: `verify` judges any compact network, whoever made it. Names are imported on
first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from provable.channels import ChannelGroup, channel_groups
    from provable.cost import count_flops, count_parameters
    from provable.errors import BudgetError, GroupingError, ProvableError, SurgeryError
    from provable.pipeline import compress
    from provable.records import Compression
    from provable.state_dict import shrink_state_dict
    from provable.surgery import Surgery, check_surgery, masked, shrink

_HOME = {
    "BudgetError": "provable.errors",
    "ChannelGroup": "provable.channels",
    "Compression": "provable.records",
    "GroupingError": "provable.errors",
    "ProvableError": "provable.errors",
    "Surgery": "provable.surgery",
    "SurgeryError": "provable.errors",
    "channel_groups": "provable.channels",
    "check_surgery": "provable.surgery",
    "compress": "provable.pipeline",
    "count_flops": "provable.cost",
    "count_parameters": "provable.cost",
    "masked": "provable.surgery",
    "shrink": "provable.surgery",
    "shrink_state_dict": "provable.state_dict",
}

__all__ = [
    "BudgetError", "ChannelGroup", "Compression", "GroupingError", "ProvableError", "Surgery", "SurgeryError",
    "channel_groups", "check_surgery", "compress", "count_flops", "count_parameters", "masked", "shrink",
    "shrink_state_dict",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'provable' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
