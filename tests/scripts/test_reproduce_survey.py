"""The survey's table: six groups, every algorithm, our own engine as one more row, contradictions seen."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.scripts.loading import load_script
from verify.survey import ALGORITHMS, Result, Status

script = load_script("reproduce_survey")
NOWHERE = Path("no such folder")


def test_the_six_groups_run_every_algorithm_on_a_problem_it_takes() -> None:
    found = script.benchmarks(NOWHERE, quick=True)
    assert {bench.group[0] for bench in found} == set("123456")
    assert {name for bench in found for name in bench.algorithms} == {*ALGORITHMS, script.ENGINE}
    for bench in found:
        assert len(bench.algorithms) >= 2
        assert all(ALGORITHMS[n].facts.refusal(bench.problem) is None for n in bench.algorithms if n in ALGORITHMS)


def test_a_row_per_algorithm_and_the_engine_last() -> None:
    (bench,) = [b for b in script.benchmarks(NOWHERE, quick=True) if b.group[0] == "5" and "id violated" in b.name]
    known = {(name, bench.name): script.timed(name, bench.problem, 20.0) for name in bench.algorithms}
    columns = [list(column.cells) for column in script.table(bench.group, [bench], known).columns]
    assert columns[0] == [bench.name] + [""] * (len(bench.algorithms) - 1)
    assert columns[1] == list(bench.algorithms)
    assert columns[2] == ["violated"] * len(bench.algorithms)
    assert bench.algorithms[-1] == script.ENGINE
    assert script.report(Console(quiet=True), [bench], known) == 0


@pytest.mark.parametrize(("statuses", "code"), [(("holds", "violated"), 1), (("holds", "unknown"), 0)])
def test_a_contradiction_ends_with_an_exit_code(statuses: tuple[str, str], code: int) -> None:
    bench = script.benchmarks(NOWHERE, quick=True)[0]
    results = [Result(Status(s), counter_example=[0.0] if s == "violated" else None) for s in statuses]
    known = {(name, bench.name): (result, 0.1) for name, result in zip(bench.algorithms, results, strict=False)}
    assert script.report(Console(quiet=True), [bench], known) == code
