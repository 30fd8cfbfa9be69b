"""Who may import whom: the three rules that make the verdicts worth something."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERIFY = sorted((ROOT / "verify").rglob("*.py"))
AUDIT = sorted((ROOT / "verify" / "audit").rglob("*.py"))


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of all modules that the code imports, wherever the statement stands; `package` resolves dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_dynamic_import(node.func) and node.args:
            first = node.args[0]
            yield first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else "<computed>"


def _is_dynamic_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"__import__", "import_module"}


def imports_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return set(imported(ast.parse(path.read_text(encoding="utf-8")), package))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def outside_trusted_base(name: str) -> bool:
    top = name.split(".")[0]
    return not (top in sys.stdlib_module_names or top == "numpy" or within(name, "verify.audit"))


def test_verify_never_imports_provable() -> None:
    assert VERIFY, "the folder must exist for the rule to mean something"
    guilty = {str(p.relative_to(ROOT)): n for p in VERIFY for n in imports_of(p) if within(n, "provable")}
    assert not guilty


def test_audit_imports_only_the_standard_library_numpy_and_itself() -> None:
    if not AUDIT:
        pytest.skip("verify/audit is not there yet")
    guilty = {(str(p.relative_to(ROOT)), n) for p in AUDIT for n in imports_of(p) if outside_trusted_base(n)}
    assert not guilty


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import provable", "provable"),
        ("def f():\n    from provable.pipeline import compress", "provable.pipeline.compress"),
        ("from .. import formal", "verify.formal"),
        ("from ..formal import pair", "verify.formal.pair"),
        ("import importlib\nimportlib.import_module('torch')", "torch"),
        ("__import__(name)", "<computed>"),
    ],
)
def test_the_walk_sees_every_form_of_import(code: str, found: str) -> None:
    names = set(imported(ast.parse(code), "verify.audit"))
    assert found in names
    assert any(outside_trusted_base(name) for name in names)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    script = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_verify_stays_light() -> None:
    assert not loaded_by("import verify") & {"torch", "scipy", "onnx", "onnxruntime", "cvxpy", "provable"}


def test_the_auditor_runs_without_everything_else() -> None:
    """What the import of the auditor really loads, third-party packages: numpy alone."""
    if not AUDIT:
        pytest.skip("verify/audit is not there yet")
    heavy = {
        "torch",
        "scipy",
        "onnx",
        "onnxruntime",
        "cvxpy",
        "safetensors",
        "hypothesis",
        "rich",
        "google",
        "provable",
    }
    assert not loaded_by("import verify.audit") & heavy


def test_the_auditor_shares_no_code_with_the_search() -> None:
    """Of this project, `import verify.audit` executes `verify/__init__.py` and the audit folder, nothing else."""
    if not AUDIT:
        pytest.skip("verify/audit is not there yet")
    script = "import verify.audit, sys\nprint(*(n for n in sys.modules if n.split('.')[0] in ('verify', 'provable')))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    foreign = {n for n in done.stdout.split() if n != "verify" and not within(n, "verify.audit")}
    assert not foreign - {"verify.errors"}, "names for users may be re-exported lazily, not on import"
