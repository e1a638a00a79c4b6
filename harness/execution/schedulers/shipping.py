"""The project and plug-ins that travel with a run to a cluster's nodes: by the store, which all reach."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.execution.schedulers.local_ray import project_root
from harness.stages.base import RunContext
from harness.store.files import write_bytes

_PACKAGES = ("harness", "methods", "backbones", "tasks", "results")


def shipped(context: RunContext) -> RunContext:
    """The context with this project, its own weights and the plug-in files at their places in the store."""
    project = _project_in(context.store)
    plugins = tuple(_plugin_in(file, context.store) for file in context.plugins)
    weights = {name: _moved(path, project) for name, path in context.weights.items()}
    return dataclasses.replace(context, project=project, plugins=plugins, weights=weights)


def runtime_env(context: RunContext) -> dict[str, Any]:
    """Options of a Ray worker that make it import the project that was shipped, if one was."""
    return {"runtime_env": {"env_vars": {"PYTHONPATH": str(context.project)}}} if context.project else {}


def _plugin_in(file: Path, store: Path) -> Path:
    """A copy under its content's hash, so that runs with other versions of a plug-in keep theirs."""
    content = file.read_bytes()
    copy = store / "shipped" / hashlib.sha256(content).hexdigest()[:16] / file.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(copy, content)
    return copy


def _project_in(store: Path) -> Path:
    """A copy of the project's packages, whole or not at all, under the hash of their files."""
    root, digest = project_root(), hashlib.sha256()
    files = sorted(_files_of(root))
    for file in files:
        digest.update(f"{file}\0".encode() + (root / file).read_bytes())
    copy = store / "shipped" / digest.hexdigest()[:16]
    if copy.exists():
        return copy
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=copy.parent))
    for file in files:
        (partial / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, partial / file)
    with contextlib.suppress(OSError):  # another run was faster
        os.rename(partial, copy)
    shutil.rmtree(partial, ignore_errors=True)
    return copy


def _files_of(root: Path) -> Iterator[Path]:
    """The packages' files, seen from the root."""
    for name in _PACKAGES:
        for file in (root / name).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(root)


def _moved(path: Path, project: Path) -> Path:
    """The place in the copied project of a file of the project; other paths as they are."""
    inside = any(path.is_relative_to(project_root() / name) for name in _PACKAGES)
    return project / path.relative_to(project_root()) if inside else path
