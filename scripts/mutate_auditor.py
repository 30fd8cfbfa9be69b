"""Mutation testing of the auditor: change its source in one place, and see whether the tests notice.

Every mutant is one small change of the syntax tree of one module of `verify.audit`: a comparison, a sign, a constant,
a dropped operand (a rounding term, one side of epsilon), a removed guard or `raise`, `min` for `max`, a tolerance. A
forked child takes over the changed function and runs the tests under `tests/verify/audit` that execute it, the quick
ones first, up to the first failure. A mutant that no test fails for has survived; it is either a gap in the tests, or
it is equivalent: no false claim can become accepted. Equivalent ones are listed with the reason in
`tests/verify/audit/equivalent_mutants.json`, by module, function, line of source and change, not by line number.

    python scripts/mutate_auditor.py --modules check rules --sample 200
    python scripts/mutate_auditor.py --modules planes --tests test_planes.py test_constants.py
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree and no other that is installed
SOURCES, TESTS = ROOT / "verify" / "audit", ROOT / "tests" / "verify" / "audit"
EQUIVALENT = TESTS / "equivalent_mutants.json"
MODULES = tuple(sorted(path.stem for path in SOURCES.glob("*.py") if not path.stem.startswith("_")))
QUICK = (
    "test_certificate.py", "test_constants.py", "test_upper.py", "test_descent_edges.py", "test_kernel_laws.py",
    "test_edges.py", "test_premises.py", "test_bounds.py", "test_guards.py", "test_golden.py",
    "test_unit_proposal.py", "test_onnx_operators.py", "test_parts.py", "test_planes.py", "test_grid.py",
    "test_specification.py", "test_files.py", "test_protobuf.py", "test_onnx_tensor.py", "test_onnx_file.py",
    "test_structure_file.py", "test_program.py", "test_lift.py",
)  # fmt: skip
THOROUGH = ("test_exact.py", "test_rules.py", "test_check.py", "test_rounding.py")
UNSUITED = ("failure_at_any_call", "nothing_but_numpy", "deep_tree", "every_function", "other_process")
OPTIONS = [
    "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout", "-m", "not slow", "-k",
    " and ".join(f"not {name}" for name in UNSUITED),
]  # fmt: skip
MEMORY = 6 * 2**30


@dataclass(frozen=True)
class Mutant:
    """One change: where, and what. The place is known by its text, so that a list of mutants outlives other edits."""

    module: str
    function: str
    line: str
    change: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.module, self.function, self.line, self.change


Replacement = ast.AST | None  # None removes a statement
_COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
_ARITHMETIC: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.FloorDiv,), ast.FloorDiv: (ast.Mult,),
    ast.Div: (ast.Mult,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,), ast.Mod: (ast.Mult,),
}  # fmt: skip
_NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "floor": "ceil", "ceil": "floor",
    "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin", "rint": "floor",
}  # fmt: skip


def replacements(node: ast.AST) -> Iterator[Replacement]:
    """All changes of one node."""
    for kind, offer in _OFFERS.items():
        if isinstance(node, kind):
            yield from offer(node)


def _compare(node: Any) -> Iterator[Replacement]:
    for i, op in enumerate(node.ops):
        for other in _COMPARISONS.get(type(op), ()):
            yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)
    if isinstance(node.ops[-1], ast.LtE):  # a tolerance
        wider = ast.BinOp(node.comparators[-1], ast.Mult(), ast.Constant(1 + 1e-12))
        yield ast.Compare(node.left, node.ops, [*node.comparators[:-1], wider])


def _binary(node: Any) -> Iterator[Replacement]:
    for other in _ARITHMETIC.get(type(node.op), ()):
        yield ast.BinOp(node.left, other(), node.right)
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.BitAnd | ast.BitOr):
        yield node.left
        yield node.right


def _boolean(node: Any) -> Iterator[Replacement]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for i in range(len(node.values)):
        rest = [*node.values[:i], *node.values[i + 1 :]]
        yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _constant(node: Any) -> Iterator[Replacement]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value + 1.0)
        yield ast.Constant(node.value / 2 if node.value else -1.0)


def _call(node: Any) -> Iterator[Replacement]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _NAMES:
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = _NAMES[name]
        else:
            changed.func.id = _NAMES[name]
        yield changed
    if name in ("abs", "ceil", "rint", "floor") and len(node.args) == 1 and not node.keywords:
        yield node.args[0]


def _unary(node: Any) -> Iterator[Replacement]:
    yield node.operand


def _sequence(node: Any) -> Iterator[Replacement]:
    """A list without one of its items: a dropped slack, a dropped term."""
    if isinstance(node.ctx, ast.Load) and len(node.elts) >= 2:
        for i in range(len(node.elts)):
            yield ast.List([*node.elts[:i], *node.elts[i + 1 :]], ast.Load())


def _branch(node: Any) -> Iterator[Replacement]:
    for value in (True, False):
        changed = copy.copy(node)
        changed.test = ast.Constant(value)
        yield changed


def _statement(node: Any) -> Iterator[Replacement]:
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        yield None


_OFFERS: dict[type, Callable[[Any], Iterator[Replacement]]] = {
    ast.Compare: _compare, ast.BinOp: _binary, ast.BoolOp: _boolean, ast.Constant: _constant, ast.Call: _call,
    ast.UnaryOp: _unary, ast.List: _sequence, ast.If: _branch, ast.IfExp: _branch, ast.Raise: _statement,
    ast.Expr: _statement, ast.AugAssign: _statement,
}  # fmt: skip


class _Walker(ast.NodeVisitor):
    """Finds (function, field path) of every node that may be changed; words for people are left alone."""

    def __init__(self) -> None:
        self.scope: list[str] = []
        self.found: list[tuple[str, ast.AST]] = []

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.arguments | ast.Import | ast.ImportFrom):
            return
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if named:
            self.scope.append(node.name)  # type: ignore[attr-defined]
        self.found.append((".".join(self.scope), node))
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list") or (isinstance(node, ast.Raise) and field == "exc"):
                continue
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    self.visit(item)
        if named:
            self.scope.pop()


Compiled = Callable[[], CodeType]


def mutants(module: str) -> Iterator[tuple[Mutant, Compiled]]:
    """Every mutant of a module, and how to compile it."""
    path = SOURCES / f"{module}.py"
    text = path.read_text()
    lines, tree = text.splitlines(), ast.parse(text)
    walker = _Walker()
    walker.visit(tree)
    seen: Counter[tuple[str, str, str, str]] = Counter()
    for function, node in walker.found:
        if not hasattr(node, "lineno"):
            continue
        for new in replacements(node):
            change = f"{_text(node)} -> {_text(new)}"
            place = lines[node.lineno - 1].strip()
            mutant = Mutant(module, function, place, change)
            seen[mutant.key] += 1
            if seen[mutant.key] > 1:
                mutant = Mutant(module, function, place, f"{change} (#{seen[mutant.key]})")
            yield mutant, partial(_compiled, tree, node, new, path)


def _text(node: Replacement) -> str:
    text = "(removed)" if node is None else ast.unparse(node)
    head = text.splitlines()[0]
    return head if len(head) <= 120 else head[:117] + "..."


def _compiled(tree: ast.Module, node: ast.AST, new: Replacement, path: Path) -> CodeType:
    """The module with `new` in place of `node`; the tree is put back as it was."""
    goal = ast.copy_location(ast.Pass() if new is None else new, node)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            at = next((i for i, item in enumerate(value) if item is node), None) if isinstance(value, list) else None
            if value is not node and at is None:
                continue
            holder, key = (parent.__dict__, field) if at is None else (value, at)
            holder[key] = goal
            try:
                return compile(ast.fix_missing_locations(tree), str(path), "exec")
            finally:
                holder[key] = node
    raise LookupError("the node is not in the tree")


class _Changed(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from changed code."""

    def __init__(self, module: str, code: CodeType) -> None:
        self.name, self.code = f"verify.audit.{module}", code

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=self.code.co_filename)

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def imported_anew(mutant: Mutant, code: CodeType, tests: Sequence[str]) -> str:
    """Judge a change of what runs when a module is imported: a forked child imports everything from the start."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
        for name in [n for n in sys.modules if n == "verify" or n.startswith("verify.")]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Changed(mutant.module, code))
        outcome = 3
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            outcome = int(pytest.main([*OPTIONS, "-x", *(str(TESTS / test) for test in tests)]))
        finally:
            os._exit(outcome)
    return _outcome(os.waitpid(child, 0)[1])


def _outcome(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return "survived" if code == 0 else "killed" if code > 0 else "timed out"


@dataclass
class Seen:
    """What a test cost, and which functions of the auditor it executed, as module.function."""

    seconds: float
    functions: list[str]


class Campaign:
    """A pytest plugin that judges mutants where pytest would run the tests.

    The tests run once to see what each costs and executes. A mutant is judged in a forked child by those that execute
    the changed function: first the ones that killed its neighbours, then the quickest, up to the first failure.
    """

    def __init__(self, chosen: Sequence[tuple[Mutant, Compiled]], options: Any) -> None:
        self.chosen, self.options = chosen, options
        self.results: list[tuple[Mutant, str]] = []
        self.kills: Counter[tuple[str, str]] = Counter()
        self.seen: dict[str, Seen] = {}

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            return False
        self.items = list(session.items)
        self.observe()
        if self.options.longest is not None:
            self.items = [i for i in self.items if self.seen[i.nodeid].seconds <= self.options.longest]
        for mutant, code in self.chosen:
            outcome = accounted(mutant, self.judge(mutant, code()))
            self.results.append((mutant, outcome))
            if outcome in ("survived", "not executed"):
                print(outcome + told(mutant), flush=True)
        return True

    def observe(self) -> None:
        """Fill `seen` by running all tests once, in a child so that nothing of them stays behind."""
        cache = self.options.seen
        if cache and cache.exists():
            self.seen = {name: Seen(**entry) for name, entry in json.loads(cache.read_text()).items()}
        new = [item for item in self.items if item.nodeid not in self.seen]
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(_observed(new), pipe)
                pipe.flush()
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            found = json.load(pipe)
        os.waitpid(child, 0)
        if wrong := [name for name, entry in found.items() if entry is None]:
            raise pytest.UsageError(f"tests that fail on the auditor as it is: {wrong}")
        self.seen |= {name: Seen(**entry) for name, entry in found.items()}
        if cache:
            cache.write_text(json.dumps({name: asdict(entry) for name, entry in self.seen.items()}))

    def judge(self, mutant: Mutant, code: CodeType) -> str:
        """ "killed", "timed out", "survived", or "not executed" by any test."""
        place = f"{mutant.module}.{owner(mutant)}"
        items = [item for item in self.items if place in self.seen[item.nodeid].functions]
        if not items:
            return "not executed"
        items.sort(key=lambda i: self.seen[i.nodeid].seconds / (1 + 50 * self.kills[place, i.nodeid]))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._child(mutant, code, items, write)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read().split()
        outcome = _outcome(os.waitpid(child, 0)[1])
        if outcome != "survived" and said:
            self.kills[place, items[int(said[-1])].nodeid] += 1
        return outcome

    def _child(self, mutant: Mutant, code: CodeType, items: list[Any], pipe: int) -> None:
        outcome = 3
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            transplant(mutant.module, code)
            outcome = 0
            for i, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
                seconds = self.seen[item.nodeid].seconds
                signal.setitimer(signal.ITIMER_PROF, 5 + 10 * seconds)  # ends the process
                signal.setitimer(signal.ITIMER_REAL, 60 + 60 * seconds)
                os.write(pipe, f"{i} ".encode())
                if any(report.failed for report in runtestprotocol(item, nextitem=following, log=False)):
                    outcome = 1
                    break
        finally:
            os._exit(outcome)


def _observed(items: Sequence[Any]) -> dict[str, Any]:
    """Name of a test -> seconds and functions; None if it fails."""
    found: dict[str, Any] = {}
    shared: set[CodeType] = set()
    for item, following in zip(items, [*items[1:], None], strict=False):
        codes: set[CodeType] = set()

        def watch(frame: Any, event: str, value: Any, codes: set[CodeType] = codes) -> None:
            codes.add(frame.f_code)

        begin = time.process_time()
        sys.setprofile(watch)
        reports = runtestprotocol(item, nextitem=following, log=False)
        sys.setprofile(None)
        if "bases" in item.fixturenames:  # made in the first test that asks for them
            shared |= codes
            codes = shared
        functions = sorted({_place(c) for c in codes if Path(c.co_filename).parent == SOURCES})
        failed = any(r.failed for r in reports)
        found[item.nodeid] = None if failed else {"seconds": time.process_time() - begin, "functions": functions}
    return found


def _place(code: CodeType) -> str:
    return f"{Path(code.co_filename).stem}.{code.co_qualname.split('.<locals>')[0]}"


def owner(mutant: Mutant) -> str:
    """The outermost function or method that a change is in, "" if it is in none: then it acts at import."""
    holder: Any = importlib.import_module(f"verify.audit.{mutant.module}")
    parts = mutant.function.split(".") if mutant.function else []
    for i, part in enumerate(parts):
        holder = inspect.getattr_static(holder, part)
        if not isinstance(holder, type):
            return ".".join(parts[: i + 1])
    return ""


def transplant(module: str, code: CodeType) -> None:
    """Give the functions of an imported module the bodies that they have in its changed code."""
    live = sys.modules[f"verify.audit.{module}"]
    fresh = ModuleType(live.__name__)
    exec(code, fresh.__dict__)
    _transplant(vars(live), vars(fresh), code.co_filename)


def _transplant(old: Any, new: Any, path: str) -> None:
    for name, value in new.items():
        if isinstance(value, type) and value.__module__ == new.get("__name__"):
            _transplant(vars(old[name]), {**vars(value), "__name__": None}, path)
        a, b = (_plain(v) for v in (old.get(name), value))
        if isinstance(b, FunctionType) and b.__code__.co_filename == path:
            a.__code__, a.__defaults__, a.__kwdefaults__ = b.__code__, b.__defaults__, b.__kwdefaults__


def _plain(value: Any) -> Any:
    """The function behind a property, a cached property or a static method."""
    for key in ("fget", "func", "__func__"):
        value = getattr(value, key, value)
    return value


def accounted(mutant: Mutant, outcome: str) -> str:
    """The outcome; a survivor is equivalent where the list says so of its whole line."""
    listed = (*mutant.key[:3], "*") in known_equivalents()
    return "equivalent" if outcome in ("survived", "not executed") and listed else outcome


def told(mutant: Mutant) -> str:
    return f": {mutant.module}.{mutant.function}: {mutant.change}\n          {mutant.line}"


def known_equivalents() -> dict[tuple[str, str, str, str], str]:
    """Key -> reason, of the mutants that change no verdict; the change "*" stands for those of a line that survive."""
    entries = json.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else []
    return {(e["module"], e["function"], e["line"], e["change"]): e["reason"] for e in entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", default=list(MODULES), choices=MODULES)
    parser.add_argument("--functions", nargs="+", help="only these functions")
    parser.add_argument("--sample", type=int, help="that many of the mutants, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only the files of quick tests")
    parser.add_argument("--tests", nargs="+", help="only these files of tests, such as those about one module")
    parser.add_argument("--longest", type=float, help="only tests of at most that many seconds")
    parser.add_argument("--seen", type=Path, help="what each test executes: read from this file, completed, written")
    parser.add_argument("--survivors", type=Path, help="write the survivors to this JSON file")
    parser.add_argument("--again", type=Path, help="only the mutants in a file written by --survivors")
    parser.add_argument("--equivalents", action="store_true", help="judge also those that are listed as equivalent")
    parser.add_argument("--bodies", action="store_true", help="leave out what acts at import: constants and defaults")
    parser.add_argument("--list", action="store_true", help="count the mutants, run nothing")
    options = parser.parse_args()
    chosen = [m for module in options.modules for m in mutants(module)]
    if options.functions:
        chosen = [m for m in chosen if m[0].function.split(".")[-1] in options.functions]
    if options.again:
        keys = {tuple(entry.values()) for entry in json.loads(options.again.read_text())}
        chosen = [m for m in chosen if m[0].key in keys]
    if options.bodies:
        chosen = [m for m in chosen if owner(m[0])]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    if options.list:
        print(Counter(m.module for m, _ in chosen))
        return 0
    return report(chosen, options)


def report(chosen: Sequence[tuple[Mutant, Compiled]], options: Any) -> int:
    """Judge the mutants, print the table; 1 if one survived that is not listed as equivalent, 3 if nothing ran."""
    begin, equivalents = time.perf_counter(), {} if options.equivalents else known_equivalents()
    results = [(m, "equivalent") for m, _ in chosen if m.key in equivalents]
    open_ones = [(m, code) for m, code in chosen if m.key not in equivalents]
    campaign = Campaign([pair for pair in open_ones if owner(pair[0])], options)
    os.environ["CI"] = "true"
    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate]
    )
    settings.load_profile("mutation")
    for mutant, code in (pair for pair in open_ones if not owner(pair[0])):
        outcome = imported_anew(mutant, code(), options.tests or QUICK)
        if outcome == "survived" and options.longest is None and not (options.quick or options.tests):
            outcome = imported_anew(mutant, code(), THOROUGH)
        outcome = accounted(mutant, outcome)
        results.append((mutant, outcome))
        if outcome == "survived":
            print(outcome + told(mutant), flush=True)
    files = [TESTS / name for name in options.tests or (QUICK if options.quick else [""])]
    if campaign.chosen and pytest.main([*OPTIONS, "-s", *map(str, files)], plugins=[campaign]):
        return 3
    results += campaign.results
    survivors = [m for m, outcome in results if outcome in ("survived", "not executed")]
    table: dict[str, Counter[str]] = {}
    for mutant, outcome in results:
        table.setdefault(mutant.module, Counter())[outcome] += 1
    columns = ("killed", "timed out", "equivalent", "survived", "not executed")
    print(f"{'module':<16}" + "".join(f"{c:>14}" for c in columns))
    for name, row in {**table, "all": sum(table.values(), Counter())}.items():
        print(f"{name:<16}" + "".join(f"{row[c]:>14}" for c in columns))
    print(f"{len(chosen)} mutants in {time.perf_counter() - begin:.0f} s")
    if options.survivors:
        options.survivors.write_text(json.dumps([asdict(m) for m in survivors], indent=1) + "\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
