"""Structured probabilistic pruning: every group of weights has a probability of being pruned, which rises and falls.

every `period` steps, with r the rank of a group's L1 norm (ascending) and m groups still to be pruned in its layer
    alpha = (ln 2 - ln u) / m,   N = -ln(u) / alpha
    Delta(r) = A e^{-alpha r} for r <= N,   2 u A - A e^{-alpha (2N - r)} beyond        (0 at r = m, negative after it)
    p <- clip(p + Delta(r), 0, 1);   a group at p = 1 is zero for good
every step a group is masked with probability p; gradients of the masked model move the dense weights, so that a group
pruned by chance recovers.

    pruner = SPP(model, ratio=0.5, steps=2000, generator=torch.Generator().manual_seed(0))
    ...optimizer.step(); pruner.step()...
    model = pruner.finish()

Reference: Wang et al., Structured Probabilistic Pruning, BMVC 2018. Theory: theory_notes/training.md. Groups:
"column" of the im2col matrix, "row" (filter), "channel" (all weights that read one input channel). Not claimed: that
ranks settle in time.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from provable.errors import ScheduleError, TargetError
from provable.training.masks import Layer, attach, bake, dense_weight, layers_of
from provable.training.serve import clock

KINDS = ("column", "row", "channel")


class ProbabilisticGroups(nn.Module):
    """Parametrisation: the weight with this step's groups masked; its gradient reaches every group that is not gone.

    Buffers:
        probability: p per group, 1 for groups that are gone.
        drawn: 1 where the group takes part in this step.
    """

    probability: Tensor
    drawn: Tensor

    def __init__(self, shape: Sequence[int], kind: str, ratio: float) -> None:
        super().__init__()
        out, inputs, *kernel = shape
        views = {"column": (1, inputs, *kernel), "row": (out,) + (1,) * (len(shape) - 1)}
        self.view = views.get(kind, (1, inputs, *[1] * len(kernel)))
        groups = math.prod(self.view)
        self.target = round(ratio * groups)
        if not 0 < self.target < groups:
            raise TargetError(f"{ratio!r} of the {groups} groups ({kind}) of a weight {tuple(shape)} is {self.target}")
        self.register_buffer("probability", torch.zeros(groups, dtype=torch.float64))
        self.register_buffer("drawn", torch.ones(groups))

    @property
    def remaining(self) -> int:
        """Groups still to be pruned."""
        return self.target - int((self.probability >= 1).sum())

    def forward(self, weight: Tensor) -> Tensor:
        """In training masked by this step's draw, in evaluation by the groups that are gone."""
        alive = (self.probability < 1).to(weight).view(self.view)
        living = torch.where(alive.bool(), weight, torch.zeros_like(weight))
        if not self.training:
            return living
        masked = (living * self.drawn.to(weight).view(self.view)).detach()
        return masked + (living - living.detach())

    def norms(self, weight: Tensor) -> Tensor:
        """L1 norm of every group."""
        over = [axis for axis, size in enumerate(self.view) if size == 1]
        size: Tensor = weight.detach().abs().sum(dim=over) if over else weight.detach().abs()
        return size.flatten()

    def update(self, weight: Tensor, step: float, knee: float) -> None:
        """Move the probabilities by the ranks of the groups that are left."""
        left = torch.nonzero(self.probability < 1).flatten()
        if self.remaining < 1:
            return
        order = self.norms(weight)[left].argsort(stable=True)
        delta = torch.from_numpy(increments(np.arange(len(left)), self.remaining, step, knee)).to(self.probability)
        moved = left[order]
        self.probability[moved] = (self.probability[moved] + delta).clamp(0.0, 1.0)
        if self.remaining == 0:  # nothing is left to chance
            self.probability[self.probability < 1] = 0.0

    def draw(self, generator: torch.Generator) -> None:
        """A new mask: each group is left out with its probability."""
        uniform = torch.rand(len(self.drawn), generator=generator, device=generator.device, dtype=torch.float64)
        self.drawn.copy_(uniform.to(self.probability) >= self.probability)


class SPP:
    """Pruning probabilities on a model, and their schedule.

    Args:
        model: changed in place.
        ratio: R, share of the groups of every layer that go.
        steps: the training steps available; `finish` refuses before all layers are done.
        period: t, steps between updates of the probabilities.
        step, knee: A and u.
        kind: "column", "row" or "channel".
        generator: for the masks.
        layers: names; default all linear and convolution layers.

    Raises:
        TargetError: options out of range, or a layer for which the ratio is no group, or all of them.
        ScheduleError: so few updates fit into the steps that no probability can reach 1.
        TrainingError: unknown or busy layers.
    """

    def __init__(
        self,
        model: nn.Module,
        ratio: float,
        steps: int,
        *,
        generator: torch.Generator,
        period: int = 180,
        step: float = 0.05,
        knee: float = 0.25,
        kind: str = "column",
        layers: Sequence[str] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise TargetError(f"kind is one of {', '.join(KINDS)}; got {kind!r}")
        if not (0 < ratio < 1 and 0 < step <= 1 and 0 < knee < 1 and period >= 1):
            raise TargetError(
                f"need 0 < ratio < 1, 0 < step <= 1, 0 < knee < 1 and period >= 1; got ratio {ratio!r}, step {step!r}, "
                f"knee {knee!r}, period {period!r}"
            )
        if steps // period * step < 1:
            raise ScheduleError(
                f"{steps} steps with an update every {period} by at most {step:g} never bring a probability to 1; take "
                f"at least {math.ceil(1 / step) * period} steps"
            )
        self._model, self._period, self._step, self._knee = model, period, step, knee
        self._generator, self._time = generator, 0
        self._layers = layers_of(model, layers)

        def make(name: str, layer: Layer) -> ProbabilisticGroups:
            return ProbabilisticGroups(layer.weight.shape, kind, ratio).to(layer.weight.device)

        self.groups = attach(self._layers, make)

    @property
    def done(self) -> bool:
        """Whether every layer has lost its groups."""
        return all(g.remaining == 0 for g in self.groups.values())

    def step(self) -> None:
        """After every step of the optimiser: update the probabilities when due, and draw the next masks."""
        self._time += 1
        for name, groups in self.groups.items():
            if self._time % self._period == 0:
                groups.update(dense_weight(self._layers[name]), self._step, self._knee)
            groups.draw(self._generator)

    def finish(self) -> nn.Module:
        """The model without its pruned groups, and no trace of the method; then retrain.

        Raises:
            ScheduleError: a layer still has groups to lose.
        """
        left = {name: g.remaining for name, g in self.groups.items() if g.remaining}
        if left:
            name, count = next(iter(left.items()))
            raise ScheduleError(f"after {self._time} steps layer {name!r} still has {count} groups to lose; train on")
        return bake(self._model, ProbabilisticGroups)

    def state_dict(self) -> dict[str, int]:
        """The clock; probabilities and masks are in the model's state_dict."""
        return {"time": self._time}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            TrainingError: the state of something else.
        """
        self._time = int(*clock("SPP", state, "time"))


def increments(ranks: NDArray[np.int64], remaining: int, step: float = 0.05, knee: float = 0.25) -> NDArray[np.float64]:
    """Delta of each rank with `remaining` groups to prune: positive below that rank, 0 at it, negative above."""
    alpha = (math.log(2) - math.log(knee)) / remaining
    centre = -math.log(knee) / alpha
    falling = step * np.exp(-alpha * np.minimum(ranks, centre))
    mirrored = 2 * knee * step - step * np.exp(np.minimum(-alpha * (2 * centre - np.maximum(ranks, centre)), 50.0))
    return np.where(ranks <= centre, falling, mirrored)
