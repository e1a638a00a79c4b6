"""Real images: the upper anchor, and the one method that is not data-free.

The harness hands the images in; this file, like every method, cannot reach a data set by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from backbones.base import FAMILIES
from methods.base import Method, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting


@dataclass(frozen=True)
class RealDataConfig:
    """How many images."""

    images: int = setting(32, "Number of images.", low=1, high=100_000, smoke=4, tunable=False)


class RealData(Synthesizer):
    """Hands real images on."""

    families = FAMILIES
    Config = RealDataConfig
    needs_real_images = True

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """The first `config.images` of the task's real images, with their labels.

        Raises ValueError when fewer are given.
        """
        real, wanted = task.real_images, self.config.images
        given = 0 if real is None else len(real[0])
        if real is None or given < wanted:
            raise ValueError(f"real_data needs {wanted} real images and was given {given}")
        images, labels = (part[:wanted].to(task.teacher.device) for part in real)
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
        "error_reduction": "ERQ",
    },
    data_use="real images",
    sources={"number of images": "code"},
)
