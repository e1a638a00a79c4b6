"""PSAQ-ViT V2 in style: images with diverse patches on which teacher and student disagree.

Li et al., T-NNLS 2023, arXiv 2209.05687. Only the abstract could be read: no class guidance, images that
compete with the student under the teacher's supervision. Everything else is our own instantiation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backbones.base import FAMILIES, Backbone
from methods.base import Method, SynthesisTask, SyntheticImages
from methods.engines.lsq_qat import START_IS_OURS
from methods.psaq_vit import PsaqVitConfig, PsaqVitObjective
from methods.settings import setting
from methods.synthesis import psaq_recipe
from methods.synthesis.loop import ImageOptimizer

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class PsaqVitV2Config(PsaqVitConfig):
    """Weights and rates of PSAQ-ViT; the rest is ours."""

    images: int = setting(10_000, "Number of images.", low=1, high=100_000, fast=128, smoke=4, tunable=False)
    iterations: int = setting(
        500, "Optimisation steps of a batch for the first set.", low=2, high=4000, fast=40, smoke=4
    )
    one_hot_weight: float = setting(
        0.0, "Weight of a class loss, which the abstract rules out.", low=0.0, high=10.0, tunable=False
    )
    discrepancy_weight: float = setting(
        1.0, "Weight of the disagreement of teacher and student.", low=0.0, high=100.0
    )
    refresh_every: int = setting(
        10, "Epochs between two sets; 0 keeps the first.", low=0, high=1000, fast=2, smoke=0, tunable=False
    )
    refresh_iterations: int = setting(
        20,
        "Steps of a batch, against the current student, for every later set.",
        low=2,
        high=4000,
        fast=4,
        smoke=2,
    )


class PsaqVitV2Objective(PsaqVitObjective):
    """PSAQ-ViT's prior without class loss, minus the disagreement of teacher and student."""

    def losses(self, images: Tensor, view: Tensor, iteration: int) -> Mapping[str, Tensor]:
        """The terms that are on, weighted."""
        guidance = self.batch.teacher.guidance
        outputs, entropy = self.seen(view)
        losses = {"patch_entropy": entropy, "variation": self.variation(view)}
        if self.config.one_hot_weight > 0:
            losses["one_hot"] = self.config.one_hot_weight * guidance.loss(outputs, self.targets)
        if self.batch.student is not None:
            disagreement = guidance.disagreement(outputs, self.batch.student(view))
            losses["discrepancy"] = -self.config.discrepancy_weight * disagreement
        return losses


class PsaqVitV2(ImageOptimizer):
    """Images that the teacher's prior starts and that then follow the student."""

    families = FAMILIES
    Config = PsaqVitV2Config
    Objective = PsaqVitV2Objective
    needs_student = True
    later_sets = "apart"

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Make the set: the first from the teacher alone, later ones from the set before, in competition."""
        from methods.quantization import frozen

        if not self.needs_student_at(task.epoch):
            made = super().synthesize(dataclasses.replace(task, student=None))
        elif task.student is None:
            raise ValueError("psaq_vit_v2 needs the student: its later images compete with it")
        else:
            shorter = dataclasses.replace(self.config, iterations=self.config.refresh_iterations)
            with frozen(task.student):
                made = _Continued(shorter, task.previous).synthesize(task)
        return made if self.config.one_hot_weight > 0 else _without_labels(made)

    def refreshes_at(self, epoch: int) -> bool:
        """Every `refresh_every` epochs."""
        return self.config.refresh_every > 0 and epoch > 0 and epoch % self.config.refresh_every == 0

    def steps_at(self, epoch: int) -> int:
        """Fewer for later sets."""
        steps: int = self.config.refresh_iterations if epoch > 0 else self.config.iterations
        return steps

    def needs_student_at(self, epoch: int) -> bool:
        """In every set but the first."""
        return epoch > 0


class _Continued(ImageOptimizer):
    """Optimises an earlier set on; noise where there is none."""

    Objective = PsaqVitV2Objective

    def __init__(self, config: Any, previous: SyntheticImages | None) -> None:
        super().__init__(config)
        self._previous = previous

    def start(self, batch: int, size: int, teacher: Backbone, *, generator: Generator) -> Tensor:
        """The batch as it was."""
        if self._previous is None:
            return super().start(batch, size, teacher, generator=generator)
        import torch

        return torch.split(self._previous.images, self.config.batch_size)[batch]


def _without_labels(made: SyntheticImages) -> SyntheticImages:
    import torch

    return dataclasses.replace(made, labels=torch.full_like(made.labels, -1))


METHOD = Method(
    name="psaq_vit_v2",
    synthesizer=PsaqVitV2,
    engine="lsq_qat",
    title="PSAQ-ViT V2-style",
    citation="PSAQ-ViT V2: Toward Accurate and General Data-Free Quantization for Vision Transformers, "
    "T-NNLS 2023, arXiv 2209.05687",
    sources={
        "patch-similarity entropy, total variation, views, rates": "code",
        "competition with the student, no class labels": "paper",
        "disagreement, steps and schedule": "ours",
        "number of images": "ours",
        "quantizer and training": "ours",
    },
    deviations=(
        "V2-style, not the authors' algorithm: its code is not public and only the abstract could be read",
        "images and student take turns by sets: the images of a set all move for some steps, then the "
        "student trains on them for some epochs; as many image steps as student steps",
        "the disagreement is divided by the size of the teacher's logits, so that images cannot raise it "
        "without bound",
        START_IS_OURS,
        *psaq_recipe.DEVIATIONS,
    ),
    not_established=(
        "the form of the disagreement: mean absolute difference of logits, weight 1",
        "steps of images and student, new starts of images: 500 for the first set, then 20 every 10 epochs, "
        "never from noise again",
        "batch size and number of images: 32 and 10,000",
        "the student's loss: the engine's divergence of logits without head distillation",
        "quantizer, optimizer, learning rate and epochs: lsq_qat's; the abstract says a naive quantizer, and "
        "a later paper that softmax and GELU outputs are not quantized, which lsq_qat does",
        "whether the published tables' rows are comparable with any of this: taken as not",
    ),
    engine_settings=lambda config: {"head_distillation": "none"},
)
