"""Names that users may rely on: what `__all__` promises exists, and what a package imports to offer is promised."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("verify", "provable")
PACKAGES = sorted(
    ".".join(path.relative_to(ROOT).parent.parts) for top in TOP for path in (ROOT / top).rglob("__init__.py")
)
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for top in TOP
    for path in (ROOT / top).rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"}
)


def bound_by_import(name: str) -> set[str]:
    """Public names that a package's init file imports from the project, at once or on first use (TYPE_CHECKING)."""
    tree = ast.parse((ROOT.joinpath(*name.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    lazy = [n for block in tree.body if isinstance(block, ast.If) for n in block.body]
    statements = [n for n in [*tree.body, *lazy] if isinstance(n, ast.ImportFrom) and (n.module or "").startswith(TOP)]
    names = {alias.asname or alias.name for statement in statements for alias in statement.names}
    return {n for n in names if not n.startswith("_")}


@pytest.mark.parametrize("name", PACKAGES)
def test_promised_names_exist_and_offered_names_are_promised(name: str) -> None:
    package = importlib.import_module(name)
    promised = getattr(package, "__all__", None)
    offered = bound_by_import(name)
    if promised is None:
        assert not offered, f"{name} offers {sorted(offered)} but has no __all__"
        return
    assert len(promised) == len(set(promised))
    assert not [n for n in promised if not hasattr(package, n)]
    if name in TOP:  # below the top, an init file may import the pieces of a registry without offering them
        assert not offered - set(promised)


def test_promised_names_of_modules_exist() -> None:
    modules = {name: importlib.import_module(name) for name in MODULES}
    missing = {f"{name}.{n}" for name, m in modules.items() for n in getattr(m, "__all__", ()) if not hasattr(m, n)}
    assert not missing


@pytest.mark.parametrize("name", TOP)
def test_public_functions_and_classes_are_documented(name: str) -> None:
    package = importlib.import_module(name)
    members = {n: getattr(package, n) for n in getattr(package, "__all__", ())}
    assert not [n for n, member in members.items() if callable(member) and not (member.__doc__ or "").strip()]
