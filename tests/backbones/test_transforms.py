"""The evaluation transform against timm's own."""

import pytest
import torch
from PIL import Image
from timm.data import create_transform

from backbones.base import DataConfig
from backbones.pixels import normalized
from backbones.transforms import pixel_mode, resized_and_cropped


def picture(width, height, mode="RGB"):
    channels = {"RGB": 3, "L": 1}[mode]
    generator = torch.Generator().manual_seed(width * 1000 + height)
    coarse = torch.rand(1, channels, 9, 7, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    array = (pixels[0] * 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array if channels == 3 else array[:, :, 0])


@pytest.mark.parametrize("size", [(300, 300), (500, 375), (333, 500), (97, 640), (64, 80), (40, 31)])
@pytest.mark.parametrize(
    "data",
    [
        DataConfig((3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_pct=0.875),
        DataConfig((3, 64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop_pct=0.9),
        DataConfig((3, 56, 56), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), interpolation="bilinear"),
    ],
    ids=["deit", "vit", "bilinear"],
)
def test_pixels_equal_timms_transform(size, data):
    image = picture(*size)
    timms = create_transform(
        data.input_size,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
        crop_pct=data.crop_pct,
    )
    found = normalized(resized_and_cropped(image, data), data)
    torch.testing.assert_close(found, timms(image), atol=1e-6, rtol=0)


def test_the_deit_crop_keeps_seven_eighths_of_the_shorter_side():
    data = DataConfig((3, 224, 224), (0.5,) * 3, (0.5,) * 3, crop_pct=0.875)
    image = Image.new("RGB", (512, 256))
    # 16 columns lie outside on each side of the shorter axis, 144 on the longer one.
    image.paste((255, 255, 255), (144, 16, 368, 240))
    crop = resized_and_cropped(image, data)
    assert crop.shape == (3, 224, 224)
    assert crop.dtype == torch.uint8
    assert (crop == 255).all()


def test_one_channel_models_read_grey_images():
    data = DataConfig((1, 16, 16), (0.3,), (0.3,), interpolation="bilinear")
    assert pixel_mode(data) == "L"
    assert resized_and_cropped(picture(40, 30, "L"), data).shape == (1, 16, 16)
