import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import window_partition

from backbones.families.explicit import AttentionTaps, ExplicitSwinBlock
from methods.synthesis.patch_contrast import neighbour_cosines, patch_contrast_loss, patch_maps
from methods.testing.models import blobs, tiny


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def neighbours(maps: torch.Tensor, image: int, row: int, column: int) -> list[torch.Tensor]:
    """Cosines of a patch with its neighbours, one by one."""
    _, height, width, _ = maps.shape
    found = []
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        y, x = row + down, column + right
        if (down, right) != (0, 0) and 0 <= y < height and 0 <= x < width:
            found.append(F.cosine_similarity(maps[image, row, column], maps[image, y, x], dim=0))
    return found


@pytest.mark.parametrize("grid", [(3, 3), (4, 5), (1, 4), (2, 2)])
@pytest.mark.parametrize("positives", [1, 4])
def test_the_loss_matches_a_loop_over_patches(grid, positives):
    maps = features(2, *grid, 6)
    losses = []
    for image, row, column in itertools.product(range(2), range(grid[0]), range(grid[1])):
        scores = sorted((math.exp(c / 0.1) for c in neighbours(maps, image, row, column)), reverse=True)
        losses.append(-math.log(sum(scores[:positives]) / sum(scores)))
    found = patch_contrast_loss(maps, positives=positives, temperature=0.1)
    assert found.item() == pytest.approx(sum(losses) / len(losses))


def test_every_patch_has_the_cosines_of_its_neighbours():
    maps = features(2, 3, 4, 5)
    found = neighbour_cosines(maps)
    assert found.shape == (2, 8, 3, 4)
    for image, row, column in itertools.product(range(2), range(3), range(4)):
        here = found[image, :, row, column]
        expected = torch.stack(neighbours(maps, image, row, column)).sort().values
        torch.testing.assert_close(here[here.isfinite()].sort().values, expected)


def test_corners_without_negatives_add_nothing():
    maps = features(1, 2, 2, 4).requires_grad_()  # every patch has three neighbours
    loss = patch_contrast_loss(maps, positives=4, temperature=0.1)
    loss.backward()
    assert loss == 0
    torch.testing.assert_close(maps.grad, torch.zeros_like(maps), atol=1e-12, rtol=0)


def test_equal_patches_share_alike():
    # Inner patches: 4 of 8; edges: 4 of 5; corners: all. A 4 x 4 map has 4, 8 and 4 of them.
    expected = (4 * math.log(2) + 8 * math.log(5 / 4)) / 16
    found = patch_contrast_loss(torch.ones(1, 4, 4, 3), positives=4, temperature=0.5)
    assert found.item() == pytest.approx(expected)


def test_the_loss_s_derivative():
    def loss(maps: torch.Tensor) -> torch.Tensor:
        return patch_contrast_loss(maps, positives=3, temperature=0.3)

    assert torch.autograd.gradcheck(loss, features(1, 3, 4, 3).requires_grad_())


def test_tokens_of_a_vit_lie_row_by_row():
    teacher = tiny("digits_vit")
    with AttentionTaps(teacher.model, outputs=True) as taps, torch.no_grad():
        teacher.model(blobs(2))
    maps = patch_maps(teacher, taps.outputs)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 8, 64)] * 4
    token = taps.outputs[1][1, :, 1 + 3 * 8 + 5]  # after CLS: row 3, column 5
    assert torch.equal(maps[1][1, 3, 5], token.flatten())


def test_windows_of_a_swin_come_back_to_their_places():
    teacher = tiny("digits_swin")
    blocks = [m for m in teacher.model.modules() if isinstance(m, ExplicitSwinBlock)]
    assert any(any(block.shift_size) for block in blocks)
    outputs, expected = [], []
    for block in blocks:
        height, width = block.input_resolution
        image = features(2, height, width, block.dim)
        shifted = image.roll([-s for s in block.shift_size], dims=(1, 2))
        windows = window_partition(shifted, block.window_size).flatten(1, 2)
        heads = block.attn.num_heads
        outputs.append(windows.unflatten(-1, (heads, -1)).transpose(1, 2))
        expected.append(image)
    for found, image in zip(patch_maps(teacher, outputs), expected, strict=True):
        assert torch.equal(found, image)


def test_windows_that_do_not_divide_the_map_are_refused(monkeypatch):
    teacher = tiny("digits_swin")
    with AttentionTaps(teacher.model, outputs=True) as taps, torch.no_grad():
        teacher.model(blobs(1))
    block = next(m for m in teacher.model.modules() if isinstance(m, ExplicitSwinBlock))
    monkeypatch.setattr(block, "input_resolution", (7, 8))
    with pytest.raises(ValueError, match="windows of 4 x 4 patches do not divide a map of 7 x 8"):
        patch_maps(teacher, taps.outputs)
