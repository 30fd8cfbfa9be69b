"""The table of prunability names tau, its interval and its p-value for every measure."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_every_measure_has_tau_interval_and_p_value(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("reproduce_prunability", SCRIPTS / "reproduce_prunability.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reproduce_prunability", script)
    spec.loader.exec_module(script)
    noise = np.random.default_rng(0).normal(size=24)
    members = [
        script.Member(32, 0.1, i, 0.1, 0.2 + 0.1 * i, 0.05, {"prunability, magnitude": float(i), "noise": noise[i]})
        for i in range(24)
    ]
    console = Console(width=118, record=True)
    console.print(script.table(members, "made-up data"))
    printed = console.export_text()
    assert "24 networks" in printed
    assert "p-value" in printed
    (row,) = [line for line in printed.splitlines() if "prunability, magnitude" in line]
    assert row.count("+1.00 .. +1.00") == 2
    assert row.count("e-") == 2
