"""The auditor as a single file that runs wherever Python and numpy are: audit.pyz.

    python scripts/build_auditor.py [--out audit.pyz]
    python audit.pyz CERTIFICATE --original FILE --compact FILE

It holds the sources of `verify.audit` as they are and nothing else; the same sources give the same bytes. It prints the
same number of lines and the same SHA-256 of its sources as `python -m verify.audit`. Building it also counts how many
of the lines are code: neither blank, nor comment, nor docstring.
"""

import argparse
import ast
import hashlib
import io
import os
import tempfile
import tokenize
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = '"""The auditor alone."""\n'
MAIN = "import sys\n\nfrom verify.audit.__main__ import main\n\nsys.exit(main())\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)


def build(target: Path) -> str:
    """Write the archive in one step; returns its SHA-256."""
    sources = sorted((ROOT / "verify" / "audit").glob("*.py"))
    content = {f"verify/audit/{path.name}": path.read_bytes() for path in sources}
    content |= {"__main__.py": MAIN.encode(), "verify/__init__.py": PACKAGE.encode()}
    descriptor, temporary = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                for name in sorted(content):
                    archive.writestr(zipfile.ZipInfo(name, LONG_AGO), content[name])
        os.chmod(temporary, 0o755)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return hashlib.sha256(target.read_bytes()).hexdigest()


SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source: str) -> int:
    """Lines that hold code: without blank lines, comments and docstrings."""
    busy: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            busy.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            busy.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(busy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("audit.pyz"))
    target = parser.parse_args().out
    print(f"{target}: sha256 {build(target)}")
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "verify" / "audit").glob("*.py"))]
    lines, code = sum(source.count("\n") for source in sources), sum(map(code_lines, sources))
    print(f"{len(sources)} files of {lines} lines, {code} of them code")


if __name__ == "__main__":
    main()
