"""A report over 20,000 records: whole, and small enough to be opened."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from results.record import Record
from results.report.files import files_of
from results.statistics import pack_outcomes
from tests.results.fakes import record
from tests.results.report.reports import made


def records(backbones: int, methods: int, images: int = 500) -> list[Record]:
    """Full precision and so many methods on each backbone, each method at a score of its own."""
    generator = np.random.default_rng(0)

    def one(method: str, backbone: str, share: float) -> Record:
        right = generator.random(images) < share
        return record(
            method,
            "1",
            backbone=backbone,
            images=images,
            outcomes={"top1": pack_outcomes(right)},
            metrics={"top1": 100 * float(right.mean())},
        )

    found = []
    for place in range(backbones):
        backbone = f"backbone{place:03}"
        found.append(one("fp32", backbone, 0.8))
        found += [one(f"method{n:02}", backbone, 0.4 + 0.3 * n / methods) for n in range(methods)]
    return found


@pytest.mark.slow
def test_a_report_over_20000_records_is_whole():
    many = records(1000, 19)
    files = {file.name: file.content for file in files_of(*made(many))}
    page = files["index.html"].decode()
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(json.loads(text)["rows"]) == len(many) == 20_000
    assert files["table.csv"].count(b"\n") == 20_001
    assert len(page) < 40_000_000
    assert page.count('class="chart"') <= 200
