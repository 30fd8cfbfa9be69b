"""The attacks find what they look for, and what is kept from one attack to the next changes no verdict."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.scripts.loading import load_script
from verify.audit import Verdict, check


@pytest.fixture(scope="module")
def attacks() -> ModuleType:
    return load_script("attack_certificates", known_as="attack_script")


def outcomes(attacks: ModuleType, folder: Path) -> list[str]:
    """Verdicts of some forged certificates and mutants, always the same ones."""
    rng = np.random.default_rng(3)
    found = [o for i in range(3) for o in attacks.planted(rng, folder / f"planted {i}", 18)]
    bases = [attacks.instance("dense", rng, folder / "base")]
    bases.append(attacks.instance("dense", rng, folder / "decided", "pair_backward", True))
    found += [
        attacks.attack(base, mutation, rng, folder / "m.json") for base in bases for mutation in attacks.MUTATIONS
    ]
    assert not [o for o in found if o.wrong]
    return [o.verdict for o in found]


def test_what_is_kept_changes_no_verdict(attacks: ModuleType, tmp_path: Path) -> None:
    honest = check.read_network, check.stages_of_pair, check.self_test, check._Prover
    afresh = outcomes(attacks, tmp_path / "afresh")
    with attacks.kept_in_mind():
        assert check.read_network is not honest[0]
        assert outcomes(attacks, tmp_path / "kept") == afresh
    assert (check.read_network, check.stages_of_pair, check.self_test, check._Prover) == honest
    assert {"ACCEPT", "REJECT", "MALFORMED", "UNSUPPORTED"} <= set(afresh)


def test_an_auditor_that_errs_would_be_seen(
    attacks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = check._Enclosure.within
    monkeypatch.setattr(check._Enclosure, "within", lambda self, epsilon: honest(self, epsilon * 3))
    rng = np.random.default_rng(4)
    with attacks.kept_in_mind():
        assert any(o.wrong for i in range(3) for o in attacks.planted(rng, tmp_path / f"p{i}", 12))
        base = attacks.instance("dense", rng, tmp_path / "base")
        assert any(attacks.attack(base, attacks.lower_epsilon, rng, tmp_path / "m.json").wrong for _ in range(8))


def test_decisions_of_a_base_certificate_carry_its_claim(attacks: ModuleType, tmp_path: Path) -> None:
    """Without its decisions and multipliers the claim is not shown; with a mutant of them, none that is false."""
    rng = np.random.default_rng(6)
    base = attacks.instance("residual", rng, tmp_path / "base", "pair_backward", True)
    data = json.loads(base.certificate.read_text())
    items = data["evidence"][0]["tree"].split(" ")
    assert attacks._decisions(items)
    assert attacks._multiplied(items)
    data["evidence"] = [{"leaves": 1, "tree": "."}]
    plain = tmp_path / "plain.json"
    plain.write_text(attacks.reseal(json.dumps(data)))
    assert base.judge(base.certificate).verdict is Verdict.ACCEPT
    assert base.judge(plain).verdict is Verdict.REJECT
    about_decisions = (
        attacks.move_decision, attacks.swap_sides, attacks.drop_part, attacks.repeat_decision,
        attacks.change_multiplier, attacks.drop_multiplier,
    )  # fmt: skip
    found = [attacks.attack(base, m, rng, tmp_path / "m.json") for m in about_decisions for _ in range(8)]
    assert not [o for o in found if o.wrong]
    assert {"REJECT", "MALFORMED"} <= {o.verdict for o in found}


def test_names_of_files_are_no_part_of_a_claim(attacks: ModuleType, tmp_path: Path) -> None:
    base = attacks.instance("dense", np.random.default_rng(5), tmp_path / "base")
    claim = json.loads(base.certificate.read_text())
    renamed, other = copy.deepcopy(claim), copy.deepcopy(claim)
    renamed["claim"]["original"]["files"][0]["name"] = "another"
    other["claim"]["original"]["files"][0]["sha256"] = "0" * 64
    assert attacks.implied(claim, renamed)
    assert not attacks.implied(claim, other)


@pytest.mark.slow
def test_a_bounded_form_of_all_attacks(attacks: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"bases": 10, "mutants": 12, "flips": 400, "false-claims": 10, "planted": 40, "forged": 102}
    arguments = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["attack_certificates.py", *arguments])
        assert attacks.main() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert int(last.split(" attacks in ")[0]) >= 384 + 400 + 120 + 40 * 103
