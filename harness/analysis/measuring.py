"""Measures sets of images on a teacher P and their students Q: attention, dependence, activation ranges.

It is given images and models; where these come from is `harness.analysis.image_sets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families.explicit import AttentionTaps, ExplicitSwinBlock
from harness.analysis import metrics

KEPT_SHARES = (0.1, 0.25, 0.5)
"""Shares of the patches that are left of an image: MaskAQ's last mask, one between, and its first."""
_OBSERVED_BITS = 8
"""Any width would do: ranges are observed before values are rounded."""


class Agreement(NamedTuple):
    """How well Q's answers on some view of images agree with P's on the whole images."""

    kept: float
    """Share of the patches that Q sees."""
    patches: str
    """Which these are: `all`, `informative` or `background`."""
    agreement_percent: float
    """Same first answer."""
    kl: float | None
    """Mean KL(P || Q) over the softmax, in nats, of the images with finite logits; None without any."""


@dataclass(frozen=True)
class ImageFacts:
    """What P and the real images tell of a set; no student takes part."""

    curve: tuple[float, ...]
    """`metrics.mass_curve`: attention mass of the strongest 1..n patches."""
    ranges: Mapping[str, metrics.Range]
    """Quantization point of `psaq_ptq` -> lowest and highest value, in forward order."""


@dataclass(frozen=True)
class StudentFacts:
    """What a student makes of a set of images."""

    attention_distance: tuple[float, ...]
    """`metrics.attention_distance` of every layer."""
    agreements: tuple[Agreement, ...]
    """On whole images first, then on parts of them."""

    @property
    def mean_distance(self) -> float:
        """Mean over layers."""
        return sum(self.attention_distance) / len(self.attention_distance)


def measure_images(teacher: Backbone, images: Tensor, batch_size: int) -> ImageFacts:
    """Attention mass and activation ranges of images (n, C, H, W) in normalized space."""
    shares = []
    with torch.inference_mode():
        for batch in _batches(teacher, images, batch_size):
            with AttentionTaps(teacher.model, maps=True) as taps:
                teacher.model(batch)
            shares.append(shares_of(teacher, taps.maps))
    curve = metrics.mass_curve(torch.cat(shares))
    return ImageFacts(tuple(curve.tolist()), activation_ranges(teacher, images, batch_size))


def measure_student(teacher: Backbone, student: nn.Module, images: Tensor, batch_size: int) -> StudentFacts:
    """Attention distance and agreement of Q with P on images (n, C, H, W) in normalized space."""
    distances, sizes = [], []
    compared: dict[tuple[float, str], list[dict[str, Tensor]]] = {}
    with torch.inference_mode():
        for batch in _batches(teacher, images, batch_size):
            with AttentionTaps(teacher.model, maps=True) as wanted:
                expected = teacher.model(batch)
            with AttentionTaps(student, maps=True) as given:
                logits = student(batch)
            distances.append(metrics.attention_distance(wanted.maps, given.maps))
            sizes.append(len(batch))
            shares = shares_of(teacher, wanted.maps)
            answers = {(1.0, "all"): logits}
            for kept, patches, view in _views(teacher, batch, shares):
                answers[kept, patches] = student(view)
            for view_name, answer in answers.items():
                compared.setdefault(view_name, []).append(_compared(answer, expected))
    weights = torch.tensor(sizes, device=teacher.device) / sum(sizes)
    return StudentFacts(
        tuple((torch.stack(distances) * weights.unsqueeze(1)).sum(dim=0).tolist()),
        tuple(_agreement(kept, patches, parts) for (kept, patches), parts in compared.items()),
    )


def shares_of(teacher: Backbone, maps: list[Tensor]) -> Tensor:
    """Share of the attention mass that each image patch holds, (B, n), from the maps of every layer."""
    if teacher.prefix_tokens:
        return metrics.patch_shares([metrics.cls_attention(layer, teacher.prefix_tokens) for layer in maps])
    blocks: list[Any] = [m for m in teacher.model.modules() if isinstance(m, ExplicitSwinBlock)]
    return metrics.patch_shares(
        [
            metrics.on_patches(
                metrics.window_attention(
                    layer, grid=block.input_resolution, window=block.window_size, shift=block.shift_size
                ),
                teacher.patch_grid,
            )
            for layer, block in zip(maps, blocks, strict=True)
        ]
    )


def activation_ranges(teacher: Backbone, images: Tensor, batch_size: int) -> dict[str, metrics.Range]:
    """Lowest and highest value at every quantization point of `psaq_ptq`, in full precision.

    Raises methods.base.TrainingFailed when an activation is not finite.
    """
    from methods.base import FixedImages, QuantizationTask, SyntheticImages
    from methods.bits import Bits
    from methods.engines.psaq_ptq import PsaqPtq, PsaqPtqConfig
    from methods.quantization.activations import MinMaxQuantizer

    labels = torch.full((len(images),), -1)
    source = FixedImages(SyntheticImages(images.to(teacher.device), labels))
    bits = Bits(_OBSERVED_BITS, _OBSERVED_BITS)
    task = QuantizationTask(teacher, source, bits, torch.Generator())
    observed = PsaqPtq(PsaqPtqConfig(batch_size=batch_size)).quantize(task)
    places = {"input": "input_quantizer"}
    places |= {point: f"{point}.output_quantizer" for point in teacher.quantization_points()}
    ranges = {}
    for point, place in places.items():
        quantizer: Any = observed.get_submodule(place)
        assert isinstance(quantizer, MinMaxQuantizer)
        ranges[point] = (float(quantizer.low), float(quantizer.high))
    return ranges


def _batches(teacher: Backbone, images: Tensor, batch_size: int) -> Iterable[Tensor]:
    return (batch.to(teacher.device) for batch in images.split(batch_size))


def _views(teacher: Backbone, images: Tensor, shares: Tensor) -> Iterable[tuple[float, str, Tensor]]:
    for kept in KEPT_SHARES:
        for patches in ("informative", "background"):
            informative = patches == "informative"
            view = metrics.keep_patches(images, shares, teacher.patch_grid, kept, informative=informative)
            yield kept, patches, view


def _compared(logits: Tensor, expected: Tensor) -> dict[str, Tensor]:
    from tasks.classification_scoring import compare

    return compare(logits.float(), expected.float())


def _agreement(kept: float, patches: str, parts: list[dict[str, Tensor]]) -> Agreement:
    columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    finite = columns["finite"]
    kl = columns["kl"][finite].double().mean().item() if finite.any() else None
    return Agreement(kept, patches, 100 * columns["agreement"].double().mean().item(), kl)
