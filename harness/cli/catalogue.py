"""The facts that `harness list` tells of suites, methods, engines, backbones and tasks, as plain rows.

Each function gives one row per thing, under the column's title; `verbose` adds sources, deviations, open
points and every setting. Knows nothing about how rows are printed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from backbones import SPECS, DataConfig
from harness.suites.suite import load_suite, suite_names
from methods.base import Method
from methods.bits import Bits
from methods.registry import engine_names, get_engine, get_method, method_names
from tasks.registry import get_task, task_names

Row = dict[str, Any]


def suites(verbose: bool) -> list[Row]:
    """Every shipped suite, and what it runs."""
    rows = []
    for name in suite_names():
        suite = load_suite(name)
        row: Row = {
            "name": name,
            "task": suite.task,
            "bits": " ".join(map(str, suite.bits)),
            "backbones": " ".join(suite.backbones),
            "methods": " ".join(suite.methods),
            "track": suite.track,
            "budget": suite.budget,
            "seeds": " ".join(map(str, suite.seeds)),
        }
        if verbose:
            row |= {"description": suite.description, "overrides": dict(suite.overrides)}
        rows.append(row)
    return rows


def methods(verbose: bool) -> list[Row]:
    """Every method: what it sees, and the rows of published tables that are its own."""
    rows = []
    for name in method_names():
        method = get_method(name)
        synthesizer = method.synthesizer
        row: Row = {
            "name": name,
            "title": method.title,
            "engine": method.engine or ("none" if synthesizer is None else "each of the suite's"),
            "needs student": bool(synthesizer and synthesizer.needs_student),
            "sees": method.data_use,
            "families": " ".join(sorted(synthesizer.families)) if synthesizer else "all",
            "published rows": ", ".join(_published(method)) or "none comparable",
        }
        if verbose:
            row |= {
                "citation": method.citation,
                "sources": dict(method.sources),
                "deviations": list(method.deviations),
                "not established": list(method.not_established),
                "settings": _settings(synthesizer.Config) if synthesizer else [],
            }
        rows.append(row)
    return rows


def _published(method: Method) -> list[str]:
    own = [method.published_name] if method.published_name else []
    return own + list(method.published_elsewhere.values())


def engines(verbose: bool) -> list[Row]:
    """Every engine, and the families it quantizes."""
    rows = []
    for name in engine_names():
        engine = get_engine(name)
        row: Row = {
            "name": name,
            "what": (engine.__doc__ or "").strip().splitlines()[0],
            "families": " ".join(sorted(engine.families)),
        }
        if verbose:
            row |= {
                "sources": dict(getattr(engine, "sources", {})),
                "deviations": list(getattr(engine, "deviations", ())),
                "not established": list(getattr(engine, "not_established", ())),
                "protocol at w4a4": engine(engine.Config()).protocol(Bits(4, 4)),
                "settings": _settings(engine.Config),
            }
        rows.append(row)
    return rows


def backbones(verbose: bool) -> list[Row]:
    """Every backbone: its family, weights, transform and reference score."""
    rows = []
    for spec in SPECS.values():
        row: Row = {
            "name": spec.name,
            "family": spec.family,
            "papers call it": spec.published_name or "-",
            "weights": spec.shipped_weights or spec.hub_repository,
            "transform": _transform(spec.data),
            "reference score": spec.reference_score,
        }
        if verbose:
            row |= {"reference source": spec.reference_source, "data": dataclasses.asdict(spec.data)}
        rows.append(row)
    return rows


def _transform(data: DataConfig) -> str:
    if data.shorter_side:
        return f"resized to {data.shorter_side}, at most {data.longer_side}, padded to {data.pad_multiple}s"
    return f"crop {data.crop_pct}"


def tasks(verbose: bool) -> list[Row]:
    """Every task: what is measured, and where its data come from."""
    rows = []
    for name in task_names():
        task = get_task(name)
        summary = (task.__doc__ or "").strip().splitlines()[0]
        given = f"--data {task.data_name}=DIR" if task.data_name else "shipped with scikit-learn"
        row: Row = {"name": name, "what": summary, "metric": task.primary_metric, "data": given}
        if verbose:
            row["more"] = " ".join((task.__doc__ or "").split())
        rows.append(row)
    return rows


def _settings(config: type) -> list[Row]:
    """Every field of a config: default, help, range and budgets."""
    rows = []
    for field in dataclasses.fields(config):
        metadata = field.metadata
        allowed = metadata.get("choices") or (
            f"{metadata['low']}..{metadata['high']}" if metadata.get("low") is not None else "any"
        )
        rows.append(
            {
                "field": field.name,
                "default": field.default,
                "allowed": allowed,
                "help": metadata.get("help", ""),
                "budgets": dict(metadata.get("budgets", {})),
            }
        )
    return rows
