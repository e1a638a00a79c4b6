"""The page in a headless Chromium: what a reader clicks, types and reloads."""

from __future__ import annotations

import pytest

from results.report.page import page_of
from tests.browser import CHROMIUM, browser
from tests.results.fakes import record
from tests.results.report.reports import made, small

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")

SHOWN = "[...document.querySelectorAll('#rows > tbody > tr:not(.detail)')].filter(r => !r.hidden)"
METHODS = f"{SHOWN}.map(r => r.querySelector('button').textContent)"


def choose(name: str, value: str) -> str:
    """Script that sets a filter as a reader does."""
    return (
        f"(() => {{ const control = document.querySelector('[name={name}]'); control.value = '{value}';"
        "control.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def address(tmp_path, tab) -> str:
    """The page, opened from its file at the width of a desk."""
    (tmp_path / "index.html").write_text(page_of(small()[0]))
    tab.view(1400)
    tab.open(f"file://{tmp_path}/index.html")
    return f"file://{tmp_path}/index.html"


def test_nothing_planted_runs_and_nothing_fails(tab, address):
    tab.run("[...document.querySelectorAll('#rows button[aria-expanded]')].forEach(b => b.click())")
    assert tab.run("typeof window.planted") == "undefined"
    assert tab.failures == []


def test_filter_sort_open_and_come_back_by_the_address(tab, address):
    assert len(tab.run(METHODS)) == 9
    tab.run(choose("bits", "w8a8"))
    assert tab.run(METHODS) == ["maskaq", "psaq_vit", "mimiq"]
    tab.run("document.querySelector('th[data-column=cost] button').click()")
    tab.run("document.querySelector('th[data-column=cost] button').click()")
    assert tab.run("document.querySelector('th[data-column=cost]').getAttribute('aria-sort')") == "descending"
    assert tab.run(METHODS) == ["mimiq", "psaq_vit", "maskaq"]
    tab.run(f"{SHOWN}[1].querySelector('button').click()")
    opened = "document.querySelector('tr.detail').textContent"
    assert "harness run --suite small --methods psaq_vit" in tab.run(opened)
    assert "torch2.15" in tab.run(opened)
    there = tab.run("location.href")
    assert "bits=w8a8" in there
    tab.open(there)
    assert tab.run(METHODS) == ["mimiq", "psaq_vit", "maskaq"]
    assert "harness run --suite small --methods psaq_vit" in tab.run(opened)
    tab.run("document.querySelector('#filters [type=reset]').click()")
    assert len(tab.run(METHODS)) == 9
    assert tab.run("document.querySelectorAll('tr.detail').length") == 0
    assert "#" not in tab.run("location.href")


def test_back_takes_a_filter_away(tab, address):
    tab.run(choose("method", "maskaq"))
    assert set(tab.run(METHODS)) == {"maskaq"}
    tab.run("new Promise(done => { addEventListener('popstate', () => done(1)); history.back(); })")
    assert len(tab.run(METHODS)) == 9


def test_what_is_missing_comes_last_in_both_directions(tab, address):
    for _ in range(2):
        tab.run("document.querySelector('th[data-column=score] button').click()")
        assert tab.run(METHODS)[-1] == "smi"


def test_a_row_opens_with_the_keyboard_alone(tab, address):
    tab.run("document.querySelector('#rows tbody button').focus()")
    tab.press("Enter")
    assert tab.run("document.querySelectorAll('tr.detail').length") == 1
    assert tab.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Copy"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.run(outline) == "solid"


def test_images_that_flip_are_listed_for_a_row(tab, address):
    lists = "document.querySelector('[data-flips] table').rows"
    first = tab.run(f"[...{lists}[1].cells].map(c => c.textContent)")
    assert first[1:3] == ["lost", "7 of 7"]
    counts = "[...document.querySelector('[data-flips]').previousElementSibling.querySelectorAll('td')]"
    lost, gained = tab.run(f"{counts}.slice(1, 3).map(cell => Number(cell.textContent))")
    tab.run(
        "(() => { const chosen = document.querySelector('[data-flips] select'); chosen.value = '0';"
        "chosen.dispatchEvent(new Event('change')); })()"
    )
    said = tab.run("document.querySelector('[data-flips] p').textContent")
    assert said.startswith(f"{lost + gained} images")
    assert lost
    assert gained


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_without_scrolling_sideways(tab, address, dark):
    tab.view(390, 844, dark=dark)
    tab.open(address)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    narrow = "[...document.querySelectorAll('#rows td')].every(td => td.getBoundingClientRect().right <= 390)"
    assert tab.run(narrow)
    smallest = (
        "Math.min(...[...document.querySelectorAll('svg text')].filter(t => t.getBoundingClientRect().height)"
    )
    assert tab.run(f"{smallest}.map(t => t.getBoundingClientRect().height))") >= 10
    back = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is not dark


def test_of_many_rows_100_are_laid_out_and_all_are_counted(tab, tmp_path):
    many = [record("maskaq", backbone=f"backbone{n}") for n in range(300)]
    (tmp_path / "index.html").write_text(page_of(made(many)[0]))
    tab.view(1400)
    tab.open(f"file://{tmp_path}/index.html")
    assert len(tab.run(METHODS)) == 100
    assert tab.run("document.getElementById('count').textContent") == "300 of 300 rows"
    tab.run(choose("find", "backbone29"))
    assert len(tab.run(METHODS)) == 11
    tab.run(choose("find", ""))
    tab.run("document.getElementById('more').click()")
    assert len(tab.run(METHODS)) == 300
    assert tab.run("document.getElementById('more').hidden")
