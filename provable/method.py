"""What is on record about a published system: one frozen record per method, declared where the method lives.

The axes are those of the pruning survey (J. Liu, Tripathi, Kurup, Shah 2020, arXiv 2005.04275). A record without a
known value on an axis is refused. Theory note: scores.md says how the declarations are enforced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from provable.errors import InputError

AXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "granularity": (
            "weight", "vector", "kernel", "channel", "layer", "channel and layer", "channel and bits", "any", "none",
        ),
        "when": ("before training", "during training", "after training", "any time"),
        "criterion": (
            "magnitude", "activation statistics", "sensitivity", "reconstruction error", "redundancy",
            "learned gates and regularisers", "search", "probabilistic", "information bottleneck", "exact bounds",
            "sparse representation",
        ),
        "data": ("none", "synthetic", "unlabelled", "labelled"),
        "recovery": ("none", "closed form", "fine-tune", "rewind", "distil", "joint training"),
        "guarantee": ("none", "exact", "a-priori bound", "deterministic bound", "probabilistic bound", "sparsity"),
    }
)  # fmt: skip
"""Axis -> the values it may take."""


@dataclass(frozen=True)
class Method:
    """One system.

    Attributes:
        name: unique; that of the recipe or class that runs it.
        summary: one line.
        granularity: what is removed ("none" for measures and representations).
        when: relative to training.
        criterion: what decides.
        data: what it must be given: no data, synthetic inputs, unlabelled inputs, or inputs with labels.
        recovery: what follows the removal.
        guarantee: what is promised; the method's own documentation says on which assumptions.
        reference: who published it, where.
        cost: what it costs to run, in words.
        use: how it is called: a recipe of ``provable compress``, or an import.
    """

    name: str
    summary: str
    granularity: str
    when: str
    criterion: str
    data: str
    recovery: str
    guarantee: str
    reference: str
    cost: str
    use: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"method {self.name!r} does not say its {field.name}")
        for axis, known in AXES.items():
            if getattr(self, axis) not in known:
                raise InputError(
                    f"method {self.name!r}: {axis} is {getattr(self, axis)!r}, expected one of {', '.join(known)}"
                )
