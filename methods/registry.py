"""Names to methods and engines, imported only when asked for; outsiders' methods come in here too.

A plug-in is a Python file with a module-level `METHOD` (or `METHODS`, a tuple) of type `Method`, and
perhaps `ENGINE`/`ENGINES`, a mapping from name to `Engine` class. It is loaded from `--plugin FILE` or from
the entry-point group `dfq_harness.methods`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

from backbones.names import shown, suggestion
from backbones.plugins import entry_points_of, is_fit_name
from methods.base import Engine, Method, Synthesizer

ENTRY_POINT_GROUP = "dfq_harness.methods"

_BUILT_IN_METHODS = (
    "fp32",
    "gaussian_noise",
    "real_data",
    "psaq_vit",
    "mimiq",
    "maskaq",
    "clamp_vit",
    "sardfq",
    "smi",
    "fdd",
    "d4c",
    "image_folder",
    "gdfq",
    "qimera",
    "adadfq",
    "psaq_vit_v2",
)
_BUILT_IN_ENGINES = {
    "psaq_ptq": "methods.engines.psaq_ptq:PsaqPtq",
    "lsq_qat": "methods.engines.lsq_qat:LsqQat",
    "repq_ptq": "methods.engines.repq_ptq:RepqPtq",
    "block_reconstruction": "methods.engines.block_reconstruction:BlockReconstruction",
    "error_reduction": "methods.engines.error_reduction:ErrorReduction",
}

_UNFIT = "{} is no word of letters, digits, '_' and '-'"

_methods: dict[str, Method] = {}
_engines: dict[str, type[Engine]] = {}
_plugin_files: list[Path] = []


class UnknownName(ValueError):
    """A method or engine that is not registered."""


class BrokenPlugin(ValueError):
    """A plug-in that cannot be loaded, holds nothing to register, or something that breaks the contract."""


def method_names() -> list[str]:
    """Every registered method, built-in ones first."""
    return [*_BUILT_IN_METHODS, *(name for name in _methods if name not in _BUILT_IN_METHODS)]


def engine_names() -> list[str]:
    """Every registered engine, built-in ones first."""
    return [*_BUILT_IN_ENGINES, *(name for name in _engines if name not in _BUILT_IN_ENGINES)]


def get_method(name: str) -> Method:
    """The method of that name; raises UnknownName with near names."""
    if name not in _methods:
        if name not in _BUILT_IN_METHODS:
            raise UnknownName(f"unknown method '{shown(name)}'{suggestion(name, method_names())}")
        _methods[name] = importlib.import_module(f"methods.{name}").METHOD
    return _methods[name]


def get_engine(name: str) -> type[Engine]:
    """The engine class of that name; raises UnknownName with near names."""
    if name not in _engines:
        if name not in _BUILT_IN_ENGINES:
            raise UnknownName(f"unknown engine '{shown(name)}'{suggestion(name, engine_names())}")
        module, attribute = _BUILT_IN_ENGINES[name].split(":")
        _engines[name] = getattr(importlib.import_module(module), attribute)
    return _engines[name]


def load_plugin(file: Path) -> None:
    """Register what a plug-in file offers, once per process.

    Raises BrokenPlugin when the file cannot be imported, offers nothing, takes a name that is taken, or
    offers a method or an engine without what the contract asks of it.
    """
    file = file.resolve()
    if file in _plugin_files:
        return
    spec = importlib.util.spec_from_file_location(f"dfq_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise BrokenPlugin(f"no plug-in at {file}: give the path of a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a stranger's file may raise anything
        raise BrokenPlugin(f"plug-in {file} does not import: {type(error).__name__}: {error}") from error
    _register(module, str(file))
    _plugin_files.append(file)


@functools.cache
def load_entry_points() -> None:
    """Register installed plug-ins, once per process; a broken one warns and is skipped."""
    for name, offer in entry_points_of(ENTRY_POINT_GROUP):
        try:
            _register(offer, name)
        except BrokenPlugin as error:
            warnings.warn(f"plug-in {name} is skipped: {error}", stacklevel=2)


def plugin_files() -> tuple[Path, ...]:
    """The loaded plug-in files; workers load them again."""
    return tuple(_plugin_files)


def _register(module: Any, origin: str) -> None:
    """Register what a module offers, all of it or nothing."""
    methods = [*getattr(module, "METHODS", ()), *([module.METHOD] if hasattr(module, "METHOD") else [])]
    engines = dict(getattr(module, "ENGINES", {}))
    if not methods and not engines:
        raise BrokenPlugin(
            f"plug-in {origin} offers nothing: define METHOD = Method(...) or ENGINES = {{...}}"
        )
    faults = [*map(_method_fault, methods), *(_engine_fault(name, made) for name, made in engines.items())]
    for fault in filter(None, faults):
        raise BrokenPlugin(f"plug-in {origin}: {fault}")
    taken = [m.name for m in methods if m.name in method_names()] + [
        e for e in engines if e in engine_names()
    ]
    if taken:
        raise BrokenPlugin(f"plug-in {origin} takes names that exist already: {', '.join(taken)}")
    _methods.update({method.name: method for method in methods})
    _engines.update(engines)


def _method_fault(method: object) -> str:
    """What a method lacks of its contract, one sentence; empty where nothing does."""
    if not isinstance(method, Method):
        return f"METHOD is a {type(method).__name__}: make it with methods.base.Method"
    if not is_fit_name(method.name):
        return _UNFIT.format(f"the method name '{method.name}'")
    if method.synthesizer is None:
        return ""
    return _class_fault(f"the synthesizer of {method.name}", method.synthesizer, Synthesizer, ("Config",))


def _engine_fault(name: object, engine: object) -> str:
    """What an engine lacks of its contract, one sentence; empty where nothing does."""
    if not is_fit_name(name):
        return _UNFIT.format(f"the engine name '{name}'")
    return _class_fault(f"the engine {name}", engine, Engine, ("Config", "title", "citation"))


def _class_fault(what: str, made: object, base: type, attributes: tuple[str, ...]) -> str:
    if not (isinstance(made, type) and issubclass(made, base)):
        return f"{what} is no class derived from methods.base.{base.__name__}"
    missing = [a for a in attributes if not hasattr(made, a)]
    missing += sorted(getattr(made, "__abstractmethods__", ()))
    if missing:
        return f"{what} lacks {', '.join(missing)}"
    if not dataclasses.is_dataclass(made.Config):  # type: ignore[attr-defined]
        return f"{what} has a Config that is no frozen dataclass"
    return ""
