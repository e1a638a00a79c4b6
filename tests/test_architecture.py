"""The rules between folders: who may import whom, and where the heavy libraries come in."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "backbones": {"backbones"},
    "methods": {"methods", "backbones"},
    "tasks": {"tasks", "backbones"},
    "results": {"results"},
    "harness": {"harness", "results", "tasks", "methods", "backbones"},
}
ONLY_HERE = {
    "ray": ("harness/execution/schedulers/ray_tasks.py",),
    "mlflow": ("results/tracking.py",),
    "optuna": ("harness/tuning/",),
}
FILES = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Top-level names of everything a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_dependencies_point_one_way(file):
    package = file.relative_to(ROOT).parts[0]
    assert imported(file) & set(MAY_IMPORT) <= MAY_IMPORT[package]


@pytest.mark.parametrize(("library", "places"), ONLY_HERE.items())
def test_heavy_libraries_come_in_at_one_place(library, places):
    users = [str(file.relative_to(ROOT)) for file in FILES if library in imported(file)]
    assert all(user.startswith(places) for user in users)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_generic_names_resolve_to_this_project(package):
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_loads_nothing_heavy():
    loaded = modules_after("import harness.cli.main")
    assert loaded.isdisjoint({"torch", "timm", "ray", "mlflow", "optuna", "pandas", "numpy", "sklearn"})


def test_importing_every_method_and_engine_loads_no_task():
    loaded = modules_after(
        "from methods.registry import *\n"
        "from methods import registry as r\n"
        "[r.get_method(n) for n in r.method_names()]\n"
        "[r.get_engine(n) for n in r.engine_names()]"
    )
    assert not [name for name in loaded if name == "tasks" or name.startswith("tasks.")]
    assert "sklearn" not in loaded
