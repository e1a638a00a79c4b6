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
from methods.base import FixedImages, QuantizationTask, SyntheticImages
from methods.bits import Bits
from methods.engines.psaq_ptq import PsaqPtq, PsaqPtqConfig
from methods.quantization.activations import MinMaxQuantizer
from tasks.classification_scoring import compare

KEPT_SHARES = (0.1, 0.25, 0.5)
"""Shares of the patches that are left of an image: MaskAQ's last mask, one between, and its first."""
TOP = 0.1
"""Share of the patches whose attention mass is told: MaskAQ's last mask."""
PATCHES = ("top", "random", "bottom")
"""Which patches are left: those with the most attention of P, any, those with the least."""
_OBSERVED_BITS = 8
"""Any width would do: ranges are observed before values are rounded."""


class View(NamedTuple):
    """Images of which a model sees some patches."""

    kept: float
    """Share of the patches that is left."""
    patches: str
    """One of `PATCHES`, or `all`."""


class Answers(NamedTuple):
    """A model's answers on one view of images, beside P's on the whole images."""

    agreement_percent: float
    """Same first answer."""
    kl: float | None
    """Mean KL(P || model) over the softmax, in nats, of the images with finite logits; None without any."""
    information: float | None
    """`metrics.information` of the class that P sees in the whole image, of the images with finite logits."""


class Margin(NamedTuple):
    """How much better answers on the top patches are than on as many others, image by image."""

    kept: float
    over: str
    """Which the others are: `random` or `bottom`."""
    points: float
    """Agreement on top minus agreement on the others, in percentage points."""
    interval: float
    """Half the width of its 95 % interval."""


@dataclass(frozen=True)
class Dependence:
    """What a model's answers owe to which patches."""

    answers: Mapping[View, Answers]
    """Whole images first, then parts of them."""
    margins: tuple[Margin, ...]
    """For every kept share, over random and over bottom patches."""


WHOLE = View(1.0, "all")


@dataclass(frozen=True)
class ImageFacts:
    """What P and the real images tell of a set; no student takes part."""

    curve: tuple[float, ...]
    """`metrics.mass_curve`: attention mass of the strongest 1..n patches, mean over heads and layers."""
    heads: tuple[tuple[float, ...], ...]
    """Layer by layer, head by head: attention mass in the strongest `TOP` of the head's own patches."""
    dependence: Dependence
    """P's own answers on parts of the images."""
    entropy: float
    """Of the classes that P sees in the images, in nats: the most that `Answers.information` can be."""
    ranges: Mapping[str, metrics.Range]
    """Quantization point of `psaq_ptq` -> lowest and highest value, in forward order."""

    @property
    def layers(self) -> tuple[float, ...]:
        """Mean over the heads of every layer."""
        return tuple(sum(heads) / len(heads) for heads in self.heads)


@dataclass(frozen=True)
class StudentFacts:
    """What a student makes of a set of images."""

    attention_distance: tuple[float, ...]
    """`metrics.attention_distance` of every layer."""
    dependence: Dependence

    @property
    def mean_distance(self) -> float:
        """Mean over layers."""
        return sum(self.attention_distance) / len(self.attention_distance)


def measure_images(teacher: Backbone, images: Tensor, batch_size: int) -> ImageFacts:
    """Attention, answers and activation ranges of P on images (n, C, H, W) in normalized space."""
    shares, seen, sizes = [], [], []
    answers = _AnswersOn(teacher)
    with torch.inference_mode():
        for batch in _batches(teacher, images, batch_size):
            with AttentionTaps(teacher.model, maps=True) as taps:
                expected = teacher.model(batch)
            layers = attention_of(teacher, taps.maps)
            seen.append([metrics.concentration(layer, TOP) for layer in layers])
            sizes.append(len(batch))
            shares.append(shares_of(layers))
            answers.add(teacher.model, batch, shares[-1], expected, expected)
    weights = [size / sum(sizes) for size in sizes]
    return ImageFacts(
        tuple(metrics.mass_curve(torch.cat(shares)).tolist()),
        tuple(_weighted(list(layer), weights) for layer in zip(*seen, strict=True)),
        answers.dependence(),
        answers.entropy(),
        activation_ranges(teacher, images, batch_size),
    )


def measure_student(teacher: Backbone, student: nn.Module, images: Tensor, batch_size: int) -> StudentFacts:
    """Attention distance and agreement of Q with P on images (n, C, H, W) in normalized space."""
    distances, sizes = [], []
    answers = _AnswersOn(teacher)
    with torch.inference_mode():
        for batch in _batches(teacher, images, batch_size):
            with AttentionTaps(teacher.model, maps=True) as wanted:
                expected = teacher.model(batch)
            with AttentionTaps(student, maps=True) as given:
                logits = student(batch)
            distances.append(metrics.attention_distance(wanted.maps, given.maps))
            sizes.append(len(batch))
            answers.add(student, batch, shares_of(attention_of(teacher, wanted.maps)), logits, expected)
    return StudentFacts(_weighted(distances, [size / sum(sizes) for size in sizes]), answers.dependence())


def attention_of(teacher: Backbone, maps: list[Tensor]) -> list[Tensor]:
    """Attention that each image patch gets in every head of every layer: L x (B, H, n), from the maps."""
    if teacher.prefix_tokens:
        return [metrics.cls_attention(layer, teacher.prefix_tokens) for layer in maps]
    blocks: list[Any] = [m for m in teacher.model.modules() if isinstance(m, ExplicitSwinBlock)]
    return [
        metrics.on_patches(
            metrics.window_attention(
                layer, grid=block.input_resolution, window=block.window_size, shift=block.shift_size
            ),
            teacher.patch_grid,
        )
        for layer, block in zip(maps, blocks, strict=True)
    ]


def shares_of(layers: list[Tensor]) -> Tensor:
    """Share of the attention mass that each image patch holds over all heads and layers, (B, n)."""
    return metrics.patch_shares([layer.mean(dim=1) for layer in layers])


def activation_ranges(teacher: Backbone, images: Tensor, batch_size: int) -> dict[str, metrics.Range]:
    """Lowest and highest value at every quantization point of `psaq_ptq`, in full precision.

    Raises methods.base.TrainingFailed when an activation is not finite.
    """
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
    return (batch.to(teacher.device) for batch in torch.split(images, batch_size))


def _weighted(values: list[Tensor], weights: list[float]) -> tuple[float, ...]:
    """Mean of tensors of one shape, each batch counting as its images."""
    total = torch.stack([weight * value for value, weight in zip(values, weights, strict=True)]).sum(dim=0)
    return tuple(total.tolist())


class _AnswersOn:
    """Collects a model's answers on views of images, batch by batch, and P's on the whole images."""

    def __init__(self, teacher: Backbone) -> None:
        self._teacher = teacher
        self._chance = torch.Generator().manual_seed(0)
        """The same random patches for every model and every set."""
        self._logits: dict[View, list[Tensor]] = {}
        self._expected: list[Tensor] = []

    def add(self, model: nn.Module, images: Tensor, shares: Tensor, logits: Tensor, expected: Tensor) -> None:
        """`logits` and `expected` are the model's and P's on the whole images, `shares` those of P."""
        self._expected.append(expected.float())
        self._logits.setdefault(WHOLE, []).append(logits.float())
        chance = torch.rand(shares.shape, generator=self._chance).to(shares)
        for kept in KEPT_SHARES:
            for patches in PATCHES:
                scores, highest = chance if patches == "random" else shares, patches != "bottom"
                view = metrics.keep_patches(images, scores, self._teacher.patch_grid, kept, highest=highest)
                self._logits.setdefault(View(kept, patches), []).append(model(view).float())

    def entropy(self) -> float:
        """Of the classes that P sees."""
        return metrics.entropy(torch.cat(self._expected).argmax(dim=1))

    def dependence(self) -> Dependence:
        """What all of it says."""
        expected = torch.cat(self._expected)
        columns = {
            view: {**compare(logits, expected), "logits": logits}
            for view, logits in ((view, torch.cat(parts)) for view, parts in self._logits.items())
        }
        margins = []
        for kept in KEPT_SHARES:
            for over in PATCHES[1:]:
                top, others = (columns[View(kept, patches)]["agreement"] for patches in ("top", over))
                points, half = metrics.paired_difference(100 * top, 100 * others)
                margins.append(Margin(kept, over, points, half))
        classes = expected.argmax(dim=1)
        return Dependence({view: _answers(found, classes) for view, found in columns.items()}, tuple(margins))


def _answers(columns: Mapping[str, Tensor], classes: Tensor) -> Answers:
    finite = columns["finite"]
    agreement = 100 * columns["agreement"].double().mean().item()
    if not finite.any():
        return Answers(agreement, None, None)
    information = metrics.information(columns["logits"][finite], classes[finite])
    return Answers(agreement, columns["kl"][finite].double().mean().item(), information.mean().item())
