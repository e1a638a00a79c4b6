"""The estimate of a stage's memory: it grows with what it is made of, and its part of a GPU is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.planning.gpu_memory import GIB_OF_KIND, bytes_of, packed, part_of_gpu
from harness.stages.base import RunContext, Stage

CONTEXT = RunContext(Path("unused"), device="cuda", gpus_per_trial=1.0, gpus_by_memory=True)
GIB = 2**30


def stage(kind: str = "train", backbone: str = "deit_tiny", batch_size: int = 16, **engine_config) -> Stage:
    settings = {"backbone": backbone, "engine_config": {"batch_size": batch_size, **engine_config}}
    return Stage(kind, "s", settings, {}, key="k")


def test_it_grows_with_the_model_and_the_batch_and_falls_without_gradients():
    models = [bytes_of(stage(backbone=name), 8) for name in ("digits_vit", "deit_tiny", "deit_small")]
    assert models == sorted(set(models))
    batches = [bytes_of(stage(batch_size=n), 8) for n in (16, 64, 256)]
    assert batches == sorted(set(batches))
    evaluations = [bytes_of(stage("evaluate"), n) for n in (32, 128)]
    assert evaluations == sorted(set(evaluations))
    assert evaluations[0] < bytes_of(stage(batch_size=32), 32)


def test_calibration_images_count_as_a_batch():
    assert bytes_of(stage("quantize", calibration_images=512), 8) > bytes_of(stage("quantize"), 8)


def test_it_is_more_than_what_weights_and_one_batch_of_outputs_take():
    parameters, outputs = 22_050_664, 26_023_912  # of DeiT-S, for one image
    least = 4 * (2 * parameters + 16 * outputs)
    assert 1.5 * least < bytes_of(stage(backbone="deit_small"), 8) < 10 * least


@pytest.mark.parametrize("needed", [0.1 * GIB, 3 * GIB, 7 * GIB, 26 * GIB, 80 * GIB, 200 * GIB])
def test_a_part_is_one_nth_so_that_n_of_them_fit(needed):
    part, memory = packed(needed, 79 * GIB), 79 * GIB
    count = int(1 / part + 1e-6)
    assert 1 <= count <= 8
    assert 0.999 < count * part <= 1
    assert count == 1 or count * needed <= memory


def test_the_smallest_of_the_kinds_decides():
    big = stage(backbone="deit_small", batch_size=64)
    assert part_of_gpu(big, CONTEXT, ["H100"]) < part_of_gpu(big, CONTEXT, ["H100", "T4"]) <= 1
    assert GIB_OF_KIND["T4"] < GIB_OF_KIND["H100"]


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        (stage(), []),
        (stage(), ["H100", "of-tomorrow"]),
        (stage(), [""]),
        (stage(backbone="maskrcnn_swin_tiny"), ["H100"]),
        (stage(backbone="of a plug-in"), ["H100"]),
    ],
)
def test_what_is_not_known_takes_a_whole_gpu(asked, kinds):
    assert part_of_gpu(asked, CONTEXT, kinds) == 1.0
