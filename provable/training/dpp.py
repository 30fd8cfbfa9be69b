"""Dynamic probabilistic pruning: exactly k of n weights, kernels or channels, chosen by trained logits.

    forward     mask = the k largest of Phi + G per row, G Gumbel noise, fresh at every forward pass in training
    backward    sum_i softmax((Phi + log(1 - sum_{l<i} H_l + 1e-20) + G) / tau), H_l the l-th row chosen
    evaluation  the k largest of Phi

    pruner = DPP(model, keep=0.1, granularity="weight", steps=1000, generator=generator)
    optimizer = Adam(model.parameters())
    ...(loss + pruner.regulariser()).backward(); optimizer.step(); pruner.step()...
    model = pruner.finish()

Rows, and the n they choose from: "weight": the inputs of each neuron, or the positions inside each kernel; "kernel":
the kernels of each filter; "filter": the feature maps that the layer reads, one row for the layer, so that filters of
the layer before leave with them. Reference: Gonzalez-Carabarin et al., 2021. Theory: theory_notes/training.md.
Differences: layers read fewer feature maps, instead of the layer before writing fewer.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from provable.errors import ScheduleError, TargetError
from provable.training.masks import Layer, attach, bake, exactly_top, layers_of
from provable.training.serve import clock

HOT, COLD, SCALE = 1.0, 0.1, 5.0  # temperature: SCALE * (HOT falling linearly to COLD)
SPREAD = 0.5  # standard deviation of the logits at the start
GONE = 1e-20
NOTHING = -1e30  # the logarithm of 0, with a derivative


class ProbabilisticMask(nn.Module):
    """Parametrisation: the weight times a mask with exactly k ones per row."""

    def __init__(self, weight: Tensor, granularity: str, keep: float | int, generator: torch.Generator) -> None:
        super().__init__()
        self.view = _view(tuple(weight.shape), granularity)
        rows, n = _rows(tuple(weight.shape), granularity)
        self.k = _count(keep, n, tuple(weight.shape))
        start = torch.randn(rows, n, generator=generator, device=generator.device) * SPREAD
        self.logits = nn.Parameter(start.to(weight))
        self.temperature, self.noise, self._generator = SCALE * HOT, 1.0, generator

    def forward(self, weight: Tensor) -> Tensor:
        """Masked weight; the mask is drawn afresh in training mode."""
        return weight * self.mask().view(self.view)

    def mask(self) -> Tensor:
        """(rows, n) with exactly k ones per row and, in training mode, a gradient to the logits."""
        if not self.training:
            return exactly_top(self.logits, self.k).to(self.logits)
        noise = self.noise * self._gumbel()
        hard = exactly_top(self.logits + noise, self.k).to(self.logits)
        soft = self.relaxed(noise)
        return (hard - soft).detach() + soft

    def relaxed(self, noise: Tensor) -> Tensor:
        """Sum of k softmax rows, each without the ones chosen before; in one pass, not k.

        With e = exp(scores / tau), taken entries count g e, g = GONE^(1 / tau), in the i-th row, so that its sum is
        Z_i = (e not chosen) + (e chosen from i on) + g (e chosen before i): in logarithms, without differences.
        """
        scores = (self.logits + noise) / self.temperature
        order = scores.detach().topk(self.k, dim=-1).indices
        chosen, gone = scores.gather(-1, order), math.log(GONE) / self.temperature
        rest = scores.scatter(-1, order, NOTHING).logsumexp(-1, keepdim=True)
        sums = torch.logaddexp(torch.logaddexp(rest, _from(chosen)), gone + _before(chosen))
        inverse = -sums
        own = torch.logaddexp(inverse.logcumsumexp(-1), gone + _before(inverse.flip(-1)).flip(-1))
        return (scores + inverse.logsumexp(-1, keepdim=True)).scatter(-1, order, chosen + own).exp()

    def _gumbel(self) -> Tensor:
        uniform = torch.rand(self.logits.shape, generator=self._generator, device=self._generator.device)
        return -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7))).to(self.logits)


class DPP:
    """k-out-of-n masks on a model, and their temperature.

    Args:
        model: changed in place; give its parameters to the optimiser afterwards, the logits are among them.
        keep: k as a number, or as a share of each layer's n (rounded, at least 1).
        granularity: "weight", "kernel" or "filter".
        steps: over how many steps the temperature falls.
        generator: for the start and for the noise.
        layers: names; default all linear and convolution layers.

    Raises:
        TargetError: k is not between 1 and n, or a granularity that a layer does not have.
        ScheduleError: no steps.
        TrainingError: unknown or busy layers.
    """

    def __init__(
        self,
        model: nn.Module,
        keep: float | int,
        granularity: str,
        steps: int,
        *,
        generator: torch.Generator,
        layers: Sequence[str] | None = None,
    ) -> None:
        if steps < 1:
            raise ScheduleError(f"the temperature needs at least 1 step to fall, got {steps!r}")
        self._model, self._steps, self._time = model, steps, 0
        chosen = layers_of(model, layers)

        def make(name: str, layer: Layer) -> ProbabilisticMask:
            return ProbabilisticMask(layer.weight.detach(), granularity, keep, generator)

        self.masks = attach(chosen, make)

    def step(self) -> None:
        """After every step of the optimiser."""
        self._time += 1
        self._cool()

    def regulariser(self, weight: float = 5e-3) -> Tensor:
        """weight times the sum of the rows' entropies (nats): added to the loss it makes choices firm."""
        return weight * torch.stack([entropy(m.logits.softmax(-1)).sum() for m in self.masks.values()]).sum()

    def confidence(self) -> dict[str, float]:
        """Layer -> 1 - mean row entropy / log n: 0 undecided, 1 certain."""
        return {name: _confidence(m.logits.detach()) for name, m in self.masks.items()}

    def diversity(self) -> dict[str, float]:
        """Layer -> `diversity` of the masks used in evaluation."""
        return {name: diversity(exactly_top(m.logits.detach(), m.k).double() / m.k) for name, m in self.masks.items()}

    def finish(self) -> nn.Module:
        """The model with the masks of evaluation baked into its weights.

        Raises:
            ScheduleError: the temperature is still falling.
        """
        if self._time < self._steps:
            raise ScheduleError(f"step {self._time} of {self._steps}: the choices are still being cooled")
        return bake(self._model, ProbabilisticMask)

    def state_dict(self) -> dict[str, int]:
        """The clock; the logits are in the model's state_dict, the noise in the caller's generator."""
        return {"time": self._time}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            TrainingError: the state of something else.
        """
        self._time = int(*clock("DPP", state, "time"))
        self._cool()

    def _cool(self) -> None:
        left = HOT - (HOT - COLD) * min(self._time / self._steps, 1.0)
        for mask in self.masks.values():
            mask.temperature = SCALE * left


def _from(rows: Tensor) -> Tensor:
    """Logarithms of the sums of exp over every entry and all after it."""
    return rows.flip(-1).logcumsumexp(-1).flip(-1)


def _before(rows: Tensor) -> Tensor:
    """Logarithms of the sums of exp over all entries before each."""
    return torch.nn.functional.pad(rows.logcumsumexp(-1)[..., :-1], (1, 0), value=NOTHING)


def entropy(distributions: Tensor) -> Tensor:
    """Shannon entropy in nats of every row ``(..., n)``."""
    return -(distributions * distributions.clamp_min(1e-30).log()).sum(-1)


def diversity(distributions: Tensor) -> float:
    """Jensen-Shannon divergence of the rows ``(rows, n)`` over its largest value log(rows).

    0 if all rows are equal, 1 if no two rows share support.
    """
    rows = len(distributions)
    if rows < 2:
        return 0.0
    return float((entropy(distributions.mean(0)) - entropy(distributions).mean()) / math.log(rows))


def _confidence(logits: Tensor) -> float:
    n = logits.shape[-1]
    return 1.0 - float(entropy(logits.softmax(-1)).mean()) / math.log(n) if n > 1 else 1.0


def _rows(shape: tuple[int, ...], granularity: str) -> tuple[int, int]:
    """Number of rows, and n."""
    out, inputs, *kernel = shape
    if granularity == "weight":
        return (out * inputs, math.prod(kernel)) if kernel else (out, inputs)
    if granularity == "kernel" and kernel:
        return out, inputs
    if granularity == "filter":
        return 1, inputs
    raise TargetError(f"a layer with weight {shape} has no granularity {granularity!r}; take 'weight' or 'filter'")


def _view(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    out, inputs, *kernel = shape
    ones = [1] * len(kernel)
    return {"weight": shape, "kernel": (out, inputs, *ones)}.get(granularity, (1, inputs, *ones))


def _count(keep: float | int, n: int, shape: tuple[int, ...]) -> int:
    k = keep if isinstance(keep, int) else max(1, round(keep * n)) if 0 < keep <= 1 else 0
    if not 1 <= k <= n:
        raise TargetError(
            f"a layer with weight {shape} chooses among {n}; it cannot keep {keep!r} of them: give a number from 1 to "
            f"{n}, or a share in (0, 1]"
        )
    return k
