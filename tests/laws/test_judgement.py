"""What the three judges say about one pair of networks fits together, and no false claim is accepted.

deviation at any point  <=  attack  <=  proved bound          audit(emit(proof)) accepts, a smaller claim never
"""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from verify.audit.check import Verdict as AuditVerdict
from verify.audit.check import audit
from verify.certificate.emit import emit_certificate
from verify.empirical.attack import attack_deviation
from verify.empirical.measure import compare
from verify.errors import MismatchError
from verify.formal.deviation import DeviationResult, verify_deviation
from verify.formal.rules import RULES
from verify.network.graph import Network
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Verdict
from verify.statistical.claims import decimal_up
from verify.testing import Twin, boxes, compact_twins, inputs_inside, networks
from verify.testing.networks import KINDS

law = settings(
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
ROUNDING = 1e-9  # of a float64 evaluation, relative to the size of the outputs


def proof(network: Network, twin: Twin, box: Box, epsilon: Fraction | None = None) -> DeviationResult:
    return verify_deviation(
        network, twin.compact, [box], channels=twin.channels, epsilon=epsilon, timeout=0.4,
        generator=np.random.default_rng(0),
    )  # fmt: skip


AUDITED = {
    "dense": ["linear", "relu", "linear", "relu", "batch_norm", "shift", "scale", "divide", "add", "slice", "concat"],
    "conv": ["conv", "relu", "conv", "batch_norm", "max_pool", "average_pool", "mean", "pad", "add"],
    "residual": ["residual", "relu", "linear", "average_pool", "add"],
}


def drawn(
    data: st.DataObject, kind: str, *, piecewise_linear: bool = True, ops: list[str] | None = None
) -> tuple[Network, Twin, Box]:
    """A network that the formal engine knows, a twin and a small box."""
    known = ops or [op for op in KINDS[kind][0] if op in RULES or op == "residual"]
    network = data.draw(networks(kind, ops=known, piecewise_linear=piecewise_linear, outputs=2, max_blocks=4))
    assume(all(node.attributes.get("approximate") != "tanh" for node in network))
    return network, data.draw(compact_twins(network)), data.draw(boxes(network, radius=0.25))


def slack(network: Network, twin: Twin, points: np.ndarray) -> float:
    both = compare(network, twin.compact, points)
    return ROUNDING * (1.0 + float(np.abs(both.original).max() + np.abs(both.compact).max()))


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@law
@given(data=st.data())
def test_points_attack_and_proof_are_in_order(kind: str, data: st.DataObject) -> None:
    network, twin, box = drawn(data, kind)
    points = data.draw(inputs_inside(box))
    attack = attack_deviation(
        network, twin.compact, box, generator=np.random.default_rng(0), samples=30, steps=5, hops=1
    )
    result = proof(network, twin, box)
    both, room = compare(network, twin.compact, points), slack(network, twin, points)
    assert box.contains(attack.input)
    assert both.deviation <= result.upper + room
    assert attack.deviation <= result.upper + room
    assert result.lower <= result.upper
    assert (both.per_output <= np.array(result.per_output_upper) + room).all()
    if twin.how == "same":
        assert result.upper <= room


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"conv", "residual"}))
@law
@given(data=st.data())
def test_proofs_hold_for_smooth_ops_too(kind: str, data: st.DataObject) -> None:
    network, twin, box = drawn(data, kind, piecewise_linear=False)
    points = data.draw(inputs_inside(box))
    result = proof(network, twin, box)
    assert compare(network, twin.compact, points).deviation <= result.upper + slack(network, twin, points)


@law
@given(data=st.data())
def test_verdicts_are_true(data: st.DataObject) -> None:
    """PROVED: no sampled input contradicts it. REFUTED: the witness, replayed, exceeds epsilon."""
    network, twin, box = drawn(data, data.draw(st.sampled_from(["dense", "residual"])))
    epsilon = Fraction(data.draw(st.integers(0, 40)), 64)
    result = proof(network, twin, box, epsilon)
    points = box.sample(np.random.default_rng(1), 200)
    if result.verdict is Verdict.PROVED:
        assert compare(network, twin.compact, points).deviation <= float(epsilon) + slack(network, twin, points)
    if result.verdict is Verdict.REFUTED:
        assert result.witness is not None
        assert all(a <= v <= b for a, v, b in zip(box.lower, result.witness, box.upper, strict=True))
        witness = np.array([[float(v) for v in result.witness]])
        assert compare(network, twin.compact, witness).deviation > float(epsilon) - slack(network, twin, witness)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@law
@given(data=st.data())
def test_the_auditor_accepts_proofs_and_nothing_below_an_attained_deviation(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    network, twin, box = drawn(data, kind, ops=AUDITED[kind])
    result = proof(network, twin, box)
    assume(result.upper < float("inf"))
    files = tmp_path / "f.onnx", tmp_path / "g.onnx"
    write_onnx(network, files[0])
    write_onnx(twin.compact, files[1])
    true = decimal_up(2 * Fraction(result.upper) + Fraction(1, 10**6), 12)  # on ties it may choose other slopes
    false = Fraction(int(Fraction(result.lower) * 10**12) - 1, 10**12)
    assert verdict(tmp_path, files, box, true, result) is AuditVerdict.ACCEPT
    if false > 0:
        assert verdict(tmp_path, files, box, false, result) is AuditVerdict.REJECT


def verdict(
    folder: Path, files: tuple[Path, Path], box: Box, epsilon: Fraction, result: DeviationResult
) -> AuditVerdict:
    path = folder / "certificate.json"
    path.unlink(missing_ok=True)
    emit_certificate(
        path, original=files[0], compact=files[1], boxes=[box], epsilon=epsilon, lift=result.lift,
        rule=result.rule, parameters=result.parameters, trees=result.trees,
    )  # fmt: skip
    return audit(path, *files).verdict


@law
@given(data=st.data())
def test_proofs_do_not_depend_on_the_direction(data: st.DataObject) -> None:
    """|f - g| = |g - f|: bounds of both directions cover the same attained deviations."""
    network, twin, box = drawn(data, "dense")
    assume(twin.how != "sliced")
    there, back = proof(network, twin, box), proof(twin.compact, Twin(network, twin.channels, twin.how), box)
    for one, other in itertools.permutations((there, back)):
        assert one.lower <= other.upper * (1 + 1e-9) + 1e-12


@law
@given(data=st.data())
def test_channels_of_another_network_are_refused_or_harmless(data: st.DataObject) -> None:
    """A wrong map kept -> original is a hint like any other: the bound stays true, or the map is refused."""
    network = data.draw(networks("dense", ops=["linear", "relu", "tanh"], outputs=2))
    twin = data.draw(compact_twins(network, hows=["sliced"]))
    assume(twin.how == "sliced")
    box = data.draw(boxes(network, radius=0.25))
    wrong = {"version": 1, "values": {n: {**e, "kept": e["kept"][::-1]} for n, e in twin.channels["values"].items()}}
    points = box.sample(np.random.default_rng(1), 50)
    try:
        result = proof(network, Twin(twin.compact, wrong, "sliced"), box)
    except MismatchError:
        return
    assert compare(network, twin.compact, points).deviation <= result.upper + slack(network, twin, points)
