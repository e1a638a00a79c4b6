"""The shipped tiny detector and the script that made it."""

import math

import pytest
import torch

from backbones import SPECS, find_weights, load_backbone
from backbones.digits.images import load_digits_split
from backbones.digits.scenes import SIDE, load_scenes, load_scenes_split, scene_targets
from backbones.digits.train_detector import (
    batches,
    box_ap,
    cell_centres,
    dense_loss,
    main,
    place_code,
    prepare,
    train,
    training_loss,
)
from backbones.families.explicit import attention_modules
from backbones.guidance.outputs import Detections, centres
from backbones.loading import build_model
from backbones.preprocessing.pixels import normalized

SPEC = SPECS["digits_yolos"]


@pytest.fixture(scope="module")
def report():
    return load_scenes_split("report")


@pytest.fixture(scope="module")
def teacher():
    return load_backbone("digits_yolos", find_weights(SPEC))


def prepared():
    model = build_model(SPEC)
    prepare(model, normalized(load_scenes("train", 64, 0).images, SPEC.data))
    return model


def test_shipped_weights_reach_their_stated_ap(teacher, report):
    # A box near an IoU threshold may fall on either side of it on another machine's kernels.
    assert box_ap(teacher.model, report, SPEC) == pytest.approx(SPEC.reference_score, abs=0.3)


def test_the_shipped_detector_depends_on_its_attention(report):
    class Uniform(torch.nn.Module):
        def forward(self, logits):
            return torch.full_like(logits, 1 / logits.shape[-1])

    blind = load_backbone("digits_yolos", find_weights(SPEC))
    for module in attention_modules(blind.model):
        module.quantized = True
        module.softmax = Uniform()
    assert box_ap(blind.model, report, SPEC) < SPEC.reference_score / 2


def test_shipped_weights_are_small_and_loaded_in_full_precision(teacher):
    assert find_weights(SPEC).stat().st_size <= 2_000_000
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}


def test_data_config_holds_the_training_statistics():
    images = load_scenes("train", 1000, 7).images
    assert SPEC.data.mean == (pytest.approx(images.mean().item(), abs=3e-3),)
    assert SPEC.data.std == (pytest.approx(images.std().item(), abs=3e-3),)


class Oracle:
    """A detector that answers with given boxes, moved by so many pixels."""

    def __init__(self, scenes, shift):
        self.answers = [
            Detections(torch.full((len(labels),), 0.9), labels, (boxes + shift) / SIDE)
            for boxes, labels in zip(scenes.boxes, scenes.labels, strict=True)
        ]

    def __call__(self, images):
        return images

    def detections(self, outputs):
        return self.answers


def test_box_ap_is_100_for_the_truth_less_for_moved_and_0_for_far_boxes(report):
    found = [box_ap(Oracle(report, shift), report, SPEC) for shift in (0, 1.5, 40)]
    assert found[0] == pytest.approx(100)
    assert 20 < found[1] < 90
    assert found[2] < 1


def test_the_code_of_a_moved_place_is_met_by_the_head_that_looks_there():
    model = prepared()
    x = torch.zeros(1, 64, 96)
    x[0, :, :24] = place_code(cell_centres(8, 8))
    attention = model.blocks[0].attn
    q, k, _ = (attention.qkv(x)).reshape(64, 3, 4, 24).unbind(1)
    middle = 8 * 3 + 3
    met = [(q[middle, head] @ k[:, head].T).argmax().item() for head in range(4)]
    assert met == [middle - 1, middle + 1, middle - 8, middle + 8]


def test_patches_start_whitened():
    model = prepared()
    images = normalized(load_scenes("train", 64, 0).images, SPEC.data)
    tokens = model.patch_embed(images).flatten(0, 1).detach()
    assert not tokens[:, :24].any()
    leading = tokens[:, 24:44]
    torch.testing.assert_close(leading.mean(dim=0), torch.zeros(20), atol=0.02, rtol=0)
    torch.testing.assert_close(leading.T.cov(), leading.var(dim=0).diag(), atol=0.02, rtol=0)
    assert leading[:, 0].var() == pytest.approx(1, abs=0.05)


def test_an_untrained_model_answers_the_mean_box():
    outputs = prepared().eval()(torch.zeros(1, 1, 96, 96))
    assert outputs.boxes.shape == (1, 16, 4)
    torch.testing.assert_close(
        outputs.boxes.mean(dim=1)[0, 2:], torch.tensor([0.22, 0.32]), atol=0.05, rtol=0
    )
    assert (outputs.logits.argmax(-1) == 10).all()


def test_dense_loss_of_the_right_answer_is_almost_nothing():
    # One 4 x 4 grid; the digit 7 covers the centres of the four patches in the middle.
    targets = torch.tensor([[[7, 0.5, 0.5, 0.5, 0.5], [-1, 0.1, 0.1, 0.9, 0.9]]])
    middle = [5, 6, 9, 10]
    patches = torch.zeros(1, 16, 15)
    patches[0, :, 10] = 20
    patches[0, middle, 10], patches[0, middle, 7] = 0, 20
    patches[0, :, 11:] = torch.tensor([0.25, 0.25, 0.75, 0.75]) - cell_centres(4, 4).repeat(1, 2)
    assert dense_loss(patches, targets, (4, 4)).item() == pytest.approx(0, abs=1e-4)
    patches[0, middle, 7], patches[0, middle, 3] = 0, 20
    # Four patches err by 20 nats beside twelve that weigh a tenth; classes count three times.
    expected = 3 * 20 * 4 / (4 + 12 * 0.1)
    assert dense_loss(patches, targets, (4, 4)).item() == pytest.approx(expected, abs=1e-4)


def test_a_patch_belongs_to_the_smallest_digit_over_it():
    targets = torch.tensor([[[1, 0.5, 0.5, 1.0, 1.0], [2, 0.5, 0.5, 0.5, 0.5]]])
    patches = torch.zeros(1, 16, 15)
    patches[0, :, 1] = 20
    patches[0, [5, 6, 9, 10], 1], patches[0, [5, 6, 9, 10], 2] = 0, 20
    patches[0, :, 11:] = torch.tensor([0.0, 0, 1, 1]) - cell_centres(4, 4).repeat(1, 2)
    patches[0, [5, 6, 9, 10], 11:] += torch.tensor([0.25, 0.25, -0.25, -0.25])
    assert dense_loss(patches, targets, (4, 4)).item() == pytest.approx(0, abs=1e-4)


def test_batches_vary_the_digits_and_are_seeded():
    digits = load_digits_split("tune")
    one, again = (next(batches(digits, generator=torch.Generator().manual_seed(4))) for _ in range(2))
    assert torch.equal(one[0], again[0])
    assert one[0].shape == (16, 1, 96, 96)
    assert one[1].shape == (16, 5, 5)


def test_the_training_loss_reaches_every_weight():
    model, dense = prepared(), torch.nn.Linear(96, 15)
    scenes = load_scenes("train", 4, 0)
    loss = training_loss(model, dense, normalized(scenes.images, SPEC.data), scene_targets(scenes))
    loss.backward()
    # The CLS token ends in no head, but the others attend to it.
    for name, parameter in [*model.named_parameters(), *dense.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_training_is_seeded_and_leaves_the_global_random_state():
    before = torch.get_rng_state()
    one, again, other = (train(SPEC, images=64, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.det_tokens, again.det_tokens)
    assert not torch.equal(one.det_tokens, other.det_tokens)
    assert not one.training


def test_the_script_writes_weights_that_load(tmp_path, capsys):
    file = tmp_path / "new.safetensors"
    main(["--output", str(file), "--images", "32"])
    assert "digits_yolos: box AP" in capsys.readouterr().out
    assert load_backbone("digits_yolos", file).num_classes == 10


def test_targets_and_boxes_agree():
    scenes = load_scenes("tune", 3, 1)
    rows = scene_targets(scenes)[0]
    torch.testing.assert_close(rows[rows[:, 0] >= 0, 1:], centres(scenes.boxes[0] / SIDE))
    assert not math.isnan(rows.sum().item())
