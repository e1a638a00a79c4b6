"""`harness list`: the suites, methods, engines, backbones and tasks there are."""

from __future__ import annotations

import dataclasses
import json
import sys
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options as o

if TYPE_CHECKING:
    from backbones import DataConfig
    from methods.base import Method


class Kind(str, Enum):
    """What can be listed."""

    suites = "suites"
    methods = "methods"
    engines = "engines"
    backbones = "backbones"
    tasks = "tasks"


def list_things(
    kind: Annotated[Kind, typer.Argument(help="suites, methods, engines, backbones or tasks.")],
    format: str = typer.Option("table", "--format", "-f", help="table or json."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Also sources, deviations, open points and every setting."
    ),
    plugin: o.PluginOption = None,
) -> None:
    """List what there is to run and what is known of it."""
    from harness.errors import UsageError
    from harness.planning.session import load_plugins

    if format not in ("table", "json"):
        raise UsageError(f"--format {format}: one of table, json")
    load_plugins(plugin or [])
    rows = {
        Kind.suites: _suites,
        Kind.methods: _methods,
        Kind.engines: _engines,
        Kind.backbones: _backbones,
        Kind.tasks: _tasks,
    }[kind](verbose)
    if format == "json":
        json.dump(rows, sys.stdout, indent=2, default=str)
        sys.stdout.write("\n")
    elif verbose:
        _print_details(rows)
    else:
        _print_table(kind.value, rows)


def _suites(verbose: bool) -> list[dict[str, Any]]:
    from harness.suites.suite import load_suite, suite_names

    rows = []
    for name in suite_names():
        suite = load_suite(name)
        row: dict[str, Any] = {
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


def _methods(verbose: bool) -> list[dict[str, Any]]:
    from methods.registry import get_method, method_names

    rows = []
    for name in method_names():
        method = get_method(name)
        synthesizer = method.synthesizer
        row: dict[str, Any] = {
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


def _engines(verbose: bool) -> list[dict[str, Any]]:
    from methods.bits import Bits
    from methods.registry import engine_names, get_engine

    rows = []
    for name in engine_names():
        engine = get_engine(name)
        row: dict[str, Any] = {
            "name": name,
            "what": (engine.__doc__ or "").strip().splitlines()[0],
            "families": " ".join(sorted(engine.families)),
        }
        if verbose:
            row |= {
                "protocol at w4a4": engine(engine.Config()).protocol(Bits(4, 4)),
                "settings": _settings(engine.Config),
            }
        rows.append(row)
    return rows


def _backbones(verbose: bool) -> list[dict[str, Any]]:
    from backbones import SPECS

    rows = []
    for spec in SPECS.values():
        row: dict[str, Any] = {
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


def _tasks(verbose: bool) -> list[dict[str, Any]]:
    from tasks.registry import get_task, task_names

    rows = []
    for name in task_names():
        task = get_task(name)
        summary = (task.__doc__ or "").strip().splitlines()[0]
        given = f"--data {task.data_name}=DIR" if task.data_name else "shipped with scikit-learn"
        row: dict[str, Any] = {"name": name, "what": summary, "metric": task.primary_metric, "data": given}
        if verbose:
            row["more"] = " ".join((task.__doc__ or "").split())
        rows.append(row)
    return rows


def _settings(config: type) -> list[dict[str, Any]]:
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


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for row in rows:
        table.add_row(*("" if value is None else _escape(str(value)) for value in row.values()))
    o.console().print(table)


def _print_details(rows: list[dict[str, Any]]) -> None:
    console = o.console()
    for row in rows:
        console.print(f"[bold]{_escape(str(row['name']))}[/bold]")
        for key, value in row.items():
            if key != "name":
                _print_value(console, key, value)
        console.print()


def _print_value(console: Any, key: str, value: Any) -> None:
    """One labelled value; lists and mappings get a line per entry."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        console.print(f"  {key}:")
        for entry in value:
            budgets = "".join(f", {name} {v}" for name, v in entry["budgets"].items())
            allowed, about = _escape(str(entry["allowed"])), _escape(entry["help"])
            default = f"{entry['field']} = {entry['default']}{budgets}"
            console.print(f"    {default}  [dim]({allowed})[/dim]  {about}")
    elif isinstance(value, list):
        console.print(f"  {key}:{'' if value else ' none'}")
        for entry in value:
            console.print(f"    - {_escape(str(entry))}")
    elif isinstance(value, dict):
        console.print(f"  {key}:{'' if value else ' none'}")
        for name, entry in value.items():
            console.print(f"    {_escape(str(name))}: {_escape(str(entry))}")
    else:
        console.print(f"  {key}: {_escape(str(value))}")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
