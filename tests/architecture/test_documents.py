"""Documents a reader sees: they point at files that exist and at no place on somebody's machine."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for top in ("theory_notes", "verify", "provable", "examples") for p in (ROOT / top).rglob("*.md")),
    ]
)
ABSOLUTE = re.compile(r"(?<![\w.:/~\-])/(?:home|work|root|tmp|Users|usr|opt|mnt|data|srv|var)/[\w.\-]+")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)\s]*)?\)")
NOTE = re.compile(r"(?<![\w/.])(?:theory_notes/)?([a-z][a-z0-9_]*\.md)")
CODE = re.compile(r"`((?:provable|verify|tests|scripts)/[\w/.]+\.py)`")

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=[str(p.relative_to(ROOT)) for p in DOCUMENTS])


@every_document
def test_no_absolute_path(path: Path) -> None:
    assert not ABSOLUTE.findall(path.read_text(encoding="utf-8"))


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()]
    assert not missing


def test_every_note_that_the_code_names_exists() -> None:
    sources = [p for top in ("provable", "verify", "scripts") for p in (ROOT / top).rglob("*.py")]
    named = {(p.name, note) for p in sources for note in NOTE.findall(p.read_text(encoding="utf-8"))}
    assert len(named) > 20
    assert not [(source, note) for source, note in named if not (ROOT / "theory_notes" / note).exists()]


def test_every_note_names_files_that_exist() -> None:
    text = {p.name: CODE.findall(p.read_text(encoding="utf-8")) for p in (ROOT / "theory_notes").glob("*.md")}
    missing = [(note, path) for note, paths in text.items() for path in paths if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("text", ["see /home/me/x.py", "`/work/data`", "(/tmp/out)"])
def test_absolute_paths_are_seen(text: str) -> None:
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize(
    ("text", "links"),
    [("[a](b.md)", ["b.md"]), ("[a](b.md#part)", ["b.md"]), ("[x](https://y)", []), ("tr([D, W](C + r I)[D])", [])],
)
def test_links_are_told_from_formulas(text: str, links: list[str]) -> None:
    assert LINK.findall(text) == links


def test_readme_names_the_two_commands_and_they_can_be_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("scripts/demo", "scripts/test"):
        assert (ROOT / command).stat().st_mode & 0o111
        if text.strip():
            assert f"./{command}" in text


def test_licence_is_the_complete_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License" in text
