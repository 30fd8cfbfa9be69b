"""Block-local refinement: a few hundred Adam steps on a segment's own parameters, started from least squares.

With the already compressed network's values x at the segment's sources and the original's value v behind it,

    minimise  mean || phi(g_theta(x)) - phi(v) ||^2       theta: weights and biases inside the segment

phi the activation that follows. No labels. The learning rate falls as a half cosine. Part of the calibration images is
held out: the parameters with the smallest held-out loss are kept, those of the start included, so that refinement
never makes the held-out loss worse. Segments are refined in network order; each repairs what is left of the errors
made before it.

Reference: block reconstruction as in Li et al. 2021 (BRECQ), there for quantisation. Theory:
theory_notes/refinement.md. Not claimed: a global minimum, or a bound on other inputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from provable.channels import ChannelGroup, channel_groups
from provable.compensation.adam import Adam, half_cosine
from provable.compensation.minibatches import minibatches, split
from provable.compensation.segment import Segment, activated, is_closed, run_segment, segment_between, trainable
from provable.compensation.sequential import Site
from provable.execution import Run
from provable.room import pieces, room
from provable.surgery import Surgery, shrink
from verify.network.graph import Array, Network


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: gradient steps per segment.
        batch: images per step.
        rate: first learning rate; it falls to zero as a half cosine.
        held_out: share of the images that is held out.
        checks: how often the held-out loss is measured, evenly over the steps.
    """

    steps: int = 550
    batch: int = 8
    rate: float = 1e-3
    held_out: float = 0.125
    checks: int = 4


@dataclass(frozen=True)
class Refined:
    """Outcome of one segment.

    Attributes:
        parameters: key -> values with the smallest held-out loss.
        before, after: mean squared error on the held-out images (all images, if none could be held out).
    """

    parameters: Mapping[str, Tensor]
    before: float
    after: float


@torch.enable_grad()
def refine(
    network: Network,
    segment: Segment,
    sources: Mapping[str, Tensor],
    aim: Tensor,
    keys: Sequence[str],
    schedule: Schedule,
    generator: torch.Generator,
) -> Refined:
    """Descend on the segment's error from the network's present parameters.

    Args:
        network: where the segment's nodes and parameters are.
        segment: what to run.
        sources: its inputs, (samples, *shape) each.
        aim: (samples, *shape) value behind the activation that it should give.
        keys: parameters that may move.
        schedule: steps and rates.
        generator: draws the batches; the same state gives the same result.
    """
    everything = {key: torch.from_numpy(np.array(a, dtype=np.float32)) for key, a in _read(network, segment).items()}
    moving = {key: everything[key].requires_grad_(True) for key in keys}
    fitted, judged = split(len(aim), schedule.held_out, generator)
    descent = Adam.at(tuple(moving.values()))
    before = smallest = _mean_error(network, segment, sources, aim, everything, judged)
    best = {key: value.detach().clone() for key, value in moving.items()}
    for step, batch in enumerate(minibatches(fitted, schedule.batch, schedule.steps, generator)):
        error = _error(network, segment, sources, aim, everything, batch).mean()
        rate = half_cosine(schedule.rate, step, schedule.steps)
        descent.step(torch.autograd.grad(error, descent.parameters), rate)
        if (step + 1) % max(1, schedule.steps // schedule.checks) == 0 or step + 1 == schedule.steps:
            now = _mean_error(network, segment, sources, aim, everything, judged)
            if now < smallest:
                smallest, best = now, {key: value.detach().clone() for key, value in moving.items()}
    return Refined(best, before, smallest)


def _read(network: Network, segment: Segment) -> dict[str, Array]:
    return {key: network.parameters[key] for n in segment.nodes for key in network.node(n).parameters.values()}


def _error(
    network: Network, segment: Segment, sources: Mapping[str, Tensor], aim: Tensor,
    parameters: Mapping[str, Tensor], chosen: Tensor,
) -> Tensor:  # fmt: skip
    """Squared error per chosen image, summed over its elements."""
    inputs = {name: value[chosen] if len(value) == len(aim) else value for name, value in sources.items()}
    value = run_segment(network, segment, inputs, parameters)[segment.end]
    return (activated(network, segment, value) - aim[chosen]).square().flatten(1).sum(1)


@torch.no_grad()
def _mean_error(
    network: Network, segment: Segment, sources: Mapping[str, Tensor], aim: Tensor,
    parameters: Mapping[str, Tensor], chosen: Tensor,
) -> float:  # fmt: skip
    parts = [chosen[start : start + 64] for start in range(0, len(chosen), 64)]
    errors = [_error(network, segment, sources, aim, parameters, part) for part in parts]
    return float(torch.cat(errors).double().mean())


@dataclass
class Refiner:
    """Refinement as the sequential pass asks for it: one segment per site whose groups it alone reads.

    Attributes:
        network: the original.
        groups: its groups that lose channels.
        schedule, generator: see `refine`.
        outcomes: consumer -> (held-out loss before, after).
    """

    network: Network
    groups: Sequence[ChannelGroup]
    schedule: Schedule
    generator: torch.Generator
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._all_groups = channel_groups(self.network)

    def segment(self, site: Site) -> Segment | None:
        """What is refined at a site: from the producers of its groups if they serve nobody else, else the consumer."""
        if not site.read:
            return None
        names = {reading.group for reading in site.read}
        starts = [name for group in self.groups if group.name in names for name in group.producers]
        whole = segment_between(self.network, (*starts, site.target.consumer), site.target.value)
        if is_closed(self.network, whole):
            return whole
        alone = segment_between(self.network, (site.target.consumer,), site.target.value)
        return alone if is_closed(self.network, alone) else None

    def original_demands(self, site: Site) -> tuple[str, ...]:
        """The value to reproduce."""
        segment = self.segment(site)
        return (segment.end,) if segment else ()

    def compact_demands(self, site: Site) -> tuple[str, ...]:
        """The segment's sources."""
        segment = self.segment(site)
        return segment.sources if segment else ()

    def refined(
        self, current: Network, site: Site, kept: Mapping[str, tuple[int, ...]], original: Run, compact: Run
    ) -> Network:
        """The network with the site's segment refined; values of it that `compact` holds are brought up to date."""
        segment = self.segment(site)
        if segment is None:
            return current
        sources = {name: compact.take(name) for name in segment.sources}
        surgery = shrink(current, kept, groups=self._all_groups)
        narrow = {name: _narrowed(surgery, name, value) for name, value in sources.items()}
        behind = partial(activated, self.network, segment)
        aim = _narrowed(surgery, segment.end, original.take(segment.end), behind)
        keys = trainable(surgery.compact, segment)
        if not keys:
            return current
        result = refine(surgery.compact, segment, narrow, aim, keys, self.schedule, self.generator)
        self.outcomes[site.target.consumer] = (result.before, result.after)
        changed = current.with_parameters({key: _widened(current, surgery, key, result) for key in keys})
        _refresh(changed, segment, sources, compact)
        return changed


def _narrowed(surgery: Surgery, name: str, value: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The kept positions of a value's batch, changed position by position first."""
    cut = surgery.values.get(name)
    if cut is None and change is None:
        return value
    shape = list(value.shape)
    if cut is not None:
        shape[cut.axis + 1] = len(cut.kept)
    narrow = room(tuple(shape))
    for piece in pieces(len(value), tuple(value.shape[1:])):
        some = value[piece] if change is None else change(value[piece])
        narrow[piece] = some if cut is None else some.index_select(cut.axis + 1, torch.tensor(cut.kept))
    return narrow


def _widened(network: Network, surgery: Surgery, key: str, result: Refined) -> Array:
    """A parameter of the full network with its kept entries replaced."""
    full = network.parameters[key].copy()
    index = [np.arange(size) for size in full.shape]
    for cut in surgery.parameters.get(key, ()):
        index[cut.axis] = index[cut.axis][list(cut.kept)]
    full[np.ix_(*index)] = result.parameters[key].numpy().astype(full.dtype)
    return full


def _refresh(network: Network, segment: Segment, sources: Mapping[str, Tensor], run: Run) -> None:
    stale = [name for name in run.live() if name in segment.nodes]
    if not stale:
        return
    parameters = {k: torch.from_numpy(np.array(a, np.float32)) for k, a in _read(network, segment).items()}
    held = {name: room(tuple(run.value(name).shape)) for name in stale}
    samples = max(len(value) for value in sources.values())
    with torch.inference_mode():
        for start in range(0, samples, 64):
            chunk = slice(start, start + 64)
            inputs = {n: v[chunk] if len(v) == samples else v for n, v in sources.items()}  # constants have length 1
            values = run_segment(network, segment, inputs, parameters)
            for name in stale:
                held[name][chunk] = values[name]
    for name in stale:
        run.replace(name, held[name])
