"""`verify methods` prints one line per registered algorithm, with what it declares."""

from pathlib import Path

import pytest

from verify.cli import main
from verify.survey import ALGORITHMS

NOTE = Path(__file__).parents[3] / "theory_notes" / "survey.md"


def test_every_algorithm_has_its_line(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["name", "kind"]
    table = {line.split("  ")[0]: line for line in lines[1 : 1 + len(ALGORITHMS)]}
    assert set(table) == set(ALGORITHMS)
    for name, kind in ALGORITHMS.items():
        assert kind.facts.reference in table[name]
        assert ("  yes  " in table[name]) == kind.facts.complete


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_its_line_on_the_page(name):
    """The page says on what HOLDS rests, and names the algorithm's file."""
    rows = [line.split("|") for line in NOTE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    (row,) = [cells for cells in rows if name in cells[1].strip().split(", ")]
    assert f"`{ALGORITHMS[name].__module__.replace('.', '/')}.py`" in row[-2]
