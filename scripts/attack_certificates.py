"""Attack the auditor: mutated certificates, flipped bits, truncations and false claims. None may be accepted wrongly.

A mutant whose claim is implied by the original claim (same networks, larger epsilon, smaller domain) may be accepted; a
mutant whose claim is false must not be. The base certificates are tight: their epsilon is exactly the bound that the
auditor finds, so every lowered epsilon is beyond what their evidence proves.

Planted instances are pairs whose largest deviation is known by construction: one output is shifted to one side. Their
certificates claim less than that, by one unit in the last place of float64 up to a half, with forged trees, lifts,
rules and budgets.

What no attack changes is done once and kept: reading the networks (by their bytes), relating them (by the lift), the
machine's self test, and bounds on the same leaves under the same lift, rule and budget (so certificates that differ in
epsilon alone share them; the comparison itself is never kept). `--afresh` does all of it at every attack.

    python scripts/attack_certificates.py --bases 20 --mutants 320 --every-flip 5 --resealed 2 \\
        --planted 1000 --forged 100
"""

import argparse
import copy
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from verify.audit import Verdict, audit, check
from verify.audit.check import AuditReport
from verify.certificate.emit import emit_certificate
from verify.certificate.record import Correspondence, sealed, show, tree_text
from verify.network.evaluate import evaluate, evaluate_values
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.spec.deviation import Leaf, Split, Tree

RULES = ("pair_zonotope", "pair_backward", "pair_zonotope", "pair_backward", "separate")
DEPTH = 3  # decisions above a leaf
TRIES = 8  # random trees with decisions, of which the best becomes a base certificate
KINDS = ("dense", "residual", "conv", "max_pool", "batch_norm", "average_pool", "shortcut")


@dataclass(frozen=True)
class Instance:
    """A certified pair: networks, their files, the domain, the tight epsilon, and the certificate's path."""

    kind: str
    original: Network
    compact: Network
    box: Box
    epsilon: Fraction
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.json"

    def judge(self, certificate: Path) -> Any:
        return audit(certificate, self.folder / "original.onnx", self.folder / "compact.onnx")


class Mind:
    """What the auditor found out once, for all attacks that share it; keyed by identity of the networks it has read."""

    def __init__(self) -> None:
        self.read, self.related, self.tested = check.read_network, check.stages_of_pair, check.self_test
        self.made = check._Prover
        self.networks: dict[Any, Any] = {}
        self.stages: dict[Any, Any] = {}
        self.enclosures: dict[Any, Any] = {}

    def read_network(self, contents: Sequence[bytes]) -> Any:
        if len(self.networks) > 100 or len(self.enclosures) > 10_000:
            for kept in (self.networks, self.stages, self.enclosures):
                kept.clear()
        return _known(self.networks, tuple(contents), lambda: self.read(contents))

    def stages_of_pair(self, original: Any, compact: Any, lift: Any) -> Any:
        key = id(original), id(compact), lift
        return _known(self.stages, key, lambda: self.related(original, compact, lift))

    def prover(self, certificate: Any, original: Any, compact: Any) -> Any:
        prover = self.made(certificate, original, compact)
        if certificate.rule == "pair_backward":  # it looks at more than the enclosure
            return prover
        about = id(original), id(compact), certificate.lift, certificate.rule, prover.symbols, prover.float32
        honest = prover._enclosure

        def enclosure(x: Any, known: Any) -> Any:
            key = about, x.exponent, x.blocks, x.body.tobytes()
            return _known(self.enclosures, key, lambda: honest(x, known))

        prover._enclosure = enclosure
        return prover


def _known(kept: dict[Any, Any], key: Any, find: Callable[[], Any]) -> Any:
    if key not in kept:
        kept[key] = find()
    return kept[key]


@contextmanager
def kept_in_mind() -> Iterator[None]:
    """Audits find out once what attacks share; see the head of this file."""
    mind = Mind()
    changed: Any = check
    mind.tested()
    try:
        changed.read_network, changed.stages_of_pair = mind.read_network, mind.stages_of_pair
        changed.self_test, changed._Prover = lambda: None, mind.prover
        yield
    finally:
        changed.read_network, changed.stages_of_pair = mind.read, mind.related
        changed.self_test, changed._Prover = mind.tested, mind.made


def pair(kind: str, rng: np.random.Generator) -> tuple[Network, Network, tuple[Correspondence, ...]]:
    """A small random network of a kind, a compact twin, and the lift between them."""
    return _dense(rng, kind == "residual") if kind in ("dense", "residual") else _images(kind, rng)


def _dense(rng: np.random.Generator, residual: bool) -> tuple[Network, Network, tuple[Correspondence, ...]]:
    n, hidden, outputs = int(rng.integers(2, 4)), int(rng.integers(4, 9)), int(rng.integers(1, 4))
    keep = np.sort(rng.permutation(hidden)[: hidden - int(rng.integers(0, 3))])
    weights = {
        "w1": rng.normal(size=(hidden, n)), "b1": rng.normal(size=hidden) * 0.3,
        "w2": rng.normal(size=(hidden, hidden)) / np.sqrt(hidden), "b2": rng.normal(size=hidden) * 0.1,
        "w3": rng.normal(size=(outputs, hidden)), "b3": rng.normal(size=outputs),
    }  # fmt: skip
    cut = {"w1": (keep,), "b1": (keep,), "w2": (keep, keep), "b2": (keep,), "w3": (slice(None), keep), "b3": ()}
    steps: list[Any] = [
        ("fc1", "linear", ("x",), {"weight": "w1", "bias": "b1"}, {}),
        ("act1", "relu", ("fc1",), {}, {}),
        ("fc2", "linear", ("act1",), {"weight": "w2", "bias": "b2"}, {}),
        *([("sum", "add", ("fc2", "act1"), {}, {})] if residual else []),
        ("act2", "relu", ("sum" if residual else "fc2",), {}, {}),
        ("out", "linear", ("act2",), {"weight": "w3", "bias": "b3"}, {}),
    ]
    names = ["fc1", "act1", "fc2", *(["sum"] if residual else []), "act2"]
    return _twins((n,), steps, "out", weights, cut, rng, [(name, keep) for name in names])


def _images(kind: str, rng: np.random.Generator) -> tuple[Network, Network, tuple[Correspondence, ...]]:
    c, size, channels = int(rng.integers(1, 3)), 4, 4
    keep = np.sort(rng.permutation(channels)[: channels - 1])
    flat = (keep[:, None] * 4 + np.arange(4)).ravel()
    weights = {
        "w1": rng.normal(size=(channels, c, 3, 3)) / 3, "b1": rng.normal(size=channels) * 0.1,
        "w2": rng.normal(size=(channels, channels, 1, 1)) / 2,
        "g": rng.uniform(0.5, 1.5, channels), "s": rng.normal(size=channels) * 0.1,
        "m": rng.normal(size=channels) * 0.1, "v": rng.uniform(0.5, 2.0, channels),
        "w3": rng.normal(size=(2, channels * 4)) / 4, "b3": rng.normal(size=2),
    }  # fmt: skip
    one = (keep,)
    cut = {
        "w1": one, "b1": one, "w2": (keep, keep), "g": one, "s": one, "m": one, "v": one, "w3": (slice(None), flat),
        "b3": (),
    }  # fmt: skip
    conv = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    plain = {**conv, "padding": (0, 0, 0, 0)}
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
    steps: list[Any] = [("conv1", "conv", ("x",), {"weight": "w1", "bias": "b1"}, conv)]
    if kind == "batch_norm":
        roles = {"weight": "g", "bias": "s", "mean": "m", "variance": "v"}
        steps.append(("norm", "batch_norm", ("conv1",), roles, {"epsilon": float(np.float32(1e-5))}))
    steps.append(("act1", "relu", (steps[-1][0],), {}, {}))
    steps.append(("conv2", "conv", ("act1",), {"weight": "w2"}, plain))
    if kind == "shortcut":
        ranges = {"starts": (0, 0, 0), "stops": (channels, size, size), "steps": (1, 1, 1)}
        steps.append(("sliced", "slice", ("act1",), {}, ranges))
        steps.append(("joined", "add", ("conv2", "sliced"), {}, {}))
    steps.append(("act2", "relu", (steps[-1][0],), {}, {}))
    if kind == "max_pool":
        steps.append(("pool", "max_pool", ("act2",), {}, window))
    else:
        steps.append(("pool", "average_pool", ("act2",), {}, {**window, "count_padding": False}))
    steps.append(("flat", "reshape", ("pool",), {}, {"shape": (channels * 4,)}))
    steps.append(("out", "linear", ("flat",), {"weight": "w3", "bias": "b3"}, {}))
    lift = [(s[0], flat if s[0] == "flat" else keep) for s in steps[:-1]]
    return _twins((c, size, size), steps, "out", weights, cut, rng, lift)


def _twins(
    shape: tuple[int, ...],
    steps: list[Any],
    output: str,
    weights: dict[str, Any],
    cut: dict[str, Any],
    rng: np.random.Generator,
    lift: list[tuple[str, Any]],
) -> tuple[Network, Network, tuple[Correspondence, ...]]:
    """The network of the steps, and the one with its parameters cut and slightly changed."""
    used = {key for s in steps for key in s[3].values()}
    first = {k: v.astype(np.float32) for k, v in weights.items() if k in used}
    second = {}
    for key, value in first.items():
        part = value[np.ix_(*cut[key])] if all(isinstance(i, np.ndarray) for i in cut[key]) and cut[key] else None
        part = value[cut[key]] if part is None or len(cut[key]) == 1 else part
        noise = 1 + rng.normal(size=part.shape) * 0.02
        second[key] = (part * noise).astype(np.float32)
    smaller = []
    for name, op, inputs, roles, attributes in steps:
        kept = dict(lift).get(name)
        if op == "reshape" and kept is not None:
            attributes = {"shape": (len(kept),)}
        if op == "slice":
            attributes = {**attributes, "stops": (len(dict(lift)[name]), *attributes["stops"][1:])}
        smaller.append((name, op, inputs, roles, attributes))
    original = build("x", shape, steps, output, first)
    compact = build("x", shape, smaller, output, second)
    entries = tuple(Correspondence(n, n, 0, tuple(int(i) for i in kept)) for n, kept in lift)
    return original, compact, entries


def split_tree(box: Box, depth: int, rng: np.random.Generator) -> Tree:
    """A random tree of splits near the middle of the widest coordinates."""

    def grow(low: list[Fraction], high: list[Fraction], left: int) -> Tree:
        if left == 0 or (left < depth and rng.random() < 0.15):
            return Leaf()
        widths = [h - a for a, h in zip(low, high, strict=True)]
        i = max(range(len(low)), key=lambda k: widths[k])
        at = Fraction(float((low[i] + high[i]) / 2))
        if not low[i] < at < high[i]:
            return Leaf()
        return Split(
            i,
            at,
            grow(low, [*high[:i], at, *high[i + 1 :]], left - 1),
            grow([*low[:i], at, *low[i + 1 :]], high, left - 1),
        )

    return grow(list(box.lower), list(box.upper), depth)


def undecided(networks: Sequence[Network], files: Sequence[Path], box: Box, rng: np.random.Generator) -> list[str]:
    """Arguments of ReLUs that have both signs on the box, as decisions about them are written."""
    points, found = box.sample(rng, 200).reshape(-1, *networks[0].input_shape), []
    for letter, network, file in zip("zy", networks, files, strict=True):
        program = check.read_network([file.read_bytes()])
        names = [step.inputs[0] for step in program.steps if step.kind == "relu"]
        for name, values in evaluate_values(network, points, names).items():
            flat = values.reshape(len(points), -1)
            both = np.flatnonzero((flat.min(axis=0) < 0) & (flat.max(axis=0) > 0))
            found += [f"{letter}{check.position(replace(program, output=name))}/{i}" for i in both]
    return found


def decided_tree(decisions: Sequence[str], outputs: int, tree: Tree, rng: np.random.Generator) -> str:
    """The text of a tree whose leaves become some of the decisions, with random multipliers."""

    def grow(left: int, above: int) -> str:
        if not left or (above and rng.random() < 0.2):
            chosen = sorted({(int(o), int(k)) for o, k in rng.integers(0, [outputs, above], (2, 2))})
            sizes = [f"{2 * rng.integers(1, 500) - 1}p-{rng.integers(8, 16)}" for _ in chosen]
            return "." + ";".join(f"{_pick(rng, '+-')}{o}@{k}={m}" for (o, k), m in zip(chosen, sizes, strict=True))
        return " ".join([_pick(rng, decisions), *(grow(left - 1, above + 1) for _ in range(2))])

    return " ".join(grow(DEPTH, 0) if item == "." else item for item in tree_text(tree).split(" "))


def instance(
    kind: str, rng: np.random.Generator, folder: Path, rule: str = "pair_zonotope", decided: bool = False
) -> Instance:
    """A certified pair whose epsilon is exactly the bound that the auditor finds.

    `decided`: on the parts of a tree with decisions and multipliers, the best of some random ones.
    """
    original, compact, lift = pair(kind, rng)
    size, outputs = int(np.prod(original.input_shape)), int(np.prod(original.node(original.output).shape))
    box = Box.around(rng.normal(size=size).round(3), Fraction(int(rng.integers(1, 20)), 100))
    folder.mkdir(parents=True)
    files = {"original": folder / "original.onnx", "compact": folder / "compact.onnx"}
    write_onnx(original, files["original"])
    write_onnx(compact, files["compact"])
    tree = split_tree(box, 1 if decided else 3 if size < 10 else 2, rng)
    parameters = {"symbols": int(rng.choice([100000, 40, 8]))}

    def judged(text: str, epsilon: Fraction) -> AuditReport:
        path = folder / "certificate.json"
        emit_certificate(
            path, **files, boxes=[box], epsilon=epsilon, rule=rule, parameters=parameters,
            lift=None if rule == "separate" else lift, trees=[tree],
        )  # fmt: skip
        if decided:
            data = json.loads(path.read_text())
            data["evidence"] = [{"leaves": leaves_of(text.split(" ")), "tree": text}]
            path.write_text(reseal(json.dumps(data)))
        return audit(path, **files)

    open_signs = undecided((original, compact), list(files.values()), box, rng) if decided else []
    decided = bool(open_signs)
    trials = [decided_tree(open_signs, outputs, tree, rng) for _ in range(TRIES)] if decided else [""]
    epsilon, text = min((_tight(partial(judged, text)), text) for text in trials)
    if judged(text, epsilon).verdict is not Verdict.ACCEPT:
        raise RuntimeError("the base certificate is not accepted")
    return Instance(kind, original, compact, box, epsilon, folder)


def _tight(judged: Callable[[Fraction], AuditReport]) -> Fraction:
    """The smallest epsilon that the evidence shows: what is shown may depend on what is asked for."""
    epsilon, report = Fraction(10**9), judged(Fraction(10**9))
    while report.verdict is Verdict.ACCEPT and report.bound is not None and report.bound < epsilon:
        epsilon = report.bound
        report = judged(epsilon * (1 - Fraction(1, 2**40)))
    return epsilon


def leaves_of(items: Sequence[str]) -> int:
    return sum(item.startswith(".") for item in items)


# mutation operators: each changes the parsed certificate, or returns a text to write instead

Mutation = Callable[[dict[str, Any], np.random.Generator], str | None]


def _pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def _epsilon(data: dict[str, Any]) -> Fraction:
    text = data["claim"]["epsilon"]
    return Fraction(int(text.split("p")[0])) * Fraction(2) ** int(text.split("p")[1]) if "p" in text else Fraction(text)


def lower_epsilon(data: dict[str, Any], rng: np.random.Generator) -> None:
    share = _pick(rng, [Fraction(1, 2), Fraction(1, 10), Fraction(1, 1000), Fraction(1, 2**30), Fraction(1, 2**52)])
    data["claim"]["epsilon"] = show(_epsilon(data) * (1 - share))


def negate_epsilon(data: dict[str, Any], rng: np.random.Generator) -> None:
    data["claim"]["epsilon"] = _pick(rng, ["-" + data["claim"]["epsilon"], "-0.5", "-1/3"])


def garble_epsilon(data: dict[str, Any], rng: np.random.Generator) -> None:
    garbage = [
        "nan",
        "inf",
        "1/0",
        "9" * 500,
        "1e999999",
        "1e400",
        "",
        " 1",
        "0x1p3",
        "1_0",
        True,
        None,
        3,
        0.5,
        ["1"],
        {},
    ]
    data["claim"]["epsilon"] = _pick(rng, garbage)


def widen_domain(data: dict[str, Any], rng: np.random.Generator) -> None:
    box = data["claim"]["domain"][0]
    for i in range(len(box["lower"])):
        low, high = (_number(box[side][i]) for side in ("lower", "upper"))
        box["lower"][i], box["upper"][i] = show(low - 40 * (high - low)), show(high + 40 * (high - low))


def move_domain(data: dict[str, Any], rng: np.random.Generator) -> None:
    box, by = data["claim"]["domain"][0], Fraction(int(rng.integers(20, 60)) * int(_pick(rng, [-1, 1])))
    for side in ("lower", "upper"):
        box[side] = [show(_number(v) + by) for v in box[side]]
    if rng.random() < 0.5:
        data["evidence"] = [{"leaves": 1, "tree": "."}]


def invert_domain(data: dict[str, Any], rng: np.random.Generator) -> None:
    box = data["claim"]["domain"][0]
    i = int(rng.integers(len(box["lower"])))
    box["lower"][i], box["upper"][i] = box["upper"][i], box["lower"][i]


def empty_domain(data: dict[str, Any], rng: np.random.Generator) -> None:
    data["claim"]["domain"] = []
    if rng.random() < 0.5:
        data["evidence"] = []


def shorten_box(data: dict[str, Any], rng: np.random.Generator) -> None:
    box = data["claim"]["domain"][0]
    for side in _pick(rng, [("lower",), ("upper",), ("lower", "upper")]):
        box[side] = box[side][:-1]
    if rng.random() < 0.3:
        data["claim"]["inputs"] -= 1


def second_box(data: dict[str, Any], rng: np.random.Generator) -> None:
    box = copy.deepcopy(data["claim"]["domain"][0])
    for side in ("lower", "upper"):
        box[side] = [show(_number(v) + 50) for v in box[side]]
    data["claim"]["domain"].append(box)
    if rng.random() < 0.7:
        data["evidence"].append(_pick(rng, [{"leaves": 1, "tree": "."}, copy.deepcopy(data["evidence"][0])]))


def _items(data: dict[str, Any]) -> list[str]:
    return list(data["evidence"][0]["tree"].split(" "))


def _set_items(data: dict[str, Any], items: list[str], rng: np.random.Generator, honest: float = 0.7) -> None:
    data["evidence"][0]["tree"] = " ".join(items)
    if rng.random() < honest:
        data["evidence"][0]["leaves"] = max(1, leaves_of(items))


def drop_item(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    del items[int(rng.integers(len(items)))]
    _set_items(data, items, rng)


def repeat_item(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    at = int(rng.integers(len(items)))
    _set_items(data, [*items[: at + 1], *items[at:]], rng)


def _subtree(items: list[str], start: int) -> int:
    """Index behind the subtree that starts at `start`."""
    open_nodes = 1
    while open_nodes:
        open_nodes += -1 if items[start].startswith(".") else 1
        start += 1
    return start


def collapse_subtree(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    start = int(rng.integers(len(items)))
    _set_items(data, [*items[:start], ".", *items[_subtree(items, start) :]], rng)


def swap_halves(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    splits = [i for i, item in enumerate(items) if not item.startswith(".")]
    if splits:
        start = _pick(rng, splits)
        middle = _subtree(items, start + 1)
        end = _subtree(items, middle)
        items = [*items[: start + 1], *items[middle:end], *items[start + 1 : middle], *items[end:]]
    _set_items(data, items, rng)


def move_split(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    for i, item in enumerate(items):
        if ":" in item:
            dimension = item.split(":")[0]
            items[i] = f"{dimension}:" + _pick(rng, ["0p0", "1p10", "-1p10", "1p-9000", "2p0", "1p0", "-3p-4", "7p-5"])
            break
    _set_items(data, items, rng)


def turn_split(data: dict[str, Any], rng: np.random.Generator) -> None:
    items = _items(data)
    for i, item in enumerate(items):
        if ":" in item:
            items[i] = _pick(rng, ["0", "1", "99", "-1", "00", ""]) + ":" + item.split(":")[1]
            break
    _set_items(data, items, rng)


def garble_tree(data: dict[str, Any], rng: np.random.Generator) -> None:
    tree = data["evidence"][0]["tree"]
    at = int(rng.integers(len(tree)))
    garbage = ["", " ", "  ", ". .", ".,.", "\u0661:1p0 . .", tree[:at], tree + " ", tree + " .", tree.replace(".", "")]
    data["evidence"][0]["tree"] = _pick(rng, garbage)


def _decisions(items: Sequence[str]) -> list[int]:
    return [i for i, item in enumerate(items) if item[:1] in ("z", "y")]


def _multiplied(items: Sequence[str]) -> list[int]:
    return [i for i, item in enumerate(items) if item.startswith(".") and len(item) > 1]


def _with_decisions(data: dict[str, Any], rng: np.random.Generator) -> list[str]:
    """The items of a tree that has a decision and a multiplier for certain; half the time under a smaller epsilon."""
    items = _items(data)
    if not _multiplied(items):
        leaf = _pick(rng, [i for i, item in enumerate(items) if item.startswith(".")])
        items[leaf : leaf + 1] = [f"{_pick(rng, 'zy')}{rng.integers(1, 4)}/{rng.integers(4)}", ".+0@0=1p-9", "."]
    if rng.random() < 0.5:
        lower_epsilon(data, rng)
    return items


def move_decision(data: dict[str, Any], rng: np.random.Generator) -> None:
    """A decision about another element, another value, or the other network."""
    items = _with_decisions(data, rng)
    at = _pick(rng, _decisions(items))
    n, element = items[at][1:].split("/")
    kind = int(rng.integers(3))
    if kind == 0:
        element = _pick(rng, [str(rng.integers(8)), "99999", "-1", "00", "", str(2**40)])
    elif kind == 1:
        n = _pick(rng, [str(rng.integers(1, 12)), "0", "99", "-1", "01", ""])
    network = items[at][0] if kind < 2 else _pick(rng, ["z", "y", "x", "Z", ""])
    items[at] = f"{network}{n}/{element}"
    _set_items(data, items, rng)


def swap_sides(data: dict[str, Any], rng: np.random.Generator) -> None:
    """The part where a value is at least 0 in the place of the part where it is at most 0."""
    items = _with_decisions(data, rng)
    start = _pick(rng, _decisions(items))
    middle = _subtree(items, start + 1)
    end = _subtree(items, middle)
    _set_items(data, [*items[: start + 1], *items[middle:end], *items[start + 1 : middle], *items[end:]], rng)


def drop_part(data: dict[str, Any], rng: np.random.Generator) -> None:
    """One part of a decision alone, without the decision or with it."""
    items = _with_decisions(data, rng)
    start = _pick(rng, _decisions(items))
    middle = _subtree(items, start + 1)
    end = _subtree(items, middle)
    part = _pick(rng, [items[start + 1 : middle], items[middle:end]])
    _set_items(data, [*items[: start + int(rng.integers(2))], *part, *items[end:]], rng)


def repeat_decision(data: dict[str, Any], rng: np.random.Generator) -> None:
    """A decision again below itself, or a split below it."""
    items = _with_decisions(data, rng)
    start = _pick(rng, _decisions(items))
    again = _pick(rng, [items[start], "0:0p0", "1:1p-3", items[start][:1] + "1/0"])
    _set_items(data, [*items[: start + 1], again, ".", *items[start + 1 :]], rng)


def change_multiplier(data: dict[str, Any], rng: np.random.Generator) -> None:
    """Another side, output, decision or size."""
    items = _with_decisions(data, rng)
    at = _pick(rng, _multiplied(items))
    entries = items[at][1:].split(";")
    i = int(rng.integers(len(entries)))
    place, size = entries[i][1:].split("=")
    output, decision = place.split("@")
    side, (mantissa, exponent) = entries[i][0], size.split("p")
    kind = int(rng.integers(5))
    if kind == 0:
        side = "-" if side == "+" else "+"
    elif kind == 1:
        output = _pick(rng, [str(rng.integers(4)), "999999", "-1"])
    elif kind == 2:
        decision = _pick(rng, [str(rng.integers(5)), "255", "256", "-1"])
    elif kind == 3:
        mantissa = _pick(rng, [str(rng.integers(1, 10**10)), "0", "-1", "99999999999", "999999999999", "1/3", "1.5"])
    else:
        exponent = _pick(rng, [str(rng.integers(-40, 40)), "9999", "-9999", "10000", "+1", ""])
    entries[i] = f"{side}{output}@{decision}={mantissa}p{exponent}"
    items[at] = "." + ";".join(entries)
    _set_items(data, items, rng)


def drop_multiplier(data: dict[str, Any], rng: np.random.Generator) -> None:
    """Without it, twice, in another leaf, or torn."""
    items = _with_decisions(data, rng)
    at = _pick(rng, _multiplied(items))
    leaf = _pick(rng, [i for i, item in enumerate(items) if item.startswith(".")])
    text = items[at]
    items[at] = _pick(rng, [".", f"{text};{text[1:]}", text + ";", ".;" + text[1:], text[:-1], text[1:], text + "0"])
    if rng.random() < 0.4:
        items[leaf] = text
    _set_items(data, items, rng)


def miscount_leaves(data: dict[str, Any], rng: np.random.Generator) -> None:
    entry = data["evidence"][0]
    entry["leaves"] = _pick(rng, [entry["leaves"] + 1, entry["leaves"] - 1, 0, -1, True, "3", 2**60, None])


def drop_evidence(data: dict[str, Any], rng: np.random.Generator) -> None:
    data["evidence"] = _pick(rng, [[], None, {}, [[]], data["evidence"] * 2])


def swap_kept(data: dict[str, Any], rng: np.random.Generator) -> None:
    entry = _pick(rng, data["lift"] or [{"kept": [0]}])
    if len(entry["kept"]) > 1:
        i, j = rng.permutation(len(entry["kept"]))[:2]
        entry["kept"][i], entry["kept"][j] = entry["kept"][j], entry["kept"][i]


def repeat_kept(data: dict[str, Any], rng: np.random.Generator) -> None:
    entry = _pick(rng, data["lift"] or [{"kept": [0]}])
    entry["kept"][-1] = entry["kept"][0]


def kept_out_of_range(data: dict[str, Any], rng: np.random.Generator) -> None:
    entry = _pick(rng, data["lift"] or [{"kept": [0]}])
    entry["kept"][0] = _pick(rng, [10**6, -1, 2**70, "0", None, 1.0, True])


def change_lift(data: dict[str, Any], rng: np.random.Generator) -> None:
    if not data["lift"]:
        data["lift"] = [{"original": "fc1", "compact": "fc1", "axis": 0, "kept": [0]}]
        return
    i = int(rng.integers(len(data["lift"])))
    entry = data["lift"][i]
    kind = int(rng.integers(6))
    if kind == 0:
        del data["lift"][i]
    elif kind == 1:
        entry["axis"] = _pick(rng, [1, 2, 7, -1, True, "0"])
    elif kind == 2:
        entry["original"] = _pick(rng, ["x", "nothing", "out", ""])
    elif kind == 3:
        entry["compact"] = _pick(rng, ["x", "nothing", "out", ""])
    elif kind == 4:
        data["lift"].append(copy.deepcopy(entry))
    else:
        data["lift"] = _pick(rng, [None, [], {}, "lift"])


def change_rule(data: dict[str, Any], rng: np.random.Generator) -> None:
    data["rule"] = _pick(rng, [
        {"name": "separate", "parameters": data["rule"]["parameters"]},
        {"name": "trust", "parameters": {"symbols": 3}},
        {"name": "pair_zonotope", "parameters": {}},
        {"name": ["pair_zonotope"], "parameters": {"symbols": 1}}, None, {},
    ])  # fmt: skip


def change_symbols(data: dict[str, Any], rng: np.random.Generator) -> None:
    data["rule"]["parameters"]["symbols"] = _pick(rng, [0, 1, 5, 10**9, -1, 2**40, True, "10", 1.5, None])


def change_claim_kind(data: dict[str, Any], rng: np.random.Generator) -> None:
    key, value = _pick(
        rng, [("norm", "l2"), ("norm", None), ("arithmetic", "float16"), ("arithmetic", ""), ("norm", [])]
    )
    data["claim"][key] = value


def change_version(data: dict[str, Any], rng: np.random.Generator) -> None:
    key, value = _pick(rng, [("version", 1), ("version", -1), ("version", False), ("version", "0"), ("format", "x")])
    data[key] = value


def change_hash(data: dict[str, Any], rng: np.random.Generator) -> None:
    network = data["claim"][_pick(rng, ["original", "compact"])]
    holder, key = (network, "digest") if rng.random() < 0.4 else (network["files"][0], "sha256")
    old = holder[key]
    flipped = ("0" if old[7] != "0" else "1").join([old[:7], old[8:]])
    holder[key] = _pick(rng, [flipped, old.upper(), old[:-1], "", "md5:" + old, None, old + "0"])


def swap_networks(data: dict[str, Any], rng: np.random.Generator) -> None:
    claim = data["claim"]
    claim["original"], claim["compact"] = claim["compact"], claim["original"]


def change_sizes(data: dict[str, Any], rng: np.random.Generator) -> None:
    key = _pick(rng, ["inputs", "outputs"])
    data["claim"][key] = _pick(rng, [data["claim"][key] + 1, data["claim"][key] - 1, 0, -1, "2", None, True, 2**60])


def change_keys(data: dict[str, Any], rng: np.random.Generator) -> str | None:
    holder = _pick(rng, [data, data["claim"], data["rule"], data["evidence"][0], data["claim"]["domain"][0]])
    if rng.random() < 0.5:
        holder["more"] = 1
        return None
    if rng.random() < 0.5:
        del holder[_pick(rng, sorted(holder))]
        return None
    text = json.dumps(data)
    return text.replace('"epsilon": "', '"epsilon": "1e9", "epsilon": "', 1)


def replace_anything(data: dict[str, Any], rng: np.random.Generator) -> None:
    holder: Any = data
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = _pick(rng, keys)
        if isinstance(holder[key], dict | list) and rng.random() < 0.7:
            holder = holder[key]
            continue
        deep: Any = []
        for _ in range(200):
            deep = [deep]
        holder[key] = _pick(rng, [None, True, -1, 0.25, "", "\u0000", [], {}, 10**17, 10**30, "nan", deep, [[[]]], "0"])
        return


def broken_json(data: dict[str, Any], rng: np.random.Generator) -> str:
    text = json.dumps(data)
    return str(_pick(rng, [
        text.replace('"version": 0', '"version": NaN'), text.replace('"version": 0', '"version": 0.0'), text + "}", "",
        text.replace("{", "[", 1), "\ufeff" + text, "[" * 100_000, text.replace('"version": 0', '"version": 1e999'),
        text.replace('"version": 0', '"version": ' + "9" * 5000), "null", "[]", '"x"', text.replace(":", "", 1),
    ]))  # fmt: skip


MUTATIONS: tuple[Mutation, ...] = (
    lower_epsilon, negate_epsilon, garble_epsilon, widen_domain, move_domain, invert_domain, empty_domain, shorten_box,
    second_box, drop_item, repeat_item, collapse_subtree, swap_halves, move_split, turn_split,
    garble_tree, move_decision, swap_sides, drop_part, repeat_decision, change_multiplier, drop_multiplier,
    miscount_leaves, drop_evidence, swap_kept, repeat_kept, kept_out_of_range, change_lift, change_rule, change_symbols,
    change_claim_kind, change_version, change_hash, swap_networks, change_sizes, change_keys, replace_anything,
    broken_json,
)  # fmt: skip


def _number(text: str) -> Fraction:
    mantissa, _, exponent = text.partition("p")
    return int(mantissa) * Fraction(2) ** int(exponent) if exponent else Fraction(text)


def _about(claim: dict[str, Any]) -> list[Any]:
    """What a claim is about, apart from domain and epsilon; the names of files are informative (SPEC.md, section 3)."""
    networks = [(claim[k]["digest"], [f["sha256"] for f in claim[k]["files"]]) for k in ("original", "compact")]
    return [*networks, *(claim[k] for k in ("inputs", "outputs", "norm", "arithmetic"))]


def implied(original: dict[str, Any], mutant: dict[str, Any]) -> bool:
    """Whether the claim of `mutant` follows from that of `original` (both as parsed from accepted files)."""
    a, b = original["claim"], mutant["claim"]
    if _about(a) != _about(b):
        return False
    return _epsilon(mutant) >= _epsilon(original) and all(
        any(_inside(small, large) for large in a["domain"]) for small in b["domain"]
    )


def _inside(small: dict[str, Any], large: dict[str, Any]) -> bool:
    low = all(_number(s) >= _number(v) for s, v in zip(small["lower"], large["lower"], strict=True))
    return low and all(_number(s) <= _number(v) for s, v in zip(small["upper"], large["upper"], strict=True))


@dataclass(frozen=True)
class Outcome:
    """What the auditor said about one mutant: its verdict's name, and whether that was wrong."""

    verdict: str
    wrong: bool


def reseal(text: str) -> str:
    """The text of a certificate, changed, under a seal that fits again."""
    before = text.rsplit(', "seal"', 1)[0] if ', "seal"' in text else text.rstrip("}")
    return "".join(sealed([before + ",\n"]))


def attack(base: Instance, mutation: Mutation, rng: np.random.Generator, path: Path) -> Outcome:
    """Write one mutant to `path` and judge it."""
    data = json.loads(base.certificate.read_text())
    text = mutation(data, rng)
    path.write_text(reseal(json.dumps(data) if text is None else text), encoding="utf-8")
    return _outcome(base, path, rng)


def _outcome(base: Instance, path: Path, rng: np.random.Generator) -> Outcome:
    """Judge a changed certificate; wrong is a crash, and an accepted claim that neither follows nor stands."""
    report = base.judge(path)
    if report.reason.startswith("internal error"):
        return Outcome("CRASH", True)
    if report.verdict is not Verdict.ACCEPT:
        return Outcome(report.verdict.name, False)
    original, mutant = (json.loads(p.read_text()) for p in (base.certificate, path))
    return Outcome("ACCEPT", not implied(original, mutant) and not proved_anew(base, original, mutant, rng))


def proved_anew(base: Instance, original: dict[str, Any], mutant: dict[str, Any], rng: np.random.Generator) -> bool:
    """Whether a claim on other boxes about the same networks stands: no sample or corner exceeds its epsilon."""
    a, b = original["claim"], mutant["claim"]
    if _about(a) != _about(b):
        return False
    boxes = [Box(*(tuple(_number(v) for v in box[side]) for side in ("lower", "upper"))) for box in b["domain"]]
    return all(attained(replace(base, box=box), rng)[0] <= _epsilon(mutant) for box in boxes)


def attained(base: Instance, rng: np.random.Generator, count: int = 2000) -> tuple[Fraction, int, int]:
    """A deviation that is attained in the box, just below float64's error; its output, and its sign."""
    points = np.concatenate([base.box.sample(rng, count), _corners(base.box)])
    points = points.reshape(-1, *base.original.input_shape)
    first, second = evaluate(base.original, points), evaluate(base.compact, points)
    gap, scale = first - second, float(np.abs(first).max() + np.abs(second).max() + 1)
    at = np.unravel_index(np.argmax(np.abs(gap)), gap.shape)
    return Fraction(abs(float(gap[at]))) - Fraction(scale) / 2**40, int(at[-1]), int(np.sign(gap[at]))


def _corners(box: Box) -> Any:
    low, high = box.inner()
    masks = np.array(list(np.ndindex(*(2,) * min(len(low), 6))), dtype=bool)
    chosen = np.zeros((len(masks), len(low)), dtype=bool)
    chosen[:, : masks.shape[1]] = masks
    return np.where(chosen, high, low)


def false_claims(base: Instance, rng: np.random.Generator) -> Iterator[Outcome]:
    """Certificates with epsilon below an attained deviation, with the true evidence and with finer trees."""
    top, _, _ = attained(base, rng)
    for share in (Fraction(1, 2**50), Fraction(1, 10**6), Fraction(1, 100), Fraction(1, 2)):
        for depth in (0, 3, 6):
            path = base.folder / "false.json"
            data = json.loads(base.certificate.read_text())
            data["claim"]["epsilon"] = show(max(top * (1 - share), Fraction(0)))
            if depth:
                tree = tree_text(split_tree(base.box, depth, rng))
                data["evidence"] = [{"leaves": tree.split(" ").count("."), "tree": tree}]
            path.write_text(reseal(json.dumps(data)))
            verdict = base.judge(path).verdict
            yield Outcome(verdict.name, verdict is Verdict.ACCEPT and top > 0)


SHARES = (Fraction(1, 2**53), Fraction(1, 2**40), Fraction(1, 10**6), Fraction(1, 100), Fraction(1, 10), Fraction(1, 2))


def planted(rng: np.random.Generator, folder: Path, forged: int) -> Iterator[Outcome]:
    """A pair that deviates by `shift` in one output to one side everywhere, and `forged` certificates that deny it.

    The shift is a number of float32 that the last layer adds without rounding in real arithmetic, so it is the
    deviation at every input. The first certificate claims the truth and must be accepted.
    """
    n, hidden, outputs = (int(rng.integers(1, k)) for k in (4, 6, 4))
    side, output = int(rng.choice([-1, 1])), int(rng.integers(outputs))
    shift = np.float32(rng.uniform(0.01, 2.0)) * np.float32(2.0) ** np.float32(rng.integers(-20, 20))
    weights = {
        "w": rng.normal(size=(hidden, n)).astype(np.float32), "b": rng.normal(size=hidden).astype(np.float32),
        "v": rng.normal(size=(outputs, hidden)).astype(np.float32), "c": np.zeros(outputs, np.float32),
    }  # fmt: skip
    moved = {**weights, "c": weights["c"].copy()}
    moved["c"][output] = side * shift
    steps: list[Any] = [
        ("h", "linear", ("x",), {"weight": "w", "bias": "b"}, {}), ("a", "relu", ("h",), {}, {}),
        ("y", "linear", ("a",), {"weight": "v", "bias": "c"}, {}),
    ]  # fmt: skip
    values = {"h": hidden, "a": hidden, "y": outputs}
    if rng.random() < 0.5:  # the last layer alone
        weights["v"] = moved["v"] = rng.normal(size=(outputs, n)).astype(np.float32)
        steps, values = [("y", "linear", ("x",), {"weight": "v", "bias": "c"}, {})], {"y": outputs}
        weights, moved = ({k: v for k, v in p.items() if k in "vc"} for p in (weights, moved))
    folder.mkdir(parents=True, exist_ok=True)
    files = {"original": folder / "original.onnx", "compact": folder / "compact.onnx"}
    for path, parameters in zip(files.values(), (weights, moved), strict=True):
        write_onnx(build("x", (n,), steps, "y", parameters), path)
    box = Box.around(rng.normal(size=n).round(2), Fraction(int(rng.integers(0, 20)), 100))
    truth, certificate = Fraction(float(shift)), folder / "certificate.json"
    emit_certificate(
        certificate, **files, boxes=[box], epsilon=truth, rule="pair_zonotope", parameters={"symbols": 1000}, lift=(),
        trees=[Leaf()],
    )  # fmt: skip
    verdict = audit(certificate, **files).verdict
    yield Outcome(verdict.name, verdict is not Verdict.ACCEPT)
    honest = certificate.read_text()
    lifts = [_lift_of(values, rng) for _ in range(min(forged, 12))]
    for i in range(forged):
        if i % len(SHARES) == 0:
            data = json.loads(honest)
            _forge(data, box, lifts, rng)
        data["claim"]["epsilon"] = show(truth * (1 - SHARES[i % len(SHARES)]))
        certificate.write_text(reseal(json.dumps(data)))
        verdict = audit(certificate, **files).verdict
        yield Outcome(verdict.name, verdict is Verdict.ACCEPT)


def _lift_of(values: dict[str, int], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Elements of some values that are said to stand for others."""
    kept = {name: [int(k) for k in rng.permutation(size)] for name, size in values.items() if rng.random() < 0.6}
    return [{"original": name, "compact": name, "axis": 0, "kept": elements} for name, elements in kept.items()]


def _forge(data: dict[str, Any], box: Box, lifts: list[list[dict[str, Any]]], rng: np.random.Generator) -> None:
    """Other evidence for the same claim: a tree, a lift, a rule, a budget, an arithmetic."""
    if rng.random() < 0.6:
        tree = tree_text(split_tree(box, int(rng.integers(0, 4)), rng))
        data["evidence"] = [{"leaves": tree.split(" ").count("."), "tree": tree}]
    if rng.random() < 0.5:
        data["lift"] = _pick(rng, lifts)
    if rng.random() < 0.2:
        data["rule"]["name"], data["lift"] = "separate", None
    if rng.random() < 0.5:
        data["rule"]["parameters"]["symbols"] = int(rng.choice([0, 1, 3, 2**31]))
    if rng.random() < 0.1:
        data["claim"]["arithmetic"] = "float32"


def every_flip(base: Instance) -> Iterator[Outcome]:
    """Every single flipped bit and every truncation of the certificate."""
    data, path = base.certificate.read_bytes(), base.folder / "flipped.json"
    for at in range(len(data)):
        for changed in (data[:at], *(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for bit in range(8))):
            path.write_bytes(changed)
            report = base.judge(path)
            wrong = report.verdict is Verdict.ACCEPT or report.reason.startswith("internal error")
            yield Outcome(report.verdict.name, wrong)


def resealed_flips(base: Instance, rng: np.random.Generator) -> Iterator[Outcome]:
    """Every single flipped bit before the seal, under a seal that fits."""
    data, path = base.certificate.read_bytes().rsplit(b' "seal"', 1)[0], base.folder / "flipped.json"
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            seal = hashlib.sha256(changed).hexdigest().encode()
            path.write_bytes(changed + b' "seal": "' + seal + b'"\n}\n')
            yield _outcome(base, path, rng)


def flips(base: Instance, count: int, rng: np.random.Generator) -> Iterator[Outcome]:
    """Single flipped bits and truncations of the certificate's bytes."""
    data = base.certificate.read_bytes()
    path = base.folder / "flipped.json"
    for i in range(count):
        at = int(rng.integers(len(data)))
        changed = bytearray(data[:at] if i % 4 == 0 else data)
        if i % 4:
            changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        report = base.judge(path)
        accepted = report.verdict is Verdict.ACCEPT
        wrong = accepted or report.reason.startswith("internal error")
        yield Outcome(report.verdict.name, wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=int, default=7, help="base certificates")
    parser.add_argument("--mutants", type=int, default=8, help="mutants per operator")
    parser.add_argument("--flips", type=int, default=200, help="flipped bits and truncations")
    parser.add_argument("--false-claims", type=int, default=7, help="pairs with claims below an attained deviation")
    parser.add_argument("--every-flip", type=int, default=0, help="certificates of which every bit is flipped")
    parser.add_argument("--resealed", type=int, default=0, help="certificates of which every bit is flipped and sealed")
    parser.add_argument("--planted", type=int, default=10, help="pairs with a planted deviation")
    parser.add_argument("--forged", type=int, default=12, help="certificates below the truth per planted pair")
    parser.add_argument("--decided", action="store_true", help="only base certificates with decisions about signs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--afresh", action="store_true", help="keep nothing from one attack to the next")
    options = parser.parse_args()
    with nullcontext() if options.afresh else kept_in_mind():
        return attack_all(options)


def attack_all(options: argparse.Namespace) -> int:
    rng = np.random.default_rng(options.seed)
    table: dict[str, Counter[str]] = {}
    begin = time.perf_counter()
    decided = (1, 3) if options.decided else (3,)
    chosen = [i for i in range(5 * options.bases + 5) if not options.decided or i % len(RULES) in decided]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        bases = [
            instance(KINDS[i % len(KINDS)], rng, Path(name) / str(i), RULES[i % len(RULES)], i % len(RULES) in decided)
            for i in chosen[: max(options.bases, 1)]
        ]
        for mutation in MUTATIONS:
            rows = (attack(_pick(rng, bases), mutation, rng, Path(name) / "m.json") for _ in range(options.mutants))
            table[mutation.__name__] = _count(rows)
        table["flipped bits, truncations"] = _count(flips(bases[0], options.flips, rng))
        if options.every_flip:
            chosen = [bases[i % len(bases)] for i in range(options.every_flip)]
            table["every flipped bit and truncation"] = _count(o for base in chosen for o in every_flip(base))
        if options.resealed:
            chosen = [bases[i % len(bases)] for i in range(options.resealed)]
            table["every flipped bit, sealed again"] = _count(o for base in chosen for o in resealed_flips(base, rng))
        claims = (o for i in range(options.false_claims) for o in false_claims(bases[i % len(bases)], rng))
        table["epsilon below an attained deviation"] = _count(claims)
        plants = (o for _ in range(options.planted) for o in planted(rng, Path(name) / "planted", options.forged))
        table["planted deviations, forged proofs"] = _count(plants)
    return _print(table, time.perf_counter() - begin)


def _count(outcomes: Iterator[Outcome]) -> "Counter[str]":
    found: Counter[str] = Counter()
    for outcome in outcomes:
        found[outcome.verdict] += 1
        found["WRONG"] += outcome.wrong
    return found


def _print(table: "dict[str, Counter[str]]", seconds: float) -> int:
    columns = ["ACCEPT", "REJECT", "MALFORMED", "UNSUPPORTED", "RESOURCE", "CRASH", "WRONG"]
    print(f"{'attack':<38}" + "".join(f"{c:>12}" for c in columns))
    for name, row in table.items():
        print(f"{name:<38}" + "".join(f"{row[c]:>12}" for c in columns))
    total = Counter[str]()
    for row in table.values():
        total.update(row)
    print(f"{'all':<38}" + "".join(f"{total[c]:>12}" for c in columns))
    count = sum(total[c] for c in columns[:-1])
    print(f"{count} attacks in {seconds:.1f} s; ACCEPT counts mutants whose claim is implied, or was proved anew")
    return 1 if total["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
