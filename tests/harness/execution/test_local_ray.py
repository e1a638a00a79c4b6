"""A local Ray that cannot be started."""

from __future__ import annotations

import os

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
