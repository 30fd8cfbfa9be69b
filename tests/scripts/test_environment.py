"""The set-up script: installs once, again when pyproject.toml changes, and says what is missing. No network is used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = f"""#!/bin/sh
case "$*" in
  *"-m pip"*) echo "$@" >> "$PIP_LOG"; [ ! -e "$PIP_LOG.fail" ] ;;
  *) exec {sys.executable} "$@" ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the script reads, with an environment whose pip only writes down what it is asked for."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path


def run(project: Path, *groups: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k not in {"PROVABLE_VENV", "PYTHON"}}
    environment = {**inherited, "PIP_LOG": str(project / "pip.log"), **variables}
    command = ["bash", "scripts/environment", *groups]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def installed(project: Path) -> list[str]:
    """What pip was asked for since the last look."""
    log = project / "pip.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_pinned_torch_comes_first_and_everything_only_once(project: Path) -> None:
    assert run(project, "test").returncode == 0
    asked = installed(project)
    names = [
        next(i for i, line in enumerate(asked) if mark in line)
        for mark in ("torch==2.13.0", "--editable .", "--group test")
    ]
    assert names == sorted(names)
    assert all("torch==2.13.0" in line for line in asked if "pip>=" not in line), "no later step may move torch"
    assert run(project, "test").returncode == 0
    assert installed(project) == []


def test_another_group_is_added_alone(project: Path) -> None:
    run(project, "test")
    installed(project)
    run(project, "test", "dev")
    assert [line.split()[-1] for line in installed(project)] == ["dev"]


def test_changed_project_file_installs_again(project: Path) -> None:
    run(project)
    installed(project)
    with (project / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    assert run(project).returncode == 0
    assert installed(project)


def test_failed_installation_is_an_error_and_is_tried_again(project: Path) -> None:
    (project / "pip.log.fail").touch()
    assert run(project).returncode != 0
    (project / "pip.log.fail").unlink()
    installed(project)
    assert run(project).returncode == 0
    assert installed(project)


def test_unsuitable_interpreter_is_named(project: Path) -> None:
    shutil.rmtree(project / ".venv")
    done = run(project, PYTHON="/nowhere/python")
    assert done.returncode == 3
    assert "PYTHON=/nowhere/python is not a working Python 3.11" in done.stderr


@pytest.mark.parametrize("script", ["scripts/environment", "scripts/test", "scripts/demo", ".ci/run"])
def test_scripts_parse_and_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
