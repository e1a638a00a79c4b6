"""Keeps plug-ins that a test loads away from the tests after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def registry_as_it_was() -> Iterator[None]:
    """Forget, at the end of the block, what was registered in it: methods, engines, backbones, families."""
    import backbones.families.registry as families
    import backbones.registry as backbones
    from methods import registry

    tables = (registry._methods, registry._engines, backbones._specs, families._families)
    before, files = [dict(table) for table in tables], list(registry._plugin_files)
    registry.load_entry_points.cache_clear()
    yield
    registry.load_entry_points.cache_clear()
    for now, then in zip(tables, before, strict=True):
        now.clear()
        now.update(then)
    registry._plugin_files[:] = files
