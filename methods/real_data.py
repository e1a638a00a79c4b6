"""Real images: the upper anchor, and the one method that is not data-free.

The harness hands the images in; this file, like every method, cannot reach a data set by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backbones.base import FAMILIES, Backbone
from methods.base import Method, Progress, Synthesizer, SyntheticImages, silent
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class RealDataConfig:
    """How many images."""

    images: int = setting(32, "Number of images.", low=1, high=100_000, smoke=4, tunable=False)


class RealData(Synthesizer):
    """Hands real images on."""

    families = FAMILIES
    Config = RealDataConfig
    needs_real_images = True

    def synthesize(
        self,
        teacher: Backbone,
        *,
        generator: Generator,
        progress: Progress = silent,
        student: nn.Module | None = None,
        epoch: int = 0,
        real_images: tuple[Tensor, Tensor] | None = None,
    ) -> SyntheticImages:
        """The first `config.images` of `real_images`: images (n, C, H, W) in normalized space, and labels.

        Raises ValueError when fewer are given.
        """
        given = 0 if real_images is None else len(real_images[0])
        if real_images is None or given < self.config.images:
            raise ValueError(f"real_data needs {self.config.images} real images and was given {given}")
        images, labels = (part[: self.config.images].to(teacher.device) for part in real_images)
        return SyntheticImages(images, labels)


METHOD = Method(
    name="real_data",
    synthesizer=RealData,
    engine=None,
    title="Real images",
    citation="The reference of PSAQ-ViT (Li et al., ECCV 2022, arXiv 2203.02250).",
    published_elsewhere={
        "psaq_ptq": "Real-data calibration (PSAQ quantizer)",
        "repq_ptq": "RepQ-ViT",
        "block_reconstruction": "Real-data calibration (SARDFQ quantizer)",
    },
    data_use="real images",
    sources={"number of images": "code"},
)
