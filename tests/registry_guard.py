"""Keeps plug-ins that a test loads away from the tests after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def registry_as_it_was() -> Iterator[None]:
    """Forget, at the end of the block, the methods and engines that were registered in it."""
    from methods import registry

    before = dict(registry._methods), dict(registry._engines), list(registry._plugin_files)
    yield
    for now, then in zip((registry._methods, registry._engines), before[:2], strict=True):
        now.clear()
        now.update(then)
    registry._plugin_files[:] = before[2]
