"""Backbones: names to loaded, frozen teachers whose attention can be tapped and quantized."""

from backbones.base import Backbone, BackboneSpec, DataConfig, Family
from backbones.loading import WeightsError, find_weights, load_backbone, sha256_of_file
from backbones.specs import SPECS

__all__ = [
    "SPECS",
    "Backbone",
    "BackboneSpec",
    "DataConfig",
    "Family",
    "WeightsError",
    "find_weights",
    "load_backbone",
    "sha256_of_file",
]
