"""Methods: a synthesizer that makes images, paired with an engine that quantizes with them.

Importing this package or any built-in method imports neither torch nor a data set.
"""

from methods.base import (
    CoupledImages,
    Engine,
    FixedImages,
    ImageSource,
    Method,
    Progress,
    QuantizationTask,
    SynthesisFailed,
    SynthesisTask,
    Synthesizer,
    SyntheticImages,
    Training,
    TrainingEngine,
    TrainingState,
    UnsupportedPair,
)
from methods.bits import FULL_PRECISION, Bits
from methods.registry import engine_names, get_engine, get_method, load_plugin, method_names
from methods.settings import configure, setting

__all__ = [
    "FULL_PRECISION",
    "Bits",
    "CoupledImages",
    "Engine",
    "FixedImages",
    "ImageSource",
    "Method",
    "Progress",
    "QuantizationTask",
    "SynthesisFailed",
    "SynthesisTask",
    "Synthesizer",
    "SyntheticImages",
    "Training",
    "TrainingEngine",
    "TrainingState",
    "UnsupportedPair",
    "configure",
    "engine_names",
    "get_engine",
    "get_method",
    "load_plugin",
    "method_names",
    "setting",
]
