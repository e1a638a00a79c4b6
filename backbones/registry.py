"""Names to specifications of backbones: the built-in ones and those of plug-ins.

An installed plug-in offers, under the entry-point group `dfq_harness.backbones`, a `BackboneSpec`, a `Family`
of its own or a tuple of both. One that is broken, or takes a name that is taken, warns and is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

from backbones.base import BackboneSpec
from backbones.families.family import Family
from backbones.families.registry import family_names, get_family, register_family
from backbones.names import suggestion
from backbones.plugins import entry_points_of, is_fit_name
from backbones.specs import BUILT_IN

ENTRY_POINT_GROUP = "dfq_harness.backbones"

_specs: dict[str, BackboneSpec] = {}
_unread = [ENTRY_POINT_GROUP]


class _Registered(Mapping[str, BackboneSpec]):
    """Names to specifications, complete whenever it is asked: installed plug-ins are loaded first."""

    def __getitem__(self, name: str) -> BackboneSpec:
        _load_entry_points()
        return BUILT_IN[name] if name in BUILT_IN else _specs[name]

    def __iter__(self) -> Iterator[str]:
        _load_entry_points()
        return iter([*BUILT_IN, *_specs])

    def __len__(self) -> int:
        _load_entry_points()
        return len(BUILT_IN) + len(_specs)


SPECS: Mapping[str, BackboneSpec] = _Registered()
"""Every registered backbone, built-in ones first."""


def backbone_names() -> list[str]:
    """Every registered backbone, built-in ones first."""
    return list(SPECS)


def get_spec(name: str) -> BackboneSpec:
    """The specification of that name; raises ValueError with near names."""
    if name not in SPECS:
        raise ValueError(f"unknown backbone '{name}'{suggestion(name, SPECS)}")
    return SPECS[name]


def family_of(spec: BackboneSpec) -> Family:
    """The family of a specification."""
    return get_family(spec.family)


def register(*offered: BackboneSpec | Family) -> None:
    """Add a plug-in's backbones and families, in any order; all of them or, where one is wrong, none.

    Raises ValueError for a name that is taken or a family that is not registered, TypeError for anything that
    is neither a specification nor a family.
    """
    for thing in offered:
        if not isinstance(thing, BackboneSpec | Family):
            raise TypeError(f"a BackboneSpec or a Family is needed, not {type(thing).__name__}")
    families = [thing for thing in offered if isinstance(thing, Family)]
    specs = [thing for thing in offered if isinstance(thing, BackboneSpec)]
    _refuse(families, specs)
    for family in families:
        register_family(family)
    _specs.update({spec.name: spec for spec in specs})


def _refuse(families: list[Family], specs: list[BackboneSpec]) -> None:
    """Raise ValueError with every name that is unfit, taken, given twice or unknown."""
    known = [*family_names(), *(family.name for family in families)]
    backbones = [*BUILT_IN, *_specs, *(spec.name for spec in specs)]
    faults = [f"the family name '{f.name}' is taken" for f in families if known.count(f.name) > 1]
    faults += [f"the backbone name '{s.name}' is taken" for s in specs if backbones.count(s.name) > 1]
    faults += [
        f"the backbone name '{s.name}' is no word of letters, digits, '_' and '-'"
        for s in specs
        if not is_fit_name(s.name)
    ]
    faults += [
        f"unknown family '{spec.family}' of {spec.name}{suggestion(spec.family, known)}"
        for spec in specs
        if spec.family not in known
    ]
    if faults:
        raise ValueError("; ".join(faults))


def _load_entry_points() -> None:
    """Register what is installed, once. A plug-in may look backbones up while it is imported."""
    while _unread:
        for name, offered in entry_points_of(_unread.pop()):
            try:
                register(*(offered if isinstance(offered, tuple) else (offered,)))
            except (TypeError, ValueError) as error:
                warnings.warn(f"plug-in {name} is skipped: {error}", stacklevel=3)
