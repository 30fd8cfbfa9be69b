"""`verify methods` prints one line per registered algorithm, with what it declares."""

from verify.cli import main
from verify.survey import ALGORITHMS


def test_every_algorithm_has_its_line(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["name", "kind"]
    table = {line.split("  ")[0]: line for line in lines[1 : 1 + len(ALGORITHMS)]}
    assert set(table) == set(ALGORITHMS)
    for name, kind in ALGORITHMS.items():
        assert kind.facts.reference in table[name]
        assert ("  yes  " in table[name]) == kind.facts.complete
