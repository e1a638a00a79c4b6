"""Shared test environment: no network, no telemetry, one thread's worth of surprises."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_USAGE_STATS_ENABLED="0",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    COLUMNS="200",
)

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real weights and images; the test is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real weights and images, absent here: {folder}")
    return folder


def sine(shape: tuple[int, ...], a: float, b: float, scale: float):
    """The input formula of golden.json: scale * sin(a * k + b), k = 0..n-1, row-major, float32."""
    import torch

    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(a * k + b)).reshape(shape).float()


@pytest.fixture(scope="session")
def golden() -> dict[str, dict]:
    """Name -> case of golden.json: values that the authors' released functions print."""
    path = Path(__file__).parent / "methods" / "golden.json"
    return {case["name"]: case for case in json.loads(path.read_text())["cases"]}
