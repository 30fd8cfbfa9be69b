"""What a score may look at beyond the layers' statistics, and what it answers.

A look is a function of an `Inquiry`; its findings reach selection through `Evidence.finding`. Labels are handed over
only to looks that are declared to need them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from provable.channels import ChannelGroup
from provable.compensation.moments import Matrix
from provable.errors import CalibrationError
from provable.observe import Statistics
from verify.network.graph import Network

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Inquiry:
    """Everything a look is given.

    Attributes:
        network: the original.
        inputs: (samples, *input_shape) float32.
        labels: (samples,) classes; None where the recipe does not ask for them or nobody gave any.
        groups: the groups that may lose slots.
        statistics: of the layers that read them.
        generator: for looks that draw.
    """

    network: Network
    inputs: Tensor
    labels: Labels | None
    groups: tuple[ChannelGroup, ...]
    statistics: Statistics
    generator: Generator

    def required_labels(self, who: str) -> Labels:
        """The labels.

        Raises:
            CalibrationError: there are none; the message says what runs without.
        """
        if self.labels is None:
            raise CalibrationError(
                f"{who} differentiates the loss on labelled inputs: give labels (samples,) with the calibration inputs "
                "(--labels Y.npy), or take a variant without labels (taylor-output)"
            )
        return self.labels


@dataclass(frozen=True)
class Finding:
    """What was found about one group.

    Attributes:
        scores: (slots,) importance, >= 0; larger stays.
        tree: (slots - 1, 4) agglomerative clustering of the slots as scipy's ``linkage`` writes it; None without.
        order: slots in the order in which they leave, and the price of each removal, never falling; None: by score.
    """

    scores: Matrix
    tree: Matrix | None = field(default=None)
    order: tuple[tuple[int, ...], Matrix] | None = field(default=None)

    def removals(self) -> tuple[tuple[int, ...], Matrix]:
        """Slots in the order in which they leave, and what each costs; ties: the larger index leaves first."""
        if self.order is not None:
            return self.order
        last = len(self.scores) - 1
        order = last - np.argsort(self.scores[::-1], kind="stable")
        return tuple(order.tolist()), self.scores[order]


Look = Callable[[Inquiry], Mapping[str, Finding]]
"""What to find out about every group, by the group's name."""
