"""What every source file of the packages keeps to."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "verify").rglob("*.py"), *(ROOT / "provable").rglob("*.py")])
LONGEST = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "misc", "common", "core", "stuff"}
ARRAY_LOADERS = {"np.load", "numpy.load", "np.lib.npyio.NpzFile"}
PICKLING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {"torch.load", "np.fromregex", "torch.package.PackageImporter"}


def offenders(offence: Callable[[Path, ast.Module], object]) -> dict[str, object]:
    """File -> what is wrong with it, for every file of the packages where `offence` finds something."""
    found = {str(path.relative_to(ROOT)): offence(path, tree_of(path)) for path in FILES}
    return {name: what for name, what in found.items() if what}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


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


def test_every_module_has_a_docstring() -> None:
    assert not offenders(lambda _, tree: not ast.get_docstring(tree))


def test_files_are_short_enough_to_read() -> None:
    lengths = {name: count for name, count in offenders(lambda path, _: line_count(path)).items() if count > LONGEST}
    assert not lengths


def test_names_of_files_and_folders_say_something() -> None:
    assert not offenders(lambda path, _: {path.stem, *path.relative_to(ROOT).parent.parts} & EMPTY_NAMES)


def checking_asserts(tree: ast.AST) -> list[int]:
    """Lines of assert statements that do more than name a type for the type checker."""
    naming = re.compile(r"(\w[\w.\[\]]* is not None|isinstance\(.*\)|callable\(.*\))")
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    return [node.lineno for node in found if not naming.fullmatch(ast.unparse(node.test))]


def test_no_assert_statement_checks_anything() -> None:
    """`python -O` drops them: a user error raises, an impossible case raises too."""
    assert not offenders(lambda _, tree: checking_asserts(tree))
    assert checking_asserts(ast.parse("assert x.shape == y.shape"))
    assert not checking_asserts(ast.parse("assert x.shape is not None"))


def test_nothing_is_unpickled() -> None:
    assert not offenders(lambda _, tree: pickle_risks(tree))


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


def global_randomness(tree: ast.AST) -> list[str]:
    pattern = re.compile(r"(np|numpy)\.random\.(?!(default_rng|Generator|SeedSequence|PCG64|Philox)\b)\w+")
    named = {"torch.manual_seed", "random.seed", "random.random"}
    return [name for name, _ in calls(tree) if pattern.fullmatch(name) or name in named]


def test_random_numbers_come_from_a_generator_that_is_passed_in() -> None:
    assert not offenders(lambda _, tree: global_randomness(tree))


def test_the_walks_find_files_and_faults() -> None:
    assert len(FILES) > 10
    assert global_randomness(ast.parse("np.random.rand(3)"))
    assert not global_randomness(ast.parse("np.random.default_rng(3).random()"))
