"""Image files of a folder: listing, the split by hash, and reading in order by a few threads.

A file that cannot be read is skipped, one in another colour mode is converted; both are reported by name.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.base import DataConfig
from backbones.preprocessing.picture_files import counted, printable, some
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import pixel_mode, read_image
from tasks.base import DataError, Split

if TYPE_CHECKING:
    from torch import Tensor

TUNE_SHARE = 10
"""One image in so many is kept for tuning ..."""
TUNE_MOST = 1000
"""... up to this number."""
Reader = Callable[[Path, DataConfig], "tuple[Tensor | None, str]"]
"""Gives an image file as (C, h, w) uint8, or None when it is broken, and its colour mode."""

_AHEAD = 2
"""Batches that are decoded while one is being scored."""
_SINGLES = 8
"""Images to a batch where every image is given out by itself."""


@dataclass(frozen=True)
class Sample:
    """One image file."""

    name: str
    """Path relative to the data set's folder, with forward slashes, as `os.fsdecode` gives its bytes."""
    path: Path
    label: int = -1
    """Class index; -1 without a label."""

    @property
    def shown(self) -> str:
        """The name in a form that can be printed and stored, whatever bytes it has."""
        return printable(self.name)


@dataclass
class ReadingReport:
    """What happened to the files while they were read."""

    skipped: list[str] = field(default_factory=list)
    """Names that could not be read."""
    converted: list[str] = field(default_factory=list)
    """Names with the colour mode they had."""
    narrowed: list[str] = field(default_factory=list)
    """Names of pictures of 16 bits to a value, with their mode."""
    unranged: list[str] = field(default_factory=list)
    """Names of pictures whose values have no known range, with their mode."""
    mismatched: list[str] = field(default_factory=list)
    """Names of pictures whose size is not the annotated one."""

    def notes(self) -> tuple[str, ...]:
        """At most one sentence for each kind."""
        kinds = (
            ("unreadable images left out", self.skipped),
            ("images left out whose mode states no range of values", self.unranged),
            ("images scaled from 16 bits to 8", self.narrowed),
            ("images converted from another colour mode", self.converted),
            ("images left out whose shape is not the annotated one", self.mismatched),
        )
        return tuple(counted(what, names) for what, names in kinds if names)


@dataclass(frozen=True)
class ReadBatch:
    """The readable ones among consecutive samples."""

    samples: tuple[Sample, ...]
    images: Tensor
    """(B, C, H, W) float32, normalized."""


def lowest_hashes(samples: Iterable[Sample], count: int) -> list[Sample]:
    """`count` samples chosen by a hash of their names, so that added files replace few of them."""
    return sorted(samples, key=lambda s: hashlib.sha256(os.fsencode(s.name)).digest())[:count]


def split_by_hash(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(tune, report): a tenth, at most 1,000, and the rest, each in the given order."""
    count = min(TUNE_MOST, len(samples) // TUNE_SHARE)
    chosen = {sample.name for sample in lowest_hashes(samples, count)}
    return [s for s in samples if s.name in chosen], [s for s in samples if s.name not in chosen]


def digest(samples: Iterable[Sample]) -> str:
    """SHA-256 over names, sizes in bytes and labels; the files are not opened."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(os.fsencode(f"{sample.name}\0{sample.path.stat().st_size}\0{sample.label}\n"))
    return found.hexdigest()


def files_of(samples_of: Callable[[Split], Sequence[Sample]]) -> dict[str, Path]:
    """Printable name -> file of the samples of both splits; a tune split that cannot be used has none."""
    found = {sample.shown: sample.path for sample in samples_of("report")}
    with suppress(DataError):
        found |= {sample.shown: sample.path for sample in samples_of("tune")}
    return found


def read_batches(
    samples: Sequence[Sample], data: DataConfig, batch_size: int, report: ReadingReport
) -> Iterator[ReadBatch]:
    """Decode, crop and normalise `samples` in order, as many threads as torch may use.

    Fills `report`. Batches whose every file is broken are passed over. Raises DataError at the end when no
    file could be read at all.
    """
    import torch

    for read in _read(samples, data, batch_size, report, read_image):
        images = normalized(torch.stack([pixels for _, pixels in read]), data)
        yield ReadBatch(tuple(sample for sample, _ in read), images)


def read_each(
    samples: Sequence[Sample], data: DataConfig, report: ReadingReport, reader: Reader
) -> Iterator[tuple[Sample, Tensor]]:
    """The readable samples in order, each (C, h, w) uint8 of a size of its own; as `read_batches` does."""
    for read in _read(samples, data, _SINGLES, report, reader):
        yield from read


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """The samples in an order drawn by `seed`."""
    import torch

    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return [samples[i] for i in order.tolist()]


def draw_images(samples: Sequence[Sample], data: DataConfig, count: int, seed: int) -> ReadBatch:
    """`count` readable samples in an order drawn by `seed`; raises DataError when there are fewer."""
    import torch

    report = ReadingReport()
    drawn: list[Sample] = []
    images: list[Tensor] = []
    if samples:
        for batch in read_batches(shuffled(samples, seed), data, min(count, 32), report):
            drawn += batch.samples
            images.append(batch.images)
            if len(drawn) >= count:
                return ReadBatch(tuple(drawn[:count]), torch.cat(images)[:count])
    raise DataError(too_few(count, len(drawn)))


def too_few(count: int, readable: int) -> str:
    """The sentence for a tune split that is smaller than asked for."""
    return f"{count} images are asked for, but the tune split holds only {readable} readable ones"


def _read(
    samples: Sequence[Sample], data: DataConfig, batch_size: int, report: ReadingReport, reader: Reader
) -> Iterator[list[tuple[Sample, Tensor]]]:
    """The readable ones of every `batch_size` consecutive samples, never none."""
    import torch

    any_read = False
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for batch in _submitted(pool, samples, data, batch_size, reader):
            read: list[tuple[Sample, Tensor]] = []
            for sample, future in batch:
                pixels, mode = future.result()
                if pixels is None:
                    (report.unranged if mode else report.skipped).append(f"{sample.name} {mode}".rstrip())
                    continue
                if mode != pixel_mode(data):
                    # A readable picture of mode `I` has the range of `I;16`.
                    kind = report.narrowed if mode.startswith("I") else report.converted
                    kind.append(f"{sample.name} {mode}")
                read.append((sample, pixels))
            if read:
                any_read = True
                yield read
    if not any_read:
        raise DataError(
            f"none of {len(samples)} image files could be read: {some([*report.skipped, *report.unranged])}"
        )


def _submitted(
    pool: ThreadPoolExecutor, samples: Sequence[Sample], data: DataConfig, batch_size: int, reader: Reader
) -> Iterator[list[tuple[Sample, Future[tuple[Tensor | None, str]]]]]:
    """Batches of (sample, future), a few batches ahead, so that memory stays bounded."""
    pending: deque[list[tuple[Sample, Future[tuple[Tensor | None, str]]]]] = deque()
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        pending.append([(sample, pool.submit(reader, sample.path, data)) for sample in chunk])
        if len(pending) > _AHEAD:
            yield pending.popleft()
    yield from pending


def unopened_notes(names: Sequence[str]) -> tuple[str, ...]:
    """The note on pictures that cannot be opened; none where there are none."""
    return (counted("images left out that cannot be opened", names),) if names else ()
