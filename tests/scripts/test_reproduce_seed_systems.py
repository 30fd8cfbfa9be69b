"""The tables of seed systems have a row for every method they should have, and a row says what it measured."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from provable.catalogue import methods
from provable.cost import count_parameters
from provable.errors import ScheduleError
from provable.pipeline import compress
from tests.scripts.loading import load_script

tasks, outcomes = load_script("seed_tasks"), load_script("seed_outcomes")
script = load_script("reproduce_seed_systems")


def test_rows_are_methods_of_the_catalogue_and_no_training_method_lacks_one() -> None:
    known = {m.name: m for m in methods()}
    assert {*script.SYSTEMS, *script.MEASURES} <= set(known)
    assert not set(script.SYSTEMS) & set(script.MEASURES)
    assert {"pfp", "corenet", "sipp", "cap", "cap-search", "taylor", "similarity", "functionality"} <= set(
        script.SYSTEMS
    )
    trained = {name for name, m in known.items() if m.use.startswith("provable.training")}
    assert len(trained) >= 8
    assert trained <= set(script.SYSTEMS)


@pytest.mark.slow
def test_a_row_of_the_quick_form() -> None:
    task = tasks.digits(0.02)
    row = script.judged("spp", task)
    assert "of the weights are 0" in row.claim
    drawn = [list(column.cells) for column in script.table([row], task.title).columns]
    assert [cells[0] for cells in drawn] == [row.system, *row.cells]
    assert re.fullmatch(r"99\.\d\d% → \d\d\.\d\d%", row.cells[2])
    assert [re.fullmatch(r"<= [\d.e-]+( %)?", cell) is not None for cell in row.cells[6:8]] == [True, True], row.cells
    assert row.cells[-1] in ("yes", "no")
    zeros = float(re.search(r"([\d.]+)% of the weights are 0", row.claim).group(1))
    assert zeros > 45


@pytest.mark.slow
def test_the_search_is_given_one_number() -> None:
    found = script.SYSTEMS["cap-search"](tasks.digits(0.02))
    assert re.search(r"\d+/\d+, .* channels, found by \d+ scorings on 512 other images", found.claim)
    assert found.data == "512 unlabelled, 512 labelled"


@pytest.mark.slow
def test_half_of_the_parameters_leave_at_no_loss_in_the_mean_of_three_runs() -> None:
    """Adaptive pruning; no loss: within one standard error of the starting accuracy."""
    task = tasks.digits(0.2)
    start = task.start("gated")
    runs = [script.seed_training.adapted(task.start("gated"), 300, 300, 0.02, 2 * seed) for seed in range(3)]
    assert all(count_parameters(run.compact) <= 0.5 * count_parameters(start.network) for run in runs)
    assert np.mean([outcomes.lost(start, run.compact) for run in runs]) <= outcomes.noise(start)


def test_a_finding_becomes_a_row() -> None:
    finding = script.Finding("24 networks", "digits", "tau +0.55", holds=False)
    columns = [list(column.cells) for column in script.measures({"prunability-magnitude": (finding, 12.4)}).columns]
    assert columns == [["prunability-magnitude"], ["24 networks"], ["digits"], ["12"], ["tau +0.55"], ["no"]]


def test_what_has_no_result_is_said_and_fails(monkeypatch, capsys) -> None:
    def refuses(task: object) -> None:
        raise ScheduleError("never ends")

    monkeypatch.setitem(script.SYSTEMS, "gsm", refuses)
    monkeypatch.setattr("sys.argv", ["reproduce_seed_systems.py", "--quick", "--only", "gsm", "--jobs", "1"])
    assert script.main() == 1
    assert "gsm: no result, never ends" in capsys.readouterr().out


def test_training_happens_where_the_model_is() -> None:
    """No memory behind a meta tensor: whatever were left on the processor would be an error."""
    data = tasks.Images(np.zeros((70, 1, 6, 6), np.float32), np.zeros(70, np.int64))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).to("meta")
    tasks.fit(model, data, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 2, change=tasks.moved)
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_narrowed_module_is_the_compact_network_and_can_be_trained() -> None:
    start = tasks.digits(0.02).start("cnn")
    small = compress(start.module, start.train.images[:32], keep={"flops": 0.6}, recipe="l1-norm")
    module = tasks.narrowed(start.module, small.state_dict)
    x = torch.from_numpy(start.held_out.images[:8])
    with torch.no_grad():
        assert torch.allclose(module.eval()(x), small.module()(x), atol=1e-4)
    before = [p.clone() for p in module.parameters()]
    tasks.fit(module, start.train, outcomes.momentum(module, 0.01), 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert tasks.accuracy(module, start.held_out) > 0.5


def test_moved_images_are_parts_of_the_padded_ones_perhaps_flipped() -> None:
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = tasks.moved(images, torch.Generator().manual_seed(1))
    assert found.shape == images.shape
    padded = torch.nn.functional.pad(images, (4,) * 4)
    for image, flipped, whole, moved in zip(padded, padded.flip(3), images, found, strict=True):
        windows = [p[:, i : i + 8, j : j + 8] for p in (image, flipped) for i in range(9) for j in range(9)]
        assert any(torch.equal(moved, window) for window in windows)
        assert not torch.equal(whole, whole.flip(2))
    assert any(not torch.equal(a, b) for a, b in zip(images, found, strict=True))


@pytest.mark.slow
def test_the_row_of_cap_shows_seconds_images_and_labels_beside_a_retraining_baseline() -> None:
    outcome = script.SYSTEMS["cap"](tasks.digits(0.02))
    assert outcome.retraining == "none"
    assert outcome.data == "512 unlabelled"
    assert re.search(r"512 images without labels, \d+ s; pruned by norms and retrained: .* after \d of 4 epochs on "
                     r"1,297 labelled images, \d+ s", outcome.claim)  # fmt: skip


def test_validation_leaves_the_test_images_alone(tmp_path) -> None:
    pixels, labels = np.arange(70000).astype(np.uint8), np.zeros(70000, np.uint8)
    images = np.broadcast_to(pixels[:, None, None, None], (70000, 28, 28, 1))
    (tmp_path / "mnist").mkdir()
    np.savez(
        tmp_path / "mnist" / "mnist.npz", train_images=images[:12000, :2, :2].repeat(14, 1).repeat(14, 2),
        train_labels=labels[:12000], test_images=np.full((5, 28, 28, 1), 255, np.uint8), test_labels=labels[:5] + 9,
    )  # fmt: skip
    train, held_out = tasks.mnist(tmp_path, validate=True).data["mlp"]
    assert (len(train), len(held_out)) == (2000, 10000)
    assert not (held_out.labels == 9).any()
    assert (tasks.mnist(tmp_path).data["cnn"][1].labels == 9).all()
