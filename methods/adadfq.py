"""AdaDFQ: a generator whose images are neither too easy nor too hard for the quantized model.

Qian et al., CVPR 2023; follows the released code (hfutqian/AdaDFQ), which is made for convolutional networks.
With p and q the logits of teacher and student: an image is easy where p - q tells nothing about the class,
hard where it tells all; the entropy of softmax(p - q) is kept between two margins. The student, in turn,
maximizes that entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backbones.base import Backbone
from methods.base import Method, SynthesisTask, SyntheticImages
from methods.engines.lsq_qat import START_IS_OURS
from methods.settings import setting
from methods.synthesis import generator_training
from methods.synthesis.generator_training import GeneratorConfig, GeneratorSynthesizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.synthesis.generator import Mixture


@dataclass(frozen=True)
class AdadfqConfig(GeneratorConfig):
    """Defaults are the released code's for 4 bits."""

    iterations: int = setting(
        10_000,
        "Training steps of the generator before the first set (50 epochs of 200).",
        low=1,
        high=200_000,
        fast=200,
        smoke=2,
        tunable=False,
    )
    milestones: tuple[float, ...] = setting(
        (), "Shares of a set's training after which the learning rate falls to a tenth: none.", tunable=False
    )
    refresh_every: int = setting(
        1, "Epochs between two sets; 0 keeps the first.", low=0, high=1000, fast=2, smoke=0, tunable=False
    )
    refresh_iterations: int = setting(
        350,
        "Training steps, against the current student, before every later set.",
        low=1,
        high=100_000,
        fast=20,
        smoke=2,
        tunable=False,
    )
    lower_margin: float = setting(0.3, "Least normalized entropy of p - q.", low=0.0, high=1.0)
    upper_margin: float = setting(0.8, "Greatest normalized entropy of p - q.", low=0.0, high=1.0)
    disagreement_weight: float = setting(0.2, "Weight of the class loss on p - q.", low=0.0, high=10.0)
    agreement_weight: float = setting(0.1, "Weight of the class loss on p + q.", low=0.0, high=10.0)


class Adadfq(GeneratorSynthesizer):
    """GDFQ's generator, trained on against the student as the student learns."""

    Config = AdadfqConfig
    config: AdadfqConfig
    needs_student = True
    later_sets = "inside"

    def synthesize(self, task: SynthesisTask) -> SyntheticImages:
        """Make the set: the first from the teacher alone, later ones against the student."""
        from methods.quantization import frozen

        if not self.needs_student_at(task.epoch):
            return super().synthesize(replace(task, student=None))
        if task.student is None:
            raise ValueError("adadfq needs the student: its later images depend on the quantized model")
        with frozen(task.student):
            return super().synthesize(task)

    def refreshes_at(self, epoch: int) -> bool:
        """Every `refresh_every` epochs."""
        return self.config.refresh_every > 0 and epoch > 0 and epoch % self.config.refresh_every == 0

    def needs_student_at(self, epoch: int) -> bool:
        """In every set but the first."""
        return epoch > 0

    def iterations_at(self, epoch: int) -> int:
        """More before the first set than before later ones."""
        return self.config.iterations if epoch == 0 else self.config.refresh_iterations

    def losses(
        self, images: Tensor, mixture: Mixture, teacher: Backbone, student: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Margins on the entropy of the difference and two class losses; without student GDFQ's."""
        from torch.nn.functional import cross_entropy

        p = teacher.model(images)
        if student is None:
            return {"one_hot": cross_entropy(p, mixture.targets)}
        q = student(images)
        config = self.config
        return {
            "margin": margin_loss(normalized_entropy(p - q), config.lower_margin, config.upper_margin),
            "disagreement": config.disagreement_weight * cross_entropy(p - q, mixture.targets),
            "agreement": config.agreement_weight * cross_entropy(p + q, mixture.targets),
        }


def normalized_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits), (B, classes) -> (B,), moved to [0, 1] within the batch.

    H' = (H - min H) / (ln classes - min H + 1e-6), the minimum over the batch and with gradient (AdaDFQ
    code; the 1e-6 is ours): the least image of a batch is always at 0.
    """
    shares = logits.log_softmax(dim=-1)
    entropy = -(shares.exp() * shares).sum(dim=-1)
    least = entropy.min()
    return (entropy - least) / (math.log(logits.shape[-1]) - least + 1e-6)


def margin_loss(entropy: Tensor, lower: float, upper: float) -> Tensor:
    """How far normalized entropies (B,) lie outside [lower, upper], mean over images (AdaDFQ code)."""
    return (lower - entropy).relu().mean() + (entropy - upper).relu().mean()


METHOD = Method(
    name="adadfq",
    synthesizer=Adadfq,
    engine="lsq_qat",
    title="AdaDFQ",
    citation="Adaptive Data-Free Quantization, CVPR 2023",
    published_name="AdaDFQ",
    sources={
        "generator": "code",
        "margins and class losses": "code",
        "student's loss": "code",
        "optimizer": "code",
        "steps between sets": "ours",
        "use on ViTs": "ours",
        "sizes other than 224 pixels": "ours",
        "quantizer and training": "ours",
    },
    deviations=(
        "a set is drawn before an epoch, after steps of the generator against the student, and fixed for "
        "that epoch; the code draws new images in every training step",
        "the first set comes from a generator trained with the class loss alone, since the student's ranges "
        "are not set yet; the code's first 50 epochs train the generator against the untrained student",
        "generator and student take 79,650 and 123,750 steps; the code's 80,000 and 70,000",
        START_IS_OURS,
        "the generator's learning rate is constant; the code's falls to a tenth in the last eighth",
        "the term on the statistics of batch normalization has no counterpart in a ViT and is left out",
        "1e-6 is added to the divisor of the normalized entropy, which may be 0",
    ),
    not_established=(
        *generator_training.NOT_ESTABLISHED,
        "margins and weights on ViTs: the code's for 4 bits on ResNet-18, at every bit-width",
        "the student's learning rate on ViTs: the engine's",
    ),
    engine_settings=lambda config: {"head_distillation": "none", "distillation": "adadfq"},
)
