"""Selection and compensation layer by layer on the already compressed network.

Two runs advance together: the original's values give the targets, the compact network's the regressors. At each
consumer, in network order,

    x   = compact network's input of the consumer, unfolded          (upstream layers are compressed already)
    t   = original's value behind the consumer (residual sums: minus the compact network's other operand)
    A   = channels to keep, chosen on these moments unless they are fixed
    W', b' = least squares of t on x_A, ridge by held-out images

so each layer also repairs what the layers before it broke. Work: one forward pass of each network plus the moments.

Reference: He et al. 2017 (reconstruction on compressed inputs); theory: theory_notes/compensation.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from provable.channels import ChannelGroup
from provable.compensation.collect import sequential_moments
from provable.compensation.consumers import Reading, kept_coordinates, readings, views
from provable.compensation.least_squares import Fit, loss
from provable.compensation.moments import Moments, total
from provable.compensation.patches import parts
from provable.compensation.refit import PartFit, refitted
from provable.compensation.ridge import Chosen, Solver, fit_held_out
from provable.compensation.steps import Forgetful, Memory, replayed, step_between
from provable.compensation.target import Target, affine_map, ancestors, target_of
from provable.execution import Run
from provable.selection.greedy_elimination import View
from verify.network.graph import Network

Choose = Callable[[ChannelGroup, Sequence[View]], tuple[int, ...]]
"""(group, its consumers' problems) -> slots to keep."""


@dataclass(frozen=True)
class LayerFit:
    """What compensation did at one consumer.

    Attributes:
        node: the consumer.
        loss: exact mean squared error on the calibration data, in the units of the target.
        held_out: the same on the images that a fit did not see; None where nothing was fitted or held out.
        variance: variance of the target's value in the original, the unit to compare with.
        ridge: relative ridge in use; None where nothing was fitted.
        samples: patches behind the fit.
        coordinates: regressors per output.
        refined: held-out error of the segment that ends here before and after refinement; None without.
    """

    node: str
    loss: float
    held_out: float | None
    variance: float
    ridge: float | None
    samples: int
    coordinates: int
    refined: tuple[float, float] | None = None

    @property
    def note(self) -> str:
        """What the user should know about the fit; empty if nothing."""
        if self.ridge is None or self.samples > self.coordinates:
            return ""
        return (
            f"{self.node}: only {self.samples} samples for {self.coordinates} coordinates; the ridge was raised to "
            f"{self.ridge:g} of the mean variance, which pulls towards the weights before"
        )


@dataclass(frozen=True)
class Compensated:
    """A network of the original's shape in which removed channels are read by nobody.

    Attributes:
        network: original shapes, refitted weights, zeros at removed coordinates.
        kept: group name -> slots that stay.
        layers: one record per refitted consumer, in network order.
    """

    network: Network
    kept: Mapping[str, tuple[int, ...]]
    layers: tuple[LayerFit, ...]


EXACT = 1e-12
"""Loss over the targets' mean square up to which masked weights count as exact (float32 noise) and are left alone:
dead channels leave without a trace, which later proofs about the difference of the networks profit from."""


@dataclass(frozen=True)
class Site:
    """One node to refit: its target, the groups it reads, and the groups that are chosen here."""

    target: Target
    read: tuple[Reading, ...]
    chooses: tuple[ChannelGroup, ...] = field(default=())


class Polish(Protocol):
    """What may follow a site's least squares, such as `refinement.Refiner`."""

    @property
    def outcomes(self) -> dict[str, tuple[float, float]]:
        """Consumer -> held-out error before and after."""

    def original_demands(self, site: Site) -> tuple[str, ...]:
        """Values it will take from the original's run."""

    def compact_demands(self, site: Site) -> tuple[str, ...]:
        """Values it will take from the compact network's run."""

    def refined(
        self, current: Network, site: Site, kept: Mapping[str, tuple[int, ...]], original: Run, compact: Run
    ) -> Network:
        """The network with better parameters at the site, `compact` brought up to date."""


def sites(
    network: Network, groups: Sequence[ChannelGroup], extra: Iterable[str], fixed: Iterable[str], settled: bool = False
) -> list[Site]:
    """Every node to refit, in network order.

    Args:
        network: the original.
        groups: groups that lose channels.
        extra: further linear or conv nodes to refit.
        fixed: groups whose slots are chosen already.
        settled: every operand of a residual sum may be aimed with, wherever it is computed.
    """
    read, chosen = readings(groups), set(fixed)
    names = [n.name for n in network if n.name in read or n.name in set(extra)]
    found = []
    for index, name in enumerate(names):
        target = _reachable(network, target_of(network, name), set() if settled else set(names[index:]))
        here = tuple(g for g in groups if g.name not in chosen and g.consumers[0].node == name)
        found.append(Site(target, read.get(name, ()), here))
    return found


def _reachable(network: Network, target: Target, later: set[str]) -> Target:
    """A residual sum is the aim only when its other operand is final by then."""
    if target.sum is None or not (ancestors(network, target.sum.other) & later):
        return target
    return Target(target.consumer, target.chain, target.gain, target.offset, None)


def compensate(
    network: Network,
    inputs: Tensor,
    groups: Sequence[ChannelGroup],
    *,
    fixed: Mapping[str, tuple[int, ...]],
    choose: Choose,
    start: Network | None = None,
    settled: bool = False,
    extra: Iterable[str] = (),
    solver: Solver = fit_held_out,
    polish: Polish | None = None,
    memory: Memory | None = None,
    progress: Callable[[str], None] = lambda node: None,
) -> Compensated:
    """Choose the channels that are not fixed, and refit every consumer.

    Args:
        network: the original.
        inputs: (samples, *input_shape) float32 calibration inputs.
        groups: groups that lose channels.
        fixed: group -> slots that stay, for groups chosen in advance (all with several consumers must be).
        choose: chooses the slots of every other group from its consumer's moments.
        start: the original with other weights (reweighted designs): what a ridge pulls towards. Default: the original.
        settled: `start` has been compensated before: a second sweep, in which the other operand of every residual sum
            counts, even if it is computed behind the site.
        extra: further nodes to refit with all their coordinates.
        solver: fits each node.
        polish: what follows each site's least squares.
        memory: holds the sites that an earlier run finished, and is told of every further one.
        progress: called with each consumer's name when it is done.
    """
    memory = memory or Forgetful()
    done = memory.steps()
    current = replayed(start or network, done)
    kept = {**fixed, **{name: slots for step in done for name, slots in step.kept.items()}}
    layers = [step.layer for step in done]
    for layer in layers:
        progress(layer.node)
    work = sites(network, groups, extra, fixed, settled)[len(done) :]
    original, compact = _runs(network, current, inputs, work, polish)
    for site in work:
        before = current
        folds, variance = sequential_moments(network, site.target, original, compact)
        for group in site.chooses:
            kept[group.name] = choose(group, _views(network, site, group, folds, variance))
        fits = _fits(current, site, folds, kept, solver)
        current = refitted(current, site.target, fits)
        if polish is not None:
            current = polish.refined(current, site, kept, original, compact)
        compact.update(current)
        outcomes = polish.outcomes if polish else {}
        layers.append(replace(_record(site, fits, folds, variance), refined=outcomes.get(site.target.consumer)))
        chosen = {group.name: tuple(kept[group.name]) for group in site.chooses}
        memory.keep(step_between(before, current, chosen, layers[-1]))
        progress(site.target.consumer)
    return Compensated(current, kept, tuple(layers))


def _runs(
    network: Network, current: Network, inputs: Tensor, work: Sequence[Site], polish: Polish | None
) -> tuple[Run, Run]:
    """The original's and the compact network's values, as far as the sites need them."""
    wanted, read = [site.target.value for site in work], [n for s in work for n in _compact_demands(network, s)]
    if polish is not None:
        wanted += [name for site in work for name in polish.original_demands(site)]
        read += [name for site in work for name in polish.compact_demands(site)]
    return Run(network, inputs, wanted), Run(current, inputs, read)


def _compact_demands(network: Network, site: Site) -> list[str]:
    source = network.node(site.target.consumer).inputs[0]
    return [source, site.target.sum.other] if site.target.sum else [source]


def _views(
    network: Network, site: Site, group: ChannelGroup, folds: Sequence[Sequence[Moments]], variance: float
) -> list[View]:
    reading = next(r for r in site.read if r.group == group.name)
    problems = [total(part).centred() for part in folds]
    return views(network, site.target, reading, problems, 1.0 / variance if variance > 0.0 else 1.0)


def _fits(
    network: Network, site: Site, folds: Sequence[Sequence[Moments]], kept: Mapping[str, tuple[int, ...]],
    solver: Solver,
) -> list[PartFit]:  # fmt: skip
    weight, bias = affine_map(network, site.target)
    found = []
    for part, moments in zip(parts(network, network.node(site.target.consumer)), folds, strict=True):
        index = kept_coordinates(part, site.read, kept)
        prior, regression = weight[part.rows][:, index], total(moments).centred()
        as_is = loss(regression, index, prior, bias[part.rows])
        if as_is <= EXACT * (regression.total + regression.mean_t @ regression.mean_t):
            chosen = Chosen(Fit(prior, bias[part.rows], as_is, None), as_is)
        else:
            chosen = solver(moments, index, prior=prior)
        found.append(PartFit(part, index, chosen))
    return found


def _record(
    site: Site,
    fits: Sequence[PartFit],
    folds: Sequence[Sequence[Moments]],
    variance: float,
) -> LayerFit:
    return LayerFit(
        node=site.target.consumer,
        loss=sum(found.chosen.fit.loss for found in fits),
        held_out=_sum([found.chosen.held_out for found in fits]),
        variance=variance,
        ridge=max((found.chosen.fit.ridge for found in fits if found.chosen.fit.ridge is not None), default=None),
        samples=sum(fold.count for fold in folds[0]),
        coordinates=max(len(found.kept) for found in fits),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
