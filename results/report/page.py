"""The report as one HTML page: no network, no other file, nothing of a record that a browser would run.

Style and script are inside, and a content security policy lets only that script run, named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.report import sections
from results.report.average_ranks import name_of
from results.report.flips import MOST_BYTES, Flips, flips_of, packed_bytes
from results.report.report import FACETS, Report
from results.report.table import columns_of, data_of, labels_css, table_html

_HERE = Path(__file__).parent


def page_of(report: Report) -> str:
    """The whole page."""
    columns = columns_of(report)
    flips = flips_of([row.row for row in report.rows])
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    phone = f"@media (max-width: 700px) {{\n{labels_css(columns)}\n}}\n"
    data = {**data_of(report, columns), "flips": _flips_data(report, flips)}
    parts = {
        "table": ("Results", _results(report, columns)),
        "statistics": ("What can be told apart", sections.statistics_section(report)),
        "bits": ("Accuracy over bits", sections.bits_section(report)),
        "cost": ("Cost", sections.cost_section(report)),
        "gradients": ("Gradient shares", sections.gradients_section(report.extras.curves)),
        "images": ("Synthesized images", sections.galleries_section(report)),
        "flips": ("Images that flip", sections.flips_section(report, flips)),
        "notes": ("Notes", sections.notes_section(report)),
    }
    present = {name: part for name, part in parts.items() if part[1]}
    links = "".join(f'<a href="#{name}" data-jump>{title}</a>' for name, (title, _) in present.items())
    bodies = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>\n{body}\n</section>'
        for name, (title, body) in present.items()
    )
    title = html.escape(f"Report: {', '.join(report.suites)}")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_hash(script)}'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}{phone}</style>
</head>
<body>
<h1>{title}</h1>
<p class="soft">{html.escape(_summary(report))}</p>
<nav aria-label="Sections">{links}</nav>
{bodies}
<script type="application/json" id="data">{_json(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _json(data: Any) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _summary(report: Report) -> str:
    records = [record for row in report.rows for record in row.row.records]
    failed = sum(record.status != "ok" for record in records)
    last = max((record.finished_at for record in records), default="")
    said = f"{len(records):,} trials in {len(report.rows):,} rows"
    said += f", {failed:,} of them without a result" if failed else ""
    same = [f"{name} {values[0]}" for name in FACETS if len(values := report.values[name]) == 1]
    images = sorted({row.cells["images"] for row in report.rows} - {0})
    counted = [f"{' / '.join(f'{count:,}' for count in images)} images"] if images else []
    return f"{said}. Everywhere: {', '.join([*same, *counted])}. The last trial ended {last or 'never'}."


def _results(report: Report, columns: Sequence[Any]) -> str:
    if not report.rows:
        return "<p>No records.</p>"
    selects = []
    for facet in FACETS:
        values = report.values[facet]
        if len(values) > 1:
            options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
            selects.append(
                f'<label>{facet}<select name="{facet}"><option value="">all</option>{options}'
                "</select></label>"
            )
    orders = "".join(
        f'<option value="{c.name} {way}">{html.escape(c.label)}, {word}</option>'
        for c in columns
        for way, word in (("desc", "highest first"), ("asc", "lowest first"))
        if c.name in ("score", "drop", "cost")
    )
    return (
        f'<form id="filters" hidden>{"".join(selects)}'
        '<label>find<input name="find" type="search" autocomplete="off"></label>'
        f'<label class="sorting">sort<select id="sorting"><option value=" ">as ranked</option>{orders}'
        '</select></label><button type="reset">Show all</button></form>'
        '<p id="count" class="soft" role="status"></p>'
        f'<div class="wide">{table_html(report, columns)}</div>'
        '<button type="button" id="more" class="more" hidden></button>'
        f"{_legend()}"
    )


def _legend() -> str:
    said = (
        "Rank: within one backbone, bit-width, task, track and budget (in the controlled track one engine "
        "and protocol too); rows that the paired test, Holm-corrected, does not tell from the best share its "
        "rank. ",
        "ref: a reference, never ranked. ",
        "95 %: interval of the mean over images and, with several seeds, over seeds; one seed says nothing "
        "about seeds. ",
        "Published: another's number and what ours is above it; never ranked. Reproduced: it lies within our "
        "95 % interval or 0.1 points of our mean. ",
        "p: against the best of the group. ",
        "A method's name opens its trials.",
    )
    return f'<p class="soft">{html.escape("".join(said))}</p>'


def _flips_data(report: Report, flips: Sequence[Flips]) -> list[dict[str, Any]]:
    """Packed outcomes of each group, as long as there is room in the page."""
    room = MOST_BYTES
    found: list[dict[str, Any]] = []
    for one in flips:
        records = [report.rows[i].row.first for i in one.rows]
        needed = sum(len(record.outcomes[record.metric]) for record in records)
        if needed > room:
            found.append({"why": "Image by image there is no room for this group in one page."})
            continue
        room -= needed
        teacher = report.extras.teachers.get((one.backbone, one.teacher.samples_digest))
        margins = packed_bytes(teacher.margins) if teacher is not None else None
        found.append(
            {
                "images": one.images,
                "names": [f"{name_of(report.rows[i].row)} {report.rows[i].cells['bits']}" for i in one.rows],
                "teacher": one.teacher.outcomes[one.teacher.metric],
                "outcomes": [record.outcomes[record.metric] for record in records],
                "margins": margins,
            }
        )
    return found
