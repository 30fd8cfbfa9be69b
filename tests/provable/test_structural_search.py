"""Laws of the structural search: thresholds are kept, the score decides, the command writes what it found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from provable.cli import main
from provable.cost import count_flops
from provable.errors import InputError
from provable.reference import accuracy, load, weights_file
from provable.structural_search import accuracy_of, agreement_with, split, structural_search, winners
from verify.network.read_export import trace


@pytest.fixture(scope="module")
def digits():
    reference = load("mlp")
    x, y = reference.calibration.images[:500], reference.calibration.labels[:500]
    return reference, torch.from_numpy(x), y


def test_no_layer_is_accepted_below_its_threshold_and_slack_carries_over(digits) -> None:
    reference, x, y = digits
    score = accuracy_of(x[400:], y[400:])
    found = structural_search(reference.module, x[:400], score, lowest=0.95, steps=5)
    slices = [found.start - (found.start - 0.95) * (i + 1) / len(found.rows) for i in range(len(found.rows))]
    np.testing.assert_allclose([row.threshold for row in found.rows], slices)
    assert all(row.score >= row.threshold for row in found.rows)
    assert found.end >= 0.95
    assert score(found.result.compact) == pytest.approx(found.end)
    assert found.result.surgery_error <= 1e-5
    assert count_flops(found.result.compact) < 0.5 * count_flops(found.result.original)
    assert all(0.0 <= row.explained <= 1.0 and row.trials <= 5 for row in found.rows)
    assert accuracy(found.result.module(), reference.held_out) >= 0.9
    assert found.result.table()


def test_a_lower_floor_never_keeps_more_of_the_first_layer(digits) -> None:
    reference, x, _ = digits
    network = trace(reference.module, x[:1])
    score = agreement_with(network, x[400:])
    kept = [structural_search(network, x[:400], score, lowest=low).rows[0].kept for low in (1.0, 0.9, 0.5)]
    assert kept == sorted(kept, reverse=True)


def test_a_score_that_forbids_everything_changes_nothing(digits) -> None:
    reference, x, _ = digits
    network = trace(reference.module, x[:1])
    found = structural_search(network, x[:100], lambda n: float(n.digest() == network.digest()), lowest=1.0, steps=2)
    assert found.result.compact.digest() == network.digest()
    assert [row.kept for row in found.rows] == [row.total for row in found.rows]


def test_bad_questions_are_refused(digits) -> None:
    reference, x, _ = digits
    with pytest.raises(InputError, match="below the lowest"):
        structural_search(reference.module, x[:50], lambda n: 0.5, lowest=0.6)
    with pytest.raises(InputError, match="most is a share"):
        structural_search(reference.module, x[:50], lambda n: 0.5, lowest=0.4, most=1.0)
    with pytest.raises(InputError, match="cannot be split"):
        split(np.zeros((1, 3)))


@pytest.mark.parametrize("kind", ["accuracy", "agreement"])
def test_the_command(tmp_path: Path, digits, capsys, kind: str) -> None:
    _, x, y = digits
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", y)
    words = ["compress", "provable.reference:mlp", "--weights", str(weights_file("mlp")),
             "--calibration", str(tmp_path / "x.npy"), "--out", str(tmp_path / "out")]  # fmt: skip
    labels = ["--labels", str(tmp_path / "y.npy")] if kind == "accuracy" else []
    assert main([*words, "--until", f"{kind}=0.95", *labels]) == 0
    assert f"{kind} " in capsys.readouterr().out
    search = json.loads((tmp_path / "out" / "search.json").read_text())
    assert search["end"] >= 0.95
    assert [row["kept"] < row["total"] for row in search["groups"]] == [True, True]
    if kind == "accuracy":
        assert main([*words, "--force", "--until", "accuracy=0.95"]) == 3
        assert "--labels" in capsys.readouterr().err
        for wrong in ("accuracy=1.5", "speed=2"):
            with pytest.raises(SystemExit):
                main([*words, "--until", wrong])


def test_winners_do_not_depend_on_batches(digits) -> None:
    reference, x, _ = digits
    network = trace(reference.module, x[:1])
    with torch.no_grad():
        assert torch.equal(winners(network, x), reference.module(x).argmax(1))
