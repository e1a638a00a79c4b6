"""Qimera: GDFQ with images between classes, made from superposed class vectors.

Choi et al., NeurIPS 2021; follows the released code (iamkanghyunchoi/qimera). The class vectors start as the
rows of the teacher's classifier, and the mixing shares are the soft label of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backbones.base import Backbone
from methods.base import Method
from methods.engines.lsq_qat import START_IS_OURS
from methods.settings import setting
from methods.synthesis import generator_training
from methods.synthesis.generator_training import GeneratorConfig, GeneratorSynthesizer

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from methods.synthesis.generator import Mixture, SuperposingGenerator


@dataclass(frozen=True)
class QimeraConfig(GeneratorConfig):
    """Defaults are the released scripts', but for `mode`."""

    mode: Literal["fixed", "faithful"] = setting(
        "fixed",
        "fixed: a mixture's gains are the weighted sum of its classes'; faithful: that over their number.",
        choices=("fixed", "faithful"),
        tunable=False,
    )
    mixed_probability: float = setting(
        0.4, "Probability that a batch shows mixtures rather than single classes.", low=0.0, high=1.0
    )
    mixed_share: float = setting(
        0.1, "Classes in a mixture, as a share of all; two at least.", low=0.001, high=1.0
    )


class Qimera(GeneratorSynthesizer):
    """Images of one class each, and batches of images between many."""

    Config = QimeraConfig
    config: QimeraConfig

    def network(self, teacher: Backbone, *, generator: Generator) -> SuperposingGenerator:
        """Class vectors start as the teacher's classifier."""
        from methods.synthesis.generator import SuperposingGenerator

        return SuperposingGenerator(
            teacher.data.input_size,
            teacher.model.get_classifier().weight,  # type: ignore[operator]
            latent_size=self.config.latent_size,
            generator=generator,
            divide_mixed=self.config.mode == "faithful",
        )

    def mixture(self, teacher: Backbone, *, generator: Generator) -> Mixture:
        """All images of a batch are mixtures, or none is."""
        import torch

        from methods.synthesis.generator import superposed_classes

        if torch.rand((), generator=generator) >= self.config.mixed_probability:
            return super().mixture(teacher, generator=generator)
        return superposed_classes(
            self.config.batch_size,
            teacher.num_classes,
            max(2, round(self.config.mixed_share * teacher.num_classes)),
            generator=generator,
            device=teacher.device,
        )

    def losses(
        self, images: Tensor, mixture: Mixture, teacher: Backbone, student: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Cross-entropy of the teacher's prediction against the shares, in nats."""
        from torch.nn.functional import cross_entropy

        return {"soft_label": cross_entropy(teacher.model(images), mixture.targets)}


METHOD = Method(
    name="qimera",
    synthesizer=Qimera,
    engine="lsq_qat",
    title="Qimera",
    citation="Qimera: Data-free Quantization with Synthetic Boundary Supporting Samples, NeurIPS 2021",
    published_name="Qimera",
    published_settings={"mode": "faithful"},
    sources={
        "generator and superposition": "code",
        "soft-label loss": "code",
        "optimizer and schedule": "code",
        "use on ViTs": "ours",
        "sizes other than 224 pixels": "ours",
        "quantizer and training": "ours",
    },
    deviations=(
        *generator_training.DEVIATIONS,
        START_IS_OURS,
        "mode fixed (default): gains and biases of a mixture are weighted sums; the code divides them by the "
        "number of classes once more (mode faithful)",
        "every class vector is normalized by itself; in the code a mixture's are normalized over the batch",
        "the reduction of the class vectors to 100 numbers is on; in the code the flag no_DM, which should "
        "turn it off, turns it on, and without it the first layer has up to 822 million weights",
        "a mixture holds a tenth of the classes: the scripts' 2 of 10 (two at least), 10 of 100 and, for "
        "5 bits, 100 of 1000; the 4-bit ResNet scripts take 500 of 1000",
    ),
    not_established=(
        *generator_training.NOT_ESTABLISHED,
        "probability, number of mixed classes and start of the class vectors (classifier or random) on "
        "ViTs: 0.4, a tenth of the classes, the classifier",
    ),
    engine_settings=lambda config: {"head_distillation": "none"},
)
