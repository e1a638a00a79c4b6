"""What runs on the pretended device and on a real one alike, and where it waits."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from backbones import Backbone
from methods.base import FixedImages, QuantizationTask, SynthesisTask, SyntheticImages
from methods.bits import Bits
from methods.registry import get_engine, get_method, method_names
from methods.settings import configure
from methods.testing.method_contract import LATER_EPOCH
from methods.testing.models import disturbed, seeded, teacher_of

PROJECT = ("methods", "backbones", "tasks", "harness")
FAMILIES = ("vit", "swin", "yolos", "mask_rcnn")
TABLE = yaml.safe_load((Path(__file__).parent / "syncs.yaml").read_text())
METHODS = [
    name
    for name in method_names()
    if (maker := get_method(name).synthesizer) is not None
    and not maker.needs_real_images
    and name != "image_folder"  # reads a folder
]
FEWEST = {"fdd": 10}
"""Iterations of a method that does not run with two."""
_COUNTS = ("iterations", "refresh_iterations")


def moved(teacher: Backbone, device: torch.device) -> Backbone:
    """The teacher on the device."""
    return dataclasses.replace(teacher, model=copy.deepcopy(teacher.model).to(device))


def made(name: str, teacher: Backbone, iterations: int) -> SyntheticImages:
    """Two images of a method after so many iterations; where images depend on a student, a later set."""
    maker = get_method(name).synthesizer
    assert maker is not None
    known = {field.name for field in dataclasses.fields(maker.Config)}
    sizes = {"images": 2, "batch_size": 2} | dict.fromkeys(_COUNTS, iterations)
    config = configure(maker.Config, "smoke", {key: sizes[key] for key in sorted(known & set(sizes))})
    student = None
    if maker.needs_student:
        student = disturbed(teacher_of(teacher.spec.family)).to(teacher.device)
    synthesizer = maker(config)
    task = SynthesisTask(teacher, seeded(), student=student)
    first = synthesizer.synthesize(task)
    if student is None:
        return first
    return synthesizer.synthesize(dataclasses.replace(task, epoch=LATER_EPOCH, previous=first))


def student_of(engine_name: str, teacher: Backbone, images: Tensor) -> nn.Module:
    """The W4A4 student that an engine makes of these images under the smoke budget."""
    engine = get_engine(engine_name)
    labels = teacher.guidance.nothing(len(images)).to(images.device)
    task = QuantizationTask(teacher, FixedImages(SyntheticImages(images, labels)), Bits(4, 4), seeded())
    return engine(configure(engine.Config, "smoke", {})).quantize(task)


def line_of_project() -> str:
    """The innermost line of the project on the stack: `methods/synthesis/loop.py:120 optimize`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        rooms = [index for index, part in enumerate(path.parts) if part in PROJECT]
        if rooms and "site-packages" not in path.parts and "tests" not in path.parts:
            return f"{'/'.join(path.parts[rooms[0] :])}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
