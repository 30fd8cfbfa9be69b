"""CaP's binary structural search with step constraint: how many channels each layer may lose for a given accuracy.

    threshold <- start;  for each layer, bottom-up:
        threshold <- threshold - (start - lowest) / layers            an equal slice of the budget; slack carries over
        bisect the layer's sparsity in [0, most]: mask the last-ranked channels, compensate in closed form, score
        keep the sparsest network whose score is at least the threshold

Statistics and rankings come from the original network, once. Each trial is one least-squares solve and one scoring.
Afterwards the whole network is compensated again, layer by layer on its own compressed inputs, and kept if it scores
no worse (this project's addition).

Reference: Xie, Fu, Tian, Zhou, Chen, "Pruning with Compensation", 2021, arXiv 2108.13728; the search as in its public
code. Theory note: scores.md. Not claimed: anything about inputs the score has not seen; the score is an estimate, and
choosing by it makes it slightly optimistic.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from provable.answers import Answers
from provable.calibration import as_batches, calibration_inputs, calibration_labels
from provable.channels import ChannelGroup
from provable.compensation.consumers import kept_coordinates, readings
from provable.compensation.least_squares import fit
from provable.compensation.patches import parts
from provable.compensation.refit import PartFit, refitted
from provable.compensation.ridge import Chosen
from provable.compensation.sequential import LayerFit, compensate
from provable.errors import InputError
from provable.method import Method
from provable.observe import Statistics, observe
from provable.pipeline import module_state, prunable, traced
from provable.records import Compression, Cost
from provable.report import group_reports
from provable.selection.evidence import Choice, Evidence, evidence_of
from provable.selection.forward_selection import RIDGE, Ranking, explained, rank
from provable.surgery import check_surgery, shrink
from verify.network.graph import Network
from verify.network.module import NetworkModule

Score = Callable[[Network], float]
"""How good a network is; larger is better."""
BATCH = 256


@dataclass(frozen=True)
class Searched:
    """What the search did to one group.

    Attributes:
        group: its name.
        kept, total: slots after and before.
        explained: share of the variance of the consumers' targets that compensation explains.
        threshold: what the score had to reach.
        score: what it reached.
        trials: scorings.
        seconds: wall clock.
    """

    group: str
    kept: int
    total: int
    explained: float
    threshold: float
    score: float
    trials: int
    seconds: float


@dataclass(frozen=True)
class Structure:
    """The answer.

    Attributes:
        result: the compression.
        rows: one per group, in order.
        start, end: score of the original and of the compact network.
        seconds: wall clock of everything.
    """

    result: Compression
    rows: tuple[Searched, ...]
    start: float
    end: float
    seconds: float = field(default=0.0)

    def as_json(self) -> dict[str, Any]:
        """The content of search.json."""
        return {"version": 1, "start": self.start, "end": self.end, "groups": [asdict(row) for row in self.rows]}


@dataclass(frozen=True)
class _Remembered:
    """A score that is asked for once per candidate, whoever asks again."""

    score: Score
    answers: Answers

    def __call__(self, network: Network, name: str) -> float:
        if name not in self.answers.known:
            self.answers.keep(name, {"score": self.score(network)})
        return float(self.answers.known[name]["score"])

    def refused(self, name: str, threshold: float) -> bool:
        """Whether a candidate is known to score below the threshold."""
        return name in self.answers.known and not self.answers.known[name]["score"] >= threshold


def accuracy_of(inputs: Tensor, labels: Any) -> Score:
    """Share of inputs whose largest output is at the label."""
    target = torch.from_numpy(calibration_labels(labels, len(inputs)))
    return lambda network: float((winners(network, inputs) == target).double().mean())


def agreement_with(original: Network, inputs: Tensor) -> Score:
    """Share of inputs whose largest output is where the original's is; needs no labels."""
    target = winners(original, inputs)
    return lambda network: float((winners(network, inputs) == target).double().mean())


@torch.inference_mode()
def winners(network: Network, inputs: Tensor) -> Tensor:
    """Position of the largest output for every input."""
    module = NetworkModule(network)
    return torch.cat([module(inputs[i : i + BATCH]).flatten(1).argmax(1) for i in range(0, len(inputs), BATCH)])


def structural_search(
    model: nn.Module | Network,
    calibration: Any,
    score: Score,
    *,
    lowest: float,
    most: float = 0.9,
    steps: int = 6,
    scope: str = "inner",
    progress: Callable[[Searched], object] = lambda row: None,
    answers: Answers | None = None,
) -> Structure:
    """Search the structure.

    Args:
        model: the original.
        calibration: unlabelled inputs for the statistics; the score must use others.
        score: of a network with the original's inputs and outputs.
        lowest: the score that may just be reached.
        most: largest share of a layer's channels that may leave, in (0, 1).
        steps: bisections per layer.
        scope: as in `compress`.
        progress: told of every layer.
        answers: scores that an interrupted search found out, to be continued; made with the same arguments.

    Raises:
        InputError: the original scores below `lowest`, or an argument is out of range.
    """
    began = time.perf_counter()
    if not 0.0 < most < 1.0 or steps < 1:
        raise InputError(f"most is a share in (0, 1) and steps at least 1; got {most:g} and {steps}")
    batches = as_batches(calibration)
    network = traced(model, batches)
    inputs = calibration_inputs(network, batches)
    groups = prunable(network, scope)
    statistics = observe(network, inputs, groups, sensitivity_images=0)
    evidence = [evidence_of(network, statistics, group) for group in groups]
    remembered = _Remembered(score, answers or Answers(None))
    start = remembered(network, "original")
    if not start >= lowest:
        raise InputError(f"the original scores {start:g}, which is below the lowest score allowed, {lowest:g}")
    search = _Search(network, statistics, groups, remembered, most, steps)
    slice_ = (start - lowest) / len(groups)
    for index, known in enumerate(evidence):
        progress(search.one(known, start - slice_ * (index + 1), start))
    kept, layers, compact = search.finished(inputs, evidence)
    surgery = shrink(compact, kept)
    error = check_surgery(compact, kept, surgery, inputs[:2].numpy())
    state, notes = module_state(model, network, surgery)
    choices = {name: Choice(slots, None, method="structural search") for name, slots in kept.items()}
    result = Compression(
        original=network, compact=surgery.compact, channels=surgery.channels, kept=kept,
        groups=group_reports(evidence, choices, layers), layers=layers,
        before=Cost.of(network),
        after=Cost.of(surgery.compact),
        settings={"recipe": "cap", "lowest": lowest, "most": most, "steps": steps, "scope": scope},
        knob=lowest, knob_meaning="lowest score allowed", surgery_error=error, samples=statistics.samples,
        calibration_digest=statistics.digest, calibration_rows=statistics.rows,
        seconds={"search": time.perf_counter() - began}, state_dict=state, notes=notes,
    )  # fmt: skip
    return Structure(result, tuple(search.rows), start, search.reached, time.perf_counter() - began)


class _Search:
    """The network as far as it is settled."""

    def __init__(
        self,
        network: Network,
        statistics: Statistics,
        groups: Sequence[ChannelGroup],
        score: _Remembered,
        most: float,
        steps: int,
    ) -> None:
        self.original, self.current, self.statistics, self.groups = network, network, statistics, groups
        self.score, self.most, self.steps = score, most, steps
        self.kept: dict[str, tuple[int, ...]] = {}
        self.layers: dict[str, LayerFit] = {}
        self.rows: list[Searched] = []
        self.reached = float("nan")

    def one(self, known: Evidence, threshold: float, start: float) -> Searched:
        """Settle one group: the sparsest trial whose score reaches the threshold."""
        began, ranking = time.perf_counter(), rank(known.views)
        low, high, best = 0.0, self.most, known.slots
        self.reached = self.reached if self.rows else start
        tried: dict[int, bool] = {known.slots: True}
        for _ in range(self.steps):
            middle = (low + high) / 2.0
            count = max(1, known.slots - int(middle * known.slots))
            if count not in tried:
                tried[count] = self._accepted(known, ranking, count, threshold)
            best = min(best, count) if tried[count] else best
            low, high = (middle, high) if tried[count] else (low, middle)
        loss = float(ranking.losses[best]) if known.views else 0.0
        share = explained(sum(v.scale * v.regression.total for v in known.views), loss if best < known.slots else 0.0)
        seconds = time.perf_counter() - began
        row = Searched(
            known.group.name, best, known.slots, share, threshold, self.reached, len(tried) - 1, seconds
        )  # fmt: skip
        self.rows.append(row)
        return row

    def _accepted(self, known: Evidence, ranking: Ranking, count: int, threshold: float) -> bool:
        """Whether the group may keep only `count` slots; if so, that becomes the current network."""
        name = known.group.name
        if self.score.refused(candidate := f"{name}: {count}", threshold):
            return False
        kept = {**self.kept, name: ranking.kept(count)}
        trial, layers = self._compensated(known.group, kept)
        found = self.score(trial, candidate)
        if not found >= threshold:
            return False
        self._settle(trial, kept, layers, found)
        return True

    def _settle(
        self, trial: Network, kept: dict[str, tuple[int, ...]], layers: Mapping[str, LayerFit], found: float
    ) -> None:
        self.current, self.kept, self.reached = trial, kept, found
        self.layers.update(layers)

    def _compensated(
        self, group: ChannelGroup, kept: Mapping[str, tuple[int, ...]]
    ) -> tuple[Network, dict[str, LayerFit]]:
        """The current network with the group's consumers refitted on the original's statistics."""
        network, layers, read = self.current, dict[str, LayerFit](), readings(self.groups)
        for consumer in group.consumers:
            known = self.statistics.consumers[consumer.node]
            fits = []
            for part, moments in zip(parts(network, network.node(consumer.node)), known.moments, strict=True):
                index = kept_coordinates(part, read[consumer.node], kept)
                fits.append(PartFit(part, index, Chosen(fit(moments.centred(), index, ridge=RIDGE), None)))
            network = refitted(network, known.target, fits)
            layers[consumer.node] = LayerFit(
                consumer.node, sum(f.chosen.fit.loss for f in fits), None, known.stream, RIDGE,
                known.moments[0].count, max(len(f.kept) for f in fits),
            )  # fmt: skip
        return network, layers

    def finished(
        self, inputs: Tensor, evidence: Sequence[Evidence]
    ) -> tuple[dict[str, tuple[int, ...]], tuple[LayerFit, ...], Network]:
        """Slots, fits and network at the end: compensated once more on compressed inputs where that scores no worse."""
        losing = [known.group for known in evidence if len(self.kept.get(known.group.name, ())) < known.slots]
        losing = [group for group in losing if group.name in self.kept]
        kept = {known.group.name: self.kept.get(known.group.name, tuple(range(known.slots))) for known in evidence}
        if losing:
            again = compensate(
                self.original, inputs, losing, fixed={g.name: kept[g.name] for g in losing}, choose=_nothing
            )
            found = self.score(again.network, "compensated once more")
            if found >= self.reached:
                self.reached = found
                return kept, again.layers, again.network
        return kept, tuple(self.layers.values()), self.current


def _nothing(group: ChannelGroup, views: Sequence[Any]) -> tuple[int, ...]:
    raise InputError(f"group {group.name!r} was to be chosen already")


def split(inputs: "np.ndarray[Any, Any]", share: float = 0.8) -> tuple[slice, slice]:
    """Rows for the statistics and rows for the score: the first and the last ones, at least one each.

    Raises:
        InputError: there are fewer than two inputs.
    """
    if len(inputs) < 2:
        raise InputError(f"{len(inputs)} inputs cannot be split into some for statistics and some to score with")
    border = min(max(int(share * len(inputs)), 1), len(inputs) - 1)
    return slice(0, border), slice(border, None)


METHODS = (
    Method(
        name="cap-search", summary="CaP's binary structural search with step constraint, down to a lowest accuracy",
        granularity="channel", when="after training", criterion="search", data="labelled", recovery="closed form",
        guarantee="none", reference="Xie, Fu, Tian, Zhou, Chen 2021, arXiv 2108.13728",
        cost="one pass for moments, up to 6 scorings per layer",
        use="provable compress --until accuracy=A --labels Y.npy",
    ),
)  # fmt: skip
