"""Scripts as modules: they are no package, so tests load them by their path, beside the scripts that they import."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load_script(name: str, *, known_as: str | None = None) -> ModuleType:
    """A script of this project, imported anew; `known_as` where another instance of it must stay."""
    spec = importlib.util.spec_from_file_location(known_as or name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    spec.loader.exec_module(module)
    return module
