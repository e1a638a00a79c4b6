"""Bundles: the records of suites in one file that a stranger can check, written and read here alone.

    manifest.json            version of the format, suites, packages, commands, SHA-256 of every other member
    records/000.json         a suite's records with settings and per-image outcomes, and what was not run
    students/<key>.safetensors    quantized models, where they were asked for
    images/<key>.safetensors      the sets that they were made from, where they were asked for

The same store gives the same bytes. A reader refuses what does not verify; it unpickles nothing and writes
nothing: members are read into memory, within bounds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError, UsageError, one_line, printable
from harness.planning.plan import Trial
from harness.reporting.suite_runs import SuiteRecords
from harness.store import Store
from harness.store.files import write_bytes
from results.record import Record

FORMAT = 1
"""Version of the format; a reader takes this one alone."""
PARTS = ("students", "images")
"""What a bundle may hold beside records."""
_MANIFEST = "manifest.json"
_NAMES = re.compile(r"records/[0-9]{3}\.json|(?:students|images)/[0-9a-f]{24}\.safetensors")
_MOST_MEMBERS, _MOST_OF_ONE, _MOST_OF_ALL = 100_000, 2**31, 2**34
"""Members, bytes of one and of all together when unpacked."""
_MOST_OF_JSON = 2**28
_BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file knows: every member has it."""
_PACKAGES = ("torch", "timm", "numpy", "dfq-harness", "python")


@dataclass(frozen=True)
class SuiteBundle:
    """The records of one suite out of a bundle."""

    found: SuiteRecords
    code: Mapping[str, str] = field(default_factory=dict)
    """Trial -> digest of the code that made it, where the bundling store knew it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose checksums are right."""

    path: Path
    sha256: str
    """Of the whole file."""
    suites: tuple[SuiteBundle, ...]
    manifest: Mapping[str, Any]

    @property
    def note(self) -> str:
        """What who made it tells a reader; empty where that is nothing."""
        return printable(str(self.manifest.get("note", "")))

    @property
    def records(self) -> list[Record]:
        """The records of all its suites."""
        return [record for suite in self.suites for record in suite.found.records]


def write_bundle(
    path: Path,
    suites: Sequence[SuiteRecords],
    trials: Mapping[str, Trial],
    store: Store,
    *,
    parts: Sequence[str] = (),
    note: str = "",
) -> None:
    """Write the records of suites, with the `parts` of what their trials made; whole or not at all.

    `trials` are those that the store knows, by key. Raises UsageError where a part is asked for of which the
    store has nothing.
    """
    members: dict[str, bytes] = {}
    for index, found in enumerate(suites):
        members[f"records/{index:03d}.json"] = _text(_suite_json(found, trials))
    for part in parts:
        made = dict(_parts(part, suites, trials, store))
        if not made:
            raise UsageError(f"--with {part}: the store {store.root} holds none of these suites")
        members |= made
    manifest = {
        "format": FORMAT,
        "note": note,
        "suites": [found.suite for found in suites],
        "commands": [f"harness run --suite {found.suite}" for found in suites],
        "packages": _packages(record for found in suites for record in found.records),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())},
    }
    write_bytes(path, _zipped({_MANIFEST: _text(manifest), **dict(sorted(members.items()))}))


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file; raises UsageError, a sentence, for one that cannot be trusted to be whole."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(path) as file:
            return _read(path, hashlib.sha256(data).hexdigest(), file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or one_line(error)}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path}: no bundle, or a damaged one ({one_line(error)})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: refused: {one_line(error)}") from None


def _read(path: Path, sha256: str, file: zipfile.ZipFile) -> Bundle:
    members = _members(file)
    manifest = json.loads(_content(file, members[_MANIFEST]))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        said = manifest.get("format") if isinstance(manifest, dict) else None
        raise ValueError(f"its format is {said!r}, this version reads {FORMAT}")
    sums = manifest.get("members")
    if not isinstance(sums, dict) or set(sums) != set(members) - {_MANIFEST}:
        raise ValueError("its manifest lists other members than it has")
    suites = []
    for name, expected in sorted(sums.items()):
        digest, kept = hashlib.sha256(), bytearray()
        for piece in _pieces(file, members[name]):
            digest.update(piece)
            kept += piece if name.startswith("records/") else b""
        if digest.hexdigest() != expected:
            raise ValueError(f"the checksum of {name} is not the manifest's")
        if kept:
            suites.append(_suite_of(json.loads(bytes(kept))))
    if [one.found.suite for one in suites] != manifest.get("suites"):
        raise ValueError("its manifest names other suites than it has")
    return Bundle(path, sha256, tuple(suites), manifest)


def _members(file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name -> member; raises ValueError for names, kinds and sizes that no bundle has."""
    infos = file.infolist()
    names = [info.filename for info in infos]
    if len(infos) > _MOST_MEMBERS or len(set(names)) != len(names):
        raise ValueError("it has too many members, or two of one name")
    for info in infos:
        if info.filename != _MANIFEST and not _NAMES.fullmatch(info.filename):
            raise ValueError(f"no bundle has a member {info.filename[:80]!r}")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise ValueError(f"{info.filename} is no plain file")
        if info.file_size > (_MOST_OF_JSON if info.filename.endswith(".json") else _MOST_OF_ONE):
            raise ValueError(f"{info.filename} would be {info.file_size} bytes, more than any bundle has")
    if sum(info.file_size for info in infos) > _MOST_OF_ALL:
        raise ValueError("its members would be more bytes than any bundle has")
    if _MANIFEST not in names:
        raise ValueError(f"it has no {_MANIFEST}")
    return {info.filename: info for info in infos}


def _pieces(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member, which ends where it is longer than it says."""
    read = 0
    with file.open(info) as member:
        while piece := member.read(2**20):
            read += len(piece)
            if read > info.file_size:
                raise ValueError(f"{info.filename} is longer than it says")
            yield piece


def _content(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    return b"".join(_pieces(file, info))


def _suite_json(found: SuiteRecords, trials: Mapping[str, Trial]) -> dict[str, Any]:
    records = sorted(found.records, key=lambda r: (r.backbone, r.bits, r.engine, r.method, r.seed, r.trial))
    code = {r.trial: trials[r.trial].code for r in records if r.trial in trials}
    return {
        "suite": found.suite,
        "left_out": {name: list(values) for name, values in found.left_out.items()},
        "code": code,
        "records": [record.to_json() for record in records],
    }


def _suite_of(said: Any) -> SuiteBundle:
    """The inverse of `_suite_json`; raises ValueError, KeyError or TypeError."""
    if not isinstance(said, dict) or not isinstance(said["suite"], str):
        raise ValueError("its records belong to no suite")
    records = tuple(Record.from_json(each) for each in said["records"])
    left_out = {str(name): tuple(map(str, values)) for name, values in dict(said["left_out"]).items()}
    code = {str(key): str(value) for key, value in dict(said["code"]).items()}
    return SuiteBundle(SuiteRecords(said["suite"], records, left_out), code)


def _parts(
    part: str, suites: Sequence[SuiteRecords], trials: Mapping[str, Trial], store: Store
) -> Iterator[tuple[str, bytes]]:
    """Member -> tensors of the students or images of the trials with a result, as far as they are there."""
    from safetensors.torch import save

    for record in (record for found in suites for record in found.records if record.status == "ok"):
        trial = trials.get(record.trial)
        key = trial and (trial.quantization if part == "students" else trial.images)
        if not key:
            continue
        with contextlib.suppress(ArtifactError, OSError):
            found = store.tensors(key) if part == "students" else store.images(key)
            wanted = "student." if part == "students" else ("images", "labels")
            kept = {name: value.contiguous() for name, value in found.items() if name.startswith(wanted)}
            yield f"{part}/{key}.safetensors", save(dict(sorted(kept.items())))


def _packages(records: Iterator[Record]) -> dict[str, list[str]]:
    """Package -> its versions over all records."""
    seen: dict[str, set[str]] = {}
    for record in records:
        for name in _PACKAGES:
            if name in record.environment:
                seen.setdefault(name, set()).add(record.environment[name])
    return {name: sorted(versions) for name, versions in sorted(seen.items())}


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file of the members in this order, the same bytes for the same members."""
    import io

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _BEGINNING)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data, compresslevel=9)
    return made.getvalue()
