"""Lifts that say something else than the networks: the bounds are wider, and never below what is attained."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verify.audit import Verdict, audit
from verify.certificate.emit import emit_certificate
from verify.certificate.record import Correspondence
from verify.network.evaluate import evaluate
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf


def network(rng: np.random.Generator, noise: float, residual: bool) -> Network:
    """Two layers of four units; the weights of all draws differ by `noise` only."""
    fixed = np.random.default_rng(1)
    shapes = {"w1": (4, 2), "b1": (4,), "w2": (4, 4), "b2": (4,), "w3": (2, 4)}
    weights = {k: (fixed.normal(size=s) + noise * rng.normal(size=s)).astype(np.float32) for k, s in shapes.items()}
    steps: list[Any] = [
        ("h", "linear", ("x",), {"weight": "w1", "bias": "b1"}, {}), ("a", "relu", ("h",), {}, {}),
        ("g", "linear", ("a",), {"weight": "w2", "bias": "b2"}, {}),
        *([("s", "add", ("g", "a"), {}, {})] if residual else []),
        ("r", "relu", ("s" if residual else "g",), {}, {}), ("y", "linear", ("r",), {"weight": "w3"}, {}),
    ]  # fmt: skip
    return build("x", (2,), steps, "y", weights)


ORDER = (2, 0, 3, 1)
LIFTS = {"none": (), "a": ("a",), "h a": ("h", "a"), "g": ("g",), "a r": ("a", "r")}


@pytest.mark.parametrize("arithmetic", ["real", "float32"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("named", LIFTS)
def test_a_permuted_lift_never_hides_a_deviation(tmp_path: Path, named: str, residual: bool, arithmetic: str) -> None:
    rng = np.random.default_rng(2)
    nets = network(rng, 0.0, residual), network(rng, 0.02, residual)
    paths = {"original": tmp_path / "first.onnx", "compact": tmp_path / "second.onnx"}
    for net, path in zip(nets, paths.values(), strict=True):
        write_onnx(net, path)
    box = Box.from_floats([-0.5, -0.5], [0.5, 0.5])
    points = np.concatenate([box.sample(rng, 500), [[i, j] for i in (-0.5, 0.5) for j in (-0.5, 0.5)]])
    first, second = (evaluate(net, points.reshape(-1, 2)) for net in nets)
    attained = Fraction(float(np.abs(first - second).max())) * (1 - Fraction(1, 2**40))
    lift = tuple(Correspondence(name, name, 0, ORDER) for name in LIFTS[named])
    least: dict[str, Fraction | None] = {}
    for rule in ("pair_zonotope", "pair_backward"):
        least[rule] = None
        for share in (100, 8, 3, Fraction(3, 2), 1):
            epsilon = Fraction(float(attained * share))
            emit_certificate(
                tmp_path / "c.json", **paths, boxes=[box], epsilon=epsilon, lift=lift, rule=rule,
                parameters={"symbols": 100}, trees=[Leaf()], arithmetic=arithmetic,
            )  # fmt: skip
            report = audit(tmp_path / "c.json", **paths)
            assert report.verdict in (Verdict.ACCEPT, Verdict.REJECT), report
            if report.verdict is Verdict.ACCEPT:
                assert report.bound is not None
                assert attained <= report.bound <= epsilon
                least[rule] = epsilon
    assert least["pair_backward"] is not None
    assert least["pair_zonotope"] is not None
    assert least["pair_backward"] <= least["pair_zonotope"]
