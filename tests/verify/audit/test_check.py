"""The judgement: true certificates are accepted, false ones never, and every failure fails closed."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest

import verify.audit.__main__ as command
from verify.audit import (
    Verdict,
    audit,
    backward,
    check,
    descent,
    exact,
    files,
    form,
    lift,
    linear,
    onnx_file,
    onnx_operators,
    onnx_tensor,
    planes,
    program,
    protobuf,
    rules,
    structure_file,
    transposed,
    upper,
)
from verify.audit import certificate as certificate_module
from verify.audit.certificate import walk
from verify.audit.program import Malformed
from verify.certificate.emit import emit_certificate
from verify.network.structure import write_structure
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split

ROOT = Path(__file__).parents[3]
MODULES = (
    certificate_module, backward, check, descent, exact, files, form, lift, linear, onnx_file, onnx_operators,
    onnx_tensor, planes, program, protobuf, rules, structure_file, transposed, upper,
)  # fmt: skip


def rewritten(attacks: ModuleType, base: Any, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the base certificate, changed and sealed again."""
    data = json.loads(base.certificate.read_text())
    change(data)
    path = base.folder / name
    path.write_text(attacks.reseal(json.dumps(data)))
    return path


def test_tight_certificates_of_every_kind_are_accepted(bases: list) -> None:
    for base in bases:
        report = base.judge(base.certificate)
        assert report.verdict is Verdict.ACCEPT, report
        assert report.bound == base.epsilon
        assert report.leaves == json.loads(base.certificate.read_text())["evidence"][0]["leaves"]
        assert len(report.hashes) == 3


def test_one_unit_below_the_bound_is_rejected(attacks: ModuleType, bases: list) -> None:
    for base in bases[:8]:
        below = attacks.show(base.epsilon * (1 - Fraction(1, 2**60)))
        path = rewritten(attacks, base, "below.json", lambda d, below=below: d["claim"].update(epsilon=below))
        report = base.judge(path)
        assert report.verdict is Verdict.REJECT
        assert "epsilon" in report.reason
        assert "leaf" in report.reason


def test_epsilon_below_an_attained_deviation_is_never_accepted(attacks: ModuleType, bases: list) -> None:
    rng = np.random.default_rng(0)
    outcomes = [o for base in (bases[0], bases[3]) for o in attacks.false_claims(base, rng)]
    assert len(outcomes) >= 20
    assert not [o for o in outcomes if o.wrong]


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_each_side_of_each_output_counts(attacks: ModuleType, tmp_path: Path, side: int, output: int) -> None:
    """original = 0, compact = a constant in one output: the deviation has one sign, in one place."""
    from verify.network.graph import build
    from verify.network.write_onnx import write_onnx

    weight, shift = np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.float32)
    moved = shift.copy()
    moved[output] = side * 0.75
    step = ("y", "linear", ("x",), {"weight": "w", "bias": "b"}, {})
    for name, bias in (("original", shift), ("compact", moved)):
        net = build("x", (2,), [step], "y", {"w": weight, "b": bias})
        write_onnx(net, tmp_path / f"{name}.onnx")
    paths = {"original": tmp_path / "original.onnx", "compact": tmp_path / "compact.onnx"}
    for epsilon, verdict in (("3/4", Verdict.ACCEPT), ("0.7499999999999999999999", Verdict.REJECT)):
        emit_certificate(
            tmp_path / "c.json", **paths, boxes=[Box.from_floats([0, 0], [1, 1])], epsilon=Fraction(epsilon), lift=(),
            rule="pair_zonotope", parameters={"symbols": 10}, trees=[Leaf()],
        )  # fmt: skip
        assert audit(tmp_path / "c.json", **paths).verdict is verdict


def test_mutants_are_never_accepted_beyond_the_claim(attacks: ModuleType, bases: list) -> None:
    rng, seen = np.random.default_rng(1), Counter[str]()
    assert len(attacks.MUTATIONS) >= 25
    for mutation in attacks.MUTATIONS:
        for base in (bases[0], bases[int(rng.integers(len(bases)))]):
            outcome = attacks.attack(base, mutation, rng, base.folder / "mutant.json")
            assert not outcome.wrong, (mutation.__name__, base.kind, outcome)
            seen[outcome.verdict] += 1
    assert seen["REJECT"] > 5
    assert seen["MALFORMED"] > 20


@pytest.mark.slow
def test_many_mutants(attacks: ModuleType, bases: list) -> None:
    rng = np.random.default_rng(2)
    for mutation in attacks.MUTATIONS:
        for _ in range(100):
            base = bases[int(rng.integers(len(bases)))]
            outcome = attacks.attack(base, mutation, rng, base.folder / "mutant.json")
            assert not outcome.wrong, (mutation.__name__, base.kind, outcome)


def test_flipped_bits_and_truncations_are_never_accepted(attacks: ModuleType, bases: list) -> None:
    rng = np.random.default_rng(3)
    outcomes = list(attacks.flips(bases[0], 150, rng))
    assert not [o for o in outcomes if o.wrong]


@pytest.mark.slow
def test_every_flipped_bit_and_every_truncation(attacks: ModuleType, bases: list) -> None:
    base = bases[0]
    data = base.certificate.read_bytes()
    path = base.folder / "flipped.json"
    for at in range(len(data)):
        for changed in (data[:at], *(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8))):
            path.write_bytes(changed)
            assert base.judge(path).verdict is not Verdict.ACCEPT


def test_planted_deviations_are_never_denied(attacks: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    outcomes = [o for i in range(6) for o in attacks.planted(rng, tmp_path / str(i), 12)]
    assert not [o for o in outcomes if o.wrong]
    assert sum(o.verdict == "ACCEPT" for o in outcomes) == 6  # the true claims
    assert sum(o.verdict == "REJECT" for o in outcomes) > 40


@pytest.mark.slow
def test_many_planted_deviations_are_never_denied(attacks: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    assert not [o for i in range(100) for o in attacks.planted(rng, tmp_path / str(i), 20) if o.wrong]


def test_any_changed_byte_of_a_network_is_rejected(bases: list, tmp_path: Path) -> None:
    base = bases[0]
    data = bytearray((base.folder / "compact.onnx").read_bytes())
    data[-20] ^= 1
    (tmp_path / "compact.onnx").write_bytes(bytes(data))
    report = audit(base.certificate, base.folder / "original.onnx", tmp_path / "compact.onnx")
    assert report.verdict is Verdict.REJECT
    assert "another compact network" in report.reason


def test_a_structure_and_its_weights_can_be_certified(attacks: ModuleType, bases: list, tmp_path: Path) -> None:
    base = bases[2]
    structure, weights = write_structure(base.compact, tmp_path)
    data = json.loads(base.certificate.read_text())
    assert (
        structure_file.read_structure(structure.read_bytes(), weights.read_bytes()).digest
        == data["claim"]["compact"]["digest"]
    )
    hashes = [{"name": p.name, "sha256": files.sha256(p.read_bytes())} for p in (structure, weights)]
    path = rewritten(attacks, base, "structure_claim.json", lambda d: d["claim"]["compact"].update(files=hashes))
    original = base.folder / "original.onnx"
    assert audit(path, original, structure).verdict is Verdict.ACCEPT
    assert audit(path, original, structure, compact_weights=weights).verdict is Verdict.ACCEPT
    assert audit(path, original, base.folder / "compact.onnx").verdict is Verdict.REJECT
    weights.rename(tmp_path / "elsewhere.safetensors")
    assert audit(path, original, structure).verdict is Verdict.MALFORMED


# fail closed


def functions() -> list[tuple[str, FunctionType]]:
    """All functions and methods defined in the auditor's modules, with their place."""
    found = []
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                found.append((f"{module.__name__}:{name}", value))
            if isinstance(value, type) and value.__module__ == module.__name__:
                for method, inner in vars(value).items():
                    inner = getattr(inner, "func", getattr(inner, "fget", inner))
                    if isinstance(inner, FunctionType) and not method.startswith("__"):
                        found.append((f"{module.__name__}:{name}.{method}", inner))
    return found


def called_functions(judge: Callable[[], Any]) -> dict[Any, set[type]]:
    """Code objects that run during `judge`, with the types they return."""
    returned: dict[Any, set[type]] = {}

    def watch(frame: Any, event: str, value: Any) -> None:
        if event == "return":
            returned.setdefault(frame.f_code, set()).add(type(value))

    sys.setprofile(watch)
    try:
        judge()
    finally:
        sys.setprofile(None)
    return returned


SILENT = {  # None is a lawful answer of these: the auditor then works without what they offer (or they are words only)
    "claim_words", "same", "active", "is_zero",
    "kept_elements", "_cross", "_places", "_columns", "maybe_numbers", "integers", "fused", "own_map",
}  # fmt: skip


@pytest.mark.parametrize("which", [0, 3, 9], ids=["dense", "max_pool", "backward"])
def test_a_failure_at_any_call_on_the_accept_path_is_not_accepted(bases: list, which: int) -> None:
    base = bases[which]
    returned = called_functions(lambda: base.judge(base.certificate))
    on_path = [(name, f) for name, f in functions() if f.__code__ in returned and f is not check.audit]
    assert len(on_path) > 90

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("injected")

    def nothing(*_: Any, **__: Any) -> Any:
        return None

    for name, function in on_path:
        code = function.__code__
        replacements = [fail]
        if type(None) not in returned[code] and code.co_name not in SILENT:
            replacements.append(nothing)
        for replacement in replacements:
            try:
                function.__code__ = replacement.__code__ if not code.co_freevars else _with_freevars(replacement, code)
                verdict = getattr(base.judge(base.certificate), "verdict", None)
            finally:
                function.__code__ = code
            assert verdict is not Verdict.ACCEPT, (name, replacement.__name__)
    assert base.judge(base.certificate).verdict is Verdict.ACCEPT


def _with_freevars(replacement: FunctionType, code: Any) -> Any:
    return replacement.__code__.replace(co_freevars=code.co_freevars)


def test_nan_in_a_bound_is_not_accepted(bases: list, monkeypatch: pytest.MonkeyPatch) -> None:
    base = bases[0]
    honest = check._Prover._enclosure

    def poisoned(self: Any, x: Any, known: Any) -> Any:
        found = honest(self, x, known)
        found.high[0, 0] = np.nan
        return found

    monkeypatch.setattr(check._Prover, "_enclosure", poisoned)
    assert base.judge(base.certificate).verdict is not Verdict.ACCEPT


def test_little_memory_means_fewer_leaves_at_once_and_then_no_verdict(
    bases: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bases[2]
    monkeypatch.setattr(form, "FORM_BYTES", 60_000)
    assert base.judge(base.certificate).verdict is Verdict.ACCEPT
    monkeypatch.setattr(form, "FORM_BYTES", 6_000)
    assert base.judge(base.certificate).verdict is Verdict.RESOURCE


# trees

UNIT = ((Fraction(0), Fraction(1)), (Fraction(-1, 3), Fraction(1, 3)))


def test_leaves_cover_the_box() -> None:
    leaves = [part.box for part in walk("0:1p-1 1:0p0 . . .", UNIT)]
    assert leaves[0] == ((Fraction(0), Fraction(1, 2)), (Fraction(-1, 3), Fraction(0)))
    assert leaves[1] == ((Fraction(0), Fraction(1, 2)), (Fraction(0), Fraction(1, 3)))
    assert leaves[2] == ((Fraction(1, 2), Fraction(1)), UNIT[1])
    volume = sum((a[1] - a[0]) * (b[1] - b[0]) for a, b in leaves)
    assert volume == Fraction(2, 3)


@pytest.mark.parametrize(
    "tree",
    [
        "", " ", ". .", ".. ", "0:1p-1 .", "0:1p-1 . . .", "0:0p0 . .", "0:1p0 . .", "0:1p1 . .", "2:1p-1 . .",
        "0:2p-2 . .", "0:1p-01 . .", "00:1p-1 . .", "-1:1p-1 . .", "0:+1p-1 . .", "0:1p-1  . .", "0:1p-1 . . ",
        "0:1p-99999 . .", "1:1p-1 . .", "0:1p-1 0:3p-2 . . .", "0:1p-1\n. .", "0:0p1 . .", "0:-0p0 . .", "0:1e-1 . .",
    ],
)  # fmt: skip
def test_ill_formed_trees_are_refused(tree: str) -> None:
    with pytest.raises(Malformed):
        list(walk(tree, UNIT))


def test_a_deep_tree_is_no_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 3000
    tree = " ".join(f"0:1p-{i}" for i in range(1, depth + 1)) + " ." * (depth + 1)
    assert sum(1 for _ in walk(tree, ((Fraction(0), Fraction(1)),))) == depth + 1
    monkeypatch.setattr(certificate_module, "MAX_DEPTH", 2999)
    with pytest.raises(Malformed, match="deeper"):
        list(walk(tree, ((Fraction(0), Fraction(1)),)))


# the command


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.ACCEPT, 0), (Verdict.REJECT, 1), (Verdict.UNSUPPORTED, 2), (Verdict.RESOURCE, 2),
        (Verdict.MALFORMED, 3),
    ],
)  # fmt: skip
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: Verdict, code: int
) -> None:
    report = check.AuditReport(verdict, "because", 3, Fraction(1, 3), "Words.", (("f", "0"),))
    monkeypatch.setattr(command, "audit", lambda *a, **k: report)
    assert command.main(["c", "--original", "a.onnx", "--compact", "b.onnx"]) == code
    printed = capsys.readouterr().out
    assert ("Words." in printed) is (verdict is Verdict.ACCEPT)
    assert ("Nothing was established" in printed) is (verdict is not Verdict.ACCEPT)


def test_missing_arguments_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main([])
    assert stop.value.code == 3


def test_the_bound_is_printed_rounded_up() -> None:
    for bound in (
        Fraction(1, 3),
        Fraction(10**30 + 1, 10**30),
        Fraction(123456, 10**6),
        Fraction(0),
        Fraction(1, 10**20),
    ):
        report = check.AuditReport(Verdict.ACCEPT, "", 1, bound, "")
        assert Fraction(command.upward(bound)) >= bound
        assert command.upward(bound) in command.describe(report)


BLOCKED = "torch scipy onnx onnxruntime safetensors hypothesis cvxpy google rich"


def test_the_auditor_runs_with_nothing_but_numpy(bases: list, tmp_path: Path) -> None:
    """As a stranger would: the audit folder alone, every other third-party package blocked."""
    base, home = bases[2], tmp_path / "verify"
    home.mkdir()
    (home / "__init__.py").write_text("")
    os.symlink(ROOT / "verify" / "audit", home / "audit")
    blocked = [*BLOCKED.split(), "verify.network", "verify.formal", "verify.errors", "verify.certificate", "provable"]
    script = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "from verify.audit.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(base.certificate), "--original", str(base.folder / "original.onnx")]
    arguments += ["--compact", str(base.folder / "compact.onnx")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for flags in ([], ["-O"]):
        done = subprocess.run(
            [sys.executable, *flags, "-P", "-c", script, *arguments], env=environment, capture_output=True, text=True,
            check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("ACCEPT: For every input in the box")
        assert "Auditor:" in done.stdout


def test_no_tolerance_anywhere() -> None:
    """No constant such as 1e-9, no machine epsilon, no approximate comparison in the auditor's sources."""
    import re

    forbidden = re.compile(r"\d[eE]-\d|finfo|isclose|allclose|rtol|atol|\bassert\b")
    for path in sorted((ROOT / "verify" / "audit").glob("*.py")):
        code = [line.split("#")[0] for line in path.read_text().splitlines()]
        hits = [line for line in code if forbidden.search(line) and "1e-5" not in line]
        assert not hits, (path.name, hits)


def test_accept_stands_on_one_line() -> None:
    sources = {p.name: p.read_text() for p in (ROOT / "verify" / "audit").glob("*.py")}
    assert sum(text.count("AuditReport(Verdict.ACCEPT") for text in sources.values()) == 1


def test_split_of_two_boxes_is_a_union(attacks: ModuleType, bases: list) -> None:
    base = bases[0]
    box = base.box
    middle = Fraction(float((box.lower[0] + box.upper[0]) / 2))
    halves = [Box(box.lower, (middle, *box.upper[1:])), Box((middle, *box.lower[1:]), box.upper)]
    at = Fraction(float((box.lower[1] + box.upper[1]) / 2))
    emit_certificate(
        base.folder / "halves.json", original=base.folder / "original.onnx", compact=base.folder / "compact.onnx",
        boxes=halves, epsilon=Fraction(10**6), lift=None, rule="separate", parameters={"symbols": 100},
        trees=[Leaf(), Split(1, at, Leaf(), Leaf())],
    )  # fmt: skip
    report = base.judge(base.folder / "halves.json")
    assert (report.verdict, report.leaves) == (Verdict.ACCEPT, 3)
    assert "2 boxes" in report.claim_words
