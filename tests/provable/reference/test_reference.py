"""The shipped networks are what their README says, and the split is what it declares."""

import json
from types import ModuleType

import numpy as np
import pytest
import torch

from provable import reference
from tests.scripts.loading import load_script

NAMES = ("mlp", "cnn")


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    return load_script("train_reference")


@pytest.mark.parametrize(("name", "least"), [("mlp", 0.985), ("cnn", 0.99)])
def test_accuracy_on_held_out_images(name: str, least: float) -> None:
    network = reference.load(name)
    assert reference.accuracy(network.module, network.held_out) >= least


@pytest.mark.parametrize("name", NAMES)
def test_images_are_in_the_format_of_the_network(name: str) -> None:
    network = reference.load(name)
    for part in (network.calibration, network.held_out):
        assert part.images.dtype == np.float32
        assert part.images.shape[1:] == ((64,) if name == "mlp" else (1, 8, 8))
        assert part.images.min() == 0
        assert part.images.max() == 1
        assert np.array_equal(part.images * 16, np.round(part.images * 16)), "sixteenths are exact in float32"
        assert len(part) == len(part.labels)
        assert set(part.labels) == set(range(10))


def test_split_is_a_partition_of_the_rows() -> None:
    split = json.loads((reference.digits.FOLDER / "split.json").read_text())
    assert sorted(split["calibration"] + split["held_out"]) == list(range(1797))
    assert len(split["held_out"]) == 500


def test_no_held_out_image_is_a_calibration_image() -> None:
    network = reference.load("mlp")
    seen = {row.tobytes() for row in network.calibration.images}
    assert not any(row.tobytes() in seen for row in network.held_out.images)


def test_data_is_scikit_learns_and_split_is_the_declared_permutation(trainer: ModuleType) -> None:
    pixels, labels = trainer.digits()
    split = trainer.declared_split(len(labels))
    network = reference.load("mlp")
    for part, data in (("calibration", network.calibration), ("held_out", network.held_out)):
        assert np.array_equal(data.images * 16, pixels[split[part]])
        assert np.array_equal(data.labels, labels[split[part]])


@pytest.mark.parametrize("name", NAMES)
def test_each_load_is_a_fresh_copy_in_evaluation_mode(name: str) -> None:
    first, second = reference.load(name), reference.load(name)
    with torch.no_grad():
        next(first.module.parameters()).zero_()
    assert next(second.module.parameters()).abs().max() > 0
    assert not any(module.training for module in second.module.modules())
    assert not any(parameter.requires_grad for parameter in second.module.parameters())


@pytest.mark.parametrize("call", [reference.load, reference.weights_file])
def test_unknown_network_is_named_with_those_there_are(call) -> None:
    with pytest.raises(ValueError, match=r"'vgg'.*cnn, mlp"):
        call("vgg")


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_training_is_deterministic(name: str, trainer: ModuleType) -> None:
    from dataclasses import replace

    pixels, labels = trainer.digits()
    recipe = replace(trainer.RECIPES[name], epochs=1)
    rows = list(range(128))
    first, second = (trainer.train(recipe, pixels, labels, rows).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
