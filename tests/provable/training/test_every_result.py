"""Every method, in a loop of its own: its result ends in the surgery, is smaller, is written, and goes to `verify`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from provable.catalogue import methods
from provable.channels import channel_groups
from provable.records import Compression
from provable.training import (
    CSGD,
    DJPQ,
    DPF,
    DPP,
    GSM,
    SPP,
    Adaptive,
    PrivateADMM,
    ResidualGate,
    Synthetic,
    collapse_plan,
    remove_idle,
    trim,
)
from verify import read_onnx
from verify.formal.deviation import verify_deviation
from verify.network.read_export import trace
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.statistical.certificate import certify_sample

IMAGES = torch.randn(32, 1, 4, 4, generator=torch.Generator().manual_seed(1))
EXAMPLE = IMAGES[:1]


def network() -> nn.Sequential:
    """A convolution, a block that may be closed, and two linear layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = ResidualGate(
            nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)),
            nn.Identity(), nn.ReLU(),
        )  # fmt: skip
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), block, nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        )


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def loop(
    model: nn.Module,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    penalty: Callable[[], torch.Tensor] = lambda: torch.zeros(()),
    after: Callable[[], None] = lambda: None,
) -> None:
    """A user's own."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(IMAGES), IMAGES[:, 0, 0, :3].argmax(1)) + penalty()).backward()
        optimizer.step()
        after()


def csgd() -> Compression:
    model = network()
    original = trace(model, EXAMPLE)
    groups = [g for g in channel_groups(original) if g.removable]
    plan = collapse_plan(original, groups, 0.5, generator=np.random.default_rng(0))
    loop(model, 60, CSGD(model.named_parameters(), plan, lr=0.05, strength=8.0, momentum=0.0))
    return trim(model.eval(), plan, EXAMPLE)


def gsm() -> Compression:
    model = network()
    optimizer = GSM(model.named_parameters(), lr=0.02, nonzero_ratio=0.02)
    loop(model, 5, optimizer)
    optimizer.prune()
    return remove_idle(model.eval(), EXAMPLE)


def dpf() -> Compression:
    model = network()
    pruner = DPF(model, sparsity=0.97, steps=4, period=2)
    loop(model, 4, after=pruner.step)
    return remove_idle(pruner.finish().eval(), EXAMPLE)


def dpp() -> Compression:
    model = network()
    pruner = DPP(model, 2, "filter", 3, generator=noise(), layers=["2.branch.2", "6"])
    loop(model, 3, penalty=pruner.regulariser, after=pruner.step)
    return remove_idle(pruner.finish().eval(), EXAMPLE)


def spp() -> Compression:
    model = network()
    pruner = SPP(model, 0.5, 100, period=1, step=0.5, generator=noise(), kind="channel", layers=["2.branch.2", "6"])
    while not pruner.done:
        loop(model, 1, after=pruner.step)
    return remove_idle(pruner.finish().eval(), EXAMPLE)


def djpq() -> Compression:
    model = network()
    pruner = DJPQ(model, IMAGES, gamma=1e-3, beta=0.1, generator=noise())
    loop(model, 3, penalty=pruner.penalty)
    with torch.no_grad():
        for gate in pruner.gates.values():
            gate.mean[1] = 0.0  # as a gate that training has closed
    return remove_idle(pruner.finish().eval(), EXAMPLE)


def adaptive() -> Compression:
    model = network()
    pruner = Adaptive(model, EXAMPLE, 0.5, lam=50.0)
    loop(model, 3, penalty=pruner.penalty, after=pruner.step)
    with torch.no_grad():
        for share in pruner.shares.values():
            share.rho.fill_(-0.5)  # where training would get to
        for gate in (m for m in model if isinstance(m, ResidualGate)):
            gate.strength.fill_(0.0)
    return remove_idle(pruner.finish().eval(), EXAMPLE)


def private() -> Compression:
    pruner = PrivateADMM(network(), Synthetic((1, 4, 4), -1.0, 1.0), input_range=(-1.0, 1.0), connectivity=0.1,
                         layers=["2.branch.2"], iterations=3)  # fmt: skip
    while not pruner.done:
        pruner.step()
    return remove_idle(pruner.finish().eval(), EXAMPLE)


RESULTS = {
    "c-sgd": csgd, "gsm": gsm, "dpf": dpf, "dpp": dpp, "spp": spp, "djpq": djpq, "adaptive": adaptive,
    "privacy-admm": private,
}  # fmt: skip


def test_no_method_is_left_out() -> None:
    assert set(RESULTS) == {known.name for known in methods() if known.use.startswith("provable.training")}


@pytest.mark.parametrize("name", RESULTS)
def test_the_result_is_smaller_and_both_kinds_of_statement_are_made_about_its_files(name: str, tmp_path: Path) -> None:
    result = RESULTS[name]()
    assert result.after.parameters < result.before.parameters
    result.save(tmp_path / "out")
    original, compact = (read_onnx(tmp_path / "out" / f"{part}.onnx") for part in ("original", "compact"))
    box = Box.around(EXAMPLE.flatten().tolist(), 0.05)
    found = verify_deviation(
        original, compact, [box], epsilon=1e-3, channels=dict(result.channels), timeout=60.0,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert found.verdict is Verdict.PROVED
    certificate = certify_sample(
        original, compact, IMAGES.numpy(), metrics=["argmax"], confidence="0.99", margin="1e-4",
        population="normal noise", calibration_rows=[],
    )  # fmt: skip
    assert 0 < float(certificate.claims[0].bound) < 0.25
