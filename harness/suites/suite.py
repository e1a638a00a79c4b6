"""A suite: methods x backbones x bit-widths x seeds on one task, read from YAML and checked whole.

Every fault of a file is reported with its line before anything runs. Knows nothing about stages.

    description: what the suite is for
    task: imagenet
    backbones: [deit_tiny, deit_small]
    bits: [w4a4]
    methods: [psaq_vit, mimiq, maskaq]     # the anchors fp32, gaussian_noise, real_data come by themselves
    seeds: [0, 1, 2]
    budget: fast                           # paper | fast | smoke
    track: published                       # published: each method with its own engine
    engines: []                            # controlled: every method with each of these
    scope: whole                           # whole | heads_8bit | backbone: what is quantized of a model
    overrides:
      lsq_qat: {epochs: 20}                # an engine, wherever it is used
      maskaq: {iterations: 200, lsq_qat: {epochs: 30}}
    variants:                              # more rows of a method, each with some settings changed
      maskaq: [{alignment_weight: 0}, {lsq_qat: {head_distillation: none}}]
                                           # `tuned: {...}` in a variant says how a search found it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UsageError
from methods.bits import Bits
from methods.scope import SCOPES, Scope
from methods.settings import BUDGETS, suggestion

if TYPE_CHECKING:
    from methods.base import Method

_SHIPPED = Path(__file__).parent
_REQUIRED = ("task", "backbones", "bits", "methods")
_LISTS = ("backbones", "bits", "methods", "seeds", "engines")
_DEFAULT_ANCHOR_ENGINE = "psaq_ptq"
"""Engine of the noise and real rows in a suite that has no method with an engine of its own."""
ANCHORS = ("fp32", "gaussian_noise", "real_data")
"""Reference rows that every suite has without asking."""
TUNED = "tuned"
"""Key of a variant, beside its settings, that says how a search found them."""

Overrides = Mapping[str, Mapping[str, Any]]
Track = Literal["published", "controlled"]


@dataclass(frozen=True)
class Suite:
    """A checked suite."""

    name: str
    task: str
    backbones: tuple[str, ...]
    bits: tuple[Bits, ...]
    methods: tuple[str, ...]
    """Without the anchors."""
    seeds: tuple[int, ...] = (0,)
    budget: str = "paper"
    track: Track = "published"
    engines: tuple[str, ...] = ()
    scope: Scope = "whole"
    """What is quantized: everything, neck and heads at 8 bits, or the backbone alone."""
    overrides: Overrides = field(default_factory=dict)
    variants: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    """Method -> settings of its further rows, on top of the overrides."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method -> how a search found its overrides: trials, objective and so on."""
    oracle: bool = False
    """Also score every epoch on the report split, for the marked 'oracle' column."""
    description: str = ""


def suite_names() -> list[str]:
    """The shipped suites, sorted."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_suite(name_or_file: str) -> Suite:
    """The suite of that name, or from that YAML file; raises UsageError with every fault and its line."""
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = _SHIPPED / f"{name_or_file}.yaml"
        if not path.is_file():
            raise UsageError(f"unknown suite '{name_or_file}'{suggestion(name_or_file, suite_names())}")
    if not path.is_file():
        raise UsageError(f"no suite file at {path}")
    data, lines = read_yaml(path)
    faults: list[str] = []

    def fault(where: str, sentence: str) -> None:
        faults.append(f"{path.name}:{lines.get(where, 1)}: {sentence}")

    suite = _build(path.stem, data, fault)
    if suite is not None:
        for where, sentence in suite_faults(suite):
            fault(where, sentence)
    if faults or suite is None:
        raise UsageError.of(faults)
    return suite


def narrowed(suite: Suite, choices: Mapping[str, Sequence[Any]]) -> Suite:
    """The suite restricted to `choices` (field name -> values); values need not be in the suite's own list.

    Raises UsageError with every fault.
    """
    changes: dict[str, Any] = {}
    for name, values in choices.items():
        if values:
            changes[name] = tuple(v for v in values if name != "methods" or v not in ANCHORS)
    smaller = dataclasses.replace(suite, **changes)
    kept = {name: fields for name, fields in smaller.variants.items() if name in smaller.methods}
    smaller = dataclasses.replace(smaller, variants=kept)
    faults = [f"--{where}: {sentence}" for where, sentence in suite_faults(smaller)]
    if faults:
        raise UsageError.of(faults)
    return smaller


def with_overrides(suite: Suite, assignments: Sequence[str]) -> Suite:
    """The suite with `--set` assignments on top: `method.field=value`, `method.engine.field=value`."""
    overrides: dict[str, dict[str, Any]] = {name: dict(fields) for name, fields in suite.overrides.items()}
    faults = []
    for text in assignments:
        path, separator, value = text.partition("=")
        parts = path.strip().split(".")
        if not separator or len(parts) not in (2, 3):
            faults.append(
                f"--set {text}: write method.field=value, engine.field=value or method.engine.field=value"
            )
            continue
        change: dict[str, Any] = {parts[-1]: value.strip()}
        if len(parts) == 3:
            change = {parts[1]: change}
        overrides[parts[0]] = merged(overrides.get(parts[0], {}), change)
    suite = dataclasses.replace(suite, overrides=overrides)
    faults += [f"--set: {sentence}" for where, sentence in suite_faults(suite)]
    if faults:
        raise UsageError.of(faults)
    return suite


def with_tuned_file(suite: Suite, file: str) -> Suite:
    """The suite with what `harness tune` wrote on top: `overrides`, and `tuned`, how it found them.

    Raises UsageError with every fault.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"--set-file {file}: no such file; harness tune writes best.yaml")
    data, _ = read_yaml(path)
    shape = isinstance(data, dict) and all(
        key in ("overrides", TUNED) and _is_mapping_of_mappings(value) for key, value in data.items()
    )
    if not shape or "overrides" not in data:
        raise UsageError(
            f"--set-file {file}: it has the keys overrides and {TUNED}, each mapping a method to its fields"
        )
    overrides = dict(suite.overrides)
    for name, fields in data["overrides"].items():
        overrides[name] = merged(overrides.get(name, {}), fields)
    suite = dataclasses.replace(suite, overrides=overrides, tuned={**suite.tuned, **data.get(TUNED, {})})
    faults = [f"--set-file {file}: {sentence}" for _, sentence in suite_faults(suite)]
    if faults:
        raise UsageError.of(faults)
    return suite


def suite_faults(suite: Suite) -> list[tuple[str, str]]:
    """Everything wrong with a suite's contents, as (field, sentence)."""
    from backbones import SPECS
    from methods.registry import UnknownName, engine_names, get_engine, get_method, method_names
    from tasks.registry import get_task, task_names

    faults = []
    task = get_task(suite.task) if suite.task in task_names() else None
    if task is None:
        faults.append(("task", f"unknown task '{suite.task}'{suggestion(suite.task, task_names())}"))
    for name in suite.backbones:
        if name not in SPECS:
            faults.append(("backbones", f"unknown backbone '{name}'{suggestion(name, SPECS)}"))
        elif task is not None and task.needs_own_backbones and SPECS[name].dataset != suite.task:
            faults.append(
                ("backbones", f"{name} is trained on {SPECS[name].dataset}, the suite's task is {suite.task}")
            )
        elif task is not None and not task.detects and SPECS[name].is_detector:
            faults.append(("backbones", f"{name} detects objects, the task {suite.task} needs a classifier"))
    for name in suite.methods:
        try:
            method = get_method(name)
        except UnknownName as error:
            faults.append(("methods", str(error)))
            continue
        if method.synthesizer is not None:
            for backbone in suite.backbones:
                if backbone in SPECS and SPECS[backbone].family not in method.synthesizer.families:
                    faults.append(
                        ("methods", f"{name} does not support {backbone} ({SPECS[backbone].family})")
                    )
    for name in suite.engines:
        try:
            get_engine(name)
        except UnknownName as error:
            faults.append(("engines", str(error)))
    if suite.scope not in SCOPES:
        faults.append(("scope", f"unknown scope '{suite.scope}': one of {', '.join(SCOPES)}"))
    faults += _engine_faults(suite)
    if suite.track == "controlled" and not suite.engines:
        faults.append(("engines", f"track controlled needs engines: there are {', '.join(engine_names())}"))
    if suite.budget not in BUDGETS:
        faults.append(("budget", f"unknown budget '{suite.budget}': one of {', '.join(BUDGETS)}"))
    if suite.track not in ("published", "controlled"):
        faults.append(("track", f"unknown track '{suite.track}': published or controlled"))
    for field_name in ("backbones", "bits", "seeds"):
        values = getattr(suite, field_name)
        if not values:
            faults.append((field_name, f"{field_name} is empty"))
        if len(set(values)) != len(values):
            faults.append((field_name, f"{field_name} lists a value twice"))
    for target, fields in suite.overrides.items():
        if target not in method_names() and target not in engine_names():
            known = [*method_names(), *engine_names()]
            faults.append(
                (f"overrides.{target}", f"unknown method or engine '{target}'{suggestion(target, known)}")
            )
            continue
        faults += [(f"overrides.{target}", f"{target}: {text}") for text in _override_faults(target, fields)]
    return faults + _variant_faults(suite)


def engines_of(suite: Suite, method: Method) -> tuple[str, ...]:
    """The suite's engines; else the method's own; for an anchor those of the suite's methods."""
    from methods.registry import get_method

    if suite.engines:
        return suite.engines
    if method.engine is not None:
        return (method.engine,)
    own = [get_method(name).engine for name in suite.methods]
    return tuple(dict.fromkeys(engine for engine in own if engine)) or (_DEFAULT_ANCHOR_ENGINE,)


def _engine_faults(suite: Suite) -> list[tuple[str, str]]:
    """Engines that do not support a backbone or the scope; unknown names are reported elsewhere."""
    from backbones import SPECS
    from methods.registry import engine_names, get_engine, get_method, method_names

    faults = []
    known = dataclasses.replace(suite, methods=tuple(n for n in suite.methods if n in method_names()))
    rows = [get_method(name) for name in (*known.methods, "gaussian_noise")]  # one anchor stands for all
    used = dict.fromkeys(engine for method in rows for engine in engines_of(known, method))
    for name in (engine for engine in used if engine in engine_names()):
        engine, where = get_engine(name), "engines" if suite.engines else "methods"
        if suite.scope in SCOPES and suite.scope not in engine.scopes:
            faults.append(("scope", f"{name} does not support scope {suite.scope}"))
        for backbone in suite.backbones:
            if backbone in SPECS and SPECS[backbone].family not in engine.families:
                faults.append((where, f"{name} does not support {backbone} ({SPECS[backbone].family})"))
    return faults


def _variant_faults(suite: Suite) -> list[tuple[str, str]]:
    faults = []
    for name, variants in suite.variants.items():
        where = f"variants.{name}"
        if name not in suite.methods:
            faults.append((where, f"variants of '{name}', which is not among the suite's methods"))
            continue
        for fields in variants:
            if not isinstance(fields.get(TUNED, {}), Mapping):
                faults.append((where, f"{name}: '{TUNED}' says how the settings were found, as a mapping"))
            settings = {key: value for key, value in fields.items() if key != TUNED}
            faults += [(where, f"{name}: {text}") for text in _override_faults(name, settings)]
    return faults


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes on top; an engine's nested settings are merged, not replaced."""
    result = dict(fields)
    for name, value in changes.items():
        nested = isinstance(value, Mapping)
        result[name] = {**result.get(name, {}), **value} if nested else value
    return result


def _override_faults(target: str, fields: Mapping[str, Any]) -> list[str]:
    from methods.registry import engine_names, get_engine, get_method, method_names
    from methods.settings import faults_of

    own = {name: value for name, value in fields.items() if not isinstance(value, Mapping)}
    nested = {name: value for name, value in fields.items() if isinstance(value, Mapping)}
    if target in engine_names():
        return faults_of(get_engine(target).Config, fields)
    assert target in method_names()
    synthesizer = get_method(target).synthesizer
    if synthesizer is None:
        return [f"unknown field '{name}': the full-precision row has no settings" for name in fields]
    faults = faults_of(synthesizer.Config, own)
    for engine, engine_fields in nested.items():
        if engine not in engine_names():
            faults.append(f"unknown engine '{engine}'{suggestion(engine, engine_names())}")
        else:
            faults += [f"{engine}: {text}" for text in faults_of(get_engine(engine).Config, engine_fields)]
    return faults


def _build(name: str, data: Any, fault: Any) -> Suite | None:
    """The suite of parsed YAML; calls `fault(where, sentence)` and returns None where its shape is wrong."""
    known = {f.name for f in dataclasses.fields(Suite)} - {"name", "tuned"}
    if not isinstance(data, dict):
        fault("", f"a suite is a mapping with the keys {', '.join(sorted(known))}")
        return None
    good = True

    def wrong(where: str, sentence: str) -> None:
        nonlocal good
        good = False
        fault(where, sentence)

    for key in data:
        if key not in known:
            wrong(key, f"unknown key '{key}'{suggestion(str(key), known)}")
    for key in _REQUIRED:
        if key not in data:
            wrong("", f"the key '{key}' is missing")
    values: dict[str, Any] = {key: value for key, value in data.items() if key in known}
    for key in _LISTS:
        if key in values and not isinstance(values[key], list):
            wrong(key, f"{key} must be a list, such as [{values[key]}]")
            values[key] = []
    for key in ("task", "budget", "track", "scope", "description"):
        if key in values and not isinstance(values[key], str):
            wrong(key, f"{key} must be text")
    if not isinstance(values.get("oracle", False), bool):
        wrong("oracle", "oracle must be true or false")
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in values.get("seeds", [])):
        wrong("seeds", "seeds must be whole numbers")
    bits = []
    for text in values.get("bits", []):
        try:
            bits.append(Bits.parse(str(text)))
        except ValueError as error:
            wrong("bits", str(error))
    overrides = values.get("overrides", {}) or {}
    if not _is_mapping_of_mappings(overrides):
        wrong("overrides", "overrides maps a method or an engine to its fields")
    variants = values.get("variants", {}) or {}
    if not isinstance(variants, dict) or not all(_is_list_of_mappings(v) for v in variants.values()):
        wrong("variants", "variants maps a method to a list of settings, such as [{iterations: 100}]")
    if not good:
        return None
    values["bits"] = bits
    for key in _LISTS:
        if key in values:
            values[key] = tuple(values[key])
    values["methods"] = tuple(method for method in values["methods"] if method not in ANCHORS)
    values["overrides"] = overrides
    values["variants"] = {name: tuple(fields) for name, fields in variants.items()}
    return Suite(name=name, **values)


def _is_mapping_of_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """Parsed YAML and the line of every key, as 'overrides.maskaq' -> 12."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{path.name}{line}: not valid YAML: {problem}") from None
    lines: dict[str, int] = {}
    faults: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            where = f"{prefix}{key.value}"
            if where in lines:
                faults.append(f"{path.name}:{key.start_mark.line + 1}: the key '{key.value}' stands twice")
            lines[where] = key.start_mark.line + 1
            walk(value, f"{where}.")

    walk(root, "")
    if faults:
        raise UsageError.of(faults)
    return data, lines
