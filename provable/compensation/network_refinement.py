"""Refinement of the whole compact network at once, after least squares and surgery, towards the original's streams.

With the original's values v_k behind the layers that lost inputs (a residual network's sums behind their activations,
a plain network's pre-activations), the compact network's values u_k(theta) on the same images, and var_k the variance
of an element of v_k,

    minimise  mean over k of  mean || u_k(theta) - v_k ||^2 / var_k        theta: weights and biases in front of them

No labels, and no outputs: what is reproduced is what the layers read, not what the network decides. Every step goes
through all layers, so a layer also answers for what later layers make of its error, which no block-local fit sees.
Steps are Adam's in the eigenbases of the gradients' second moments (rotated_adam.py); a rate of r moves a tensor's
entries by about r times their root mean square per step, so one rate serves layers of any scale. Part of the images is
held out: the parameters with the smallest held-out objective are kept, the start included. Inputs (channels, height,
width) are shown mirrored in half of the steps, towards the original's values of the mirrored input; they are judged as
they came.

Reference: feature distillation from few unlabelled images as in Wang & Wu 2023 (Practical network acceleration with
tiny sets), there on the last stream alone. Theory: theory_notes/refinement.md. Not claimed: a global minimum, a bound
on other inputs, or that decisions agree better; that is measured, and certified by `verify`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from provable.channels import ChannelGroup
from provable.compensation.adam import half_cosine
from provable.compensation.minibatches import minibatches, split
from provable.compensation.rotated_adam import RotatedAdam
from provable.compensation.segment import TRAINABLE, segment_between
from provable.compensation.target import ancestors, target_of
from provable.room import pieces, room
from provable.surgery import Cut, Surgery
from verify.network.graph import Network
from verify.network.module import NetworkModule

CHUNK = 64
"""Images at a time where no gradient is taken."""
HELD = 384 << 20
"""Bytes of the original's values that are held: of more streams only some, evenly spaced, are aimed at."""
LOOKED_AT, JUDGED = 1024, 256
"""Inputs behind the variances, and the most that are held out to judge on."""
KIND = torch.bfloat16
"""How they are held for the steps: rounded by at most 1 / 256 of each value. Judging rounds nothing."""


@dataclass(frozen=True)
class NetworkSchedule:
    """How long and how fast.

    Attributes:
        steps: gradient steps.
        batch: images per step.
        rate: first learning rate, relative to every tensor's root mean square; it falls to zero as a half cosine.
        held_out: share of the images that is held out.
        checks: how often the held-out objective is measured, evenly over the steps.
        mirrored: whether images are shown mirrored, too.
    """

    steps: int = 600
    batch: int = 16
    rate: float = 2e-2
    held_out: float = 0.0625
    checks: int = 4
    mirrored: bool = True


@dataclass(frozen=True)
class Descent:
    """Where a descent stands.

    Attributes:
        step: steps taken.
        before, smallest: held-out objective of the start, and the smallest so far.
        tensors: "now.", "best." and the names of the descent's own state, each followed by a parameter's key.
    """

    step: int
    before: float
    smallest: float
    tensors: Mapping[str, Tensor]


class Checkpoints(Protocol):
    """Where a descent is kept, so that a killed run continues."""

    def descent(self) -> Descent | None:
        """What an earlier run left."""

    def keep_descent(self, descent: Descent) -> None:
        """A check is done."""


@dataclass(frozen=True)
class NetworkRefined:
    """The outcome.

    Attributes:
        network: with the smallest held-out objective.
        before, after: held-out objective of the start and of `network`.
        streams: the values that were aimed at, in network order.
        images: how many were held out.
    """

    network: Network
    before: float
    after: float
    streams: tuple[str, ...]
    images: int

    @property
    def sentence(self) -> str:
        """For the user."""
        return (
            f"the whole network was refined towards {len(self.streams)} values of the original: mean squared error "
            f"over their variance {self.before:.4g} -> {self.after:.4g} on {self.images} calibration images held out "
            "from the steps; the losses of layers are those before it"
        )


def streams_of(network: Network, groups: Sequence[ChannelGroup]) -> tuple[str, ...]:
    """The values to reproduce: behind every consumer of the groups, as the next layer reads them; in network order."""
    found = set[str]()
    for consumer in (consumer.node for group in groups for consumer in group.consumers):
        end = target_of(network, consumer).value
        found.add(segment_between(network, (consumer,), end).activation or end)
    return tuple(node.name for node in network if node.name in found)


def refined_surgery(
    original: Network,
    groups: Sequence[ChannelGroup],
    surgery: Surgery,
    inputs: Tensor,
    schedule: NetworkSchedule,
    generator: torch.Generator,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Surgery, tuple[str, ...]]:
    """The surgery with its compact network refined, and what to tell the user; as it was where nothing was removed.

    Args:
        original: the network before.
        groups: those that may have lost channels.
        surgery: what is left.
        inputs, schedule, generator, checkpoints, progress: see `refine_network`.
    """
    losing = [group for group in groups if surgery.removed[group.name]]
    if not losing:
        return surgery, ()
    found = refine_network(
        original, surgery.compact, surgery.values, streams_of(original, losing), inputs, schedule, generator,
        checkpoints, progress,
    )  # fmt: skip
    return replace(surgery, compact=found.network), (found.sentence,)


@torch.enable_grad()
def refine_network(
    original: Network,
    compact: Network,
    cuts: Mapping[str, Cut],
    streams: Sequence[str],
    inputs: Tensor,
    schedule: NetworkSchedule,
    generator: torch.Generator,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> NetworkRefined:
    """Descend from the compact network's parameters.

    Args:
        original: what to reproduce.
        compact: the start; node names are the original's.
        cuts: value -> positions of the original's that the compact network has.
        streams: names of the values to reproduce, at least one.
        inputs: (samples, *input_shape) float32.
        schedule: steps and rates.
        generator: draws the batches; the same state gives the same result.
        checkpoints: taken up and kept, if given.
        progress: told of every step, those of an earlier run included.
    """
    fitted, judged = split(len(inputs), min(schedule.held_out, JUDGED / len(inputs)), generator)
    batches = minibatches(torch.arange(len(fitted)), schedule.batch, schedule.steps, generator)
    views = [_view(inputs, fitted, mirrored) for mirrored in range(1 + (schedule.mirrored and inputs.dim() == 4))]
    turns = torch.randint(len(views), (schedule.steps,), generator=generator).tolist()
    streams = _affordable(original, streams, len(views) * len(fitted))
    aims = [_aims(original, cuts, streams, view, KIND) for view in views]
    judges = _aims(original, cuts, streams, inputs[judged], torch.float32)
    weights = {name: 1.0 / (_variance(aim) or 1.0) for name, aim in aims[0].items()}
    module = NetworkModule(compact)
    moving = _moving(compact, module, streams)
    adam = RotatedAdam(tuple(moving.values()), _root_mean_squares(tuple(moving.values())))

    @torch.no_grad()
    def judge() -> float:
        total = 0.0
        for piece in torch.split(torch.arange(len(judged)), CHUNK):
            found = module.values(_fast(inputs[judged[piece]]), streams)
            parts = [(found[name] - judges[name][piece]).square().mean() * weights[name] for name in streams]
            total += float(torch.stack(parts).mean().double()) * len(piece)
        return total / len(judged)

    known = checkpoints.descent() if checkpoints else None
    if known is None:
        before = smallest = judge()
        best, begin = _copied(moving), 0
    else:
        before, smallest, begin = known.before, known.smallest, known.step
        best = _restored(known, moving, adam)
    for step in range(begin):
        progress(f"step {step + 1}")
    for step, batch in list(enumerate(batches))[begin:]:
        found = module.values(_fast(views[turns[step]][batch]), streams)
        slopes = _slopes(found, aims[turns[step]], batch, weights)
        gradients = torch.autograd.grad(
            [found[name] for name in slopes], adam.parameters, list(slopes.values()),
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        adam.step(gradients, half_cosine(schedule.rate, step, schedule.steps))
        if (step + 1) % max(1, schedule.steps // schedule.checks) == 0 or step + 1 == schedule.steps:
            now = judge()
            if now < smallest:
                smallest, best = now, _copied(moving)
            if checkpoints is not None:
                checkpoints.keep_descent(_descent(step + 1, before, smallest, moving, best, adam))
        progress(f"step {step + 1}")
    arrays = {key: np.ascontiguousarray(v.numpy()).astype(compact.parameters[key].dtype) for key, v in best.items()}
    return NetworkRefined(compact.with_parameters(arrays), before, smallest, tuple(streams), len(judged))


@torch.no_grad()
def _slopes(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], chosen: Tensor, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """The objective's derivatives by the streams; taken by hand, its value is not needed in a step."""
    return {
        name: (value - wanted[name][chosen]).mul_(2.0 * weights[name] / (value.numel() * len(found)))
        for name, value in found.items()
        if value.requires_grad
    }


def _affordable(network: Network, streams: Sequence[str], samples: int) -> tuple[str, ...]:
    """As many of the streams as may be held, evenly spaced, the last one among them."""
    shapes = {node.name: node.shape for node in network}
    stride = 1
    while sum(KIND.itemsize * samples * int(np.prod(shapes[name])) for name in streams[::-1][::stride]) > HELD:
        if stride >= len(streams):
            break
        stride += 1
    return tuple(streams[::-1][::stride][::-1])


@torch.no_grad()
def _aims(
    original: Network, cuts: Mapping[str, Cut], streams: Sequence[str], inputs: Tensor, kind: torch.dtype
) -> dict[str, Tensor]:
    """The original's values, as far as the compact network has them."""
    module, found = NetworkModule(original), dict[str, Tensor]()
    for start in range(0, len(inputs), CHUNK):
        for name, value in module.values(_fast(inputs[start : start + CHUNK]), streams).items():
            cut = cuts.get(name)
            kept = value if cut is None else value.index_select(cut.axis + 1, torch.tensor(cut.kept))
            if name not in found:  # written in place: pieces that are joined later take their room twice
                found[name] = _laid_out((len(inputs), *kept.shape[1:]), kind)
            found[name][start : start + CHUNK] = kept
    return {name: found[name] for name in streams}


def _view(inputs: Tensor, chosen: Tensor, mirrored: int) -> Tensor:
    """The chosen inputs, mirrored or as they are."""
    view = room((len(chosen), *inputs.shape[1:]))
    for piece in pieces(len(chosen), tuple(inputs.shape[1:])):
        view[piece] = inputs[chosen[piece]].flip(-1) if mirrored else inputs[chosen[piece]]
    return view


def _laid_out(shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """Room with channels last, where convolutions like it."""
    if len(shape) != 4:
        return room(shape, kind)
    return room((shape[0], *shape[2:], shape[1]), kind).permute(0, 3, 1, 2)


def _variance(aim: Tensor) -> float:
    """Over the first images, averaged over elements."""
    some = torch.split(aim[:LOOKED_AT], 1, 1)
    return float(torch.stack([part.float().var(0, unbiased=False).mean() for part in some]).mean())


def _moving(compact: Network, module: NetworkModule, streams: Sequence[str]) -> dict[str, Tensor]:
    """Parameters of affine nodes in front of the streams, under their keys, laid out for speed."""
    reached = frozenset[str]().union(*(ancestors(compact, name) for name in streams))
    roles = [(node, role, key) for node in compact for role, key in node.parameters.items()]
    fixed = {key for node, role, key in roles if role not in TRAINABLE.get(node.op, ()) or node.name not in reached}
    moving = dict[str, Tensor]()
    for key in dict.fromkeys(key for _, _, key in roles if key not in fixed):
        parameter = module.parameter(key)
        parameter.data = _fast(parameter.data)
        moving[key] = parameter
    return moving


def _fast(tensor: Tensor) -> Tensor:
    """Channels last, where convolutions like it."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _root_mean_squares(tensors: Sequence[Tensor]) -> list[float]:
    """Of each tensor's entries; a tensor of zeros takes the smallest of the others."""
    found = [float(tensor.detach().double().square().mean().sqrt()) for tensor in tensors]
    return [value or min((v for v in found if v), default=1.0) for value in found]


def _copied(moving: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in moving.items()}


def _descent(
    step: int,
    before: float,
    smallest: float,
    moving: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    adam: RotatedAdam,
) -> Descent:
    tensors = {f"now.{key}": value.detach() for key, value in moving.items()}
    tensors |= {f"best.{key}": value for key, value in best.items()}
    tensors |= {f"{kind}.{key}": v for key, state in _states(moving, adam) for kind, v in state.items()}
    return Descent(step, before, smallest, tensors)


def _states(moving: Mapping[str, Tensor], adam: RotatedAdam) -> list[tuple[str, Mapping[str, Tensor]]]:
    return list(zip(moving, adam.states(), strict=True))


@torch.no_grad()
def _restored(known: Descent, moving: Mapping[str, Tensor], adam: RotatedAdam) -> dict[str, Tensor]:
    """Put everything back; returns the best parameters."""
    adam.steps = known.step
    for key, value in moving.items():
        value.copy_(known.tensors[f"now.{key}"])
    for key, state in _states(moving, adam):
        for kind, value in state.items():
            value.copy_(known.tensors[f"{kind}.{key}"])
    return {key: known.tensors[f"best.{key}"] for key in moving}
