"""Statistical certificates: true on what can be computed exactly, strict about data, honest in words and files."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from verify.errors import CertificateError, DataError, InputError, MismatchError, SpecificationError
from verify.network.graph import Network, build
from verify.statistical import (
    certify_sample,
    rate_upper,
    read_certificate,
    recount,
    row_hashes,
    write_certificate,
)
from verify.statistical.claims import decimal_text, decimal_up


def line(slope: float) -> Network:
    """``y = (x, slope x)``: two of them deviate by their difference of slopes times |x|."""
    w = np.array([[1.0], [slope]])
    return build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": w})


F, G = line(0.0), line(0.5)  # deviation |x| / 2; arg max: F by the sign of x, G the same
EXACT: dict[str, Any] = {"calibration_rows": (), "margin": 0}


def inputs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 1))


def test_counts_and_bounds_follow_the_definition() -> None:
    x = inputs(400)
    c = certify_sample(F, G, x, epsilon="0.4", coverage="0.9", cap="0.5", confidence="0.99", **EXACT)
    delta = Fraction(1, 100) / 4
    assert [claim.delta for claim in c.claims] == [delta] * 4
    differ, exceed, quantile, mean = c.claims
    k = int((x > 0.8).sum())
    assert exceed.count == k
    assert exceed.bound >= Fraction(rate_upper(k, 400, 1 - delta))
    assert float(exceed.bound) == pytest.approx(rate_upper(k, 400, 1 - delta), rel=1e-9)
    assert float(quantile.bound) == pytest.approx(np.sort(x[:, 0])[-quantile.count] / 2, rel=1e-9)
    assert float(quantile.bound) >= 0.45  # the true quantile: holds for this seed
    assert 0.25 <= float(mean.bound) < 0.30
    assert differ.count == 0
    assert c.samples == 400
    assert "at least 90 % of inputs deviate by at most" in c.statement


def test_without_a_question_the_largest_share_is_certified() -> None:
    c = certify_sample(F, G, inputs(1000), confidence="0.999", **EXACT)
    differ, quantile = c.claims
    assert quantile.count == 1
    assert quantile.question.parameter == Fraction(992427, 10**6)  # (1/2000)^(1/1000) = 0.99242791...
    assert float(quantile.bound) >= c.largest
    assert differ.bound == decimal_up(Fraction(rate_upper(0, 1000, "0.9995")))


def test_joint_coverage_by_simulation() -> None:
    """True values: P(d > .4) = .2, P(different arg max) = 0, 80 % quantile .4, mean .25; alarm at 1e-6."""
    misses, repeats = 0, 150
    for seed in range(repeats):
        c = certify_sample(F, G, inputs(60, seed), epsilon="0.4", coverage="0.8", cap="0.5", confidence="0.8", **EXACT)
        _, exceed, quantile, mean = c.claims
        misses += exceed.bound < Fraction(1, 5) or quantile.bound < Fraction(2, 5) or mean.bound < Fraction(1, 4)
    assert misses <= binom.isf(1e-6, repeats, 0.2)


def test_margin_counts_against_every_claim() -> None:
    x = np.full((100, 1), 0.8)  # deviation exactly 0.4
    bare = certify_sample(F, G, x, epsilon="0.41", coverage="0.5", **EXACT)
    wide = certify_sample(F, G, x, epsilon="0.41", coverage="0.5", calibration_rows=(), margin="0.02")
    assert bare.claims[1].count == 0
    assert wide.claims[1].count == 100
    assert wide.claims[2].bound >= Fraction(42, 100) > bare.claims[2].bound
    narrow = certify_sample(F, G, x, metrics=["argmax"], calibration_rows=(), margin="0.5")
    assert narrow.claims[0].count == 100  # the lead of 0.4 in G is within the margin


def test_equality_is_no_exceedance_but_rounding_is_counted() -> None:
    """With d = epsilon in float64 the relative margin makes it a violation: rounding never favours the claim."""
    c = certify_sample(F, G, np.full((10, 1), 0.5), epsilon="0.25", **EXACT)
    assert c.claims[1].count == 10


def test_calibration_rows_are_refused_in_any_shape_or_precision() -> None:
    """Seeded misuse: certifying on the calibration inputs."""
    x = inputs(50).astype(np.float32)
    rows = row_hashes(x)
    with pytest.raises(DataError, match="rows 7"):
        certify_sample(F, G, np.concatenate([inputs(7, 1), x[:1].astype(float)]), calibration_rows=rows)


def test_repeats_are_reported_in_words() -> None:
    c = certify_sample(F, G, np.concatenate([inputs(20), inputs(3)]), **EXACT)
    assert c.rows.duplicates == (20, 21, 22)
    assert "3 of them repeat" in c.assumption


def test_words_say_what_is_assumed_and_what_is_not_claimed() -> None:
    c = certify_sample(F, G, inputs(30), population="uniform inputs", **EXACT)
    assert "independent draws from uniform inputs" in c.statement
    assert "no calibration rows were given" in c.statement
    assert "With confidence 99.9 %" in c.statement
    c = certify_sample(F, G, inputs(30), calibration_rows=["0" * 64])
    assert "no calibration rows were given" not in c.statement


def test_file_round_trip_and_recount(tmp_path: Path) -> None:
    x, path = inputs(200), tmp_path / "certificate.json"
    c = certify_sample(F, G, x, epsilon="0.45", coverage="0.9", cap="0.5", confidence=0.99, calibration_rows=["0" * 64])
    write_certificate(c, path)
    assert read_certificate(path) == c
    assert recount(c, F, G, x, calibration_rows=())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["certificate.json"]
    with pytest.raises(CertificateError, match="another data"):
        recount(c, F, G, inputs(200, 1), calibration_rows=())
    with pytest.raises(CertificateError, match="another compact"):
        recount(c, F, line(0.25), x, calibration_rows=())


def test_both_engines_give_the_same_claims() -> None:
    a, b = (certify_sample(F, G, inputs(90), calibration_rows=(), engine=e) for e in ("numpy", "torch"))  # type: ignore[arg-type]
    assert [x.bound for x in a.claims] == pytest.approx([x.bound for x in b.claims])


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "smaller rate": lambda r: r["claims"][1].update(bound="0.001"),
    "fewer violations": lambda r: r["claims"][1].update(count=0, bound="0.0001"),
    "higher coverage": lambda r: r["claims"][2].update(parameter="0.999"),
    "rank below one": lambda r: r["claims"][2].update(count=0),
    "more confidence": lambda r: r.update(confidence="0.9999"),
    "no claims": lambda r: r.update(claims=[]),
    "negative bound": lambda r: r["claims"][3].update(bound="-1"),
    "unknown kind": lambda r: r["claims"][0].update(kind="hope"),
    "extra key": lambda r: r.update(note="x"),
    "missing key": lambda r: r.pop("sample"),
    "float number": lambda r: r["sample"].update(samples=2.5),
    "boolean count": lambda r: r["claims"][0].update(count=True),
    "other version": lambda r: r.update(version=99),
    "not an object": lambda r: r.update(claims="x"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_certificate(certify_sample(F, G, inputs(200), epsilon="0.45", coverage="0.9", cap="0.5", **EXACT), path)
    record = json.loads(path.read_text())
    FORGERIES[name](record)
    path.write_text(json.dumps(record))
    with pytest.raises(CertificateError):
        read_certificate(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "format": 2}', '{"version": NaN}', "[" * 5000])
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CertificateError):
        read_certificate(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("confidence",), "1e4000000"),
        (("evaluation", "margin"), "1e-9000000"),
        (("claims", 0, "bound"), "9" * 500),
        (("claims", 0, "delta"), "1/0"),
        (("claims", 0, "delta"), "1/" + "9" * 500),
        (("sample", "samples"), 2**60),
        (("claims", 0, "count"), 10**15),
    ],
)
def test_numbers_that_would_take_for_ever_are_refused_at_once(
    place: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    """Each of them would keep a reader without limits busy for seconds or hours, or needs a tail of that many terms."""
    path = tmp_path / "c.json"
    write_certificate(certify_sample(F, G, inputs(50), epsilon="0.4", **EXACT), path)
    record = json.loads(path.read_text())
    if place[-1] == "count":
        record["sample"]["samples"] = 2 * value
    at = record
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    path.write_text(json.dumps(record))
    with pytest.raises(CertificateError):
        read_certificate(path)


@pytest.mark.parametrize("value", ["1e4000000", "1/3/5", "1/-3", "0x1", " 1", "1_0"])
def test_levels_are_plain_numbers(value: str) -> None:
    with pytest.raises(SpecificationError, match="confidence"):
        certify_sample(F, G, inputs(50), confidence=value, **EXACT)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="no such file"):
        read_certificate(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be written"):
        write_certificate(certify_sample(F, G, inputs(20), **EXACT), tmp_path / "none" / "c.json")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"epsilon": "-1"}, SpecificationError),
        ({"epsilon": "much"}, SpecificationError),
        ({"cap": 0}, SpecificationError),
        ({"coverage": "1"}, SpecificationError),
        ({"coverage": "0.999"}, DataError),
        ({"metrics": ["speed"]}, SpecificationError),
        ({"metrics": "argmax"}, SpecificationError),
        ({"metrics": []}, SpecificationError),
        ({"metrics": ["argmax"], "epsilon": 1}, SpecificationError),
        ({"margin": "-1"}, SpecificationError),
        ({"confidence": 1.0}, SpecificationError),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        certify_sample(F, G, inputs(50), calibration_rows=(), **settings)


def test_bad_data_and_misfits_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        certify_sample(F, G, np.empty((0, 1)), **EXACT)
    with pytest.raises(SpecificationError, match="too few"):
        certify_sample(F, G, inputs(1), confidence=Fraction(10**8 - 1, 10**8), **EXACT)
    other = build("x", (1,), [("y", "linear", ("x",), {"weight": "w"}, {})], "y", {"w": np.ones((3, 1))})
    with pytest.raises(MismatchError):
        certify_sample(F, other, inputs(5), **EXACT)


def test_decimals_round_up_and_print_exactly() -> None:
    for value in (Fraction(1, 3), Fraction(2, 7 * 10**9), Fraction(10**12 + 1, 7), Fraction(1), Fraction(0)):
        up = decimal_up(value)
        assert value <= up <= value * (1 + Fraction(1, 10**8))
        assert Fraction(decimal_text(up)) == up
    assert decimal_text(Fraction(-5, 4)) == "-1.25"
    assert decimal_text(Fraction(1, 3)) == "1/3"
