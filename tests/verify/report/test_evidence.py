"""The evidence items say no more than the records, and the page is a page in a real browser."""

import json
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from verify.report import (
    BoxResult,
    Layer,
    NetworkReport,
    Report,
    ShippedFile,
    Size,
    StatisticalResult,
    evidence,
    render_json,
    render_report,
    words,
    write_report,
)

CHROMIUM = next((p for p in ("/usr/bin/chromium", shutil.which("chromium") or "") if Path(p).is_file()), "")
FULL = NetworkReport(
    name="ACAS network 1_1",
    description="Fifty inputs, six layers; a fifth of the neurons removed.",
    sizes=(Size("multiply-adds", 13_000, 8_700), Size("parameters", 13_350, 8_900)),
    layers=tuple(Layer(f"layer {i}", 50, 40 - i, 3.2, 0.4, 0.01) for i in range(4)),
    layer_notes=("The a-priori bound assumes independent draws.",),
    domain="radius 0.01 around held-out inputs",
    boxes=(
        *(BoxResult(f"box {i}", "proved", 0.12 + i / 100, 0.1, "accept") for i in range(6)),
        BoxResult("box 6", "unknown", 0.9, 0.2),
    ),
    statistical=(StatisticalResult("different arg-max", 0.0, 0.004, 0.999, 2000, "At most 0.4 % differ.", True),),
    files=(ShippedFile("compact.onnx", "a" * 64), ShippedFile("certificate.json", "b" * 64)),
)
SECTIONS = (
    "Established", "Not established", "How far apart the outputs are", "Per layer",
    "Evidence for an assurance argument", "Every box", "Files this report speaks about",
)  # fmt: skip


def status(network: NetworkReport) -> dict[str, str]:
    return {e.item: e.status for e in evidence(network)}


def test_there_are_fifteen_items_that_name_the_objectives() -> None:
    found = evidence(FULL)
    assert [e.item for e in found] == [f"E{i}" for i in range(1, 16)]
    named = " ".join(e.objectives for e in found)
    assert all(objective in named for objective in ("LM-06", "IMP-04", "IMP-06", "IMP-07"))


def test_an_empty_report_has_next_to_no_evidence() -> None:
    found = status(NetworkReport("nothing"))
    assert set(found) == {f"E{i}" for i in range(1, 16)}
    assert {item for item, s in found.items() if s != "absent"} == {"E15"}


def test_a_proof_counts_only_where_it_was_audited() -> None:
    all_proved = replace(FULL, boxes=FULL.boxes[:6])
    assert status(all_proved)["E5"] == "given"
    assert status(FULL)["E5"] == "part"
    unaudited = replace(FULL, boxes=(replace(FULL.boxes[0], audited=""),))
    assert status(unaudited)["E5"] == "part"
    refuted = replace(FULL, boxes=(replace(FULL.boxes[0], verdict="refuted"),), statistical=())
    assert (status(refuted)["E5"], status(refuted)["E9"], status(refuted)["E4"]) == ("absent", "absent", "absent")


def test_open_regions_are_named() -> None:
    (open_regions,) = (e for e in evidence(FULL) if e.item == "E10")
    assert "box 6" in open_regions.words
    assert "1 of 7" in open_regions.words


def test_rounding_counts_and_the_platform_is_never_claimed() -> None:
    """What executions round is proved by certificates of its own; that a device executes so is in no record."""
    assert status(FULL)["E6"] == "absent"
    for covered in (1, 7):
        boxes = tuple(replace(b, executed_upper=0.2) if i < covered else b for i, b in enumerate(FULL.boxes))
        network = replace(FULL, boxes=boxes)
        (platform,) = (e for e in evidence(network) if e.item == "E6")
        assert platform.status == "part"
        assert f"{covered} of 7 boxes" in platform.words
        assert "Missing" in platform.words
        assert any("Executed in float32" in sentence for sentence in words.established(network))
        left = [s for s in words.not_established(network) if "rounding of any" in s]
        assert left == ([] if covered == 7 else ["The rounding of any floating-point execution on 6 of 7 boxes."])
        assert "0.2" in render_report(Report("t", (network,))).split("Every box")[1]


def test_the_json_holds_what_the_page_says(tmp_path: Path) -> None:
    report = Report("Compression report", (replace(FULL, boxes=(BoxResult("b", "unknown", float("inf"), 0.1),)),))
    write_report(tmp_path / "report.json", report)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert text == render_json(report)
    found = json.loads(text, parse_constant=pytest.fail)["networks"][0]
    assert found["records"]["boxes"][0]["certified_upper"] is None
    assert [e["item"] for e in found["evidence"]] == [f"E{i}" for i in range(1, 16)]
    page = render_report(report)
    assert all(e["words"].split(";")[0].split("'")[0] in page for e in found["evidence"])
    assert found["not_established"][0].split(":")[0] in page


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium at /usr/bin/chromium")
def test_the_page_in_a_real_browser(tmp_path: Path) -> None:
    """Every section lies inside the picture and has a height, and the picture is not blank."""
    probe = (
        "<script>const h=[...document.querySelectorAll('h2,h3,caption,summary,svg')].map(e=>{const r="
        "e.getBoundingClientRect();return (e.textContent.trim().slice(0,60)||e.tagName)+'|'+r.width+'|'+r.height+'|'"
        "+r.bottom}).join('\\n');document.body.dataset.seen=h</script>"
    )
    page = render_report(Report("Compression report", (FULL,), (("seed", "0"),))).replace("<details", "<details open")
    assert "<script" not in page  # the probe is the test's
    (tmp_path / "report.html").write_text(page.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    common = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
              "--window-size=1100,4200", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    picture, address = tmp_path / "report.png", (tmp_path / "report.html").as_uri()
    subprocess.run([*common, f"--screenshot={picture}", address], capture_output=True, check=True)
    shown = subprocess.run([*common, "--dump-dom", address], capture_output=True, text=True, check=True).stdout
    seen = shown.split('data-seen="')[1].split('"')[0].split("\n")
    boxes = {row.split("|")[0]: [float(v) for v in row.split("|")[1:]] for row in seen}
    for section in SECTIONS:
        width, height, bottom = next(v for name, v in boxes.items() if name.startswith(section))
        assert width > 100, section
        assert height > 8, section
        assert 0 < bottom < 4200, section
    content = picture.read_bytes()
    assert content[16:24] == (1100).to_bytes(4, "big") + (4200).to_bytes(4, "big")
    differences = zlib.decompress(b"".join(chunks(content, b"IDAT")))  # differences: zeros where all is one colour
    assert len(set(differences)) > 50
    assert len(differences) - differences.count(0) > 0.005 * len(differences)


def chunks(png: bytes, kind: bytes) -> Iterator[bytes]:
    """The contents of the chunks of a kind in a PNG file."""
    at = 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == kind:
            yield png[at + 8 : at + 8 + size]
        at += size + 12
