"""What the detection tasks share: batches of equal canvases, scoring, and images to calibrate with.

A subclass says what a split's images show. Only images of equal canvas run together, so that no score
depends on what else is in a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from backbones.base import Backbone, DataConfig
from backbones.guidance.outputs import Detections, centres
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import canvas_size, on_canvas, to_canvas, to_image
from tasks.base import DataError, Evaluation, EvaluationOptions, Split, Task
from tasks.detection_scoring import MOST, Found, Truth, agreement, coco_scores, encoded_masks, rows_of
from tasks.image_files import ReadingReport

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH_PIXELS = 2**22
"""Most pixels of a batch, so that it fits in memory: four photographs at 800 x 1,333."""
SHOWN = 6
"""First images of a split whose detections an evaluation keeps."""


class Scene(NamedTuple):
    """One image at the size that a detector sees, before normalization and padding."""

    name: str
    pixels: Tensor
    """(C, h, w): uint8, or float in [0, 1]."""
    truth: Truth

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `pixels`."""
        return self.pixels.shape[-1], self.pixels.shape[-2]


@dataclass(frozen=True)
class _Answers:
    """What a model says of some images, in their order."""

    found: list[Found]
    rows: Tensor
    """(n, 100, 6), `rows_of` each."""
    broken: int
    """Images with outputs that are not finite: nothing was found there."""


class DetectionTask(Task):
    """Boxes of objects, scored by COCO's rules."""

    primary_metric = "ap"
    detects = True
    outputs_dtype = "float32"
    class_names: tuple[str, ...]
    """Name of each class index."""

    @abstractmethod
    def sample_count(self, split: Split) -> int:
        """Images of the split, readable or not."""

    @abstractmethod
    def scenes(self, split: Split, data: DataConfig, report: ReadingReport) -> Iterator[Scene]:
        """The split's readable images in their fixed order; fills `report`. Raises DataError."""

    @abstractmethod
    def calibration_scenes(self, data: DataConfig, count: int, seed: int) -> list[Scene]:
        """`count` images of the tune split, drawn by `seed`, that fit inside `data.input_size`."""

    def data_notes(self) -> tuple[str, ...]:
        """What a reader should know of the annotations."""
        return ()

    def evaluate(
        self,
        model: nn.Module,
        backbone: Backbone,
        split: Split,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> Evaluation:
        """Score `model`; raises DataError for a backbone trained on other data, or without any object."""
        import torch

        self._refuse_other(backbone)
        report = ReadingReport()
        total = self.sample_count(split)
        names: list[str] = []
        truths: list[Truth] = []
        answers, expected = [], []
        with torch.inference_mode():
            read = self.scenes(split, backbone.data, report)
            for scenes in _batches(read, backbone.data, options.batch_size):
                answers.append(_answered(model, backbone, scenes))
                if options.reference is None and model is not backbone.model:
                    expected.append(_answered(backbone.model, backbone, scenes).rows)
                names += [scene.name for scene in scenes]
                truths += [scene.truth for scene in scenes]
                if options.progress is not None:
                    options.progress(len(names), total, {})
        found = [one for answer in answers for one in answer.found]
        rows = torch.cat([answer.rows for answer in answers])
        reference = torch.cat(expected) if expected else options.reference
        same = _agreements(rows, rows if reference is None else reference)
        scores = coco_scores(truths, found)
        if self.primary_metric not in scores.metrics:
            raise DataError(f"the {split} split of {self.name} shows no object to find: give more images")
        return Evaluation(
            metrics={**scores.metrics, "agreement": 100 * same.double().mean().item()},
            outcomes={"ap": torch.from_numpy(scores.image_ap).float(), "agreement": same},
            sample_ids=tuple(names),
            outputs=rows if options.keep_outputs else None,
            shown=rows[:SHOWN].clone(),
            notes=(*self.data_notes(), *report.notes(), *scores.notes, *_broken_note(answers, len(names))),
        )

    def calibration_images(self, backbone: Backbone, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images of the tune split, each as large as it fits on the canvas `data.input_size`, with targets.

        Targets are (n, 100, 5) float32 rows; more than 100 objects of one image are cut off.
        """
        import torch

        self._refuse_other(backbone)
        _, height, width = backbone.data.input_size
        scenes = self.calibration_scenes(backbone.data, count, seed)
        images = [on_canvas(normalized(s.pixels, backbone.data), (width, height)) for s in scenes]
        targets = [target_rows(s.truth, s.size, (width, height)) for s in scenes]
        return torch.stack(images), torch.stack(targets)

    def _refuse_other(self, backbone: Backbone) -> None:
        if backbone.spec.dataset != self.name:
            raise DataError(
                f"{backbone.spec.name} was trained on {backbone.spec.dataset}: the task {self.name} needs a "
                f"backbone trained on {self.name}"
            )


def target_rows(truth: Truth, size: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    """(100, 5) float32: class, centre x, centre y, width, height in shares of the canvas; class -1 is unused.

    The image has `size` (width, height) pixels on the canvas. Crowds are left out.
    """
    import torch

    rows = torch.zeros(MOST, 5)
    rows[:, 0] = -1
    single = (~truth.crowd).nonzero()[:MOST, 0]
    shares = truth.boxes[single] / truth.boxes.new_tensor([*truth.size, *truth.size])
    rows[: len(single), 0] = truth.labels[single].float()
    rows[: len(single), 1:] = centres(to_canvas(shares, size, canvas)).float()
    return rows


def _batches(scenes: Iterable[Scene], data: DataConfig, batch_size: int) -> Iterator[list[Scene]]:
    """Consecutive scenes of one canvas size, at most `batch_size`, fewer of large ones."""
    batch: list[Scene] = []
    canvas = (0, 0)
    for scene in scenes:
        before, canvas = canvas, canvas_size(scene.size, data)
        most = min(batch_size, max(1, _BATCH_PIXELS // (canvas[0] * canvas[1])))
        if batch and (canvas != before or len(batch) >= most):
            yield batch
            batch = []
        batch.append(scene)
    if batch:
        yield batch


def canvas_agreements(student: Any, teacher: Any, images: Tensor) -> Tensor:
    """(B,) in [0, 1]: how far two detectors agree on images (B, C, H, W) without truth; see `agreement`."""
    return _agreements(_canvas_rows(student, images), _canvas_rows(teacher, images))


def _canvas_rows(model: Any, images: Tensor) -> Tensor:
    """(B, 100, 6), `rows_of` on the whole canvas; no rows where the outputs are not finite."""
    import torch

    outputs = model(images)
    size = (images.shape[-1], images.shape[-2])
    rows = []
    for finite, detections in zip(_finite(outputs), model.detections(outputs), strict=True):
        kept = detections if finite else Detections(*(part[:0] for part in detections[:3]))
        boxes = kept.boxes[:MOST].cpu().double()
        located = Found(
            boxes * boxes.new_tensor([*size, *size]), kept.labels[:MOST].cpu(), kept.scores[:MOST].cpu()
        )
        rows.append(rows_of(located, size))
    return torch.stack(rows)


def _answered(model: Any, backbone: Backbone, scenes: Sequence[Scene]) -> _Answers:
    import torch

    data = backbone.data
    canvas = canvas_size(scenes[0].size, data)
    images = torch.stack([on_canvas(normalized(scene.pixels, data), canvas) for scene in scenes])
    outputs = model(images.to(backbone.device))
    finite = _finite(outputs)
    found = []
    for index, (scene, detections) in enumerate(zip(scenes, model.detections(outputs), strict=True)):
        finite[index] &= bool(detections.scores.isfinite().all() and detections.boxes.isfinite().all())
        found.append(_located(detections, scene, canvas) if finite[index] else _nothing(detections))
    rows = torch.stack([rows_of(one, scene.truth.size) for one, scene in zip(found, scenes, strict=True)])
    return _Answers(found, rows, int((~finite).sum()))


def _finite(outputs: tuple[Any, ...]) -> Tensor:
    """(B,) bool: whether every number that the model gave for an image is finite."""
    import torch

    fields = [field if isinstance(field, tuple) else (field,) for field in outputs]
    tensors = [part for parts in fields for part in parts if isinstance(part, torch.Tensor)]
    return torch.stack([part.flatten(1).isfinite().all(dim=1) for part in tensors]).all(dim=0).cpu()


def _located(detections: Detections, scene: Scene, canvas: tuple[int, int]) -> Found:
    """The best detections, from shares of the canvas to pixels of the scene's image."""
    size = scene.truth.size
    boxes = to_image(detections.boxes[:MOST].cpu().double(), scene.size, canvas)
    boxes = boxes * boxes.new_tensor([*size, *size])
    labels, scores = detections.labels[:MOST].cpu(), detections.scores[:MOST].cpu().double()
    if detections.masks is None:
        return Found(boxes, labels, scores)
    return Found(boxes, labels, scores, encoded_masks(detections.masks[:MOST].cpu(), boxes, size))


def _nothing(detections: Detections) -> Found:
    import torch

    none = torch.zeros(0, dtype=torch.float64)
    return Found(none.view(0, 4), none.long(), none, None if detections.masks is None else ())


def _agreements(rows: Tensor, expected: Tensor) -> Tensor:
    """(n,) float32; raises DataError when the two belong to other images."""
    import torch

    if len(rows) != len(expected):
        raise DataError(
            f"the full-precision detections are of {len(expected)} images, but {len(rows)} were read: "
            "evaluate it again"
        )
    return torch.tensor([agreement(ours, theirs) for ours, theirs in zip(rows, expected, strict=True)])


def _broken_note(answers: Iterable[_Answers], images: int) -> tuple[str, ...]:
    broken = sum(answer.broken for answer in answers)
    text = f"{broken} of {images} images gave outputs that are not finite; they count as without detections"
    return (text,) if broken else ()
