"""Every method and engine on a device that is not the CPU: the same answer, and few waits for the host."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones import Backbone
from methods.base import FixedImages, QuantizationTask, SynthesisTask, SyntheticImages
from methods.bits import Bits
from methods.registry import engine_names, get_engine, get_method, method_names
from methods.settings import configure
from methods.synthesis import patch_similarity
from methods.testing.method_contract import LATER_EPOCH
from methods.testing.models import disturbed, images_for, seeded, teacher_of
from tests.pretend_cuda.device import DEVICE, PretendCuda

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FAMILIES = ("vit", "swin", "yolos", "mask_rcnn")
TABLE = yaml.safe_load((Path(__file__).parent / "syncs.yaml").read_text())
METHODS = [
    name
    for name in method_names()
    if (maker := get_method(name).synthesizer) is not None
    and not maker.needs_real_images
    and name != "image_folder"  # reads a folder
]
CLOSE = 1e-3
"""Of images in normalized space, and of weights. All but YOLOS, whose gradients add up in another order, are
equal to the last bit."""
FEWEST = {"fdd": 10}
"""Iterations of a method that does not run with two."""
_COUNTS = ("iterations", "refresh_iterations")


def _all_points(spacing: Tensor, points: int, bandwidth: float) -> int:
    return points


@contextlib.contextmanager
def as_on_the_device() -> Iterator[None]:
    """The CPU with the device's kernel of attention, and every grid point of a density counted as there."""
    reach = mock.patch.object(patch_similarity, "_neighbours", _all_points)
    with sdpa_kernel(SDPBackend.MATH), reach:
        yield


def moved(teacher: Backbone, device: torch.device = DEVICE) -> Backbone:
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_images_are_those_of_the_cpu_and_the_host_rarely_waits(name, family):
    maker = get_method(name).synthesizer
    if family not in maker.families:
        pytest.skip(f"{name} does not run on {family}")
    teacher, fewest = teacher_of(family), FEWEST.get(name, 2)
    with as_on_the_device():
        expected = made(name, teacher, fewest)
    with PretendCuda() as cuda:
        there = moved(teacher)
        waits = []
        for iterations in (fewest, fewest + 2):
            cuda.forget()
            found = made(name, there, iterations)
            waits.append(sum(cuda.syncs.values()))
            if iterations == fewest:
                assert found.images.device == DEVICE
                torch.testing.assert_close(found.images.cpu(), expected.images, rtol=0, atol=CLOSE)
                assert torch.equal(found.labels.cpu(), expected.labels)
        places = cuda.places.most_common(12)
    per_iteration = (waits[1] - waits[0]) / 2
    assert per_iteration == TABLE["synthesis"][name][family], places


def student_of(engine_name: str, teacher: Backbone, images: Tensor) -> nn.Module:
    """The W4A4 student that an engine makes of these images under the smoke budget."""
    engine = get_engine(engine_name)
    labels = teacher.guidance.nothing(len(images)).to(images.device)
    task = QuantizationTask(teacher, FixedImages(SyntheticImages(images, labels)), Bits(4, 4), seeded())
    return engine(configure(engine.Config, "smoke", {})).quantize(task)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", engine_names())
def test_students_are_those_of_the_cpu_and_answer_without_a_wait(name, family):
    if family not in get_engine(name).families:
        pytest.skip(f"{name} does not run on {family}")
    teacher, images = teacher_of(family), images_for(teacher_of(family), 4)
    with as_on_the_device():
        expected = student_of(name, teacher, images).state_dict()
    with PretendCuda() as cuda:
        student = student_of(name, moved(teacher), images.to(DEVICE))
        for key, value in student.state_dict().items():
            assert value.device == DEVICE, key
            torch.testing.assert_close(
                value.cpu(), expected[key], rtol=0, atol=CLOSE, msg=lambda said, key=key: f"{key}: {said}"
            )
        there = images.to(DEVICE)
        with torch.no_grad():
            student(there)  # reads the ranges out, once until they change
            cuda.forget()
            student(there)
    assert sum(cuda.syncs.values()) == TABLE["answer"][name][family], cuda.places.most_common(12)
