"""Everything that can be wrong with the contents of a suite, whoever wrote it, as (field, sentence).

    faults(suite)  # [("backbones", "unknown backbone 'deit_tinny': did you mean deit_tiny?"), ...]

Names are looked up in the registries; no data, weights or images are touched.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

from backbones.names import shown, suggestion
from backbones.registry import SPECS
from harness.suites.suite import HIGHEST_SEED, LOWEST_SEED, PRECISIONS, TUNED, Suite, Track, engines_of
from methods.registry import engine_names, get_engine, get_method, method_names
from methods.scope import SCOPES
from methods.settings import BUDGETS, faults_of
from tasks.registry import get_task, task_names

_TRACKS: tuple[Track, ...] = get_args(Track)


class Fault(NamedTuple):
    """One thing that is wrong with a suite."""

    path: str
    """Where: a field of the suite, such as `bits`, or an entry in one, such as `overrides.maskaq.images`."""
    sentence: str


def faults(suite: Suite) -> list[Fault]:
    """Every fault of a suite; empty when it can be run."""
    return [
        *_unknown_words(suite),
        *_unknown_names(suite),
        *_lists(suite),
        *_backbones_for_another_task(suite),
        *_unsupported_by_methods(suite),
        *_unsupported_by_engines(suite),
        *_overrides(suite),
        *_variants(suite),
        *_tuned(suite),
    ]


def _unknown_words(suite: Suite) -> Iterator[Fault]:
    """Fields that take one of a few words."""
    for field, known in (
        ("scope", SCOPES),
        ("precision", PRECISIONS),
        ("budget", BUDGETS),
        ("track", _TRACKS),
    ):
        word = getattr(suite, field)
        if word not in known:
            yield Fault(field, f"unknown {field} '{shown(word)}': one of {', '.join(known)}")


def _unknown_names(suite: Suite) -> Iterator[Fault]:
    """Fields that name something registered."""
    for field, kind, names, known in (
        ("task", "task", (suite.task,), task_names()),
        ("backbones", "backbone", suite.backbones, list(SPECS)),
        ("methods", "method", suite.methods, method_names()),
        ("engines", "engine", suite.engines, engine_names()),
    ):
        for name in names:
            if name not in known:
                yield Fault(field, f"unknown {kind} '{shown(name)}'{suggestion(name, known)}")


def _lists(suite: Suite) -> Iterator[Fault]:
    for field in ("backbones", "bits", "seeds"):
        values = getattr(suite, field)
        if not values:
            yield Fault(field, f"{field} is empty")
        if len(set(values)) != len(values):
            yield Fault(field, f"{field} lists a value twice")
    for seed in suite.seeds:
        if not LOWEST_SEED <= seed <= HIGHEST_SEED:
            yield Fault("seeds", f"seed {shown(seed)} is beyond what torch takes: -2^63 to 2^63 - 1")
    if suite.track == "controlled" and not suite.engines:
        yield Fault("engines", f"track controlled needs engines: there are {', '.join(engine_names())}")


def _backbones_for_another_task(suite: Suite) -> Iterator[Fault]:
    if suite.task not in task_names():
        return
    task = get_task(suite.task)
    for spec in (SPECS[name] for name in suite.backbones if name in SPECS):
        if task.needs_own_backbones and spec.dataset != suite.task:
            yield Fault(
                "backbones", f"{spec.name} is trained on {spec.dataset}, the suite's task is {suite.task}"
            )
        elif spec.is_detector and not task.detects:
            yield Fault("backbones", f"{spec.name} detects objects, the task {suite.task} needs a classifier")


def _unsupported_by_methods(suite: Suite) -> Iterator[Fault]:
    for name in _known_methods(suite):
        synthesizer = get_method(name).synthesizer
        if synthesizer is not None:
            for backbone in _beyond(suite, synthesizer.families):
                yield Fault("methods", f"{name} does not support {backbone}")


def _unsupported_by_engines(suite: Suite) -> Iterator[Fault]:
    """Engines that the suite's rows use and that do not support a backbone or the scope."""
    known = dataclasses.replace(suite, methods=_known_methods(suite))
    rows = [get_method(name) for name in (*known.methods, "gaussian_noise")]  # one anchor stands for all
    used = dict.fromkeys(engine for method in rows for engine in engines_of(known, method))
    for name in (engine for engine in used if engine in engine_names()):
        engine, field = get_engine(name), "engines" if suite.engines else "methods"
        if suite.scope in SCOPES and suite.scope not in engine.scopes:
            yield Fault("scope", f"{name} does not support scope {suite.scope}")
        for backbone in _beyond(suite, engine.families):
            yield Fault(field, f"{name} does not support {backbone}")


def _overrides(suite: Suite) -> Iterator[Fault]:
    known = [*method_names(), *engine_names()]
    reported = {*suite.methods, *suite.engines} - set(known)
    for target, settings in suite.overrides.items():
        path = f"overrides.{target}"
        if target in known:
            yield from _of_settings(target, settings, path)
        elif target not in reported:
            yield Fault(path, f"unknown method or engine '{shown(target)}'{suggestion(target, known)}")


def _variants(suite: Suite) -> Iterator[Fault]:
    for name, variants in suite.variants.items():
        path = f"variants.{name}"
        if name not in suite.methods:
            yield Fault(path, f"variants of '{shown(name)}', which is not among the suite's methods")
            continue
        for variant in variants:
            yield from _of_tuned(name, variant.get(TUNED, {}), path)
            if name in method_names():
                settings = {key: value for key, value in variant.items() if key != TUNED}
                yield from _of_settings(name, settings, path)


def _tuned(suite: Suite) -> Iterator[Fault]:
    for name, tuned in suite.tuned.items():
        yield from _of_tuned(name, tuned, f"overrides.{name}")


def _of_tuned(name: str, tuned: Any, path: str) -> Iterator[Fault]:
    """Whether a record can keep how a search found settings."""
    if not isinstance(tuned, Mapping):
        yield Fault(path, f"{name}: '{TUNED}' says how the settings were found, as a mapping")
    elif not _is_json(tuned):
        yield Fault(path, f"{name}: '{TUNED}' holds texts, finite numbers, and lists and mappings of these")


def _is_json(value: Any) -> bool:
    """Whether JSON gives the value back as it is."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _of_settings(target: str, settings: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """Faults of the settings of a method, with an engine's in a mapping of their own, or of an engine."""
    if target in engine_names():
        yield from _of_config(target, get_engine(target).Config, settings, path)
        return
    synthesizer = get_method(target).synthesizer
    if synthesizer is None:
        for name in settings:
            yield Fault(
                f"{path}.{name}",
                f"{target}: unknown field '{shown(name)}': the full-precision row has no settings",
            )
        return
    own = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    yield from _of_config(target, synthesizer.Config, own, path)
    for engine, nested in settings.items():
        if not isinstance(nested, Mapping):
            continue
        if engine in engine_names():
            yield from _of_config(
                f"{target}: {engine}", get_engine(engine).Config, nested, f"{path}.{engine}"
            )
        else:
            near = suggestion(engine, engine_names())
            yield Fault(f"{path}.{engine}", f"{target}: unknown engine '{shown(engine)}'{near}")


def _of_config(who: str, config: type, settings: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """One setting at a time, so that each fault has the place of its own setting."""
    for name, value in settings.items():
        for sentence in faults_of(config, {name: value}):
            yield Fault(f"{path}.{name}", f"{who}: {sentence}")


def _known_methods(suite: Suite) -> tuple[str, ...]:
    return tuple(name for name in suite.methods if name in method_names())


def _beyond(suite: Suite, families: Iterable[str]) -> list[str]:
    """The suite's backbones of other families, as `yolos_tiny (yolos)`."""
    known = [SPECS[name] for name in suite.backbones if name in SPECS]
    return [f"{spec.name} ({spec.family})" for spec in known if spec.family not in families]
