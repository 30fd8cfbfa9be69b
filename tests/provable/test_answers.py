"""A killed search continues with what it knows, and finds what an uninterrupted one finds."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from provable import held_out, smallest, structural_search
from provable.answers import Answers, same
from provable.cli import main
from provable.errors import OutputError
from verify.network.graph import Network
from verify.network.read_onnx import read_onnx
from verify.network.write_onnx import single_precision, write_onnx

DOMAIN = ["(declare-const X_{i} Real)", "(assert (and (>= X_{i} -0.3) (<= X_{i} 0.5)))"]


class Killed(BaseException):
    """As if the process had been killed."""


class Fuse:
    """Calls a function some times, then kills."""

    def __init__(self, function, calls: int) -> None:
        self.function, self.left, self.calls = function, calls, 0

    def __call__(self, *arguments, **options):
        if self.calls == self.left:
            raise Killed
        self.calls += 1
        return self.function(*arguments, **options)


def perceptron(sketch, seed: int = 5) -> Network:
    s = sketch((3,), seed=seed, dtype="float32")
    x = s.add("relu", s.linear("x", 16))
    return single_precision(s.network(s.linear(s.add("relu", s.linear(x, 16)), 2)))


def draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.5, size=(count, 3)).astype(np.float32)


@pytest.fixture
def words(sketch, tmp_path: Path) -> list[str]:
    write_onnx(perceptron(sketch), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", draws(300, 0))
    np.save(tmp_path / "h.npy", draws(200, 1))
    lines = [line.format(i=i) for i in range(3) for line in DOMAIN] + [f"(declare-const Y_{i} Real)" for i in range(2)]
    (tmp_path / "d.vnnlib").write_text("\n".join(lines))
    return ["compress", str(tmp_path / "net.onnx"), "--calibration", str(tmp_path / "x.npy")]


SEARCHES = {
    "deviation=0.3": (smallest, "certify", ("--domain", "d.vnnlib")),
    "disagreement=0.3": (held_out, "compare", ("--held-out", "h.npy", "--confidence", "0.9")),
    "agreement=0.9": (structural_search, "winners", ()),
}
"""Limit -> what is called once for every candidate, and the options that it needs."""


def outcome(folder: Path) -> tuple[str, object]:
    """The compact network's bits and what search.json says, wall-clock times apart."""
    record = json.loads((folder / "search.json").read_text())
    for row in record.get("probes", record.get("groups", record.get("trials"))):
        row.pop("seconds", None)
    return read_onnx(folder / "compact.onnx").digest(), record


@pytest.mark.parametrize("limit", SEARCHES)
def test_a_search_killed_after_every_candidate_finds_the_same(
    words: list[str], tmp_path: Path, monkeypatch, capsys, limit: str
) -> None:
    module, judge, more = SEARCHES[limit]
    options = [str(tmp_path / word) if word.endswith((".vnnlib", ".npy")) else word for word in more]
    words = [*words, "--until", limit, *options]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    unfinished, kills, judged = tmp_path / ".out.unfinished", 0, 0
    extra = limit.startswith("agreement")  # the score's own look at the original, in every run
    while True:
        fuse = Fuse(getattr(module, judge), 1 + extra)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(module, judge, fuse)
                assert main([*words, "--out", str(tmp_path / "out")]) == 0
            break
        except Killed:
            kills += 1
            assert not (tmp_path / "out").exists()
            assert len(list(unfinished.glob("answer-*.json"))) > judged  # every run adds to what is known
            judged = len(list(unfinished.glob("answer-*.json")))
    assert kills >= 2
    assert "continued an interrupted search" in capsys.readouterr().err
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")
    assert not unfinished.exists()


def test_another_question_starts_afresh(words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    held = ["--held-out", str(tmp_path / "h.npy"), "--confidence", "0.9"]
    with monkeypatch.context() as patch:
        patch.setattr(held_out, "compare", Fuse(held_out.compare, 2))
        with pytest.raises(Killed):
            main([*words, *held, "--until", "disagreement=0.3", "--out", str(tmp_path / "out")])
    np.save(tmp_path / "h.npy", draws(200, 2))
    assert main([*words, *held, "--until", "disagreement=0.3", "--out", str(tmp_path / "out")]) == 0
    assert "continued" not in capsys.readouterr().err


def test_no_resume_starts_afresh(words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    words += ["--held-out", str(tmp_path / "h.npy"), "--confidence", "0.9", "--until", "disagreement=0.3"]
    with monkeypatch.context() as patch:
        patch.setattr(held_out, "compare", Fuse(held_out.compare, 2))
        with pytest.raises(Killed):
            main([*words, "--out", str(tmp_path / "out")])
    assert main([*words, "--no-resume", "--out", str(tmp_path / "out")]) == 0
    assert "continued" not in capsys.readouterr().err


def test_a_candidate_that_came_out_differently_is_refused(sketch) -> None:
    network = perceptron(sketch)
    assert same(network, {"digest": network.digest()}) is network
    with pytest.raises(OutputError, match="--no-resume"):
        same(perceptron(sketch, 6), {"digest": network.digest()})


def test_damaged_answers_are_refused_by_name(tmp_path: Path) -> None:
    answers = Answers.at(tmp_path / "a", "key")
    answers.keep("0.5", {"bound": str(Fraction(1, 3))})
    assert Answers.at(tmp_path / "a", "key").known == {"0.5": {"bound": "1/3"}}
    (tmp_path / "a" / "answer-0000.json").write_text("{")
    with pytest.raises(OutputError, match=r"answer-0000\.json: damaged"):
        Answers.at(tmp_path / "a", "key")
    assert Answers.at(tmp_path / "a", "other").known == {}
    assert not (tmp_path / "a").exists()
