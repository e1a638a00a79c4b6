"""QwT's compensation: the released regression, what is fitted to what, and how it is kept."""

from __future__ import annotations

import copy

import pytest
import torch

from methods.base import QuantizationTask
from methods.bits import Bits
from methods.engines.block_reconstruction import BlockReconstruction, BlockReconstructionConfig
from methods.engines.error_reduction import ErrorReduction, ErrorReductionConfig
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.quantization.compensation import Compensation, compensated_blocks, compensation_bytes, regress
from methods.quantization.error_reduction import Moments
from methods.testing.detectors import detector, pictures
from methods.testing.models import DIGITS_MODELS, blobs, source_of, tiny
from tests.golden import chirp

FAMILY = pytest.mark.parametrize("family", DIGITS_MODELS)
ENGINES = pytest.mark.parametrize(
    ("engine", "Config"),
    [
        (RepqPtq, RepqPtqConfig),
        (BlockReconstruction, lambda **settings: BlockReconstructionConfig(iterations=2, **settings)),
        (ErrorReduction, ErrorReductionConfig),
    ],
    ids=["repq_ptq", "block_reconstruction", "error_reduction"],
)


def quantized(engine, teacher, images, bits, progress=lambda *said: None):
    task = QuantizationTask(teacher, source_of(images), bits, torch.Generator().manual_seed(0), progress)
    return engine.quantize(task)


def test_the_regression_is_that_of_the_released_code(golden):
    case = golden["qwt.linear_regression"]
    x = chirp((4, 50, 12), 0.37, 0.2, 1.0)
    y = chirp((4, 50, 12), 0.53, 0.9, 0.3) + 0.1 * x
    found = regress(Moments.of(x, y), y.double().square().sum(), 0.0)
    assert found.weight.sum().item() == pytest.approx(case["sum"], rel=1e-4)
    assert found.weight.abs().sum().item() == pytest.approx(case["abs_sum"], rel=1e-4)
    assert found.weight.flatten()[:8].tolist() == pytest.approx(case["first8"], rel=1e-3, abs=1e-6)
    assert found.bias.sum().item() == pytest.approx(case["bias_sum"], rel=1e-3)
    assert found.bias[:4].tolist() == pytest.approx(case["bias_first4"], rel=1e-3)
    assert found.explained == pytest.approx(case["r2"], rel=1e-4)


def test_a_ridge_shrinks_the_weights_and_not_the_mean_by_hand():
    """Inputs -1 and 1, errors 1 and 5: slope 2, mean 3; with a ridge as large as the variance, slope 1."""
    x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [5.0]])
    plain, ridged = (regress(Moments.of(x, y), y.square().sum(), ridge) for ridge in (0.0, 1.0))
    assert (plain.weight.item(), plain.bias.item(), plain.explained) == pytest.approx((2.0, 3.0, 1.0))
    assert (ridged.weight.item(), ridged.bias.item(), ridged.explained) == pytest.approx((1.0, 3.0, 0.75))


def test_a_constant_input_is_left_to_the_bias():
    x, y = torch.full((9, 2), 7.0), torch.full((9, 1), 0.5)
    found = regress(Moments.of(x, y), y.double().square().sum(), 0.0)
    assert found.weight.abs().max() < 1e-6
    assert found.bias.item() == pytest.approx(0.5)


def test_values_beyond_half_precision_are_clamped():
    layer = Compensation(2)
    layer.weight[0, 0] = 1.0
    assert layer(torch.tensor([[1e6, 0.0]])).tolist() == [[65504.0, 0.0]]


@FAMILY
def test_each_block_comes_nearer_to_the_full_precision_block_on_its_own_input(family):
    teacher, images, told = tiny(family), blobs(64), []
    settings = {"compensation": "qwt", "calibration_images": 16}
    student = quantized(
        RepqPtq(RepqPtqConfig(**settings)),
        teacher,
        images,
        Bits(3, 4),
        lambda *said: told.append(said),
    )
    assert [said[:2] for said in told] == [(1, 1), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(0 < said[2]["r2"] < 1 for said in told[1:])
    for name, block in compensated_blocks(student).items():
        seen = []
        handle = block.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            student(images)
        handle.remove()
        with torch.no_grad():
            target, given = teacher.model.get_submodule(name)(seen[0]), block(seen[0])
            correction = block.compensation(seen[0])
        assert (given - target).norm() < (given - correction - target).norm()


@ENGINES
@FAMILY
def test_the_state_brings_it_back_and_a_student_without_is_what_it_was(engine, Config, family):
    teacher, images = tiny(family), blobs(32)
    plain = quantized(engine(Config()), teacher, images, Bits(4, 4)).state_dict()
    made = engine(Config(compensation="qwt"))
    student = quantized(made, teacher, images, Bits(4, 4))
    state = student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.items())
    width = [block.norm1.normalized_shape[0] for block in compensated_blocks(student).values()]
    assert compensation_bytes(state) == sum(2 * c * c + 4 * c for c in width)
    assert compensation_bytes(plain) == 0
    restored = made.prepare(teacher, Bits(4, 4))
    restored.load_state_dict(copy.deepcopy(state))
    with torch.no_grad():
        assert torch.equal(restored(blobs(4, seed=1)), student(blobs(4, seed=1)))


@pytest.mark.parametrize("family", ["yolos", "mask_rcnn"])
def test_blocks_of_detectors_are_compensated(family):
    teacher = detector(family)
    settings = {"compensation": "qwt"}
    student = quantized(RepqPtq(RepqPtqConfig(**settings)), teacher, pictures(teacher, 2), Bits(4, 4))
    blocks = compensated_blocks(student)
    assert blocks
    assert any(block.compensation.weight.any() for block in blocks.values())


def test_protocols_with_it_are_others_and_name_the_size():
    plain, compensated = (
        RepqPtq(RepqPtqConfig(compensation=kind)).protocol(Bits(4, 4)) for kind in ("none", "qwt")
    )
    assert "compensation" not in plain
    assert "C^2 + C values more per block" in compensated["compensation"]
    assert compensated["compensation_images"] == 512
