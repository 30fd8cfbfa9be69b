"""VNN-LIB 1.0: a domain over inputs X_i and a condition on outputs Y_j, read exactly.

    (declare-const X_0 Real)  (assert (<= X_0 0.5))  (assert (or (and (>= Y_0 Y_1)) ...))

The assertions describe the UNSAFE points: a network satisfies the property when no input of the boxes gives
outputs that meet the condition. Decimals become fractions. Whatever is not understood is refused with its
line; nothing is skipped. Not read: other variable names, constraints that couple inputs, strict bounds on
inputs, nested non-linear terms, VNN-LIB 2.0.

Reference: the VNN-LIB 1.0 standard (Demarchi, Guidotti, Pulina, Tacchella, 2023).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from verify.errors import SpecificationError
from verify.spec.box import Box
from verify.spec.decimal import read_decimal

LARGEST_FILE = 32 * 2**20
MOST_TOKENS = 8_000_000
DEEPEST = 64
MOST_DISJUNCTS = 4096
MOST_ATOMS = 4_000_000
MOST_VARIABLES = 1_000_000


@dataclass(frozen=True)
class Inequality:
    """``sum_j coefficient_j Y_j <= bound`` (``<`` where `strict`), coefficients as ``((j, value), ...)``."""

    coefficients: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool


@dataclass(frozen=True)
class Disjunct:
    """Inputs of a box whose outputs meet every inequality: one way of being unsafe."""

    box: Box
    outputs: tuple[Inequality, ...]


@dataclass(frozen=True)
class Property:
    """A VNN-LIB file: the unsafe set as a union of disjuncts.

    Attributes:
        inputs, outputs: numbers of declared X and Y variables.
        disjuncts: disjunctive normal form.
    """

    inputs: int
    outputs: int
    disjuncts: tuple[Disjunct, ...]

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The distinct input boxes, in the file's order: the domain is their union."""
        return tuple(dict.fromkeys(d.box for d in self.disjuncts))


def read_vnnlib(source: Path | str) -> Property:
    """Read a VNN-LIB 1.0 file.

    Raises:
        SpecificationError: the file is missing, a link, too large, or ill-formed; the message names file and line.
    """
    path = Path(source)
    if path.is_symlink():
        raise SpecificationError(f"{path} is a link; give the file itself")
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SpecificationError(f"cannot read the property {path}: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise SpecificationError(f"{path} is larger than {LARGEST_FILE} bytes")
    try:
        return parse_vnnlib(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise SpecificationError(f"{path} is no UTF-8 text (byte {error.start})") from error


def parse_vnnlib(text: str, name: str = "<property>") -> Property:
    """As `read_vnnlib`, from text; `name` appears in messages."""
    reader = _Reader(name)
    for command in _expressions(text, name):
        reader.command(command)
    return reader.result()


@dataclass(frozen=True)
class _Word:
    text: str
    line: int


@dataclass(frozen=True)
class _List:
    items: list["_Word | _List"]
    line: int

    @property
    def head(self) -> str:
        first = self.items[0] if self.items else None
        return first.text if isinstance(first, _Word) else ""


_Expression = _Word | _List
_TOKEN = re.compile(r"[ \t\r\f]+|;[^\n]*|(\n)|([()])|([^\s();|\"]+)")


def _fail(name: str, line: int, message: str) -> SpecificationError:
    return SpecificationError(f"{name}:{line}: {message}")


def _words(text: str, name: str) -> Iterator[_Word]:
    line, position, count = 1, 0, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _fail(name, line, f"unexpected character {text[position]!r}")
        position = match.end()
        if match[1]:
            line += 1
        elif token := match[2] or match[3]:
            count += 1
            if count > MOST_TOKENS:
                raise _fail(name, line, f"more than {MOST_TOKENS} tokens")
            yield _Word(token, line)


def _expressions(text: str, name: str) -> Iterator[_List]:
    """Top-level lists of the text."""
    open_lists: list[_List] = []
    for word in _words(text, name):
        if word.text == "(":
            if len(open_lists) == DEEPEST:
                raise _fail(name, word.line, f"brackets nested deeper than {DEEPEST}")
            open_lists.append(_List([], word.line))
        elif not open_lists:
            raise _fail(name, word.line, f"{word.text!r} outside of any command")
        elif word.text == ")":
            closed = open_lists.pop()
            if not open_lists:
                yield closed
            else:
                open_lists[-1].items.append(closed)
        else:
            open_lists[-1].items.append(word)
    if open_lists:
        raise _fail(name, open_lists[-1].line, "this bracket is never closed")


_Variable = tuple[str, int]  # ("X", 3)


@dataclass(frozen=True)
class _Atom:
    """``sum coefficient variable <= bound``."""

    terms: dict[_Variable, Fraction]
    bound: Fraction
    strict: bool
    line: int


_Conjunction = list[_Atom]


@dataclass
class _Reader:
    """The commands read so far."""

    name: str
    variables: dict[str, _Variable] = field(default_factory=dict)
    common: _Conjunction = field(default_factory=list)
    alternatives: list[_Conjunction] = field(default_factory=lambda: [[]])
    line: int = 1

    def command(self, command: _List) -> None:
        self.line = command.line
        if command.head in ("declare-const", "declare-fun"):
            self._declare(command)
        elif command.head == "assert" and len(command.items) == 2:
            self._assert(command.items[1])
        else:
            raise self._error(command, f"unknown command {command.head or '()'!r}; known: declare-const, assert")

    def _error(self, where: _Expression, message: str) -> SpecificationError:
        return _fail(self.name, where.line, message)

    def _declare(self, command: _List) -> None:
        words = [i.text if isinstance(i, _Word) else "()" if not i.items else "?" for i in command.items]
        if len(words) == 4 and words[0] == "declare-fun" and words[2] == "()":
            del words[2]
        match = re.fullmatch(r"([XY])_(0|[1-9][0-9]{0,6})", words[1]) if len(words) == 3 else None
        if match is None or words[2] != "Real":
            raise self._error(command, "expected (declare-const X_0 Real) with a variable X_i or Y_j")
        if words[1] in self.variables:
            raise self._error(command, f"variable {words[1]} is declared twice")
        if int(match[2]) >= MOST_VARIABLES:
            raise self._error(command, f"variable {words[1]}: more than {MOST_VARIABLES} variables")
        self.variables[words[1]] = (match[1], int(match[2]))

    def _assert(self, formula: _Expression) -> None:
        disjuncts = self._normal_form(formula)
        if len(disjuncts) == 1:
            self.common += disjuncts[0]
        else:
            self.alternatives = self._product(self.alternatives, disjuncts, formula)

    def _product(self, left: list[_Conjunction], right: list[_Conjunction], where: _Expression) -> list[_Conjunction]:
        if len(left) * len(right) > MOST_DISJUNCTS:
            raise self._error(where, f"the assertions have more than {MOST_DISJUNCTS} disjuncts")
        if len(right) * sum(map(len, left)) + len(left) * sum(map(len, right)) > MOST_ATOMS:
            raise self._error(where, f"the disjuncts hold more than {MOST_ATOMS} comparisons together")
        if len(right) == 1:
            for conjunction in left:  # in place: a file of thousands of assertions stays linear
                conjunction += right[0]
            return left
        return [a + b for a in left for b in right]

    def _normal_form(self, formula: _Expression) -> list[_Conjunction]:
        if isinstance(formula, _Word):
            raise self._error(formula, f"expected a formula, got {formula.text!r}")
        parts = formula.items[1:]
        if formula.head == "or" and parts:
            union = [c for part in parts for c in self._normal_form(part)]
            if len(union) > MOST_DISJUNCTS:
                raise self._error(formula, f"more than {MOST_DISJUNCTS} disjuncts")
            return union
        if formula.head == "and" and parts:
            product: list[_Conjunction] = [[]]
            for part in parts:
                product = self._product(product, self._normal_form(part), part)
            return product
        if formula.head in ("<=", "<", ">=", ">", "=") and len(parts) == 2:
            return [self._comparison(formula, *parts)]
        raise self._error(
            formula, f"unknown formula {formula.head or '()'!r} of {len(parts)} parts; known: and, or, <=, <, >=, >, ="
        )

    def _comparison(self, where: _List, left: _Expression, right: _Expression) -> _Conjunction:
        a, b = self._term(left), self._term(right)
        difference = _combine(a, b, Fraction(-1))
        atoms = [] if where.head in (">=", ">") else [difference]
        atoms += [] if where.head in ("<=", "<") else [{v: -c for v, c in difference.items()}]
        strict = where.head in ("<", ">")
        return [
            _Atom(
                {v: c for v, c in terms.items() if v is not None and c},
                -terms.get(None, Fraction(0)),
                strict,
                where.line,
            )
            for terms in atoms
        ]

    def _term(self, term: _Expression) -> "_Linear":
        if isinstance(term, _Word):
            if term.text in self.variables:
                return {self.variables[term.text]: Fraction(1)}
            if term.text[0].isalpha() or term.text[0] == "_":
                raise self._error(term, f"variable {term.text} is not declared")
            try:
                return {None: read_decimal(term.text)}
            except SpecificationError as error:
                raise self._error(term, str(error)) from None
        parts = [self._term(part) for part in term.items[1:]]
        if term.head == "+" and parts:
            return _sum(parts)
        if term.head == "-" and parts:
            negated = [{v: -c for v, c in part.items()} for part in parts]
            return negated[0] if len(parts) == 1 else _sum([parts[0], *negated[1:]])
        if term.head == "*" and len(parts) == 2:
            return self._scaled(term, *parts)
        raise self._error(term, f"unknown term {term.head or '()'!r} of {len(parts)} parts; known: +, -, *")

    def _scaled(self, where: _Expression, a: "_Linear", b: "_Linear") -> "_Linear":
        if set(a) <= {None}:
            a, b = b, a
        if not set(b) <= {None}:
            raise self._error(where, "a product of two variables is not linear")
        factor = b.get(None, Fraction(0))
        return {v: c * factor for v, c in a.items()}

    def result(self) -> Property:
        inputs, outputs = (self._count(kind) for kind in "XY")
        if not inputs:
            raise _fail(self.name, self.line, "no input variable X_0 is declared")
        bounds, shared = self._split(self.common, {})
        boxes: dict[frozenset[tuple[int, object]], Box] = {}
        disjuncts = []
        for atoms in self.alternatives:
            tight, own = self._split(atoms, bounds)
            changed = frozenset((i, pair) for i, pair in tight.items() if bounds.get(i) != pair)
            if changed not in boxes:
                boxes[changed] = self._box(tight, inputs)
            disjuncts.append(Disjunct(boxes[changed], shared + own))
        return Property(inputs, outputs, tuple(disjuncts))

    def _count(self, kind: str) -> int:
        indices = {i for k, i in self.variables.values() if k == kind}
        if indices and max(indices) + 1 != len(indices):
            missing = min(set(range(max(indices))) - indices)
            raise _fail(self.name, self.line, f"variable {kind}_{missing} is not declared, {kind}_{max(indices)} is")
        return len(indices)

    def _split(self, atoms: _Conjunction, bounds: "_Bounds") -> tuple["_Bounds", tuple[Inequality, ...]]:
        """Bounds of inputs, tightened by `atoms`, and the inequalities on outputs among them."""
        tight, outputs = dict(bounds), []
        for atom in atoms:
            kinds = {kind for kind, _ in atom.terms}
            if kinds == {"X"} and len(atom.terms) == 1:
                self._tighten(tight, atom)
            elif kinds == {"Y"}:
                terms = sorted(((i, c) for (_, i), c in atom.terms.items()))
                outputs.append(Inequality(tuple(terms), atom.bound, atom.strict))
            else:
                what = "couples inputs with other variables" if kinds else "holds no variable"
                raise _fail(
                    self.name,
                    atom.line,
                    f"this comparison {what}; only boxes of inputs and conditions on outputs are read",
                )
        return tight, tuple(outputs)

    def _tighten(self, bounds: "_Bounds", atom: _Atom) -> None:
        if atom.strict:
            raise _fail(self.name, atom.line, "strict bounds on inputs are refused; domains are closed, use <= or >=")
        (((_, i), coefficient),) = atom.terms.items()
        value = atom.bound / coefficient
        low, high = bounds.get(i, (None, None))
        if coefficient > 0:
            high = value if high is None else min(high, value)
        else:
            low = value if low is None else max(low, value)
        if low is not None and high is not None and low > high:
            raise _fail(self.name, atom.line, f"contradictory bounds: {float(low)} <= X_{i} <= {float(high)}")
        bounds[i] = (low, high)

    def _box(self, bounds: "_Bounds", inputs: int) -> Box:
        lower, upper = [], []
        for i in range(inputs):
            low, high = bounds.get(i, (None, None))
            if low is None or high is None:
                raise _fail(self.name, self.line, f"X_{i} has no {'lower' if low is None else 'upper'} bound")
            lower.append(low)
            upper.append(high)
        try:
            return Box(tuple(lower), tuple(upper))
        except SpecificationError as error:
            raise _fail(self.name, self.line, str(error)) from None


_Linear = dict[_Variable | None, Fraction]  # None: the constant
_Bounds = dict[int, tuple[Fraction | None, Fraction | None]]


def _combine(a: _Linear, b: _Linear, factor: Fraction) -> _Linear:
    result = dict(a)
    for variable, coefficient in b.items():
        result[variable] = result.get(variable, Fraction(0)) + factor * coefficient
    return result


def _sum(parts: list[_Linear]) -> _Linear:
    total: _Linear = {}
    for part in parts:
        total = _combine(total, part, Fraction(1))
    return total
