"""What a training method hands over: the record of any other compression, so that it goes to `verify` the same way."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from provable.channels import ChannelGroup
from provable.errors import TrainingError
from provable.pipeline import module_state
from provable.records import Compression, Cost, GroupReport
from provable.surgery import Surgery
from verify.network.graph import Network
from verify.network.read_export import trace


def as_compression(
    method: str,
    original: Network,
    surgery: Surgery,
    groups: Sequence[ChannelGroup],
    error: float,
    settings: Mapping[str, Any],
    model: nn.Module | Network,
) -> Compression:
    """The record of a surgery that a training method ended in.

    Args:
        method: its name.
        original: the trained network before anything left it.
        surgery: what left.
        groups: the groups to report.
        error: what `check_surgery` returned.
        settings: what was asked for and measured.
        model: for the state_dict at the compact widths, where it is a module with the network's names.
    """
    state, notes = module_state(model, original, surgery)
    return Compression(
        original=original, compact=surgery.compact, channels=surgery.channels,
        kept={g.name: surgery.kept[g.name] for g in groups},
        groups=tuple(_report(method, g, surgery.kept[g.name]) for g in groups), layers=(),
        before=Cost.of(original),
        after=Cost.of(surgery.compact),
        settings={"recipe": method, **settings}, knob=0.0, knob_meaning="none: training decided what leaves",
        surgery_error=error, samples=0, calibration_digest="", calibration_rows=(), seconds={}, state_dict=state,
        notes=notes,
    )  # fmt: skip


def traced(model: nn.Module, example: Tensor | None) -> Network:
    """The network of a module in evaluation mode.

    Raises:
        TrainingError: there is no example input.
    """
    if example is None:
        raise TrainingError("a torch module needs an example input to be traced with; pass example=")
    return trace(model, example.detach().to(torch.float32))


def _report(method: str, group: ChannelGroup, kept: Sequence[int]) -> GroupReport:
    return GroupReport(
        group=group.name, consumers=tuple(c.node for c in group.consumers), kept=len(kept), total=len(group.slots),
        total_sensitivity=None, sensitivity_images=0, bound=None, method=method, loss=None, held_out_loss=None,
        ridge=None, note="",
    )  # fmt: skip
