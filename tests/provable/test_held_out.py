"""The search on held-out data: honest counts, honest refusals, and a rate of false guarantees below delta."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from provable import held_out as module
from provable.cli import main
from provable.errors import InputError
from provable.held_out import smallest_within
from provable.pipeline import compress
from provable.reference import load
from verify.empirical.measure import Comparison, compare
from verify.errors import DataError
from verify.network.graph import Network
from verify.network.write_onnx import single_precision, write_onnx

SHARES = (Fraction(3, 4), Fraction(1, 2), Fraction(1, 4))


def classifier(sketch) -> Network:
    s = sketch((5,), seed=7)
    return single_precision(s.network(s.linear(s.add("relu", s.linear(s.add("relu", s.linear("x", 12)), 10)), 3)))


def draws(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


@pytest.mark.slow
def test_the_reference_network_shrinks_within_a_limit() -> None:
    reference = load("mlp")
    data, calibration, shares = reference.held_out, reference.calibration.images[:100], SHARES[1:]
    found = smallest_within(
        reference.module, calibration, data.images, data.labels,
        limit=("accuracy-drop", "0.1"), confidence="0.95", shares=shares,
    )  # fmt: skip
    assert found.result is not None
    accepted = [trial for trial in found.trials if trial.decision.accepted]
    assert found.result.after == accepted[-1].cost
    assert "accounts for the choice" in found.sentence


def test_false_guarantees_are_rarer_than_delta(sketch, monkeypatch) -> None:
    """Held-out samples drawn again and again from a finite population on which the true rates are known."""
    network, calibration, population = classifier(sketch), draws(400, 1), draws(3000, 2)
    made = {float(s): compress(network, calibration, keep={"flops": float(s)}) for s in SHARES}
    rates = [float((~compare(network, made[float(s)].compact, population).agrees(1e-9)).mean()) for s in SHARES]
    assert rates[0] < rates[2]
    limit = Fraction(round(900 * rates[2]), 1000)  # just below the rate of the last size: that one is bad
    assert rates[0] < limit < rates[2]
    monkeypatch.setattr(module, "compress", lambda model, data, *, keep, **rest: made[keep["flops"]])
    random, false, found, repeats = np.random.default_rng(3), 0, 0, 200
    for _ in range(repeats):
        sample = population[random.integers(0, len(population), 60)]
        answer = smallest_within(
            network, calibration, sample, limit=("disagreement", limit), confidence="0.8", shares=SHARES
        )
        taken = sum(trial.decision.accepted for trial in answer.trials)
        found += taken > 0
        false += any(rate > limit for rate in rates[:taken])
    assert found > 0
    assert false <= 0.2 * repeats + 3 * np.sqrt(0.2 * 0.8 * repeats)


def test_what_counts_as_newly_wrong() -> None:
    original = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    compact = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    found = module._violations("accuracy-drop", Comparison(original, compact), np.array([0, 0, 0, 0]))
    assert found.tolist() == [False, True, False, True]  # the last one is a tie: it counts against us
    assert module._violations("disagreement", Comparison(original, compact), None).tolist() == [False, True, True, True]


def test_every_class_is_a_stratum(sketch) -> None:
    network = classifier(sketch)
    x = draws(300, 6)
    labels = compare(network, network, x).original.argmax(axis=1)
    found = smallest_within(
        network, draws(60, 1), x, labels, limit=("class-accuracy-drop", "0.5"), confidence="0.9", shares=SHARES[:1]
    )
    assert [c.samples for c in found.trials[0].decision.counts] == np.bincount(labels)[np.unique(labels)].tolist()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"limit": ("accuracy-drop", "0.1")}, InputError, "needs the labels"),
        ({"limit": ("class-accuracy-drop", "0.1")}, InputError, "needs the labels"),
        ({"limit": ("regret", "0.1")}, InputError, "unknown limit"),
        ({"limit": ("accuracy-drop", "0.1"), "labels": np.zeros(7, int)}, InputError, "one class index"),
        ({"limit": ("accuracy-drop", "0.1"), "labels": np.full(50, 3)}, InputError, "row 0 is 3"),
        ({"held_out": draws(40, 1)}, DataError, "used for calibration"),
    ],
)
def test_bad_input_is_refused_by_name(sketch, change: dict, kind: type[Exception], words: str) -> None:
    arguments = {"held_out": draws(50, 2), "limit": ("disagreement", "0.1"), "shares": SHARES[:1], **change}
    with pytest.raises(kind, match=words):
        smallest_within(classifier(sketch), draws(40, 1), **arguments)


def test_the_command(sketch, tmp_path: Path, capsys) -> None:
    network = classifier(sketch)
    write_onnx(network, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", draws(40, 1))
    np.save(tmp_path / "h.npy", draws(200, 2))
    words = ["compress", str(tmp_path / "net.onnx"), "--calibration", str(tmp_path / "x.npy")]
    words += ["--out", str(tmp_path / "out"), "--floor", "2"]
    assert main([*words, "--until", "accuracy-drop=0.1", "--held-out", str(tmp_path / "h.npy")]) == 3
    assert "needs the labels" in capsys.readouterr().err
    assert main([*words, "--until", "disagreement=0.1"]) == 3
    assert "needs --held-out" in capsys.readouterr().err
    more = ["--held-out", str(tmp_path / "h.npy"), "--confidence", "0.9"]
    assert main([*words, *more, "--until", "disagreement=0.001"]) == 2
    assert "UNKNOWN" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*words, *more, "--until", "disagreement=0.3"]) == 0
    assert "With confidence 0.9" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "search.json").read_text())
    assert record["limit"] == "disagreement"
    assert record["trials"][0]["accepted"]
    assert record["held_out"]["rows"] == 200
