"""What several tests of the auditor need: the attack script as a module, and certified pairs."""

from types import ModuleType

import numpy as np
import pytest

from tests.scripts.loading import load_script


@pytest.fixture(scope="session")
def attacks() -> ModuleType:
    return load_script("attack_certificates")


@pytest.fixture(scope="session")
def bases(attacks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list:
    """One certified pair of every kind, one for the rule "separate", and three for "pair_backward"."""
    folder, rng = tmp_path_factory.mktemp("bases"), np.random.default_rng(7)
    pairs = [attacks.instance(kind, rng, folder / kind) for kind in attacks.KINDS]
    pairs.append(attacks.instance("dense", rng, folder / "separate", "separate"))
    backward = ("dense", "shortcut", "max_pool")
    return pairs + [attacks.instance(kind, rng, folder / f"backward_{kind}", "pair_backward") for kind in backward]
