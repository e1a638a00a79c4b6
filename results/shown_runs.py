"""What MLflow shows of a record: a run with name, times, settings, description and data set."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence

from results.new_runs import DataSet, NewRun
from results.record import Record

PARENT = "mlflow.parentRunId"
"""MLflow's own tag for nested runs."""
NOTE = "mlflow.note.content"
"""MLflow's own tag for a run's description, in Markdown."""
TAG_LENGTH = 5000
"""Longest tag that every MLflow 2 and 3 server keeps whole."""
_SHOWN_LENGTH = 500
"""Longest text shown as a parameter or as the reason; the record itself is kept whole."""
_SUITE = "suite."
_IDENTITY = ("method", "synthesizer", "engine", "backbone", "bits", "task", "track", "budget", "seed")
_VERSIONS = ("torch", "timm", "device", "precision")
"""What of the environment is shown among the settings; all of it stands in the record."""
_AGAIN = "Again, with the suite's own settings; those of this run are among its parameters:"
_TAKEN = ("synthesis_seconds", "quantization_seconds", "evaluation_seconds")


def shown_run(
    record: Record,
    text: str,
    content: str,
    suites: Iterable[str],
    further_tags: Mapping[str, str] | None = None,
) -> NewRun:
    """The run of a record, whose JSON and its hash are `text` and `content`.

    `suites` are the names of the suites that list it. A run lasts as long as its trial's stages took.
    """
    beside = {"cost": record.cost, "gradient_share": record.gradient_shares}
    further = {f"{group}/{name}": value for group, found in beside.items() for name, value in found.items()}
    metrics = {
        legal(name): float(value)
        for name, value in {**record.metrics, **further}.items()
        if not math.isinf(value)  # MLflow would store 1.8e308
    }
    suites = sorted(suites)
    pieces = [text[start : start + TAG_LENGTH] for start in range(0, len(text), TAG_LENGTH)]
    facts = {"trial": record.trial, "listed_as": listed_as(record), **(further_tags or {})}
    facts |= {"status": record.status, "reason": shown(record.reason), "fingerprint": record.fingerprint}
    facts |= {suite_tag(suite): "true" for suite in suites}
    facts |= {NOTE: _description(record, suites)}
    facts |= {f"record.{index:03d}": piece for index, piece in enumerate(pieces)}
    start, end = times_of(record)
    return NewRun(
        name=_name(record, (further_tags or {}).get("try", "")),
        is_good=record.status == "ok",
        params={legal(key): shown(value) for key, value in _params(record).items()},
        metrics=metrics,
        tags={**facts, "content": content},
        start=start,
        end=end,
        data=_data(record),
    )


def _name(record: Record, number: str) -> str:
    """`maskaq lsq_qat digits_vit w4a4 seed 0`; of a search's try, `7.0` say, that stands in front."""
    engine = "" if record.engine == "none" else f" {record.engine}"
    bits = "" if record.bits == record.method else f" {record.bits}"
    tuned = " tuned" if record.tuning and not number else ""
    name = f"{record.method}{engine}{tuned} {record.backbone}{bits} seed {record.seed}"
    return f"try {int(number.partition('.')[0]):02d} {name}" if number else name


def times_of(record: Record) -> tuple[int, int]:
    """Beginning and end in milliseconds since 1970; the end is now where the record does not say."""
    try:
        finished = datetime.datetime.fromisoformat(record.finished_at).timestamp()
    except ValueError:
        finished = time.time()
    taken = sum(record.cost.get(name, 0.0) for name in _TAKEN)
    return round(1000 * (finished - taken)), round(1000 * finished)


def _data(record: Record) -> DataSet | None:
    """What was evaluated on, where anything was."""
    if not record.samples_digest:
        return None
    return DataSet(record.task, record.samples_digest[:36], record.split, record.images)


def _description(record: Record, suites: Sequence[str]) -> str:
    """Markdown: what the run is, how it did, and the suite's command narrowed to it."""
    heads = [f"**{record.method}** ({record.engine}), {record.backbone}, {record.bits}, seed {record.seed}."]
    if record.status != "ok":
        heads.append(f"No result ({record.status}): {shown(record.reason)}.")
    elif record.metric in record.metrics:
        heads.append(f"{record.metric} {record.metrics[record.metric]:.2f} on {record.images:,} images.")
    own = "" if record.method == "fp32" else f" --methods {record.method.partition(' ')[0]}"
    engine = f" --engine {record.engine}" if record.track == "controlled" and own else ""
    bits = f" --bits {record.bits}" if own else ""
    again = (
        f"{own}{engine} --backbones {record.backbone}{bits} --seeds {record.seed} --budget {record.budget}"
    )
    commands = [f"    harness run --suite {shlex.quote(suite)}{again}" for suite in suites]
    notes = [f"- {note}" for note in record.notes]
    blocks = [" ".join(heads), *([_AGAIN, "\n".join(commands)] if commands else []), "\n".join(notes)]
    return "\n\n".join(block for block in blocks if block)[:TAG_LENGTH]


def _params(record: Record) -> dict[str, object]:
    """What identifies the trial and what it ran on, then every hyper-parameter as `lsq_qat.epochs`."""
    params: dict[str, object] = {name: getattr(record, name) for name in _IDENTITY}
    params |= {name: record.environment[name] for name in _VERSIONS if name in record.environment}
    if record.weights_sha256:
        params["weights"] = record.weights_sha256[:12]
    engine = record.protocol.get("engine")
    if isinstance(engine, Mapping) and "scope" in engine:
        params["scope"] = engine["scope"]
    names = {"synthesizer": record.synthesizer, "engine": record.engine}
    for part, fields in record.settings.items():
        params |= {f"{names.get(part, part)}.{name}": value for name, value in fields.items()}
    return params


def suite_tag(suite: str) -> str:
    """Tag key of a suite; characters that MLflow refuses are written as their code point."""
    return _SUITE + re.sub(r"[^\w\- ]", lambda match: f":{ord(match[0]):x}:", suite)


def suites_of(tags: Iterable[str]) -> set[str]:
    """The names of the suites among the keys of a run's tags."""
    found = (tag.removeprefix(_SUITE) for tag in tags if tag.startswith(_SUITE))
    return {re.sub(r":([0-9a-f]+):", lambda match: chr(int(match[1], 16)), name) for name in found}


def listed_as(record: Record) -> str:
    """What a suite adds to a trial's content key: equal work may stand in two tracks."""
    tuned = hashlib.sha256(json.dumps(record.tuning, sort_keys=True).encode()).hexdigest()[:8]
    return f"{record.method} {record.track} {record.budget}{f' tuned {tuned}' if record.tuning else ''}"


def legal(name: str) -> str:
    """A metric's or parameter's name in the letters that MLflow allows."""
    return re.sub(r"[^\w.\- :/]", "_", name)


def shown(value: object) -> str:
    """A text that is not too long to be shown."""
    text = str(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
