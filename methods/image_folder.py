"""A user's own pictures as calibration images: photographs, say, or the output of a text-to-image model.

Nothing is synthesized. The pictures go through the backbone's evaluation transform, as those of GenQ do
(ECCV 2024, arXiv 2312.05272) after its filters.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from backbones.preprocessing.picture_files import counted, pictures_under, printable
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import is_readable, read_image
from methods.base import Method, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting


@dataclass(frozen=True)
class ImageFolderConfig:
    """Which pictures."""

    folder: str = setting("", "Folder of pictures; folders inside it are searched too.", tunable=False)
    images: int = setting(
        32, "How many, the first ones by name.", low=1, high=100_000, smoke=4, tunable=False
    )


class ImageFolder(Synthesizer):
    """The first pictures of a folder, in the order of their names; the seed changes nothing."""

    Config = ImageFolderConfig

    def inputs_digest(self) -> str:
        """Over names and bytes of the pictures that will be used; ValueError where one cannot be read."""
        paths = self._paths()
        broken = [printable(path.name) for path in paths if not is_readable(path)]
        if broken:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            raise ValueError(
                f"{broken[0]}{more} in {self.config.folder} cannot be read as a picture: repair or remove it"
            )
        found = hashlib.sha256()
        for path in paths:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(os.fsencode(f"{path.relative_to(self._folder()).as_posix()}\0{content}\n"))
        return found.hexdigest()

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """The pictures, normalized, without labels. Raises ValueError when one cannot be read."""
        import torch

        teacher = task.teacher
        crops = []
        for path in self._paths():
            crop, _ = read_image(path, teacher.data)
            if crop is None:
                raise ValueError(
                    f"{printable(path.name)} in {self.config.folder} cannot be read as a picture"
                )
            crops.append(crop)
        images = normalized(torch.stack(crops), teacher.data)
        labels = torch.full((len(crops),), -1)
        return SyntheticImages(images.to(teacher.device), labels.to(teacher.device))

    def _folder(self) -> Path:
        return Path(self.config.folder).expanduser()

    def _paths(self) -> list[Path]:
        """The files that are used; ValueError, one sentence, when there are not enough."""
        folder, wanted = self._folder(), self.config.images
        if not self.config.folder:
            raise ValueError("no folder was given: set image_folder.folder=DIR to a folder of pictures")
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}: set image_folder.folder=DIR to one with pictures")
        paths, unopened = pictures_under(folder)
        if unopened:
            raise ValueError(
                f"{counted('pictures that cannot be opened', unopened)} in {folder}: repair or remove them"
            )
        if not paths:
            raise ValueError(f"{folder} holds no pictures, such as .png or .jpg files")
        if len(paths) < wanted:
            raise ValueError(
                f"{folder} holds {len(paths)} of {wanted} pictures: set image_folder.images={len(paths)}"
            )
        return list(paths[:wanted])


METHOD = Method(
    name="image_folder",
    synthesizer=ImageFolder,
    engine=None,
    title="Own images",
    citation="No paper: a folder of pictures that the user brings.",
    data_use="own images",
    sources={"images": "ours", "number of images": "ours"},
    deviations=(
        "whether the pictures are real or generated is not known to the harness: a row is data-free only as "
        "far as they are",
        "pictures in an evaluation data set's folder are refused while the run goes on",
    ),
)
