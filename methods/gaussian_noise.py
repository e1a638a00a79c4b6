"""Gaussian noise: the lower anchor. Images that know nothing of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

from backbones.base import FAMILIES
from methods.base import Method, SynthesisTask, Synthesizer, SyntheticImages
from methods.settings import setting


@dataclass(frozen=True)
class GaussianNoiseConfig:
    """How many images."""

    images: int = setting(32, "Number of images.", low=1, high=100_000, smoke=4, tunable=False)


class GaussianNoise(Synthesizer):
    """N(0, 1) in normalized space, not clamped to the pixel range, without labels."""

    families = FAMILIES
    Config = GaussianNoiseConfig
    keeps_pixel_range = False

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Draw the set."""
        import torch

        teacher = task.teacher
        images = torch.randn(self.config.images, *teacher.data.input_size, generator=task.generator)
        labels = teacher.guidance.nothing(self.config.images)
        return SyntheticImages(images.to(teacher.device), labels.to(teacher.device))


METHOD = Method(
    name="gaussian_noise",
    synthesizer=GaussianNoise,
    engine=None,
    title="Gaussian noise",
    citation="The baseline of PSAQ-ViT (Li et al., ECCV 2022, arXiv 2203.02250).",
    published_elsewhere={
        "psaq_ptq": "Gaussian noise calibration (PSAQ quantizer)",
        "block_reconstruction": "Gaussian noise calibration (SARDFQ quantizer)",
    },
    sources={"images": "code", "number of images": "code"},
)
