"""Mutants are what they say; the list of equivalent ones is read by what it names; a fixed sample is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.loading import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "mutate_auditor.py"


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    return load_script("mutate_auditor")


def test_the_changes_that_matter_are_among_the_mutants(mutation: ModuleType) -> None:
    """One side of epsilon, a tolerance, a dropped rounding term, a removed guard, a removed raise, min for max."""
    found = {(m.function, m.change) for name in ("check", "rules", "form") for m, _ in mutation.mutants(name)}
    wanted = [
        ("_Enclosure.within", "(self.low >= -whole) & (self.high <= whole) -> self.high <= whole"),
        ("_Enclosure.within", "self.high <= whole -> self.high <= whole * 1.000000000001"),
        ("_Enclosure.joined", "np.minimum -> np.maximum"),
        ("difference", "[(a.rem, a.exponent), (b.rem, b.exponent)] -> [(b.rem, b.exponent)]"),
        ("place", "np.ceil(halves * 0.5) -> np.floor(halves * 0.5)"),
        ("_Prover._compare", "raise Refuted"),
    ]
    for function, change in wanted:
        head = change.split(" -> ")
        assert any(f == function and all(part.split("np.")[-1] in c for part in head) for f, c in found), change


def test_every_mutant_compiles_to_something_else(mutation: ModuleType) -> None:
    source = (mutation.SOURCES / "exact.py").read_text()
    honest = compile(source, str(mutation.SOURCES / "exact.py"), "exec")
    keys = []
    for i, (mutant, compiled) in enumerate(mutation.mutants("exact")):
        keys.append(mutant.key)
        assert mutant.line in source
        if i % 10 == 0:
            assert compiled() != honest
    assert len(keys) > 150
    assert len(set(keys)) == len(keys)


def test_equivalent_mutants_have_a_reason_each(mutation: ModuleType) -> None:
    entries = json.loads(mutation.EQUIVALENT.read_text())
    known = mutation.known_equivalents()
    assert len(known) == len(entries) > 0
    assert all(len(reason) > 20 for reason in known.values())
    present = {m.key for name in mutation.MODULES for m, _ in mutation.mutants(name)}
    lines = {key[:3] for key in present}
    gone = [key for key in known if key not in present and not (key[3] == "*" and key[:3] in lines)]
    assert not gone, "about lines that are no longer there"


@pytest.mark.slow
def test_a_fixed_sample_is_killed() -> None:
    functions = "joined scaled_floor interval difference total of_sum sharpened _bias _prove_some take walk"
    command = [sys.executable, str(SCRIPT), "--quick", "--functions", *functions.split(), "--sample", "40"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 mutants" in done.stdout


def test_a_changed_function_takes_the_place_of_the_honest_one(mutation: ModuleType) -> None:
    """Of functions and of properties, wherever they were imported; and back again."""
    import numpy as np

    from verify.audit.exact import Real, power

    number = Real(np.ones(1), np.zeros(1, np.int64), np.zeros(1))
    assert (power(-201), number.top) == (2.0**-200, 54)
    source = (mutation.SOURCES / "exact.py").read_text()
    path = str(mutation.SOURCES / "exact.py")
    changed = source.replace("max(exponent, -200)", "max(exponent, -201)").replace(".max()) + 54", ".max()) + 55")
    mutation.transplant("exact", compile(changed, path, "exec"))
    try:
        assert (power(-201), number.top) == (2.0**-201, 55)
    finally:
        mutation.transplant("exact", compile(source, path, "exec"))
    assert (power(-201), number.top) == (2.0**-200, 54)


def test_a_change_belongs_to_the_function_that_the_tests_execute(mutation: ModuleType) -> None:
    owners = {(m.function, mutation.owner(m)) for m, _ in mutation.mutants("rules")}
    assert ("_sum.error", "_sum") in owners
    assert ("Bounds.some", "Bounds.some") in owners
    assert ("", "") in owners
    assert all(owner == "" for function, owner in owners if function in ("", "Symbols"))
