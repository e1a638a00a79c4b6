"""The command line. Importing it takes the project's packages from beside this one, whatever else is about.

`python -m harness.cli.main` puts the user's folder first on `sys.path`, and a `tasks.py` there would take the
place of the package `tasks`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_PACKAGES = ("backbones", "methods", "results", "tasks")


def _import_own_packages() -> None:
    root = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, root)
    try:
        for name in _PACKAGES:
            importlib.import_module(name)
    finally:
        sys.path.remove(root)


_import_own_packages()
