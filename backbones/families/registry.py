"""Names to families, imported only when asked for."""

from __future__ import annotations

import importlib

from backbones.families.family import Family
from backbones.names import suggestion

_BUILT_IN = {
    "vit": "backbones.families.vit:VIT",
    "swin": "backbones.families.swin:SWIN",
    "yolos": "backbones.families.yolos:YOLOS",
    "mask_rcnn": "backbones.families.mask_rcnn:MASK_RCNN",
}
_families: dict[str, Family] = {}


class _EveryFamily(frozenset[str]):
    """The built-in families to whoever lists them, and also any other to whoever asks with `in`."""

    def __contains__(self, name: object) -> bool:
        return True


FAMILIES: frozenset[str] = _EveryFamily(_BUILT_IN)
"""Declared by a method or engine that works with every family, a plug-in's too."""


def family_names() -> list[str]:
    """Every registered family, built-in ones first."""
    return [*_BUILT_IN, *(name for name in _families if name not in _BUILT_IN)]


def get_family(name: str) -> Family:
    """The family of that name; raises ValueError with near names."""
    if name not in _families:
        if name not in _BUILT_IN:
            raise ValueError(f"unknown family '{name}'{suggestion(name, family_names())}")
        module, attribute = _BUILT_IN[name].split(":")
        _families[name] = getattr(importlib.import_module(module), attribute)
    return _families[name]


def register_family(family: Family) -> None:
    """Add a plug-in's family, through `backbones.registry.register`, which refuses names that are taken."""
    _families[family.name] = family
