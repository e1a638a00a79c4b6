"""The rules between folders: who may import whom, no circles, and where the heavy libraries come in."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
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
FLOORS = (
    {"cli"},
    {"tuning", "analysis"},
    {"execution"},
    {"reporting"},
    {"planning"},
    {"suites", "stages"},
    {"store"},
    {"errors"},
)
"""Rooms of `harness`, top floor first: a room imports from the floors below its own alone."""
ONLY_HERE = {
    "ray": tuple(
        f"harness/execution/schedulers/{name}.py" for name in ("ray_tasks", "crew", "inspection", "local_ray")
    ),
    "mlflow": ("results/tracking.py",),
    "optuna": ("harness/tuning/",),
}
FILES = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]


def name_of(file: Path) -> str:
    """Dotted name of a module of the project."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


def imports_of(file: Path) -> Iterator[str]:
    """Everything that a file imports, anywhere in it, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def own_imports(name: str) -> frozenset[str]:
    """The project's modules that a module imports, also for typing alone and inside functions."""
    found = set()
    for imported in imports_of(MODULES[name]):
        while imported and imported not in MODULES:
            imported = imported.rpartition(".")[0]
        found.add(imported)
    return frozenset(found - {"", name})


def libraries(file: Path) -> set[str]:
    """Top-level names of everything a file imports."""
    return {name.split(".")[0] for name in imports_of(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_dependencies_point_one_way(file):
    package = file.relative_to(ROOT).parts[0]
    assert libraries(file) & set(MAY_IMPORT) <= MAY_IMPORT[package]


def floor_of(name: str) -> int | None:
    """Index in FLOORS of a module of `harness`; None of any other module."""
    parts = name.split(".")
    if parts[0] != "harness" or len(parts) == 1:
        return None
    return next(index for index, rooms in enumerate(FLOORS) if parts[1] in rooms)


def test_rooms_of_harness_import_from_the_floors_below_alone():
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        for imported in own_imports(name)
        if (own := floor_of(name)) is not None
        and (other := floor_of(imported)) is not None
        and name.split(".")[1] != imported.split(".")[1]
        and other <= own
    ]
    assert not wrong


def test_no_module_imports_itself_round_about():
    inside = {name: {i for i in own_imports(name) if not name.startswith(f"{i}.")} for name in MODULES}
    tuple(graphlib.TopologicalSorter(inside).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize(("library", "places"), ONLY_HERE.items())
def test_heavy_libraries_come_in_at_one_place(library, places):
    users = [str(file.relative_to(ROOT)) for file in FILES if library in libraries(file)]
    assert users
    assert all(user.startswith(places) for user in users)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_generic_names_resolve_to_this_project(package):
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT)


def modules_after(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after a statement."""
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
