"""Every size is checked, and a bound that is a little too small is seen."""

import pytest

from tests.scripts.loading import load_script
from verify.statistical.clopper_pearson import rate_upper


@pytest.fixture(scope="module")
def script():
    return load_script("check_coverage")


def test_every_size_covers(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check_coverage.py", "--samples", "12", "--confidences", "0.95"])
    script.main()
    printed = capsys.readouterr().out
    assert "78" in printed
    assert "0.95000" in printed


def test_a_bound_that_is_a_little_too_small_is_seen(script, monkeypatch):
    monkeypatch.setattr(script, "rate_upper", lambda k, n, c: rate_upper(k, n, c) * (1 - 1e-4 * (n == 7)))
    monkeypatch.setattr("sys.argv", ["check_coverage.py", "--samples", "12", "--confidences", "0.95"])
    with pytest.raises(SystemExit, match="does not cover"):
        script.main()


def test_a_rank_that_is_one_too_large_is_seen(script, monkeypatch):
    rank = script.tolerance_rank
    monkeypatch.setattr(script, "tolerance_rank", lambda n, c, d: rank(n, c, d) + (n == 9))
    monkeypatch.setattr(
        "sys.argv", ["check_coverage.py", "--samples", "12", "--contents", "0.6", "--confidences", "0.9"]
    )
    with pytest.raises(SystemExit, match="does not cover"):
        script.main()
