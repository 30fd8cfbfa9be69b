"""Taylor importance: how much the loss would change, to first or second order, if a channel were removed.

    gates           I_m = mean over minibatches of ( dL/dz_m z_m )^2,  z = 1                      labels
    gate-free       I_m = mean over minibatches of ( sum_{s in P_m} dL/dw_s w_s )^2               labels
                    P_m: the rows of weight and bias of the layers that produce channel m
    second order    I_m = mean over minibatches of ( dL/dz_m - (1/2) d2L/dz_m^2 )^2               labels
    output          I_m = mean over inputs of || df/dz_m ||^2 = E_v ( d(v . f)/dz_m )^2           no labels (ours)

L is the mean cross-entropy of a minibatch; the square is taken per minibatch, over the summed parameters. Diagonal
second derivatives come from Rademacher probes v (H v) v, exact where the Hessian is diagonal. The last variant
estimates the squared change of the network's own output, with one random sign vector v per input.

Reference: Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning", CVPR 2019
(from the formulas only). Differences: one pass over given inputs instead of pruning between training steps.
Theory note: scores.md. Not claimed: any bound; Taylor expansions at z = 1 say little about z = 0 where L bends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from provable.channels import ChannelGroup
from provable.compensation.moments import Matrix
from provable.errors import CalibrationError
from provable.method import Method
from provable.selection.finding import Finding, Inquiry, Labels
from provable.sensitivity.gates import Gates
from verify.network.graph import Network
from verify.network.module import NetworkModule

BATCH = 32
"""Inputs per minibatch: the square is taken per minibatch, so this is part of the definition."""
PROBES = 4
"""Rademacher probes per minibatch of the second-order score."""
Estimate = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""(inputs, labels) of one minibatch -> one value per slot, for every group."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) of one minibatch -> the loss."""


def by_gates(inquiry: Inquiry) -> dict[str, Finding]:
    """First order on gates, with labels."""
    labels = inquiry.required_labels("taylor")
    gates = Gates(inquiry.network, inquiry.groups)
    return _findings(inquiry, [m.square() for m in gate_derivatives(gates, inquiry.inputs, labels)])


def by_parameters(inquiry: Inquiry) -> dict[str, Finding]:
    """First order on the producers' parameters, with labels."""
    labels = inquiry.required_labels("taylor-parameters")
    values = parameter_derivatives(inquiry.network, inquiry.groups, inquiry.inputs, labels)
    return _findings(inquiry, [m.square() for m in values])


def by_curvature(inquiry: Inquiry) -> dict[str, Finding]:
    """Second order on gates, with labels."""
    labels = inquiry.required_labels("taylor-second-order")
    gates = Gates(inquiry.network, inquiry.groups)
    found = removal_estimates(gates, inquiry.inputs, labels, _torch(inquiry.generator))
    return _findings(inquiry, [m.square() for m in found])


def by_output(inquiry: Inquiry) -> dict[str, Finding]:
    """First order of the network's own output; no labels."""
    gates = Gates(inquiry.network, inquiry.groups)
    found = output_derivatives(gates, inquiry.inputs, _torch(inquiry.generator))
    return _findings(inquiry, [m.square() for m in found])


def classification_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy; a network without classes is refused."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise CalibrationError(
            f"a cross-entropy needs outputs (classes,) with at least two classes; the network's have shape "
            f"{tuple(outputs.shape[1:])}: take taylor-output, which needs neither classes nor labels"
        )
    if int(labels.max()) >= outputs.shape[1]:
        raise CalibrationError(f"label {int(labels.max())} of a network with {outputs.shape[1]} classes")
    return functional.cross_entropy(outputs, labels)


def gate_derivatives(
    gates: Gates, inputs: Tensor, labels: Labels, *, batch: int = BATCH, loss: Loss = classification_loss
) -> list[Tensor]:
    """dL/dz per group: (minibatches, slots)."""

    def estimate(x: Tensor, y: Tensor) -> Sequence[Tensor]:
        opened = gates.open()
        return torch.autograd.grad(loss(gates.outputs(x, opened), y), opened)

    return _stacked(estimate, _minibatches(inputs, labels, batch))


def parameter_derivatives(
    network: Network, groups: Sequence[ChannelGroup], inputs: Tensor, labels: Labels, batch: int = BATCH
) -> list[Tensor]:
    """Sum over a slot's producing parameters of dL/dw w, per group: (minibatches, slots)."""
    module = NetworkModule(network)

    def estimate(x: Tensor, y: Tensor) -> Sequence[Tensor]:
        module.zero_grad()
        classification_loss(module(x), y).backward()  # type: ignore[no-untyped-call]
        return [_by_producers(network, module, group) for group in groups]

    return _stacked(estimate, _minibatches(inputs, labels, batch))


def removal_estimates(
    gates: Gates,
    inputs: Tensor,
    labels: Labels,
    generator: torch.Generator,
    *,
    batch: int = BATCH,
    probes: int = PROBES,
    loss: Loss = classification_loss,
) -> list[Tensor]:
    """dL/dz - (1/2) d2L/dz2, the second-order estimate of L(open) - L(closed): (minibatches, slots) per group."""

    def estimate(x: Tensor, y: Tensor) -> Sequence[Tensor]:
        opened = gates.open()
        slopes = torch.autograd.grad(loss(gates.outputs(x, opened), y), opened, create_graph=True)
        bends = [torch.zeros_like(z) for z in opened]
        for _ in range(probes):
            signs = [_signs(z.shape, generator) for z in opened]
            along = sum((s * v).sum() for s, v in zip(slopes, signs, strict=True))
            products = torch.autograd.grad(along, opened, retain_graph=True)  # type: ignore[arg-type]
            bends = [b + v * p / probes for b, v, p in zip(bends, signs, products, strict=True)]
        return [s.detach() - b / 2.0 for s, b in zip(slopes, bends, strict=True)]

    return _stacked(estimate, _minibatches(inputs, labels, batch))


def output_derivatives(gates: Gates, inputs: Tensor, generator: torch.Generator, batch: int = BATCH) -> list[Tensor]:
    """d(sum over inputs of v . f / sqrt(inputs))/dz with random signs v: (minibatches, slots) per group."""

    def estimate(x: Tensor, y: Tensor) -> Sequence[Tensor]:
        opened = gates.open()
        outputs = gates.outputs(x, opened)
        signs = _signs(outputs.shape, generator).to(outputs.dtype)
        return torch.autograd.grad((signs * outputs).sum() / len(x) ** 0.5, opened)

    return _stacked(estimate, _minibatches(inputs, np.zeros(len(inputs), dtype=np.int64), batch))


def moving_average(estimates: Tensor, momentum: float = 0.9) -> Tensor:
    """Exponential moving average over minibatches (minibatches, slots), as between training steps: the last value."""
    average = estimates[0]
    for estimate in estimates[1:]:
        average = momentum * average + (1.0 - momentum) * estimate
    return average


def _by_producers(network: Network, module: NetworkModule, group: ChannelGroup) -> Tensor:
    """Sum of gradient times value over the rows of the group's producers, per slot."""
    total = torch.zeros(len(group.slots))
    for producer in group.producers:
        node = network.node(producer)
        rows = [list(slot.positions[producer]) for slot in group.slots]
        for role in ("weight", "bias"):
            if role in node.parameters:
                parameter = module.parameter(node.parameters[role])
                product = parameter.detach() * _gradient(parameter)
                per_row = product.reshape(len(product), -1).sum(1)
                total += torch.stack([per_row[r].sum() for r in rows])
    return total


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _minibatches(inputs: Tensor, labels: Labels, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    target = torch.from_numpy(labels)
    for start in range(0, len(inputs), batch):
        yield inputs[start : start + batch], target[start : start + batch]


def _stacked(estimate: Estimate, minibatches: Iterator[tuple[Tensor, Tensor]]) -> list[Tensor]:
    rows = [estimate(x, y) for x, y in minibatches]
    return [torch.stack([row[g].detach() for row in rows]) for g in range(len(rows[0]))]


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).float() * 2.0 - 1.0


def _torch(generator: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))


def _findings(inquiry: Inquiry, importances: Sequence[Tensor]) -> dict[str, Finding]:
    means: Mapping[str, Matrix] = {
        group.name: found.double().mean(0).numpy() for group, found in zip(inquiry.groups, importances, strict=True)
    }
    return {name: Finding(scores) for name, scores in means.items()}


_SOURCE = "Molchanov, Mallya, Tyree, Frosio, Kautz, CVPR 2019, arXiv 1906.10771"
METHODS = tuple(
    Method(
        name=name, summary=summary, granularity="channel", when="after training", criterion="sensitivity", data=data,
        recovery="closed form", guarantee="none", reference=reference, cost=cost,
        use=f"provable compress --recipe {name}",
    )
    for name, summary, data, reference, cost in (
        ("taylor", "squared first-order change of the loss, on gates", "labelled", _SOURCE, "one backward pass"),
        ("taylor-parameters", "squared first-order change of the loss, gate-free, on the filters' parameters",
         "labelled", _SOURCE, "one backward pass"),
        ("taylor-second-order", "squared second-order change of the loss, on gates, diagonal Hessian by probes",
         "labelled", _SOURCE, f"1 + {PROBES} backward passes"),
        ("taylor-output", "squared first-order change of the network's own output", "unlabelled",
         f"label-free variant of this project, after {_SOURCE}", "one backward pass"),
    )
)  # fmt: skip
