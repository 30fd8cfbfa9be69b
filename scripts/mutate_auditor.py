"""Mutation testing of the auditor: change its source in one place, and see whether the tests notice.

Every mutant is one small change of the syntax tree of one module of `verify.audit`: a comparison, a sign, a constant,
a dropped operand (a rounding term, one side of epsilon), a removed guard or `raise`, `min` for `max`, a tolerance. A
forked child imports the changed module and runs the tests under `tests/verify/audit`, the quick ones first, up to the
first failure. A mutant that no test fails for has survived; it is either a gap in the tests, or it is equivalent:
no false claim can become accepted. Equivalent ones are listed with the reason in
`tests/verify/audit/equivalent_mutants.json`, by module, function, line of source and change, not by line number.

    python scripts/mutate_auditor.py --modules check rules --sample 200
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
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
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES, TESTS = ROOT / "verify" / "audit", ROOT / "tests" / "verify" / "audit"
EQUIVALENT = TESTS / "equivalent_mutants.json"
CORE = ("check", "rules", "form", "linear", "rounding", "exact", "lift", "certificate")
MODULES = (*CORE, "program", "files", "protobuf", "onnx_file", "onnx_operators", "onnx_tensor", "structure_file")
QUICK = ("test_kernel_laws.py", "test_golden.py", "test_unit_proposal.py")
THOROUGH = ("test_exact.py", "test_rules.py", "test_check.py", "test_rounding.py")
UNSUITED = ("failure_at_any_call", "nothing_but_numpy", "deep_tree", "every_function", "other_process")
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


def judge(finder: _Changed | None, tests: Sequence[str], seconds: float) -> str:
    """Run the tests in a forked child with the changed module: "killed", "survived" or "timed out"."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run(finder, tests)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _run(finder: _Changed | None, tests: Sequence[str]) -> None:
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for name in [n for n in sys.modules if n == "verify" or n.startswith("verify.")]:
        del sys.modules[name]
    if finder is not None:
        sys.meta_path.insert(0, finder)
    chosen = [str(TESTS / test) for test in tests if (TESTS / test).exists()]
    unsuited = " and ".join(f"not {name}" for name in UNSUITED)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "-k", unsuited]
    code = 3
    try:
        code = int(pytest.main([*options, *chosen]))
    finally:
        os._exit(code)


def warm_up() -> None:
    """Import what the tests need once, in the parent: children then start in milliseconds."""
    os.environ["CI"] = "true"  # hypothesis draws the same examples every time
    for name in ("numpy", "pytest", "hypothesis", "onnx", "torch", "_pytest.assertion.rewrite"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def known_equivalents() -> dict[tuple[str, str, str, str], str]:
    """Key -> reason, of the mutants that change no verdict."""
    entries = json.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else []
    return {(e["module"], e["function"], e["line"], e["change"]): e["reason"] for e in entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", default=list(CORE), choices=MODULES)
    parser.add_argument("--functions", nargs="+", help="only these functions")
    parser.add_argument("--sample", type=int, help="that many of the mutants, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="only the quick tests")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit per mutant and stage")
    parser.add_argument("--survivors", type=Path, help="write the survivors to this JSON file")
    parser.add_argument("--again", type=Path, help="only the mutants in a file written by --survivors")
    parser.add_argument("--list", action="store_true", help="count the mutants, run nothing")
    options = parser.parse_args()
    chosen = [m for module in options.modules for m in mutants(module)]
    if options.functions:
        chosen = [m for m in chosen if m[0].function.split(".")[-1] in options.functions]
    if options.again:
        keys = {tuple(entry.values()) for entry in json.loads(options.again.read_text())}
        chosen = [m for m in chosen if m[0].key in keys]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    if options.list:
        print(Counter(m.module for m, _ in chosen))
        return 0
    warm_up()
    stages = [QUICK] if options.quick else [QUICK, THOROUGH]
    for tests in stages:
        if judge(None, tests, 600) != "survived":
            print(f"the tests {tests} fail on the auditor as it is")
            return 3
    return report(chosen, stages, options)


def report(chosen: Sequence[tuple[Mutant, Compiled]], stages: Sequence[Sequence[str]], options: Any) -> int:
    """Judge the mutants, print the table; 1 if one survived that is not listed as equivalent."""
    begin, equivalents = time.perf_counter(), known_equivalents()
    table: dict[str, Counter[str]] = {}
    survivors = []
    for mutant, code in chosen:
        outcome = "equivalent" if mutant.key in equivalents else "survived"
        for tests in stages if outcome == "survived" else ():
            outcome = judge(_Changed(mutant.module, code()), tests, options.seconds)
            if outcome != "survived":
                break
        table.setdefault(mutant.module, Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(mutant)
            print(f"survived: {mutant.module}.{mutant.function}: {mutant.change}\n          {mutant.line}", flush=True)
    columns = ("killed", "timed out", "equivalent", "survived")
    print(f"{'module':<16}" + "".join(f"{c:>12}" for c in columns))
    for name, row in {**table, "all": sum(table.values(), Counter())}.items():
        print(f"{name:<16}" + "".join(f"{row[c]:>12}" for c in columns))
    print(f"{len(chosen)} mutants in {time.perf_counter() - begin:.0f} s")
    if options.survivors:
        options.survivors.write_text(json.dumps([asdict(m) for m in survivors], indent=1) + "\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
