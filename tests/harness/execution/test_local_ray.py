"""A local Ray that cannot be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.execution.schedulers.registry import get_scheduler


@pytest.mark.parametrize("error", [Exception("bare"), OSError(28, "No space left on device")])
def test_whatever_ray_raises_at_its_start_is_one_sentence(monkeypatch, error):
    import ray

    def refuse(**settings: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    before = dict(os.environ)
    with pytest.raises(UsageError, match=r"Ray could not be started on this machine: .*--scheduler inline"):
        get_scheduler("ray")(None)
    assert os.environ.get("RAY_AUTH_MODE") == before.get("RAY_AUTH_MODE")


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_without_a_folder_is_one_sentence_and_status_2(tmp_path):
    run = ["run", "--suite", "digits_w4a4", "--budget", "smoke", "--methods", "psaq_vit", "--store"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", *run, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "RAY_TMPDIR": "/dev/null/no-folder"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("harness: Ray could not be started on this machine: ")
    assert line.endswith("; use --scheduler inline to run without it")
