"""A metric is declared in one place, and everything that shows, checks or looks it up follows."""

from __future__ import annotations

import csv
import dataclasses

import pytest

from results import published
from results.leaderboard import columns, leaderboard
from results.metrics import METRICS, Metric, metric_of, metrics_of, register_metric
from results.view import view_of
from tests.results.fakes import record

PQ = Metric(
    "pq",
    label="PQ",
    spoken="panoptic quality",
    beside={"sq": "SQ"},
    papers=("PQ_all",),
    tolerance=1.0,
    agreement="panoptic quality against full precision's own segments",
    per_image="PQ of each image alone",
)


@pytest.fixture
def pq(monkeypatch):
    """The made-up metric, known for one test."""
    monkeypatch.setattr("results.metrics.METRICS", dict(METRICS))
    register_metric(PQ)


def measured(method, value):
    return record(method, metric="pq", metrics={"pq": value, "sq": value + 20, "agreement": 80.0})


@pytest.mark.usefixtures("pq")
def test_a_new_metric_heads_its_table_with_its_columns_beside_it():
    view = view_of(leaderboard([measured("psaq_vit", 40.25), measured("maskaq", 41.5)]))
    (block,) = view.blocks
    assert block.header[4:6] == ("PQ", "SQ")
    assert [line.cells[4:6] for line in block.sections[0]] == [("41.50", "61.5"), ("40.25", "60.2")]
    assert any("panoptic quality against full precision's own segments" in note for note in view.footnotes)


@pytest.mark.usefixtures("pq")
def test_the_leaderboard_keeps_what_a_new_metric_shows():
    assert "sq" in columns()
    assert leaderboard([measured("psaq_vit", 40.0)]).frame()["sq"].tolist() == [60.0]


@pytest.mark.usefixtures("pq")
def test_published_numbers_of_a_new_metric_are_found_by_papers_names(tmp_path, monkeypatch):
    file = tmp_path / "published.csv"
    with published._FILE.open(newline="") as shipped:
        header = next(csv.reader(shipped))
    row = ["Q", "DeiT-T", "4", "4", "detection", "COCO val2017", "PQ_all", "33.5", "Q paper Table 1", ""]
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, row])
    read = (published.published_numbers, published._by_cell)
    monkeypatch.setattr(published, "_FILE", file)
    for cached in read:
        cached.cache_clear()
    try:
        found = published.published_values("Q", "DeiT-T", "w4a4", "coco", "pq")
    finally:
        monkeypatch.undo()
        for cached in read:
            cached.cache_clear()
    assert [number.value for number in found] == [33.5]


@pytest.mark.usefixtures("pq")
def test_a_name_stands_for_one_metric():
    register_metric(PQ)
    with pytest.raises(ValueError, match="there is a metric 'pq' already"):
        register_metric(dataclasses.replace(PQ, label="other"))


def test_a_metric_that_nobody_registered_goes_by_its_name():
    unknown = metric_of("miou")
    assert (unknown.label, unknown.spoken, unknown.papers_names) == ("miou", "miou", ("miou",))
    assert unknown.tolerance is None


def test_entries_come_in_the_order_of_the_table_and_once():
    assert [m.name for m in metrics_of(["ap", "odd", "top1", "ap"])] == ["top1", "ap", "odd"]
