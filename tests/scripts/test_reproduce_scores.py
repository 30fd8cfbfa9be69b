"""The table of scores runs on what ships with the package."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_rows_of_channels_and_of_weights() -> None:
    command = [sys.executable, "scripts/reproduce_scores.py", "--quick", "--images", "64"]
    done = subprocess.run(
        [*command, "--only", "l1-norm", "similarity", "sipp"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name, data in (("l1-norm", "none"), ("similarity", "none"), ("sipp", "unlabelled")):
        (line,) = [line for line in done.stdout.splitlines() if f" {name} " in line]
        assert data in line
        assert "differ" in line
