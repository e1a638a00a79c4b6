"""The JSON schema of suite files, made from the registries, so that editors complete and check them.

It knows the shape of a file and of every setting. What ties fields together, such as a backbone to its
task, is left to the loader, whose sentences say it better.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from backbones import SPECS
from harness.suites.suite import ANCHORS, HIGHEST_SEED, LOWEST_SEED, PRECISIONS, TUNED
from methods.bits import HIGHEST, LOWEST
from methods.registry import engine_names, get_engine, get_method, method_names
from methods.scope import SCOPES
from methods.settings import BUDGETS
from tasks.registry import task_names

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest dialect that editors' YAML support reads throughout."""
_INTEGER_TEXT = r"^\s*[+-]?[0-9]+\s*$"
_NUMBER_TEXT = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_BITS_TEXT = rf"^(\s*[wW]0*[{LOWEST}-{HIGHEST}][aA]0*[{LOWEST}-{HIGHEST}]\s*|[fF][pP]32)$"
_TRUTH_TEXTS = "^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])$"


def suite_schema() -> JsonObject:
    """The schema of a suite file over everything registered, plug-ins that are loaded included."""
    return {
        "$schema": DIALECT,
        "title": "A suite: methods x backbones x bit-widths x seeds on one task",
        "type": "object",
        "properties": _properties(),
        "required": ["task", "backbones", "bits", "methods"],
        "additionalProperties": False,
        "if": {"properties": {"track": {"const": "controlled"}}, "required": ["track"]},
        "then": {"properties": {"engines": {"minItems": 1}}, "required": ["engines"]},
        "definitions": {
            **{f"engine.{name}": _closed(_settings(get_engine(name).Config)) for name in engine_names()},
            **{f"method.{name}": _closed(_method_settings(name)) for name in method_names()},
        },
    }


def suite_schema_text() -> str:
    """The schema as indented JSON with a newline at its end."""
    return json.dumps(suite_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _properties() -> JsonObject:
    """The keys of a suite file."""
    return {
        "description": {"type": "string", "description": "What the suite is for."},
        "task": _one_of(task_names(), "The data set and how answers are scored."),
        "backbones": _several(SPECS, "Full-precision models to quantize.")
        | {"minItems": 1, "uniqueItems": True},
        "bits": {
            "type": "array",
            "items": {"type": "string", "pattern": _BITS_TEXT, "examples": ["w4a4", "w4a8", "w8a8"]},
            "description": "Bit-widths: w4a8 is 4-bit weights with 8-bit activations.",
            "minItems": 1,
            "uniqueItems": True,
        },
        "methods": _several(
            method_names(), f"Methods to compare; {', '.join(ANCHORS)} are run without being listed."
        ),
        "seeds": {
            "type": "array",
            "items": {"type": "integer", "minimum": LOWEST_SEED, "maximum": HIGHEST_SEED},
            "description": "Seeds of images and students; each is a run of its own.",
            "default": [0],
            "minItems": 1,
            "uniqueItems": True,
        },
        "budget": _one_of(BUDGETS, "How much work the settings ask for.") | {"default": "paper"},
        "track": _one_of(
            ("published", "controlled"),
            "published: each method with its own engine; controlled: every method with each of `engines`.",
        )
        | {"default": "published"},
        "engines": _several(engine_names(), "Engines that replace the methods' own."),
        "scope": _one_of(SCOPES, "What is quantized of a model.") | {"default": "whole"},
        "precision": _one_of(PRECISIONS, "How a GPU computes; fast: TF32, and bits need not repeat.")
        | {"default": "exact"},
        "overrides": {
            "type": ["object", "null"],
            "description": "Changed settings of a method or an engine.",
            "properties": _overridable(),
            "additionalProperties": False,
        },
        "variants": {
            "type": ["object", "null"],
            "description": "Further rows of a method, each with some settings changed.",
            "properties": _variable(),
            "additionalProperties": False,
        },
        "oracle": {
            "type": "boolean",
            "description": "Also score every epoch on the report split, as a marked column.",
            "default": False,
        },
    }


def _overridable() -> JsonObject:
    """Method or engine -> its settings."""
    methods: JsonObject = {name: _reference(f"method.{name}") for name in method_names()}
    return methods | {name: _reference(f"engine.{name}") for name in engine_names()}


def _variable() -> JsonObject:
    """Method -> a list of its settings; references have no variants."""
    tuned: JsonObject = {
        TUNED: {"type": "object", "description": "How a search found these settings: a tuned row."}
    }
    rows: JsonObject = {}
    for name in (name for name in method_names() if name not in ANCHORS):
        settings: JsonObject = {
            field: _reference(f"method.{name}/properties/{field}") for field in _method_settings(name)
        }
        rows[name] = {"type": "array", "items": _closed(settings | tuned)}
    return rows


def _method_settings(name: str) -> JsonObject:
    """A method's own settings, and those of each engine under the engine's name."""
    synthesizer = get_method(name).synthesizer
    if synthesizer is None:
        return {}
    engines: JsonObject = {engine: _reference(f"engine.{engine}") for engine in engine_names()}
    return _settings(synthesizer.Config) | engines


def _reference(definition: str) -> JsonObject:
    return {"$ref": f"#/definitions/{definition}"}


def _settings(config: type) -> JsonObject:
    """Field -> schema of its values, with help, default and what the smaller budgets use."""
    types = typing.get_type_hints(config)
    return {
        field.name: _described(_value(types[field.name], field.metadata), field)
        for field in dataclasses.fields(config)
    }


def _described(schema: JsonObject, field: dataclasses.Field[object]) -> JsonObject:
    budgets = "".join(
        f" Budget {name}: {value}." for name, value in field.metadata.get("budgets", {}).items()
    )
    described = {**schema, "description": f"{field.metadata.get('help', '')}{budgets}"}
    if field.default is not dataclasses.MISSING:
        described["default"] = json.loads(json.dumps(field.default))
    return described


def _value(wanted: object, metadata: Mapping[str, object]) -> JsonObject:
    """Schema of a setting's value; numbers and truth values may be given as text, as `--set` gives them."""
    limits = {
        word: metadata[bound]
        for word, bound in (("minimum", "low"), ("maximum", "high"))
        if metadata.get(bound) is not None
    }
    if wanted is bool:
        return {"type": ["boolean", "string"], "pattern": _TRUTH_TEXTS}
    if wanted is int:
        return typing.cast(JsonObject, {"type": ["integer", "string"], "pattern": _INTEGER_TEXT, **limits})
    if wanted is float:
        return typing.cast(JsonObject, {"type": ["number", "string"], "pattern": _NUMBER_TEXT, **limits})
    if typing.get_origin(wanted) is tuple:
        return {"type": ["array", "string"], "items": _value(typing.get_args(wanted)[0], {})}
    choices = metadata.get("choices")
    if isinstance(choices, tuple):
        return {"enum": list(choices)}
    return {"type": "string"}


def _closed(properties: JsonObject) -> JsonObject:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _one_of(names: Iterable[str], description: str) -> JsonObject:
    return {"enum": list(names), "description": description}


def _several(names: Iterable[str], description: str) -> JsonObject:
    return {"type": "array", "items": {"enum": list(names)}, "description": description}
