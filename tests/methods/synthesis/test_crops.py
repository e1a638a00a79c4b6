import pytest
import torch
import torch.nn.functional as F

from methods.synthesis.crops import Crops, draw_crops, enlarged


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded())


@pytest.mark.parametrize("size", [(224, 224), (16, 16), (15, 17), (32, 48)])
def test_crops_of_an_image_are_disjoint_and_inside(size):
    height, width = size
    crops = draw_crops(60, height, width, most=4, generator=seeded())
    covered = torch.zeros(60, height, width, dtype=torch.int)
    for owner, top, left, side in zip(*(c.tolist() for c in crops), strict=True):
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
        covered[owner, top : top + side, left : left + side] += 1
    assert covered.max() == 1
    assert crops.owner.unique().tolist() == list(range(60))


def test_sides_are_80_to_112_pixels_of_224_and_counts_one_to_four():
    crops = draw_crops(300, 224, 224, most=4, generator=seeded())
    assert (crops.side.min(), crops.side.max()) == (80, 112)
    counts = torch.bincount(crops.owner)
    assert torch.bincount(counts)[1:].min() > 40
    small = draw_crops(300, 16, 16, most=4, generator=seeded())
    assert small.side.unique().tolist() == [6, 7, 8]


def test_crops_lie_anywhere_in_all_quadrants():
    crops = draw_crops(400, 16, 16, most=1, generator=seeded())
    smallest = crops.side == 6
    assert crops.top[smallest].unique().tolist() == [0, 1, 2, 8, 9, 10]
    assert crops.left[smallest].unique().tolist() == [0, 1, 2, 8, 9, 10]


def test_no_crops_where_none_are_wanted():
    crops = draw_crops(3, 16, 16, most=0, generator=seeded())
    assert len(crops.owner) == 0
    assert enlarged(pixels(3, 1, 16, 16), crops).shape == (0, 1, 16, 16)


@pytest.mark.parametrize("most", [-1, 5])
def test_more_crops_than_quadrants_are_refused(most):
    with pytest.raises(ValueError, match=f"room for 0 to 4 crops, not {most}"):
        draw_crops(3, 16, 16, most=most, generator=seeded())


@pytest.mark.parametrize("size", [(16, 16), (21, 30)])
def test_enlarging_is_torch_s_bilinear_resize(size):
    images = pixels(5, 3, *size)
    crops = draw_crops(5, *size, most=4, generator=seeded())
    found = enlarged(images, crops)
    for index, (owner, top, left, side) in enumerate(zip(*(c.tolist() for c in crops), strict=True)):
        crop = images[owner : owner + 1, :, top : top + side, left : left + side]
        expected = F.interpolate(crop, size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(found[index : index + 1], expected)


def test_gradients_reach_the_crop_s_own_pixels_only():
    images = pixels(2, 1, 16, 16).requires_grad_()
    crops = Crops(*(torch.tensor([value]) for value in (1, 9, 2, 6)))
    enlarged(images, crops).square().sum().backward()
    reached = images.grad != 0
    expected = torch.zeros_like(reached)
    expected[1, 0, 9:15, 2:8] = True
    assert torch.equal(reached, expected)
