"""Bundles: the same bytes from the same store, and refused where anything in them does not verify."""

from __future__ import annotations

import hashlib
import json
import shlex
import stat
import zipfile
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.reporting import bundles
from harness.reporting.bundles import read_bundle, write_bundle
from harness.reporting.suite_runs import SuiteRecords
from harness.store import open_store
from tests.results.fakes import failed, record

ROOT = Path(__file__).resolve().parents[3]
BOARDS = sorted((ROOT / "results" / "leaderboards").glob("*.md"))
RECORDS = (record("fp32"), record("psaq_vit"), record("mimiq"), failed("maskaq"))


@pytest.fixture
def bundle(tmp_path) -> Path:
    path = tmp_path / "a.zip"
    write_bundle(path, [SuiteRecords("some", RECORDS, {"seeds": ("1",)})], {}, open_store(tmp_path / "s"))
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(path: Path, content: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            file.writestr(info, data)
    return path


def resealed(path: Path, content: dict[str, bytes], **changes: object) -> Path:
    """A bundle of other members whose manifest has the right checksums."""
    sums = {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != "manifest.json"
    }
    manifest = {**json.loads(content["manifest.json"]), "members": sums, **changes}
    return written(path, {**content, "manifest.json": json.dumps(manifest).encode()})


def test_what_is_read_is_what_was_written(bundle):
    found = read_bundle(bundle)
    assert {one.to_json()["method"]: one for one in found.records} == {one.method: one for one in RECORDS}
    assert found.suites[0].found.left_out == {"seeds": ("1",)}


def test_the_same_records_in_another_order_are_the_same_bytes(bundle, tmp_path):
    again = tmp_path / "b.zip"
    write_bundle(again, [SuiteRecords("some", RECORDS[::-1], {"seeds": ("1",)})], {}, open_store(tmp_path))
    assert again.read_bytes() == bundle.read_bytes()


def test_a_member_that_was_edited_is_refused(bundle):
    content = members(bundle)
    content["records/000.json"] = content["records/000.json"].replace(b"mimiq", b"mimi2")
    written(bundle, content)
    with pytest.raises(UsageError, match=r"the checksum of records/000.json is not the manifest's"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil", "records/../../x.json", "records/000.pkl", "students/x.safetensors"]
)
def test_names_that_no_bundle_has_are_refused(bundle, name):
    resealed(bundle, {**members(bundle), name: b"{}"})
    with pytest.raises(UsageError, match="no bundle has a member"):
        read_bundle(bundle)
    assert [file.name for file in bundle.parent.iterdir()] == ["a.zip"]


def test_links_other_formats_and_unlisted_members_are_refused(bundle):
    content = members(bundle)
    written(bundle, content, {"records/000.json": stat.S_IFLNK | 0o777})
    with pytest.raises(UsageError, match="is no plain file"):
        read_bundle(bundle)
    resealed(bundle, content, format=2)
    with pytest.raises(UsageError, match="its format is 2, this version reads 1"):
        read_bundle(bundle)
    written(bundle, {**content, "records/001.json": b"{}"})
    with pytest.raises(UsageError, match="lists other members than it has"):
        read_bundle(bundle)


def test_what_would_unpack_to_too_much_is_refused_unread(bundle, monkeypatch):
    monkeypatch.setattr(bundles, "_MOST_OF_JSON", 1000)
    with pytest.raises(UsageError, match="more than any bundle has"):
        read_bundle(bundle)


def test_records_that_are_none_and_files_that_are_no_bundle_are_refused(bundle):
    content = members(bundle)
    said = json.loads(content["records/000.json"])
    said["records"][0]["images"] = 99
    resealed(bundle, {**content, "records/000.json": json.dumps(said).encode()})
    with pytest.raises(UsageError, match="its outcomes are not those of 99 images"):
        read_bundle(bundle)
    for data in (b"", b"PK\x03\x04 torn", bundle.read_bytes()[:-40]):
        bundle.write_bytes(data)
        with pytest.raises(UsageError, match=r"a\.zip: no bundle, or a damaged one"):
            read_bundle(bundle)


def test_a_board_shows_the_records_of_all_bundles_with_their_significance(harness, bundle, tmp_path):
    other = tmp_path / "b.zip"
    more = (record("gdfq", right="1000000000"),)
    write_bundle(other, [SuiteRecords("more", more, {})], {}, open_store(tmp_path / "s"), note="by them")
    status, out, _ = harness("board", str(bundle), str(other), "--format", "json")
    rows = {row["method"]: row for row in json.loads(out)}
    assert (status, set(rows)) == (0, {"fp32", "psaq_vit", "mimiq", "maskaq", "gdfq"})
    assert rows["gdfq"]["p_test"] == "mcnemar"
    assert all(row["unverified"] for row in rows.values())
    shown = harness("board", str(bundle), str(other))[1]
    assert "by them" in shown
    assert "Not all of some: never run: seeds 1; 1 of 4 trials failed." in shown


def test_every_fault_of_a_board_is_said(harness, bundle, tmp_path):
    status, out, err = harness("board", str(bundle), str(tmp_path / "absent.zip"), "--format", "xls")
    assert (status, out) == (2, "")
    assert "--format xls" in err
    assert "absent.zip: No such file" in err


def test_a_bundle_of_nothing_is_refused(harness, tmp_path):
    (tmp_path / "s").mkdir()
    status, _, err = harness("bundle", "--suite", "some", "--store", "s", "--with", "stdents", "x.zip")
    assert status == 2
    assert "no record of the suite 'some'" in err
    assert "--with stdents: students or images" in err
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize("page", BOARDS, ids=lambda page: page.stem)
def test_a_shipped_board_is_what_its_first_line_makes(harness, page, tmp_path, monkeypatch):
    first = page.read_text(encoding="utf-8").partition("\n")[0]
    _, verb, bundle, *words = shlex.split(first.removeprefix("<!-- ").removesuffix(" -->"))
    assert (verb, words[:2], words[-1]) == ("board", ["--format", "md"], str(page.relative_to(ROOT)))
    (tmp_path / page.parent.relative_to(ROOT)).mkdir(parents=True)
    (tmp_path / bundle).write_bytes((ROOT / bundle).read_bytes())
    assert harness(verb, bundle, *words)[0] == 0
    assert (tmp_path / page.relative_to(ROOT)).read_bytes() == page.read_bytes()


def test_there_are_shipped_boards():
    assert BOARDS
