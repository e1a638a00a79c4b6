"""Every method and engine on a device that is not the CPU: the same answer, and few waits for the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods.registry import engine_names, get_engine, get_method
from methods.synthesis import patch_similarity
from methods.testing.models import images_for, teacher_of
from tests.pretend_cuda.cases import FAMILIES, FEWEST, METHODS, TABLE, made, moved, student_of
from tests.pretend_cuda.device import DEVICE, PretendCuda

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
CLOSE = 1e-3
"""Of images in normalized space, and of weights. All but YOLOS, whose gradients add up in another order, are
equal to the last bit."""


def _all_points(spacing: Tensor, points: int, bandwidth: float) -> int:
    return points


@contextlib.contextmanager
def as_on_the_device() -> Iterator[None]:
    """The CPU with the device's kernel of attention, and every grid point of a density counted as there."""
    reach = mock.patch.object(patch_similarity, "_neighbours", _all_points)
    with sdpa_kernel(SDPBackend.MATH), reach:
        yield


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
        there = moved(teacher, DEVICE)
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", engine_names())
def test_students_are_those_of_the_cpu_and_answer_without_a_wait(name, family):
    if family not in get_engine(name).families:
        pytest.skip(f"{name} does not run on {family}")
    teacher, images = teacher_of(family), images_for(teacher_of(family), 4)
    with as_on_the_device():
        expected = student_of(name, teacher, images).state_dict()
    with PretendCuda() as cuda:
        student = student_of(name, moved(teacher, DEVICE), images.to(DEVICE))
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
