"""Certificates written once keep their verdict for ever. These files are never written anew."""

from fractions import Fraction
from pathlib import Path

import pytest

from verify.audit import Verdict, audit
from verify.audit.files import sha256

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("name", "digest", "verdict", "bound"),
    [
        ("v0_real", "fd9dd28d19478192c54a1219ef50bbaf26b586ffd275bd0799342559292854e2", Verdict.ACCEPT, "0.01468"),
        ("v0_float32", "873a52e9fe0a1330195738b474839f9ad6081ceed58998f4ee9c563ffada3576", Verdict.ACCEPT, "0.01469"),
        ("v0_backward", "bfb9cf1c3aed07e847dec308a981079662da15c12c62442a5db04cb88f871181", Verdict.ACCEPT, "0.01228"),
        (
            "v0_backward_float32",
            "c247fcf1bf6b340c4903d9d8e4005453cdf1a215f67a8e18d230917c9682255a",
            Verdict.ACCEPT,
            "0.01228",
        ),
        ("v0_decisions", "dc77e28b2775904696f0d7012d011e5b7d644d13b5053224c08ed140381c1226", Verdict.ACCEPT, "0.03929"),
        (
            "v0_decisions_float32",
            "b06293f89edadb604e56f96a79db8a47c66c62fcf9f1aecd9fe0a3d423f18a4d",
            Verdict.ACCEPT,
            "0.03929",
        ),
        ("v0_too_small", "21fde90fc3c30a5f2abca127fc7a6d07b8e30468e69e2dbf606a01fd0ca176ec", Verdict.REJECT, ""),
    ],
)
def test_the_verdict_stays(name: str, digest: str, verdict: Verdict, bound: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert sha256(path.read_bytes()) == digest, "a golden file was changed"
    report = audit(path, GOLDEN / "original.onnx", GOLDEN / "compact.onnx")
    assert report.verdict is verdict, report.reason
    assert (report.bound is None) == (bound == "")
    if report.bound is not None:
        assert report.bound <= Fraction(bound)
