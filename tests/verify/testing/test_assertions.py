"""Assertions pass on true claims, fail on false ones with what was found, and refuse what they cannot judge."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from verify.errors import DataError, ModelError, SpecificationError
from verify.network.graph import Network, build
from verify.network.write_onnx import write_onnx
from verify.spec.box import Box
from verify.statistical import row_hashes
from verify.testing import (
    as_network,
    assert_agreement,
    assert_deviation,
    assert_networks_equal,
    assert_same_argmax,
)

ROOT = Path(__file__).parents[3]
UNIT = Box.from_floats([-1.0, -1.0], [1.0, 1.0])


def net(scale: float = 1.0) -> Network:
    """``y = scale relu(x)`` in two coordinates."""
    steps = [
        ("h", "linear", ("x",), {"weight": "w"}, {}),
        ("r", "relu", ("h",), {}, {}),
        ("y", "linear", ("r",), {"weight": "v"}, {}),
    ]
    eye = np.eye(2, dtype=np.float32)
    return build("x", (2,), steps, "y", {"w": eye, "v": np.float32(scale) * eye})


def test_deviation_proved_and_refuted() -> None:
    result = assert_deviation(net(), net(1.25), UNIT, "0.26")
    assert 0.25 <= result.upper <= 0.26
    with pytest.raises(AssertionError, match=r"REFUTED: output \d deviates by 0.2\d* > 0.2 at input \["):
        assert_deviation(net(), net(1.25), [UNIT], "0.2")


def test_deviation_not_decided_fails_with_the_bounds() -> None:
    """No time at all: neither proved nor refuted, and that is no pass."""
    generator = np.random.default_rng(0)
    wide = build(
        "x", (30,),
        [
            ("h", "linear", ("x",), {"weight": "w"}, {}),
            ("r", "tanh", ("h",), {}, {}),
            ("y", "linear", ("r",), {"weight": "v"}, {}),
        ],
        "y", {"w": generator.standard_normal((60, 30)), "v": generator.standard_normal((4, 60))},
    )  # fmt: skip
    other = wide.with_parameters({"w": wide.parameters["w"] + 0.3 * generator.standard_normal((60, 30))})
    with pytest.raises(AssertionError, match=r"UNKNOWN: .* not decided in 1e-06 s"):
        assert_deviation(wide, other, Box.around(np.zeros(30), 1), 40.0, timeout=1e-6)


def test_deviation_on_a_vnnlib_file(tmp_path: Path) -> None:
    path = tmp_path / "domain.vnnlib"
    declared = "".join(f"(declare-const {v}_{i} Real)\n" for v in "XY" for i in range(2))
    bounds = "".join(f"(assert (>= X_{i} 0.0))\n(assert (<= X_{i} 0.5))\n" for i in range(2))
    path.write_text(f"{declared}{bounds}(assert (>= Y_0 0.0))\n")
    assert_deviation(net(), net(1.25), path, "0.13")
    with pytest.raises(AssertionError, match="REFUTED"):
        assert_deviation(net(), net(1.25), str(path), "0.1")


def test_an_empty_domain_is_refused() -> None:
    with pytest.raises(SpecificationError, match="no box"):
        assert_deviation(net(), net(), [], "0.1")


def test_agreement_needs_enough_fresh_data() -> None:
    x = np.random.default_rng(0).uniform(0.1, 1, (700, 2))
    certificate = assert_agreement(net(), net(1.25), x, "0.99", "0.99")
    assert certificate.claims[0].count == 0
    with pytest.raises(AssertionError, match=r"on 0 of 100 inputs.*not 0\.99"):
        assert_agreement(net(), net(1.25), x[:100], "0.99", "0.99")
    with pytest.raises(DataError, match="rows 0"):
        assert_agreement(net(), net(), x, "0.5", calibration_rows=row_hashes(x[:1]))
    with pytest.raises(SpecificationError, match="at_least"):
        assert_agreement(net(), net(), x, 1.0)


def test_same_argmax_names_the_rows() -> None:
    swapped = net().with_parameters({"v": np.eye(2, dtype=np.float32)[::-1]})
    x = np.array([[1.0, 0.5], [0.5, 1.0], [0.0, 0.0]])
    assert_same_argmax(net(), net(3.0), x)
    with pytest.raises(AssertionError, match=r"2 of 3 inputs \(row 0: 0 became 1; row 1: 1 became 0\)"):
        assert_same_argmax(net(), swapped, x)


def renamed() -> Network:
    n = net()
    steps = [(node.name, node.op, node.inputs, node.parameters, node.attributes) for node in n.nodes]
    steps[1] = ("r", "tanh", ("h",), {}, {})
    return build("x", (2,), steps, "y", n.parameters)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (net(1.5), r"parameter 'v' differs in 2 of 4 elements, first at \(0, 0\)"),
        (net().with_parameters({"v": np.eye(2)}), "float32.*float64"),
        (net().with_parameters({"v": np.array([[1, -0.0], [0, 1]], np.float32)}), "sign of zeros"),
        (renamed(), "node .*relu.*tanh"),
        (build("z", (2,), [("y", "relu", ("z",), {}, {})], "y", {}), "input"),
        (build("x", (2,), [("y", "relu", ("x",), {}, {})], "y", {}), "number of nodes"),
    ],
)
def test_unequal_networks_are_told_apart(other: Network, message: str) -> None:
    assert_networks_equal(net(), net())
    with pytest.raises(AssertionError, match=message):
        assert_networks_equal(net(), other)


def test_networks_come_as_objects_files_and_modules(tmp_path: Path) -> None:
    write_onnx(net(), tmp_path / "f.onnx")
    assert_networks_equal(net(), tmp_path / "f.onnx")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()).eval()
    traced = as_network(module, torch.zeros(1, 2))
    assert traced.output_shape == (2,)
    with pytest.raises(ModelError, match="example"):
        as_network(module)
    with pytest.raises(ModelError, match="got int"):
        as_network(3)  # type: ignore[arg-type]


def test_importing_the_package_does_not_load_torch() -> None:
    script = "import sys, verify.testing; print([m for m in ('torch', 'onnx', 'provable') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


EXAMPLE = ROOT / "examples" / "test_my_compression.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("test_my_compression", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", EXAMPLE.read_text(), re.MULTILINE))
def test_the_example_file_runs_as_it_stands(name: str, example: ModuleType) -> None:
    """Users copy it: every test in it passes."""
    getattr(example, name)()


def test_the_example_file_has_tests_and_they_can_fail(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = example.ORIGINAL.with_parameters({k: a * 0.5 for k, a in example.ORIGINAL.parameters.items()})
    monkeypatch.setattr(example, "COMPACT", worse)
    with pytest.raises(AssertionError, match="REFUTED"):
        example.test_every_input_of_a_box()
    with pytest.raises(AssertionError, match="arg max differs"):
        example.test_same_answer_on_nearly_all_inputs()
