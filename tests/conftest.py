"""Shared test environment: no network, no telemetry, and the optional real data."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_USAGE_STATS_ENABLED="0",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    OMP_NUM_THREADS="1",  # tiny models gain nothing from more, and threads wait for each other on busy cores
    COLUMNS="200",
)

import pytest

from tests.registry_guard import registry_as_it_was

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real weights and images; the test is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real weights and images, absent here: {folder}")
    return folder


@pytest.fixture(scope="session")
def golden() -> dict[str, dict]:
    """Name -> case of both golden files: values that the authors' released functions print."""
    folder = Path(__file__).parent / "methods"
    files = [json.loads((folder / name).read_text()) for name in ("golden.json", "golden_extra.json")]
    return {case["name"]: case for file in files for case in file["cases"]}


@pytest.fixture(autouse=True)
def _registry_stays_as_it_was():
    """A plug-in that one test loads is unknown to the next."""
    with registry_as_it_was():
        yield
