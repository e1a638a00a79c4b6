"""The backbones that come with the harness: names, pinned timm tags, transforms and reference accuracies.

One transform per backbone, that of the PSAQ-ViT and RepQ-ViT code: DeiT resizes to 256 (crop 0.875), ViT
and Swin to 248 (crop 0.9), all bicubic. Detectors do not crop. `harness list backbones` prints this table.
"""

from __future__ import annotations

from typing import Any

from backbones.base import BackboneSpec, DataConfig

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_TIMM_RESULTS = "timm results-imagenet.csv (224 px, crop 0.9, bicubic)"
_REPQ_DETECTION = "RepQ-ViT detection README (zkkli/RepQ-ViT)"
_DEIT_README = "FP rows of the PSAQ-ViT and RepQ-ViT tables (crop 0.875)"


def _imagenet_spec(
    name: str, family: str, published: str, timm_name: str, top1: float, source: str
) -> BackboneSpec:
    mean, std = _HALF if name.startswith("vit") else _IMAGENET
    crop = 0.875 if name.startswith("deit") else 0.9
    return BackboneSpec(
        name=name,
        family=family,
        published_name=published,
        timm_name=timm_name,
        data=DataConfig(input_size=(3, 224, 224), mean=mean, std=std, crop_pct=crop),
        num_classes=1000,
        dataset="imagenet",
        reference_score=top1,
        reference_source=source,
        hub_repository=f"timm/{timm_name}",
    )


def _yolos_spec(
    name: str, published: str, data: DataConfig, settings: dict[str, Any], box_ap: float
) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        family="yolos",
        published_name=published,
        timm_name="",
        data=data,
        num_classes=80,
        dataset="coco",
        reference_score=box_ap,
        reference_source="results table of github.com/hustvl/YOLOS (eval size as here, no padding to 16)",
        model_settings={"patch_size": 16, "depth": 12, "det_tokens": 100, **settings},
        hub_repository=f"hustvl/{name.replace('_', '-')}",
    )


def _coco_data(input_size: tuple[int, int, int], shorter_side: int, longer_side: int) -> DataConfig:
    """The authors' evaluation: the longer side has at most 1333 / 800 times the shorter one's pixels."""
    mean, std = _IMAGENET
    return DataConfig(
        input_size=input_size,
        mean=mean,
        std=std,
        interpolation="bilinear",
        shorter_side=shorter_side,
        longer_side=longer_side,
        pad_multiple=16,
    )


def _mask_rcnn_spec(name: str, published: str, timm_name: str, box_ap: float) -> BackboneSpec:
    mean, std = _IMAGENET
    return BackboneSpec(
        name=name,
        family="mask_rcnn",
        published_name=published,
        timm_name=timm_name,
        data=DataConfig(
            input_size=(3, 640, 640),
            mean=mean,
            std=std,
            interpolation="bilinear",
            shorter_side=800,
            longer_side=1333,
            pad_multiple=32,
        ),
        num_classes=80,
        dataset="coco",
        reference_score=box_ap,
        reference_source=_REPQ_DETECTION,
    )


_DIGITS_SOURCE = "python -m backbones.digits.train_classifiers"
_DIGITS_DATA = DataConfig(input_size=(1, 16, 16), mean=(0.305,), std=(0.319,), interpolation="bilinear")

BUILT_IN: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _imagenet_spec(
            "vit_tiny", "vit", "ViT-T", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 75.45, _TIMM_RESULTS
        ),
        _imagenet_spec(
            "vit_small", "vit", "ViT-S", "vit_small_patch16_224.augreg_in21k_ft_in1k", 81.38, _TIMM_RESULTS
        ),
        _imagenet_spec(
            "vit_base", "vit", "ViT-B", "vit_base_patch16_224.augreg_in21k_ft_in1k", 84.53, _TIMM_RESULTS
        ),
        _imagenet_spec("deit_tiny", "vit", "DeiT-T", "deit_tiny_patch16_224.fb_in1k", 72.21, _DEIT_README),
        _imagenet_spec("deit_small", "vit", "DeiT-S", "deit_small_patch16_224.fb_in1k", 79.85, _DEIT_README),
        _imagenet_spec("deit_base", "vit", "DeiT-B", "deit_base_patch16_224.fb_in1k", 81.85, _DEIT_README),
        _imagenet_spec(
            "swin_tiny", "swin", "Swin-T", "swin_tiny_patch4_window7_224.ms_in1k", 81.38, _TIMM_RESULTS
        ),
        _imagenet_spec(
            "swin_small", "swin", "Swin-S", "swin_small_patch4_window7_224.ms_in1k", 83.21, _TIMM_RESULTS
        ),
        _mask_rcnn_spec("maskrcnn_swin_tiny", "Mask R-CNN Swin-T", "swin_tiny_patch4_window7_224", 46.0),
        _mask_rcnn_spec("maskrcnn_swin_small", "Mask R-CNN Swin-S", "swin_small_patch4_window7_224", 48.5),
        BackboneSpec(
            name="digits_vit",
            family="vit",
            published_name="",
            timm_name="vit_tiny_patch16_224",
            data=_DIGITS_DATA,
            num_classes=10,
            dataset="digits",
            reference_score=98.0,
            reference_source=_DIGITS_SOURCE,
            model_settings={
                "img_size": 16,
                "patch_size": 2,
                "in_chans": 1,
                "num_classes": 10,
                "embed_dim": 64,
                "depth": 4,
                "num_heads": 4,
            },
            shipped_weights="digits_vit.safetensors",
        ),
        BackboneSpec(
            name="digits_swin",
            family="swin",
            published_name="",
            timm_name="swin_tiny_patch4_window7_224",
            data=_DIGITS_DATA,
            num_classes=10,
            dataset="digits",
            reference_score=98.2,
            reference_source=_DIGITS_SOURCE,
            model_settings={
                "img_size": 16,
                "patch_size": 2,
                "in_chans": 1,
                "num_classes": 10,
                "embed_dim": 32,
                "depths": (2, 2),
                "num_heads": (2, 4),
                "window_size": 4,
            },
            shipped_weights="digits_swin.safetensors",
        ),
        _yolos_spec(
            "yolos_tiny",
            "YOLOS-Ti",
            _coco_data((3, 512, 864), 512, 853),
            {"position_size": (800, 1333), "embed_dim": 192, "num_heads": 3, "mid_positions": False},
            28.7,
        ),
        _yolos_spec(
            "yolos_small",
            "YOLOS-S",
            _coco_data((3, 800, 1344), 800, 1333),
            {"position_size": (512, 864), "embed_dim": 384, "num_heads": 6, "mid_positions": True},
            36.1,
        ),
        BackboneSpec(
            name="digits_yolos",
            family="yolos",
            published_name="",
            timm_name="",
            data=DataConfig(
                input_size=(1, 96, 96),
                mean=(0.290,),
                std=(0.157,),
                interpolation="bilinear",
                shorter_side=96,
                longer_side=96,
                pad_multiple=12,
            ),
            num_classes=10,
            dataset="digits_scenes",
            reference_score=77.0,
            reference_source="python -m backbones.digits.train_detector",
            model_settings={
                "position_size": (96, 96),
                "patch_size": 12,
                "embed_dim": 96,
                "depth": 6,
                "num_heads": 4,
                "det_tokens": 16,
                "mid_positions": False,
            },
            shipped_weights="digits_yolos.safetensors",
        ),
    )
}
