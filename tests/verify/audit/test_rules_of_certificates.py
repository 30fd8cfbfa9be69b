"""What the rule of a certificate allows: decisions go with "pair_backward" alone."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.verify.audit.test_edges import changed
from tests.verify.audit.test_kernel_laws import GOLDEN, forged
from verify.audit import Verdict, audit, check
from verify.audit.certificate import read_certificate
from verify.audit.grid import InputGrid
from verify.audit.rules import Bounds
from verify.certificate.emit import emit_certificate
from verify.network.graph import build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [("pair_backward", Verdict.ACCEPT), ("pair_zonotope", Verdict.REJECT), ("separate", Verdict.REJECT)],
)
def test_decisions_need_the_backward_rule(rule: str, verdict: Verdict, tmp_path: Path) -> None:
    def decided(tree: str, leaves: int, epsilon: str = "1e6") -> Verdict:
        def change(data: dict[str, Any]) -> None:
            data["rule"]["name"] = rule
            data["lift"] = None if rule == "separate" else data["lift"]
            data["claim"]["epsilon"] = epsilon
            data["evidence"] = [{"leaves": leaves, "tree": tree} for _ in data["evidence"]]

        return forged("v0_real", tmp_path / "c.json", change)

    assert decided(".", 1) is Verdict.ACCEPT
    assert decided("z1/0 . .", 2) is verdict
    assert decided("z1/0 . .", 2, "1e-9") is Verdict.REJECT
    assert decided("z1/0 . .", 3) is Verdict.REJECT


def test_leaves_that_forms_do_not_prove_are_proved_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that needs bounds from the output backward, the same with forms alone, and one that none proves."""

    def verdict(rule: str, epsilon: str) -> Verdict:
        def change(data: dict[str, Any]) -> None:
            data["rule"]["name"] = rule
            data["claim"].update(epsilon=epsilon, domain=[{"lower": ["-1/2"] * 3, "upper": ["1/2"] * 3}])
            data["evidence"] = [{"leaves": 1, "tree": "."}]

        return forged("v0_real", tmp_path / "c.json", change)

    assert verdict("pair_backward", "0.0275") is Verdict.ACCEPT
    with monkeypatch.context() as patch:
        patch.setattr(check, "CHUNK_BYTES", 1)  # every leaf by itself
        assert verdict("pair_backward", "0.0275") is Verdict.ACCEPT
    assert verdict("pair_zonotope", "0.0275") is Verdict.REJECT
    assert verdict("pair_backward", "1e-9") is Verdict.REJECT
    monkeypatch.setattr(check._Prover, "_prove_some", lambda self, leaves, *_: leaves[-1:])
    assert verdict("pair_backward", "0.0275") is Verdict.REJECT


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("rule", ["pair_backward", "pair_zonotope"])
@pytest.mark.parametrize("deep", [False, True])
def test_outputs_in_another_order_prove_nothing_of_their_differences(
    order: list[int], rule: str, deep: bool, tmp_path: Path
) -> None:
    """(x, -3 x) and (x / 2, -3 x) for x from 1 to 2: crosswise the differences are of the other sign."""
    paths = {"original": tmp_path / "first.onnx", "compact": tmp_path / "second.onnx"}
    for path, scale in zip(paths.values(), (1.0, 0.5), strict=True):
        steps = [("r", "relu", ("x",), {}, {}), ("y", "linear", ("r" if deep else "x",), {"weight": "w"}, {})]
        write_onnx(build("x", (1,), steps[not deep :], "y", {"w": np.array([[scale], [-3.0]], np.float32)}), path)
    emit_certificate(
        tmp_path / "c.json", **paths, boxes=[Box.from_floats([1], [2])], epsilon=Fraction(1), lift=(), rule=rule,
        parameters={"symbols": 10}, trees=[Leaf()],
    )  # fmt: skip
    lift = [{"original": "y", "compact": "y", "axis": 0, "kept": order}]
    for epsilon, tree, verdict in (
        ("11/10", ".", Verdict.ACCEPT), ("99/100", ".", Verdict.REJECT), ("1/10", ".", Verdict.REJECT),
        ("1/10", "z1/0 . .", Verdict.REJECT),
    ):  # fmt: skip
        changed(
            tmp_path / "c.json",
            lambda d, e=epsilon, t=tree: (
                d.update(lift=lift, evidence=[{"leaves": t.count("."), "tree": t}]),
                d["claim"].update(epsilon=e),
            ),
        )
        assert audit(tmp_path / "c.json", **paths).verdict is verdict


def test_leaves_that_are_not_hard_keep_their_bounds() -> None:
    """Of three leaves the middle one is sharpened."""
    certificate = read_certificate((GOLDEN / "v0_backward.json").read_bytes())
    nets = [check.read_network([(GOLDEN / f"{name}.onnx").read_bytes()]) for name in ("original", "compact")]
    prover, box = check._Prover(certificate, *nets), certificate.claim.boxes[0]
    half = ((box[0][0], (box[0][0] + box[0][1]) / 2), *box[1:])
    x, known = InputGrid(box).form([half, box, half]), list[Bounds]()
    before = prover._enclosure(x, known)
    after, rest = prover._sharpened(x, before, known, np.array([1]))
    scale = 2.0 ** (before.exponent - after.exponent)
    for old, new, better in ((before.low, after.low, np.greater_equal), (before.high, after.high, np.less_equal)):
        assert np.array_equal(new[:, [0, 2]], old[:, [0, 2]] * scale)
        assert better(new[:, 1], old[:, 1] * scale).all()
    assert (after.high - after.low < (before.high - before.low) * scale)[:, 1].any()
    assert all(b.z[0].shape[1] == 1 for b in rest)
    assert prover._sharpened(x, before, known, np.zeros(0, dtype=np.int64)) == (before, known)


def test_networks_apart_have_errors_of_their_own(tmp_path: Path) -> None:
    """relu(x) and relu(x - 1/2) + x / 4, in which the errors of both ReLUs would cancel if they were one symbol."""
    steps = {
        "original": [("r", "relu", ("x",), {}, {}), ("y", "linear", ("r",), {"weight": "one"}, {})],
        "compact": [
            ("a", "shift", ("x",), {"value": "four"}, {}), ("b", "relu", ("a",), {}, {}),
            ("c", "linear", ("b",), {"weight": "twice", "bias": "back"}, {}), ("d", "relu", ("c",), {}, {}),
            ("y", "linear", ("d",), {"weight": "sum", "bias": "less"}, {}),
        ],
    }  # fmt: skip
    numbers = {"one": [[1.0]], "four": [4.0], "twice": [[1.0], [1.0]], "back": [-4.5, 0.0], "sum": [[1.0, 0.25]]}
    arrays = {name: np.array(values, np.float32) for name, values in {**numbers, "less": [-1.0]}.items()}
    paths = {role: tmp_path / f"{role}.onnx" for role in steps}
    for role, path in paths.items():
        used = {name for _, _, _, parameters, _ in steps[role] for name in parameters.values()}
        write_onnx(build("x", (1,), steps[role], "y", {n: a for n, a in arrays.items() if n in used}), path)
    for epsilon, verdict in (("37/100", Verdict.REJECT), ("3/10", Verdict.REJECT), ("2", Verdict.ACCEPT)):
        emit_certificate(
            tmp_path / "c.json", **paths, boxes=[Box.from_floats([-1], [1])], epsilon=Fraction(epsilon), lift=(),
            rule="separate", parameters={"symbols": 10}, trees=[Leaf()],
        )  # fmt: skip
        changed(tmp_path / "c.json", lambda d: d.update(lift=None))
        assert audit(tmp_path / "c.json", **paths).verdict is verdict


@pytest.mark.parametrize("rule", ["pair_backward", "pair_zonotope"])
@pytest.mark.parametrize("swapped", [False, True])
def test_outputs_of_other_steps_prove_nothing_of_their_differences(rule: str, swapped: bool, tmp_path: Path) -> None:
    """The same steps, of which one network puts out the last and the other one before: x and 2 x."""
    steps = [("h", "linear", ("x",), {"weight": "one"}, {}), ("y", "linear", ("h",), {"weight": "two"}, {})]
    weights = {"one": np.array([[1.0]], np.float32), "two": np.array([[2.0]], np.float32)}
    paths = {"original": tmp_path / "first.onnx", "compact": tmp_path / "second.onnx"}
    for path, output in zip(paths.values(), ("hy" if swapped else "yh"), strict=True):
        write_onnx(build("x", (1,), steps, output, weights), path)
    for epsilon, verdict in (("11/10", Verdict.ACCEPT), ("1/2", Verdict.REJECT)):
        emit_certificate(
            tmp_path / "c.json", **paths, boxes=[Box.from_floats([-1], [1])], epsilon=Fraction(epsilon), lift=(),
            rule=rule, parameters={"symbols": 10}, trees=[Leaf()],
        )  # fmt: skip
        assert audit(tmp_path / "c.json", **paths).verdict is verdict
