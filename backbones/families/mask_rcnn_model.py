"""Mask R-CNN on a Swin: the detector of the published COCO tables, from timm's and torchvision's modules.

It computes what the Swin authors' detection code (mmdet 2, config `mask_rcnn_swin_fpn`) computes with the
same weights: settings and formulas were read in public copies of that code, mmcv's RoIAlign and NMS are from
memory, and the tests write all of them anew and compare. No run of an official checkpoint has been compared.
Two known differences: boxes are cut at the padded canvas, since the model is not told where the image in it
ends, and no image is resized here.

    MaskRcnn
      backbone.body    explicit Swin without head       rpn.head      objectness and refinement of anchors
      backbone.norms   one LayerNorm per stage          roi_heads     class, box and mask of every region
      backbone.fpn     the pyramid, strides 4 to 64

Knows nothing about files and their key names, data sets or scores.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, batched_nms, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from backbones.families.explicit import ExplicitSwinBlock, make_explicit
from backbones.families.family import Architecture
from backbones.families.regions import RATIOS, STRIDES, ClampedBoxCoder, level_anchors, pooled
from backbones.guidance.outputs import Detections, RegionOutputs

_BOX_SIZE, _MASK_SIZE = 7, 14
"""Cells per side of a region as the box head and the mask head see it."""
_PROPOSALS = 1000
_PROPOSAL_OVERLAP = 0.7
_DETECTIONS = 100
_DETECTION_OVERLAP = 0.5
_LOWEST_SCORE = 0.05


class PaddedSwinBlock(ExplicitSwinBlock):
    """Swin block that pads to whole windows before the cyclic shift, as the detectors were trained.

    timm shifts first, which moves other tokens into the padded windows.
    """

    def _attn(self, x: Tensor) -> Tensor:
        _, rows, columns, _ = x.shape
        padding = (0, 0, 0, -columns % self.window_size[1], 0, -rows % self.window_size[0])
        return super()._attn(F.pad(x, padding))[:, :rows, :columns]


class SwinPyramid(nn.Module):
    """A Swin whose stages feed a feature pyramid of `channels` channels and five levels."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        widths = [stage["num_chs"] for stage in body.feature_info]  # type: ignore[union-attr]
        self.body = body
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())

    def stages(self, images: Tensor) -> list[Tensor]:
        """Normalized output of every stage, each (B, width, h, w)."""
        x = self.body.patch_embed(images)  # type: ignore[operator]
        outputs = []
        for stage, norm in zip(self.body.layers, self.norms, strict=True):  # type: ignore[arg-type]
            x = stage(x)
            outputs.append(norm(x).permute(0, 3, 1, 2).contiguous())
        return outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, C, H, W) -> the levels, finest first."""
        named = OrderedDict((str(index), stage) for index, stage in enumerate(self.stages(images)))
        return tuple(self.fpn(named).values())


class RegionProposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposals on mmdet's anchors, without its distinction of training."""

    def __init__(self, channels: int) -> None:
        limit = {"training": _PROPOSALS, "testing": _PROPOSALS}
        super().__init__(
            anchor_generator=None,
            head=RPNHead(channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=limit,
            post_nms_top_n=limit,
            nms_thresh=_PROPOSAL_OVERLAP,
        )
        self.box_coder = ClampedBoxCoder((1.0, 1.0, 1.0, 1.0))
        self.min_size = 0.0

    def forward(self, levels: Sequence[Tensor], canvas: tuple[int, int]) -> tuple[list[Tensor], ...]:
        """Objectness and refinements per level, and the proposals of every image, (n, 4) pixels each."""
        objectness, deltas = self.head(list(levels))
        return objectness, deltas, self.propose(objectness, deltas, canvas)

    @torch.no_grad()
    def propose(
        self, objectness: list[Tensor], deltas: list[Tensor], canvas: tuple[int, int]
    ) -> list[Tensor]:
        """The best boxes of every image that do not overlap much on their level, inside `canvas` (H, W)."""
        batch, device = len(objectness[0]), objectness[0].device
        anchors = [
            level_anchors(level.shape[2], level.shape[3], stride, device)
            for level, stride in zip(objectness, STRIDES, strict=True)
        ]
        scores, codes = concat_box_prediction_layers(objectness, deltas)
        boxes = self.box_coder.decode(codes, [torch.cat(anchors)] * batch).view(batch, -1, 4)
        counts = [len(level) for level in anchors]
        proposals: list[Tensor] = self.filter_proposals(boxes, scores, [canvas] * batch, counts)[0]
        return proposals


class RegionHeads(nn.Module):
    """Classes, boxes and masks of regions, without gradient.

    torchvision's `RoIHeads` puts the background first, gives it box refinements of its own and drops small
    boxes. Here, as in mmdet, it is the last class and has none: weights keep their order, and no row of zeros
    is left to quantize. No head runs without a region, since quantizers cannot watch an empty tensor.
    """

    def __init__(self, channels: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.box_head = TwoMLPHead(channels * _BOX_SIZE**2, hidden)
        self.class_logits = nn.Linear(hidden, num_classes + 1)
        self.box_deltas = nn.Linear(hidden, num_classes * 4)
        self.mask_head = MaskRCNNHeads(channels, (channels,) * 4, dilation=1)
        self.mask_predictor = MaskRCNNPredictor(channels, channels, num_classes)
        self.box_coder = ClampedBoxCoder((10.0, 10.0, 5.0, 5.0))

    @torch.no_grad()
    def forward(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], canvas: tuple[int, int]
    ) -> tuple[Detections, ...]:
        """What is found inside the proposals of every image, boxes in shares of `canvas` (H, W)."""
        logits, deltas = self.box_outputs(pooled(levels, proposals, _BOX_SIZE))
        boxes = self.box_coder.decode_single(deltas, torch.cat(list(proposals)))
        boxes = clip_boxes_to_image(boxes.view(len(boxes), self.num_classes, 4), canvas)
        counts = [len(boxes_of_image) for boxes_of_image in proposals]
        per_image = zip(torch.split(logits.softmax(-1), counts), torch.split(boxes, counts), strict=True)
        found = [best_of_classes(scores[:, :-1], refined) for scores, refined in per_image]
        masks = self.masks(levels, found)
        extent = boxes.new_tensor([canvas[1], canvas[0]] * 2)
        return tuple(
            one._replace(boxes=one.boxes / extent, masks=mask) for one, mask in zip(found, masks, strict=True)
        )

    def box_outputs(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (n, C, 7, 7) -> logits (n, classes + 1), background last, and deltas (n, classes * 4)."""
        if len(regions) == 0:
            return regions.new_zeros(0, self.num_classes + 1), regions.new_zeros(0, self.num_classes * 4)
        hidden = self.box_head(regions)
        return self.class_logits(hidden), self.box_deltas(hidden)

    def mask_logits(self, regions: Tensor) -> Tensor:
        """Regions (n, C, 14, 14) -> a mask for every class, (n, classes, 28, 28)."""
        if len(regions) == 0:
            return regions.new_zeros(0, self.num_classes, 2 * _MASK_SIZE, 2 * _MASK_SIZE)
        logits: Tensor = self.mask_predictor(self.mask_head(regions))
        return logits

    def masks(self, levels: Sequence[Tensor], found: Sequence[Detections]) -> tuple[Tensor, ...]:
        """Mask probabilities of the found classes inside the found boxes (pixels), (n, 28, 28) per image."""
        labels = torch.cat([one.labels for one in found])
        logits = self.mask_logits(pooled(levels, [one.boxes for one in found], _MASK_SIZE))
        chosen = logits[torch.arange(len(labels), device=labels.device), labels]
        return torch.split(chosen.sigmoid(), [len(one.labels) for one in found])


def best_of_classes(scores: Tensor, boxes: Tensor) -> Detections:
    """At most 100 detections of one image, overlapping ones of a class removed; best score first.

    `scores` are (n, classes) in [0, 1] and `boxes` (n, classes, 4); every region may be of several classes.
    """
    regions, labels = (scores > _LOWEST_SCORE).nonzero(as_tuple=True)
    scores, boxes = scores[regions, labels], boxes[regions, labels]
    kept = batched_nms(boxes, scores, labels, _DETECTION_OVERLAP)[:_DETECTIONS]
    return Detections(scores[kept], labels[kept], boxes[kept])


class MaskRcnn(nn.Module):
    """A two-stage detector with masks on an explicit Swin; see the module's docstring."""

    def __init__(self, body: nn.Module, num_classes: int, *, channels: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = SwinPyramid(body, channels)
        self.rpn = RegionProposals(channels)
        self.roi_heads = RegionHeads(channels, hidden, num_classes)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # hooks and quantizers keep the tensor before it

    def forward(self, images: Tensor) -> RegionOutputs:
        """Normalized images (B, C, H, W) of any size whose sides are multiples of 32."""
        canvas = (images.shape[2], images.shape[3])
        levels = self.backbone(images)
        objectness, deltas, proposals = self.rpn(levels, canvas)
        detections = self.roi_heads(levels, proposals, canvas)
        return RegionOutputs(levels, tuple(objectness), tuple(deltas), detections)

    def detections(self, outputs: RegionOutputs) -> list[Detections]:
        """What was found, one entry per image."""
        return list(outputs.detections)


def build_mask_rcnn(spec: Architecture) -> MaskRcnn:
    """The untrained model of a specification of family `mask_rcnn`.

    `spec.model_settings` are timm's for the Swin, besides `pyramid_channels` and `box_hidden`, which narrow
    the heads of tiny models.
    """
    import timm

    settings = dict(spec.model_settings)
    channels, hidden = settings.pop("pyramid_channels", 256), settings.pop("box_hidden", 1024)
    body = timm.create_model(
        spec.timm_name,
        pretrained=False,
        img_size=spec.data.input_size[1:],
        strict_img_size=False,
        always_partition=True,  # windows keep their size on small images, and are padded
        drop_path_rate=0.0,
        **settings,
    )
    body.norm, body.head = nn.Identity(), nn.Identity()
    for module in make_explicit(body).modules():
        if isinstance(module, ExplicitSwinBlock):
            module.__class__ = PaddedSwinBlock
    return MaskRcnn(body, spec.num_classes, channels=channels, hidden=hidden)
