"""What several tests of the auditor need: the attack script as a module, and certified pairs."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "attack_certificates.py"


@pytest.fixture(scope="session")
def attacks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attack_certificates", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bases(attacks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list:
    """One certified pair of every kind, one for the rule "separate", and three for "pair_backward"."""
    folder, rng = tmp_path_factory.mktemp("bases"), np.random.default_rng(7)
    pairs = [attacks.instance(kind, rng, folder / kind) for kind in attacks.KINDS]
    pairs.append(attacks.instance("dense", rng, folder / "separate", "separate"))
    backward = ("dense", "shortcut", "max_pool")
    return pairs + [attacks.instance(kind, rng, folder / f"backward_{kind}", "pair_backward") for kind in backward]
