"""The page of a report: whole in one file, nothing of a record that a browser would run, every part there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from results.record import Record
from results.report.page import page_of
from results.statistics import pack_outcomes, unpack_outcomes
from tests.results.fakes import detection, failed, record
from tests.results.report.reports import PLANTED, made, small


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the texts of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        (self.scripts if self._inside == "script" else self.text).append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(small()[0])


def test_nothing_of_a_record_becomes_a_tag(page):
    tags = Tags(page)
    assert [name for name, _ in tags.found].count("script") == 2
    images = [attributes for name, attributes in tags.found if name == "img"]
    assert images
    assert all(str(attributes["src"]).startswith("data:image/") for attributes in images)
    assert not [a for _, attributes in tags.found for a in attributes if a.startswith("on")]
    assert PLANTED in "".join(tags.text)  # it is shown, as text
    assert "<" not in tags.scripts[0]  # the data cannot end their script


def test_nothing_is_fetched(page):
    tags = Tags(page)
    addresses = [a[name] for _, a in tags.found for name in ("src", "href", "action") if name in a]
    assert all(str(address).startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(|https?://", page.replace(PLANTED, ""))


def test_the_policy_lets_the_pages_own_script_run_alone(page):
    digest = base64.b64encode(hashlib.sha256(Tags(page).scripts[1].encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_every_section_is_there(page):
    titles = re.findall(r'<h2 id="(\w+)">', page)
    assert titles == ["table", "statistics", "bits", "cost", "gradients", "images", "flips", "notes"]


def test_the_data_tell_what_opens_below_a_row(page):
    data = json.loads(Tags(page).scripts[0])
    row = next(r for r in data["rows"] if data["pool"][r["f"][0]] == "maskaq")
    assert row["d"]["command"] == "harness run --suite small --methods maskaq"
    assert data["pool"][row["d"]["settings"]]["synthesizer"] == {"iterations": 300}
    seed, _, finished, metrics, cost = row["d"]["seeds"][0]
    assert (seed, finished) == (0, "2026-11-23T10:00:00Z")
    assert dict(zip(data["pool"][metrics[0]], metrics[1:], strict=True))["agreement"] == 50.0
    assert dict(zip(data["pool"][cost[0]], cost[1:], strict=True))["synthesis_seconds"] == 10.0


def test_outcomes_stay_the_bits_of_the_records(page):
    data = json.loads(Tags(page).scripts[0])
    (group,) = data["flips"]
    assert unpack_outcomes(group["teacher"], group["images"]).sum() == 90
    assert len(group["outcomes"]) == len(group["names"]) == 7
    assert len(base64.b64decode(group["margins"])) == group["images"]


def test_what_failed_has_no_number_and_says_why():
    report, _ = made([record("fp32"), record("maskaq"), failed("smi", reason="the loss is not finite")])
    row = next(row for row in report.rows if row.cells["method"] == "smi")
    assert (row.tied_rank, row.interval, row.cells["mean"]) == (None, None, None)
    assert "the loss is not finite" in page_of(report)


def test_average_precisions_have_no_interval_of_a_mean():
    report, _ = made([detection("fp32"), detection("maskaq"), detection("smi")])
    assert [row.interval for row in report.rows] == [None, None, None]
    assert "AP" in page_of(report)


def test_a_report_of_nothing_says_so():
    report, _ = made([])
    assert "No records." in page_of(report)


def test_the_same_records_make_the_same_page():
    assert page_of(small()[0]) == page_of(small()[0])


def test_outcomes_of_ten_methods_on_50000_images_are_small():
    """Three seeds each; one seed of a row is in the page, so that the bound is far away."""
    generator = np.random.default_rng(0)

    def one(method: str, seed: int) -> Record:
        right = generator.random(50_000) < 0.7
        packed = {"top1": pack_outcomes(right)}
        return record(method, "1", seed=seed, outcomes=packed, images=50_000, metrics={"top1": 70.0})

    records = [one("fp32", 0), *(one(f"method{n}", 0) for n in range(10))]
    size = len(page_of(made(records)[0]).encode())
    assert 11 * 50_000 / 8 < size < 1_000_000
