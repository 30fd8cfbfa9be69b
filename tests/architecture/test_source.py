"""What every source file of the packages keeps to."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "verify").rglob("*.py"), *(ROOT / "provable").rglob("*.py")])
IDS = [str(path.relative_to(ROOT)) for path in FILES]
LONGEST = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "misc", "common", "core", "stuff"}
ARRAY_LOADERS = {"np.load", "numpy.load", "np.lib.npyio.NpzFile"}
PICKLING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {"torch.load", "np.fromregex", "torch.package.PackageImporter"}

every_file = pytest.mark.parametrize("path", FILES, ids=IDS)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name as written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def pickle_risks(tree: ast.AST) -> list[str]:
    """Ways in which a file could make Python unpickle something."""
    found = [name for name, _ in calls(tree) if name in PICKLING_CALLS]
    for name, call in calls(tree):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        allow = given.get("allow_pickle")
        refused = isinstance(allow, ast.Constant) and allow.value is False
        if (name in ARRAY_LOADERS and not refused) or (allow is not None and not refused):
            found.append(f"{name} without allow_pickle=False")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLING_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLING_MODULES:
            found.append(node.module or "")
    return found


@every_file
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@every_file
def test_file_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@every_file
def test_name_says_something(path: Path) -> None:
    names = {path.stem, *path.relative_to(ROOT).parent.parts}
    assert not names & EMPTY_NAMES


@every_file
def test_no_assert_statement(path: Path) -> None:
    """`python -O` drops them: a user error raises, an impossible case raises too."""
    assert not [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert)]


@every_file
def test_nothing_is_unpickled(path: Path) -> None:
    assert not pickle_risks(tree_of(path))


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "read(f, allow_pickle=flag)",
        "import pickle",
        "from pickle import loads",
    ],
)
def test_pickle_risks_are_seen(code: str) -> None:
    assert pickle_risks(ast.parse(code))


def test_safe_loading_is_not_flagged() -> None:
    assert not pickle_risks(ast.parse("np.load(f, allow_pickle=False)\nsafetensors.numpy.load(b)"))


@every_file
def test_no_hidden_randomness(path: Path) -> None:
    """Random numbers come from a generator that the caller passes: the global ones are not touched."""
    pattern = re.compile(r"(np|numpy)\.random\.(?!(default_rng|Generator|SeedSequence|PCG64|Philox)\b)\w+")
    names = [name for name, _ in calls(tree_of(path))]
    assert not [n for n in names if pattern.fullmatch(n) or n in {"torch.manual_seed", "random.seed", "random.random"}]
