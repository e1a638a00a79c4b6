"""Backbones: names to loaded, frozen teachers whose attention can be tapped and quantized."""

from backbones.base import Backbone, BackboneSpec, DataConfig
from backbones.families.family import Family
from backbones.loading import (
    WeightsError,
    check_weights,
    find_weights,
    load_backbone,
    sha256_of_file,
    sha256_of_weights,
)
from backbones.registry import SPECS, backbone_names, family_of, get_spec, register

__all__ = [
    "SPECS",
    "Backbone",
    "BackboneSpec",
    "DataConfig",
    "Family",
    "WeightsError",
    "backbone_names",
    "check_weights",
    "family_of",
    "find_weights",
    "get_spec",
    "load_backbone",
    "register",
    "sha256_of_file",
    "sha256_of_weights",
]
