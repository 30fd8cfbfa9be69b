"""Every system of the toolkit in one list, with the pruning survey's axes: ``provable methods``.

A method is declared where it lives: its module holds ``METHODS``, a tuple of `provable.method.Method` records. Adding a
system to the catalogue is one line of `MODULES`; a module that is missing, declares nothing or repeats a name is an
error, not a gap. Theory note: scores.md.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from io import StringIO

from rich.console import Console
from rich.table import Table

from provable.errors import InputError
from provable.method import Method

MODULES = (
    "provable.selection.by_loss",
    "provable.selection.by_sensitivity",
    "provable.selection.forward_selection",
    "provable.selection.by_design",
    "provable.structural_search",
    "provable.sensitivity.taylor",
    "provable.sensitivity.similarity",
    "provable.sensitivity.functionality",
    "provable.sensitivity.magnitude",
    "provable.coresets.sparsify",
    "provable.exact.prune",
    "provable.training.methods",
    "provable.prunability.measure",
    "provable.sparse_coding.pursuit",
    "provable.sparse_coding.layered",
    "provable.sparse_coding.unfolded",
)
"""One line per system's module."""

COLUMNS = ("name", "granularity", "when", "criterion", "data", "recovery", "guarantee")


@cache
def methods() -> tuple[Method, ...]:
    """All declared methods, in the order of `MODULES`.

    Raises:
        InputError: a module declares no method, or two methods have one name.
    """
    found: list[Method] = []
    for name in MODULES:
        declared = getattr(import_module(name), "METHODS", None)
        if not isinstance(declared, tuple) or not declared or not all(isinstance(m, Method) for m in declared):
            raise InputError(f"module {name} is in the catalogue but declares no METHODS = (Method(...), ...)")
        found += declared
    names = [method.name for method in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two methods of the catalogue are called {', '.join(twice)}")
    return tuple(found)


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: there is none; the message names those there are.
    """
    for known in methods():
        if known.name == name:
            return known
    raise InputError(f"no method {name!r}; known: {', '.join(known.name for known in methods())}")


def overview(chosen: Iterable[Method], width: int = 140) -> str:
    """One row per method: its place on every axis; then what each costs, and where it was published; plain text."""
    known = tuple(chosen)
    return "\n".join(_rows(known, columns, width) for columns in (COLUMNS, ("name", "cost", "reference")))


def _rows(chosen: Iterable[Method], columns: tuple[str, ...], width: int) -> str:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "name")
    for known in chosen:
        table.add_row(*(getattr(known, column) for column in columns))
    return _plain(table, width)


def document(chosen: Iterable[Method]) -> str:
    """The list as a Markdown document."""
    lines = [
        "# Methods",
        "",
        "What `provable methods --markdown` prints: every system of `provable` with the axes of the pruning survey",
        "(J. Liu, Tripathi, Kurup, Shah 2020). Each record lives beside its code; `provable methods NAME` shows one.",
        "",
        "| " + " | ".join((*COLUMNS, "what", "cost", "use", "reference")) + " |",
        "|" + "---|" * (len(COLUMNS) + 4),
    ]
    for known in chosen:
        cells = (*(getattr(known, column) for column in COLUMNS), known.summary, known.cost)
        lines.append("| " + " | ".join((*cells, f"`{known.use}`", known.reference)) + " |")
    return "\n".join(lines) + "\n"


def details(known: Method, width: int = 118) -> str:
    """Everything on record about one method; plain text."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for field in (*COLUMNS, "summary", "cost", "use", "reference"):
        table.add_row(field, getattr(known, field))
    return _plain(table, width)


def _plain(table: Table, width: int) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, markup=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
