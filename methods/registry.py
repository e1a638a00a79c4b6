"""Names to methods and engines, imported only when asked for; outsiders' methods come in here too.

A plug-in is a Python file with a module-level `METHOD` (or `METHODS`, a tuple) of type `Method`, and
perhaps `ENGINE`/`ENGINES`, a mapping from name to `Engine` class. It is loaded from `--plugin FILE` or from
the entry-point group `dfq_harness.methods`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

from backbones.names import suggestion
from methods.base import Engine, Method

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
}

_methods: dict[str, Method] = {}
_engines: dict[str, type[Engine]] = {}
_plugin_files: list[Path] = []


class UnknownName(ValueError):
    """A method or engine that is not registered."""


class BrokenPlugin(ValueError):
    """A plug-in file that cannot be loaded or holds nothing to register."""


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
            raise UnknownName(f"unknown method '{name}'{suggestion(name, method_names())}")
        _methods[name] = importlib.import_module(f"methods.{name}").METHOD
    return _methods[name]


def get_engine(name: str) -> type[Engine]:
    """The engine class of that name; raises UnknownName with near names."""
    if name not in _engines:
        if name not in _BUILT_IN_ENGINES:
            raise UnknownName(f"unknown engine '{name}'{suggestion(name, engine_names())}")
        module, attribute = _BUILT_IN_ENGINES[name].split(":")
        _engines[name] = getattr(importlib.import_module(module), attribute)
    return _engines[name]


def load_plugin(file: Path) -> None:
    """Register what a plug-in file offers, once per process.

    Raises BrokenPlugin when the file cannot be imported, offers nothing, or takes a name that is taken.
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


def load_entry_points() -> None:
    """Register installed plug-ins; a broken one warns and is skipped."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            _register(point.load(), point.value)
        except Exception as error:  # a stranger's package may raise anything
            warnings.warn(f"plug-in {point.value} is skipped: {error}", stacklevel=2)


def plugin_files() -> tuple[Path, ...]:
    """The loaded plug-in files; workers load them again."""
    return tuple(_plugin_files)


def _register(module: ModuleType, origin: str) -> None:
    methods = [*getattr(module, "METHODS", ()), *([module.METHOD] if hasattr(module, "METHOD") else [])]
    engines = dict(getattr(module, "ENGINES", {}))
    if not methods and not engines:
        raise BrokenPlugin(
            f"plug-in {origin} offers nothing: define METHOD = Method(...) or ENGINES = {{...}}"
        )
    taken = [m.name for m in methods if m.name in method_names()] + [
        e for e in engines if e in engine_names()
    ]
    if taken:
        raise BrokenPlugin(f"plug-in {origin} takes names that exist already: {', '.join(taken)}")
    _methods.update({method.name: method for method in methods})
    _engines.update(engines)
