"""The command takes the project's packages from beside itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["tasks", "methods", "backbones", "results"])
def test_a_file_in_the_working_folder_never_replaces_a_package(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise ImportError('the file of a user')")
    script = f"import harness.cli, {name}; print({name}.__file__)"
    command = [sys.executable, "-c", script]  # -c puts the working folder first, as -m does
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(ROOT / name / "__init__.py"), done.stderr
