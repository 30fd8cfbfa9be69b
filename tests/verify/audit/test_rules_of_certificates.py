"""What the rule of a certificate allows: decisions go with "pair_backward" alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.verify.audit.test_kernel_laws import forged
from verify.audit import Verdict, check


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
    assert verdict("pair_zonotope", "0.0275") is Verdict.REJECT
    assert verdict("pair_backward", "1e-9") is Verdict.REJECT
    monkeypatch.setattr(check._Prover, "_prove_some", lambda self, leaves, *_: leaves[-1:])
    assert verdict("pair_backward", "0.0275") is Verdict.REJECT
