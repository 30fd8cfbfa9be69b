"""The table of seed systems has a row for every method it should have, and a row says what it measured."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from provable.catalogue import methods

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """The script, imported."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("reproduce_seed_systems", SCRIPTS / "reproduce_seed_systems.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "reproduce_seed_systems", module)
    spec.loader.exec_module(module)
    return module


def test_rows_are_methods_of_the_catalogue_and_no_training_method_lacks_one(script) -> None:
    known = {m.name: m for m in methods()}
    assert set(script.SYSTEMS) <= set(known)
    trained = {name for name, m in known.items() if m.use.startswith("provable.training")}
    assert len(trained) >= 8
    assert trained <= set(script.SYSTEMS)


@pytest.mark.slow
def test_a_row_of_the_quick_form(script) -> None:
    row = script.judged("spp", script.digits(0.02))
    outcome = row.outcome
    assert "of the weights are 0" in outcome.claim
    assert script.zeros(outcome.full) > 0.45
    assert row.accuracy[0] == pytest.approx(0.99, abs=0.02)
    assert row.statistical.startswith("<= ")
    assert row.formal.startswith("<= ")
    cells = [list(column.cells) for column in script.table([row], script.digits(0.02)).columns]
    assert cells[0] == ["spp"]
    assert cells[-1] == ["yes" if outcome.holds else "no"]


def test_a_narrowed_module_is_the_compact_network_and_can_be_trained(script) -> None:
    start = script.digits(0.02).start("cnn")
    small = script.compress(start.module, start.train.images[:32], keep={"flops": 0.6}, recipe="l1-norm")
    module = script.narrowed(start.module, small.state_dict)
    x = torch.from_numpy(start.held_out.images[:8])
    with torch.no_grad():
        assert torch.allclose(module.eval()(x), small.module()(x), atol=1e-4)
    before = [p.clone() for p in module.parameters()]
    script.fit(module, start.train, script.momentum(module, 0.01), 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert script.accuracy(module, start.held_out) > 0.5


def test_moved_images_are_parts_of_the_padded_ones_perhaps_flipped(script) -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = script.moved(images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape
    padded = torch.nn.functional.pad(images, (4,) * 4)
    for image, flipped, whole, moved in zip(padded, padded.flip(3), images, found, strict=True):
        windows = [p[:, i : i + 8, j : j + 8] for p in (image, flipped) for i in range(9) for j in range(9)]
        assert any(torch.equal(moved, window) for window in windows)
        assert not torch.equal(whole, whole.flip(2))
    assert any(not torch.equal(a, b) for a, b in zip(images, found, strict=True))


@pytest.mark.slow
def test_the_row_of_cap_shows_seconds_images_and_labels_beside_a_retraining_baseline(script) -> None:
    outcome = script.SYSTEMS["cap"](script.digits(0.02))
    assert outcome.retraining == "none"
    assert outcome.data == "512 unlabelled"
    assert re.search(r"512 images without labels, \d+ s; pruned by norms and retrained: .* after \d of 4 epochs on "
                     r"1,297 labelled images, \d+ s", outcome.claim)  # fmt: skip


def test_validation_leaves_the_test_images_alone(script, tmp_path) -> None:
    pixels, labels = np.arange(70000).astype(np.uint8), np.zeros(70000, np.uint8)
    images = np.broadcast_to(pixels[:, None, None, None], (70000, 28, 28, 1))
    (tmp_path / "mnist").mkdir()
    np.savez(
        tmp_path / "mnist" / "mnist.npz", train_images=images[:12000, :2, :2].repeat(14, 1).repeat(14, 2),
        train_labels=labels[:12000], test_images=np.full((5, 28, 28, 1), 255, np.uint8), test_labels=labels[:5] + 9,
    )  # fmt: skip
    train, held_out = script.mnist(tmp_path, validate=True).data["mlp"]
    assert (len(train), len(held_out)) == (2000, 10000)
    assert not (held_out.labels == 9).any()
    assert (script.mnist(tmp_path).data["cnn"][1].labels == 9).all()
