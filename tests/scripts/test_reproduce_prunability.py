"""The table of prunability names tau, its interval and its p-value for every measure."""

import numpy as np
from rich.console import Console

from tests.scripts.loading import load_script

script = load_script("reproduce_prunability")


def test_every_measure_has_tau_interval_and_p_value() -> None:
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
