"""The tables of sparse coding: the gap is never above its bound, and a mean is the mean of the seeds beside it."""

from tests.scripts.loading import load_script

script = load_script("reproduce_sparse_coding")


def test_gaps_lie_below_their_bounds_and_momentum_gets_nearer_with_a_smaller_step() -> None:
    found = script.gaps()
    for one in found:
        assert all(-1e-6 <= gap <= bound for gap, bound in zip(one.gap, one.bound, strict=True))
    assert found[0].gap[0] <= 0.003
    assert found[-1].gap[1] < found[0].gap[1]
    assert script.table_of_gaps(found).row_count == len(found)


def test_twins_are_trained_from_three_seeds_and_unfolding_adds_no_parameters() -> None:
    found = script.twins(None, 2)
    by_name = {twin.name: twin for twin in found.rows}
    assert "600 training images, 2 steps" in found.title
    assert by_name["ML-ISTA"].parameters == by_name["plain CNN"].parameters
    assert all(len(twin.errors) == 3 for twin in found.rows)
    columns = [list(column.cells) for column in script.table_of_twins(found).columns]
    assert columns[0] == list(by_name)
    assert columns[5] == [f"{sum(twin.errors) / 3:.2%}" for twin in found.rows]
