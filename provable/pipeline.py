"""compress(...): the stages in order.

    trace ─► groups ─► observe ─► allocate ─► select + compensate ─► shrink ─► check ─► report

Every stage takes records and returns records; the mathematics is in the stages' own files.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from provable.allocation.budget import Allocation, Budget, budget_of
from provable.allocation.widths import Floor, allowed_widths
from provable.budgets import BUDGETS
from provable.budgets.problem import Problem
from provable.calibration import as_batches, calibration_inputs, calibration_labels, doubts, first_input
from provable.channels import ChannelGroup, channel_groups
from provable.compensation.batch_norm import reestimated
from provable.compensation.minimax import Minimax
from provable.compensation.network_refinement import NetworkSchedule, refined_surgery
from provable.compensation.refinement import Refiner, Schedule
from provable.compensation.sequential import Compensated, Polish, compensate, sites
from provable.compensation.strategies import STRATEGIES
from provable.compensation.uncompensated import output_layers, reweighted, uncompensated
from provable.coresets.sparsify import SPARSIFIERS, sparsify, weight_share
from provable.cost import Counts
from provable.errors import GroupingError, InputError, StateError
from provable.journal import Journal, Notes, run_key
from provable.observe import Statistics, fingerprints, observe
from provable.progress import Progress, Silent
from provable.recipes import RECIPES, Recipe
from provable.records import Compression, Cost
from provable.report import group_reports
from provable.selection.evidence import Choice, Evidence, evidence_of
from provable.selection.finding import Finding, Inquiry, Labels
from provable.selection.greedy_elimination import View
from provable.state_dict import shrink_state_dict
from provable.surgery import Surgery, check_surgery, shrink
from verify.network.graph import Network

COMPENSATIONS = tuple(STRATEGIES)
SCOPES = ("inner", "all")
GLANCE = 16
"""Images behind the total sensitivity in the report of a recipe that does not need sensitivities."""

Seed = int | np.random.Generator | torch.Generator | None


@dataclass(frozen=True)
class Settings:
    """What was asked for, checked."""

    budget: Budget
    recipe: Recipe
    compensation: str
    scope: str
    floor: Floor
    round_to: int
    batch: int
    seed: int | None

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "keep": {self.budget.kind: self.budget.fraction}, "recipe": self.recipe.name,
            "compensation": self.compensation, "scope": self.scope,
            "floor": dict(self.floor) if isinstance(self.floor, Mapping) else self.floor,
            "round_to": self.round_to, "batch": self.batch, "seed": self.seed,
        }  # fmt: skip


def compress(
    model: nn.Module | Network,
    calibration: np.ndarray[Any, Any] | Tensor | Iterable[Any],
    *,
    keep: Mapping[str, float],
    recipe: str = "greedy",
    labels: Sequence[int] | np.ndarray[Any, Any] | Tensor | None = None,
    compensation: str = "least_squares",
    scope: str = "inner",
    floor: Floor = 1,
    round_to: int = 1,
    batch: int = 1,
    generator: Seed = None,
    progress: Progress | None = None,
    journal: Path | None = None,
) -> Compression:
    """A smaller network that computes nearly the same, without training.

    Args:
        model: a torch module (traced in eval mode, left as it is) or a `Network`.
        calibration: unlabelled inputs (samples, *input_shape) in the network's input format, floating point: an
            array, a tensor, or an iterable of batches of them.
        keep: exactly one of ``{"flops": f}``, ``{"parameters": f}``, ``{"bytes": f}``, ``{"latency": f}``,
            ``{"channels": f}``: the fraction KEPT of the original's multiply-adds, of its parameters, of its stored
            bytes, of its measured time per call (ONNX Runtime), or of every prunable group's channels;
            ``{"weights": f}`` for recipes that remove single weights ("sipp", "corenet", ...).
        recipe: "greedy", "volume", "pfp", ...: a name in provable.recipes; ``provable methods`` lists them.
        labels: (samples,) classes of the calibration inputs, for recipes that differentiate the loss ("taylor"). No
            other recipe is shown them.
        compensation: "least_squares" refits the layers that read removed channels and the output layer;
            "two_sided" also the layers that produce them, "two_sweeps" all of them twice; "refine" follows each
            block's fit with a few hundred gradient steps towards the original block's output; "refine_network" ends
            with gradient steps on the whole compact network towards the original's values; "none" leaves weights as
            they are. All of them: provable.compensation.strategies.
        scope: "inner" prunes the channels of ordinary hidden layers; "all" residual streams and gated channels, too.
        floor: channels every group keeps at least: a number, a share of each group in (0, 1), or group -> number.
        round_to: kept widths are multiples of this number, or the whole group; groups no wider than it may
            take any width.
        batch: inputs per call where latency is measured.
        generator: for recipes that draw: a seed, a numpy or a torch generator. None: seed 0.
        progress: is told of stages and steps.
        journal: folder in which the run keeps what is finished, so that the same call after an interruption continues
            there and gives the identical result (provable.journal). The caller removes it when all is done.

    Returns:
        The compact network with everything known about it. The budget is met or undercut, with two exceptions:
        "pfp-sampled" meets it in expectation, and intercepts of layers that had no bias come on top of
        "parameters" and "bytes".

    Raises:
        provable.errors.InputError, verify.errors.InputError: an argument, the model or the data cannot be used;
            the message says which and why.
        provable.errors.SurgeryError: the shrunken network failed its check (never expected).
    """
    if recipe in SPARSIFIERS:
        return _sparsify(model, calibration, keep, recipe, compensation, generator)
    settings, random = _settings(keep, recipe, compensation, scope, floor, round_to, batch, generator)
    told, clock = progress or Silent(), _Clock()
    batches = as_batches(calibration)
    network = traced(model, batches)
    inputs = calibration_inputs(network, batches)
    shown = calibration_labels(labels, len(inputs)) if labels is not None and settings.recipe.labels else None
    kept = Journal(journal) if journal is not None else None
    if kept is not None:
        data = [inputs.numpy(), *([] if shown is None else [shown])]
        kept.open(run_key(network.digest(), data, settings.as_json(), random))
    return _compress(model, network, inputs, shown, settings, random, told, clock, kept)


def _compress(
    model: nn.Module | Network,
    network: Network,
    inputs: Tensor,
    labels: Labels | None,
    settings: Settings,
    random: np.random.Generator,
    told: Progress,
    clock: "_Clock",
    journal: Journal | None,
) -> Compression:
    groups = prunable(network, settings.scope)
    clock.lap("read")
    first = inputs[: STRATEGIES[settings.compensation].images]
    statistics = _observe(network, first, groups, settings, told)
    clock.lap("observe")
    found = _look(settings.recipe, Inquiry(network, inputs, labels, tuple(groups), statistics, random))
    evidence = [evidence_of(network, statistics, group, found.get(group.name)) for group in groups]
    allocation = (journal.allocation() if journal else None) or _allocate(network, groups, evidence, settings)
    if journal is not None:
        journal.keep_allocation(allocation)
    clock.lap("allocate")
    compensated, choices = _select(network, first, evidence, statistics, allocation, settings, random, told, journal)
    clock.lap("select and compensate")
    surgery = shrink(compensated.network, compensated.kept)
    error = check_surgery(compensated.network, compensated.kept, surgery, inputs[:2].numpy())
    clock.lap("shrink and check")
    refined: tuple[str, ...] = ()
    if STRATEGIES[settings.compensation].network:
        schedule, descent = NetworkSchedule(), _torch_generator(random)
        told.stage("refine the network", schedule.steps)
        surgery, refined = refined_surgery(network, groups, surgery, inputs, schedule, descent, journal, told.step)
        if len(first) < len(inputs):
            refined = (*refined, f"channels and least squares, before it: from the first {len(first)} inputs")
        clock.lap("refine the network")
    state, notes = module_state(model, network, surgery)
    digest, rows = fingerprints(inputs)
    return Compression(
        original=network,
        compact=surgery.compact,
        channels=surgery.channels,
        kept=dict(compensated.kept),
        groups=group_reports(evidence, choices, compensated.layers),
        layers=compensated.layers,
        before=Cost.of(network),
        after=Cost.of(surgery.compact),
        settings=settings.as_json(),
        knob=allocation.knob,
        knob_meaning=allocation.meaning,
        surgery_error=error,
        samples=len(inputs),
        calibration_digest=digest,
        calibration_rows=rows,
        seconds=clock.seconds,
        state_dict=state,
        notes=(
            *notes,
            *refined,
            *doubts(rows, inputs),
            *([journal.said] if journal and journal.said else []),
        ),
    )


def prunable(network: Network, scope: str) -> tuple[ChannelGroup, ...]:
    """The groups that may lose channels.

    Raises:
        GroupingError: there are none in the scope; the message says why each group stays.
    """
    groups = channel_groups(network)
    found = tuple(g for g in groups if g.removable and g.consumers and (g.inner or scope == "all"))
    if not found:
        reasons = "; ".join(f"{g.name}: {g.reason or 'shared by several layers (scope=all)'}" for g in groups)
        raise GroupingError(f"nothing to prune in scope {scope!r}: {reasons}")
    return found


def _settings(
    keep: Mapping[str, float], recipe: str, compensation: str, scope: str, floor: Floor, round_to: int, batch: int,
    generator: Seed,
) -> tuple[Settings, np.random.Generator]:  # fmt: skip
    _one_of("recipe", recipe, (*RECIPES, *SPARSIFIERS))
    _one_of("compensation", compensation, COMPENSATIONS)
    _one_of("scope", scope, SCOPES)
    allowed_widths({}, floor if not isinstance(floor, Mapping) else {}, round_to)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is the number of inputs per timed call, an integer >= 1; got {batch!r}")
    seed, random = _random(generator)
    return Settings(budget_of(keep), RECIPES[recipe], compensation, scope, floor, round_to, batch, seed), random


def _random(generator: Seed) -> tuple[int | None, np.random.Generator]:
    if isinstance(generator, np.random.Generator):
        seed, random = None, generator
    elif isinstance(generator, torch.Generator):
        seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
        random = np.random.default_rng(seed)
    else:
        seed = 0 if generator is None else int(generator)
        if seed < 0:
            raise InputError(f"the seed must not be negative; got {seed}")
        random = np.random.default_rng(seed)
    return seed, random


def _sparsify(
    model: nn.Module | Network,
    calibration: Any,
    keep: Mapping[str, float],
    recipe: str,
    compensation: str,
    generator: Seed,
) -> Compression:
    """Single weights leave instead of channels."""
    share = weight_share(keep, recipe)
    seed, random = _random(generator)
    batches = as_batches(calibration)
    network = traced(model, batches)
    settings = {"keep": dict(keep), "recipe": recipe, "compensation": compensation, "seed": seed}
    return sparsify(
        model, network, calibration_inputs(network, batches), share=share, recipe=recipe, compensation=compensation,
        generator=random, settings=settings,
    )  # fmt: skip


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def traced(model: nn.Module | Network, batches: Sequence[object]) -> Network:
    """The model as a network; a module is traced on the first input.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, Network):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; give a torch module or a verify.network Network")
    from verify.network.read_export import trace

    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return trace(model, first_input(batches).to(dtype))


def _observe(
    network: Network, inputs: Tensor, groups: Sequence[ChannelGroup], settings: Settings, told: Progress
) -> Statistics:
    told.stage("observe", sum(len(group.consumers) for group in groups))
    images = len(inputs) if settings.recipe.sensitivity else min(GLANCE, len(inputs))
    return observe(network, inputs, groups, sensitivity_images=images, progress=told.step)


def _look(recipe: Recipe, inquiry: Inquiry) -> Mapping[str, Finding]:
    return recipe.look(inquiry) if recipe.look else {}


def _allocate(
    network: Network, groups: Sequence[ChannelGroup], evidence: Sequence[Evidence], settings: Settings
) -> Allocation:
    widths = allowed_widths({group.name: len(group.slots) for group in groups}, settings.floor, settings.round_to)

    def by_cost(cost: Callable[[Counts], Counts], budget: Budget) -> Allocation:
        return settings.recipe.allocate(evidence, cost, budget, widths)

    problem = Problem(network, groups, settings.budget, widths, by_cost, settings.batch)
    return BUDGETS[settings.budget.kind].meet(problem)


def _select(
    network: Network,
    inputs: Tensor,
    evidence: Sequence[Evidence],
    statistics: Statistics,
    allocation: Allocation,
    settings: Settings,
    random: np.random.Generator,
    told: Progress,
    journal: Journal | None,
) -> tuple[Compensated, dict[str, Choice]]:
    """Choose the slots, in advance or on the compressed network's statistics, and refit."""
    losing = [known for known in evidence if allocation.counts[known.group.name] < known.slots]
    strategy = STRATEGIES[settings.compensation]
    later = settings.recipe.sequential and strategy.solver is not None
    choices = {
        known.group.name: settings.recipe.select(known, allocation.counts[known.group.name], random)
        for known in losing
        if not (later and len(known.group.consumers) == 1)
    }
    fixed = {name: choice.kept for name, choice in choices.items()}
    if strategy.solver is None or not losing:
        left = uncompensated(network, statistics, [known.group for known in losing], choices)
        return (replace(left, network=reestimated(left.network, inputs)) if strategy.norms else left), choices

    def choose(group: ChannelGroup, views: Sequence[View]) -> tuple[int, ...]:
        known = replace(next(e for e in losing if e.group is group), views=tuple(views))
        choices[group.name] = settings.recipe.select(known, allocation.counts[group.name], random)
        return choices[group.name].kept

    groups = [known.group for known in losing]
    start = reweighted(network, groups, choices)
    extra = (*output_layers(network), *(_producers(groups) if strategy.producers else ()))
    told.stage("select and compensate", len(sites(network, groups, extra, fixed)))
    descent = _torch_generator(random) if strategy.polish == "refine" else None
    polish: Polish | None = Minimax(network) if strategy.polish == "minimax" else None
    if descent is not None:
        polish = Refiner(network, groups, Schedule(), descent)
    found = compensate(
        network, inputs, groups, fixed=fixed, choose=choose, start=start, extra=extra, solver=strategy.solver,
        polish=polish, memory=Notes(journal, random, choices, polish, descent), progress=told.step,
    )  # fmt: skip
    for sweep in range(1, strategy.sweeps):
        told.stage(f"sweep {sweep + 1}", len(found.layers))
        found = compensate(
            network, inputs, groups, fixed=found.kept, choose=choose, start=found.network, settled=True, extra=extra,
            solver=strategy.solver, progress=told.step,
        )  # fmt: skip
    return found, choices


def _torch_generator(random: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(random.integers(2**63 - 1)))


def _producers(groups: Sequence[ChannelGroup]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group.producers)


def module_state(
    model: nn.Module | Network, network: Network, surgery: Surgery
) -> tuple[dict[str, Tensor] | None, tuple[str, ...]]:
    if not isinstance(model, nn.Module):
        return None, ()
    plain = shrink(network, surgery.kept)  # of the module's own values; the refitted ones replace them
    try:
        return shrink_state_dict(model.state_dict(), network, plain, values=surgery.compact), ()
    except StateError as error:
        return None, (f"no state_dict for {type(model).__name__}: {error}",)


class _Clock:
    """Wall-clock seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
