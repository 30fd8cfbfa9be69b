"""The page says what the records say, escapes words, needs nothing from outside and rounds bounds outwards."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import DataError
from verify.report import (
    BoxResult,
    Layer,
    NetworkReport,
    Report,
    ShippedFile,
    Size,
    StatisticalResult,
    render_report,
    words,
    write_report,
)

VOID = {"meta", "br"}
positive = st.floats(1e-9, 1e6)
text = st.text(max_size=12)
verdicts = st.sampled_from(["proved", "refuted", "unknown"])
boxes = st.builds(
    BoxResult, text, verdicts, st.none() | positive, st.just(0.0) | positive, st.sampled_from(["", "accept", "reject"])
)
layers = st.integers(1, 64).flatmap(
    lambda n: st.builds(
        Layer, text, st.just(n), st.integers(0, n), st.none() | positive, st.none() | positive, st.none() | positive
    )
)
statistical = st.builds(
    StatisticalResult, text, st.floats(0, 1), st.floats(0, 1), st.just(0.99), st.integers(1, 999), text, st.booleans()
)
networks = st.builds(
    NetworkReport,
    name=text,
    description=text,
    sizes=st.lists(st.builds(Size, text, st.integers(0, 99), st.integers(0, 99)), max_size=3).map(tuple),
    layers=st.lists(layers, max_size=4).map(tuple),
    layer_notes=st.lists(text, max_size=2).map(tuple),
    domain=text,
    boxes=st.lists(boxes, max_size=6).map(tuple),
    statistical=st.lists(statistical, max_size=3).map(tuple),
    established=st.lists(text, max_size=2).map(tuple),
    files=st.lists(st.builds(ShippedFile, text, text), max_size=2).map(tuple),
)
reports = st.builds(
    Report, text, st.lists(networks, max_size=2).map(tuple), st.lists(st.tuples(text, text), max_size=2).map(tuple)
)


class Page(HTMLParser):
    """Checks that tags close in order, and collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.content = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.content += data


def report_of(*found: BoxResult, **more) -> NetworkReport:
    return NetworkReport("n", domain="radius 0.01", boxes=found, **more)


@given(reports)
@settings(deadline=None, max_examples=60)
def test_every_report_is_a_well_formed_page_without_script_or_outside_resource(report: Report) -> None:
    page = Page(render_report(report))
    assert not page.open
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "form"}
    assert not [a for a in page.attributes if a[0] in {"src", "href", "srcset", "action"} or a[0].startswith("on")]
    assert "url(" not in page.content


@given(reports)
@settings(deadline=None, max_examples=40)
def test_every_drawn_number_is_finite(report: Report) -> None:
    geometry = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"}
    drawn = [v for n, v in Page(render_report(report)).attributes if n in geometry]
    assert all(math.isfinite(float(value)) for value in drawn)


def test_words_of_the_caller_are_escaped() -> None:
    hostile = '<script>alert(1)</script>"&'
    network = NetworkReport(
        hostile,
        hostile,
        (Size(hostile, 2, 1),),
        (Layer(hostile, 2, 1),),
        (hostile,),
        hostile,
        (BoxResult(hostile, "proved", 0.2, 0.1, hostile),),
        (StatisticalResult(hostile, 0.1, 0.2, 0.9, 5, hostile),),
        (hostile,),
        (hostile,),
        (ShippedFile(hostile, hostile),),
    )
    page = Page(render_report(Report(hostile, (network,), ((hostile, hostile),))))
    assert "script" not in page.tags
    assert page.content.count(hostile) > 10


@given(positive)
def test_bounds_are_shown_rounded_outwards(value: float) -> None:
    assert float(words.rounded_up(value)) >= value >= float(words.rounded_down(value))
    assert float(words.rounded_up(value)) <= value * 1.01


@given(st.floats(0, 1))
def test_shares_are_shown_rounded_up(share: float) -> None:
    shown = float(words.percent_up(share).removesuffix(" %"))
    assert 100 * share - 1e-12 <= shown <= 100 * share + 0.1 + 1e-9


def test_only_proved_boxes_are_claimed() -> None:
    """The bound of a box whose search ended early never reaches the claim, however small or large."""
    report = report_of(
        BoxResult("a", "proved", 0.25, 0.1), BoxResult("b", "unknown", 7.0, 0.2), BoxResult("c", "refuted", None, 9.0)
    )
    claim = " ".join(words.established(report))
    assert "1 of 3 boxes" in claim
    assert "at most 0.25" in claim
    assert "7" not in claim
    assert "A bound on 2 of 3 boxes" in " ".join(words.not_established(report))


@pytest.mark.parametrize("verdict", ["unknown", "refuted"])
def test_nothing_is_established_without_a_proof(verdict: str) -> None:
    report = report_of(BoxResult("a", verdict, 0.25, 0.1, "accept"))
    assert words.established(report) == []
    assert "Nothing." in render_report(Report("t", (report,)))


def test_a_rejected_certificate_is_named_as_unchecked() -> None:
    report = report_of(BoxResult("a", "proved", 0.25, 0.1, "reject"))
    assert "auditor" not in " ".join(words.established(report))
    assert "rest on the prover alone" in " ".join(words.not_established(report))


def test_ratios_need_a_proof_and_a_found_deviation() -> None:
    found = [
        BoxResult("a", "proved", 0.3, 0.2),
        BoxResult("b", "proved", 0.3, 0.0),
        BoxResult("c", "unknown", 9.0, 0.1),
    ]
    assert words.ratio_summary(found) == "proved over found: median 1.5, largest 1.5"
    assert words.ratio_summary(found[1:]) == ""


def test_layer_that_keeps_more_than_there_is() -> None:
    with pytest.raises(DataError, match="'conv1' keeps 5 of 4"):
        Layer("conv1", 4, 5)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(path, Report("first", ()))
    before = path.read_text(encoding="utf-8")

    def fail(report: Report) -> str:
        raise RuntimeError("stop")

    monkeypatch.setattr("verify.report.page.render_report", fail)
    with pytest.raises(RuntimeError):
        write_report(path, Report("second", ()))
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "absent" / "report.html", Report("t", ()))


def test_pictures_show_every_box_and_layer() -> None:
    found = tuple(BoxResult(f"b{i}", "proved", 0.1 + 0.01 * i, 0.1) for i in range(5))
    page = render_report(Report("t", (report_of(*found, layers=(Layer("one", 9, 4), Layer("two", 7, 7))),)))
    assert page.count("<circle") == 5
    assert len(re.findall(r'class="between"', page)) == 5
    assert "4 of 9" in page
    assert page.count("<svg") == 3
