"""The digits' splits, the shipped weights and the script that made them."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from backbones import SPECS, find_weights, load_backbone
from backbones.digits.images import Digits, load_digits_split
from backbones.digits.train_classifiers import augmented, main, top1_percent, train

NAMES = ("digits_vit", "digits_swin")
SIZES = {"train": 1000, "tune": 297, "report": 500}


@pytest.fixture(scope="module")
def splits():
    return {split: load_digits_split(split) for split in SIZES}


def test_splits_are_disjoint_and_cover_everything(splits):
    positions = [p for digits in splits.values() for p in digits.positions]
    assert sorted(positions) == list(range(1797))
    assert {name: len(digits.positions) for name, digits in splits.items()} == SIZES


def test_splits_are_stratified(splits):
    share = torch.bincount(torch.from_numpy(load_digits().target)) / 1797
    for name, digits in splits.items():
        counts = torch.bincount(digits.labels, minlength=10)
        assert (counts - SIZES[name] * share).abs().max() <= 1.5


def test_splits_never_change(splits):
    text = ";".join(f"{name}:{digits.positions}" for name, digits in splits.items())
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "8ebbe3f635cfc66128513c38034710c9cf697d42b870b0e91c9b69ff3a1d5c91"
    )


def test_images_are_the_originals_upsampled_to_unit_range(splits):
    digits = splits["tune"]
    bunch = load_digits()
    assert digits.images.shape == (297, 1, 16, 16)
    assert digits.images.dtype == torch.float32
    assert digits.images.min() >= 0
    assert digits.images.max() <= 1
    assert digits.labels.tolist() == bunch.target[list(digits.positions)].tolist()
    # Half-pixel bilinear weights between two neighbours are 3/4 and 1/4, the border repeats.
    original = bunch.images[digits.positions[0]] / 16
    rows = np.repeat(original, 2, axis=0)
    rows[1:-1:2] = 0.75 * original[:-1] + 0.25 * original[1:]
    rows[2:-1:2] = 0.25 * original[:-1] + 0.75 * original[1:]
    both = np.repeat(rows, 2, axis=1)
    both[:, 1:-1:2] = 0.75 * rows[:, :-1] + 0.25 * rows[:, 1:]
    both[:, 2:-1:2] = 0.25 * rows[:, :-1] + 0.75 * rows[:, 1:]
    np.testing.assert_allclose(digits.images[0, 0].numpy(), both, atol=1e-6)


def test_images_have_the_bits_of_torchs_own_upsampling(splits):
    bunch = load_digits()
    for digits in splits.values():
        small = torch.from_numpy(bunch.images[list(digits.positions)]).float().unsqueeze(1) / 16
        wanted = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
        assert torch.equal(digits.images, wanted)


def test_data_config_holds_the_training_statistics(splits):
    images = splits["train"].images
    for name in NAMES:
        data = SPECS[name].data
        assert data.mean == (pytest.approx(images.mean().item(), abs=5e-4),)
        assert data.std == (pytest.approx(images.std().item(), abs=5e-4),)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_reach_their_stated_accuracy(splits, name):
    teacher = load_backbone(name, find_weights(SPECS[name]))
    top1 = top1_percent(teacher.model, splits["report"], teacher.spec)
    assert top1 >= 97
    # One image of 500 may flip between machines' kernels.
    assert top1 == pytest.approx(teacher.spec.reference_score, abs=0.2001)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_depend_on_their_attention(splits, name):
    from backbones.families.explicit import attention_modules

    class Uniform(torch.nn.Module):
        def forward(self, logits):
            return torch.full_like(logits, 1 / logits.shape[-1])

    teacher = load_backbone(name, find_weights(SPECS[name]))
    for module in attention_modules(teacher.model):
        module.quantized = True
        module.softmax = Uniform()
    assert top1_percent(teacher.model, splits["report"], teacher.spec) < 90


def test_shipped_weights_are_small():
    assert sum(find_weights(SPECS[name]).stat().st_size for name in NAMES) < 2_000_000


def first(digits, count):
    return Digits(digits.images[:count], digits.labels[:count], digits.positions[:count])


def test_training_is_seeded_and_leaves_the_global_random_state(splits):
    digits = first(splits["train"], 100)
    before = torch.get_rng_state()
    models = [train(SPECS["digits_swin"], digits, epochs=3, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    one, again, other = (model.state_dict()["head.fc.weight"] for model in models)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not models[0].training


def test_training_learns(splits):
    spec = SPECS["digits_swin"]
    model = train(spec, splits["train"], epochs=8, seed=0)
    assert top1_percent(model, splits["tune"], spec) > 25  # far above chance, which is 10


def test_the_script_writes_weights_that_load(tmp_path, capsys):
    file = tmp_path / "new.safetensors"
    main(["digits_swin", "--output", str(file), "--epochs", "1"])
    assert "digits_swin: top-1" in capsys.readouterr().out
    assert load_backbone("digits_swin", file).num_classes == 10


def test_augmentation_is_light_seeded_and_stays_in_range(splits):
    images = splits["train"].images[:100]
    moved = augmented(images, generator=torch.Generator().manual_seed(3))
    again = augmented(images, generator=torch.Generator().manual_seed(3))
    assert torch.equal(moved, again)
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    similarity = F.cosine_similarity(moved.flatten(1), images.flatten(1))
    assert 0.7 < similarity.mean() < 0.98
