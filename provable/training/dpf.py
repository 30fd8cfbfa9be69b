"""Dynamic pruning with feedback: gradients of the pruned model move the dense one, so that pruned weights can return.

    w~_t = m_t w_t,   g = grad f(w~_t),   w_{t+1} = w_t - lr g
    sparsity(t) = s_f + (s_i - s_f) (1 - (t - t0) / T)^3;   the mask (largest |w|) is recomputed every `period` steps

    pruner = DPF(model, sparsity=0.9, steps=1000)
    ...optimizer.step(); pruner.step()...
    model = pruner.finish()

Reference: Lin et al., Dynamic Model Pruning with Feedback, ICLR 2020; the cubic schedule is this project's choice.
Theory: theory_notes/training.md. Checkpoint: the masks are in the model's state_dict, the clock in the pruner's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from provable.errors import ScheduleError, TargetError
from provable.training.masks import attach, bake, dense_weight, exactly_top, layers_of
from provable.training.serve import clock


class FeedbackMask(nn.Module):
    """Parametrisation: the masked weight; its gradient reaches the dense weight as it is."""

    mask: Tensor

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """Value m w, derivative 1."""
        masked = torch.where(self.mask.bool(), weight, torch.zeros_like(weight)).detach()
        return masked + (weight - weight.detach())


class DPF:
    """The masks of a model and their schedule.

    Args:
        model: changed in place: weights of the chosen layers are masked from now on.
        sparsity: final share of zero weights over the chosen layers.
        steps: T, over how many steps the sparsity grows.
        begin: t0, the step at which it starts.
        initial: s_i.
        period: steps between recomputed masks.
        scope: "global" ranks the weights of all layers together, "layer" within each.
        layers: names; default all linear and convolution layers.

    Raises:
        TargetError: sparsities out of range or order.
        ScheduleError: steps, begin or period that cannot be a schedule.
        TrainingError: unknown or busy layers.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float,
        steps: int,
        *,
        begin: int = 0,
        initial: float = 0.0,
        period: int = 16,
        scope: str = "global",
        layers: Sequence[str] | None = None,
    ) -> None:
        if not 0 <= initial <= sparsity < 1:
            raise TargetError(f"need 0 <= initial <= sparsity < 1, got initial {initial!r} and sparsity {sparsity!r}")
        if steps < 1 or begin < 0 or period < 1:
            raise ScheduleError(f"need steps >= 1, begin >= 0, period >= 1; got {steps!r}, {begin!r}, {period!r}")
        if scope not in ("global", "layer"):
            raise TargetError(f"scope is 'global' or 'layer', got {scope!r}")
        self._model, self._final, self._initial = model, sparsity, initial
        self._begin, self._steps, self._period, self._scope = begin, steps, period, scope
        self._layers = layers_of(model, layers)
        self._refuse_nothing_left()
        self._masks = attach(self._layers, lambda name, layer: FeedbackMask(layer.weight.shape).to(layer.weight.device))
        self._time, self._reached = 0, self._initial

    def _refuse_nothing_left(self) -> None:
        sizes = {name: layer.weight.numel() for name, layer in self._layers.items()}
        together = {", ".join(sizes): sum(sizes.values())} if self._scope == "global" else sizes
        for names, size in together.items():
            if round(self._final * size) == size:
                raise TargetError(f"sparsity {self._final!r} leaves none of the {size} weights of {names}; take less")

    def sparsity(self, time: int) -> float:
        """What the schedule asks for after that many steps."""
        left = 1.0 - min(max(time - self._begin, 0) / self._steps, 1.0)
        return self._final + (self._initial - self._final) * left**3

    @property
    def done(self) -> bool:
        """Whether the masks have the final sparsity."""
        return self._reached == self._final and self._time >= self._begin + self._steps

    def step(self) -> None:
        """After every step of the optimiser; at multiples of the period the masks are recomputed."""
        self._time += 1
        if self._time % self._period == 0 and self._time >= self._begin:
            self._reached = self.sparsity(self._time)
            self._remask()

    @torch.no_grad()
    def _remask(self) -> None:
        sizes = [dense_weight(layer).abs() for layer in self._layers.values()]
        if self._scope == "global":
            flat = torch.cat([s.flatten() for s in sizes])
            parts = list(torch.split(exactly_top(flat, self._staying(len(flat))), [s.numel() for s in sizes]))
        else:
            parts = [exactly_top(s.flatten(), self._staying(s.numel())) for s in sizes]
        for made, part in zip(self._masks.values(), parts, strict=True):
            made.mask.copy_(part.view_as(made.mask))

    def _staying(self, size: int) -> int:
        return size - round(self._reached * size)

    def finish(self) -> nn.Module:
        """The model with the masked weights as its weights, and no trace of the method.

        Raises:
            ScheduleError: the final sparsity has not been reached.
        """
        if not self.done:
            end = self._begin + self._steps
            end += -end % self._period
            raise ScheduleError(
                f"after {self._time} steps the sparsity is {self._reached:.4g}, not {self._final:g}; the schedule ends "
                f"after {end} steps"
            )
        return bake(self._model, FeedbackMask)

    def state_dict(self) -> dict[str, float]:
        """The clock; the masks are in the model's."""
        return {"time": self._time, "reached": self._reached}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            TrainingError: the state of something else.
        """
        time, self._reached = clock("DPF", state, "time", "reached")
        self._time = int(time)
