"""Every method and engine on a real GPU: it runs, repeats its bits, stays near the CPU. Skipped without."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones import Backbone
from harness.stages.cost import environment, measured
from harness.stages.memory import is_out_of_memory, within_memory
from harness.stages.precision import EXACT, FAST, computing, precision_of, unrepeatable
from methods.base import FixedImages, QuantizationTask, SyntheticImages
from methods.bits import Bits
from methods.registry import engine_names, get_engine, get_method
from methods.settings import configure
from methods.testing.models import images_for, seeded, teacher_of
from tests.pretend_cuda.card import AT_HAND, CARD, Card
from tests.pretend_cuda.cases import (
    FAMILIES,
    FEWEST,
    METHODS,
    TABLE,
    made,
    moved,
    student_of,
)

pytestmark = [
    pytest.mark.skipif(not AT_HAND, reason="torch sees no GPU"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of torch's own modules, loaded on the way
]
NEAR = 1e-2
"""Of images in normalized space, and of weights."""
MOST_AFAR = 0.05
"""Share of pixels that may lie further from the CPU's: the sign of a gradient near zero decides a step."""
NUDGE = 1e-6
"""Relative change of a teacher's weights, some roundings: what it does to images, a card may do too."""


def note(name: str, **figures: Any) -> None:
    """Keep figures of a run for a reader, where the environment names a file for them."""
    if file := os.environ.get("CARD_FIGURES"):
        with Path(file).open("a") as lines:
            lines.write(json.dumps({"name": name, **figures}) + "\n")


def afar(found: Tensor, expected: Tensor) -> float:
    """The share of values that lie further than NEAR from what was expected."""
    return ((found.cpu() - expected).abs() > NEAR).float().mean().item()


def nudged(teacher: Backbone) -> Backbone:
    """The teacher with every weight changed by some roundings."""
    model, generator = copy.deepcopy(teacher.model), seeded(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + NUDGE * (2 * torch.rand(weight.shape, generator=generator) - 1))
    return dataclasses.replace(teacher, model=model)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_images_repeat_their_bits_and_are_near_the_cpus(name, family):
    maker = get_method(name).synthesizer
    if family not in maker.families:
        pytest.skip(f"{name} does not run on {family}")
    teacher, fewest = teacher_of(family), FEWEST.get(name, 2)
    expected = made(name, teacher, fewest).images
    unsteady = afar(made(name, nudged(teacher), fewest).images, expected)
    waits = []
    with computing(EXACT, "cuda"):
        device = moved(teacher, CARD)
        found = made(name, device, fewest).images
        again = made(name, device, fewest).images
        with Card() as card:
            for iterations in (fewest, fewest + 2):
                card.forget()
                made(name, device, iterations)
                waits.append(card.waits)
            places = card.places.most_common(8)
        unstable = unrepeatable()
    assert found.device.type == "cuda"
    away = afar(found, expected)
    per_iteration = (waits[1] - waits[0]) / 2
    most = TABLE["card"].get(name, {}).get(family, TABLE["synthesis"][name][family])
    note(
        f"{name} {family}",
        afar=away,
        nudged=unsteady,
        largest=(found.cpu() - expected).abs().max().item(),
        repeats=torch.equal(found, again),
        unrepeatable=unstable,
        waits=per_iteration,
        pretended=TABLE["synthesis"][name][family],
        places=places,
    )
    assert torch.equal(found, again) or unstable
    assert away <= MOST_AFAR + 1.5 * unsteady
    assert per_iteration <= most, places


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", engine_names())
def test_students_repeat_their_bits_and_answer_as_the_cpus_do(name, family):
    if family not in get_engine(name).families:
        pytest.skip(f"{name} does not run on {family}")
    teacher, images = teacher_of(family), images_for(teacher_of(family), 4)
    expected = student_of(name, teacher, images).state_dict()
    with computing(EXACT, "cuda"):
        device = moved(teacher, CARD)
        student = student_of(name, device, images.to(CARD))
        again = student_of(name, device, images.to(CARD)).state_dict()
        with torch.no_grad(), Card() as card:
            student(images.to(CARD))
            card.forget()
            student(images.to(CARD))
            waits, places = card.waits - 1, card.places.most_common(8)  # one brings the images there
        unstable = unrepeatable()
    state = student.state_dict()
    repeats = all(torch.equal(state[key], again[key]) for key in state)
    float_keys = [key for key in state if state[key].is_floating_point()]
    note(
        f"{name} {family}",
        afar=max(afar(state[key], expected[key]) for key in float_keys),
        largest=max((state[key].cpu() - expected[key]).abs().max().item() for key in float_keys),
        repeats=repeats,
        unrepeatable=unstable,
        waits=waits,
        pretended=TABLE["answer"][name][family],
        places=places,
    )
    assert all(value.device.type == "cuda" for value in state.values())
    assert repeats or unstable
    assert waits <= TABLE["answer"][name][family], places


def test_a_training_in_parts_needs_less_memory_and_gives_the_same_student():
    """On a batch that is large beside the model; parts differ in the order of summation alone."""
    teacher = moved(teacher_of("vit"), CARD)
    images = images_for(teacher_of("vit"), 256).to(CARD)
    labels = teacher.guidance.nothing(len(images)).to(CARD)
    source = FixedImages(SyntheticImages(images, labels))
    engine = get_engine("lsq_qat")
    made_with, peaks = {}, {}
    with computing(EXACT, "cuda"):
        for parts in (1, 8):
            task = QuantizationTask(teacher, source, Bits(4, 4), seeded(), parts=parts)
            config = configure(engine.Config, "smoke", {"batch_size": 256, "epochs": 2})
            with measured("cuda") as cost:
                made_with[parts] = engine(config).quantize(task).state_dict()
            peaks[parts] = cost.peak_memory_mb
    note("parts", peaks=peaks)
    assert peaks[8] < 0.5 * peaks[1]
    for key, value in made_with[1].items():
        torch.testing.assert_close(made_with[8][key], value, rtol=1e-3, atol=1e-3, msg=key)


def test_memory_that_runs_out_is_recognised_and_smaller_parts_succeed():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.02)
    told = []
    try:

        def work(parts: int) -> int:
            try:
                return len(torch.empty(int(0.05 * total) // parts, dtype=torch.uint8, device=CARD)) // parts
            except RuntimeError as error:
                told.append(f"{type(error).__name__}: {str(error)[:120]}")
                raise

        assert within_memory(work) > 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    note("out of memory", said=told)
    assert len(told) == 2  # in 1 and in 2 parts


def test_a_library_without_memory_left_is_recognised():
    """Nothing of torch's allocator: the card itself is full when a library asks for its workspace."""
    hoard: list[torch.Tensor] = []

    def fill(size: int) -> None:
        while True:
            hoard.append(torch.empty(size, dtype=torch.uint8, device=CARD))

    try:
        for size in (2**30, 2**26, 2**22, 2**20):
            with pytest.raises(RuntimeError) as caught:
                fill(size)
            assert is_out_of_memory(caught.value)
        said = _said_by(lambda: torch.linalg.svd(torch.randn(4096, 4096, device=CARD)))
    finally:
        hoard.clear()
        torch.cuda.empty_cache()
    note("full card", said=f"{type(said).__name__}: {str(said)[:160]}")
    assert said is not None
    assert is_out_of_memory(said)


def _said_by(work: Callable[[], object]) -> RuntimeError | None:
    try:
        work()
    except RuntimeError as error:
        return error
    return None


def test_exact_is_float32_and_fast_is_not():
    left, right = (torch.randn(512, 512, generator=seeded(n), dtype=torch.float64) for n in (1, 2))
    truth = left @ right
    errors = {}
    for precision in (EXACT, FAST):
        with computing(precision, "cuda"):
            assert precision_of("cuda") == precision
            product = (left.float().to(CARD) @ right.float().to(CARD)).double().cpu()
        errors[precision] = ((product - truth).norm() / truth.norm()).item()
    note("precision", **errors)
    assert errors[EXACT] < 1e-6 < errors[FAST]


def test_an_operation_that_does_not_repeat_itself_is_named():
    with computing(EXACT, "cuda"):
        values = torch.ones(8, device=CARD)
        torch.histc(values, bins=4)
        named = unrepeatable()
        stack = environment("cuda", 1)
    note("environment", unrepeatable=named, gpu_stack=dict(stack.gpu_stack), device=stack.device)
    assert any("histc" in name for name in named)
    assert {"cuda", "cudnn"} <= set(stack.gpu_stack)
    assert stack.unrepeatable == named
