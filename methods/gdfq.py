"""GDFQ: a generator learns to make images that the teacher takes for the class they were asked for.

Xu et al., ECCV 2020; follows the released code (xushoukai/GDFQ), which is made for convolutional networks.
Its second term matches the statistics of batch normalization, and a ViT has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backbones.base import Backbone
from methods.base import Method
from methods.engines.lsq_qat import START_IS_OURS
from methods.synthesis import generator_training
from methods.synthesis.generator_training import GeneratorConfig, GeneratorSynthesizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from methods.synthesis.generator import Mixture


class Gdfq(GeneratorSynthesizer):
    """Images of one class each."""

    Config = GeneratorConfig

    def losses(
        self, images: Tensor, mixture: Mixture, teacher: Backbone, student: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Cross-entropy of the teacher's prediction, in nats."""
        from torch.nn.functional import cross_entropy

        return {"one_hot": cross_entropy(teacher.model(images), mixture.targets)}


METHOD = Method(
    name="gdfq",
    synthesizer=Gdfq,
    engine="lsq_qat",
    title="GDFQ",
    citation="Generative Low-bitwidth Data Free Quantization, ECCV 2020",
    published_name="GDFQ",
    sources={
        "generator": "code",
        "class loss": "code",
        "optimizer and schedule": "code",
        "use on ViTs": "ours",
        "sizes other than 224 pixels": "ours",
        "quantizer and training": "ours",
    },
    deviations=(*generator_training.DEVIATIONS, START_IS_OURS),
    not_established=generator_training.NOT_ESTABLISHED,
    engine_settings=lambda config: {"head_distillation": "none"},
)
