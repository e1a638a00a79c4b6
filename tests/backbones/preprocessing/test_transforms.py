"""The classifiers' transform against timm's own, and the detectors' by its boxes."""

import pytest
import torch
from PIL import Image
from timm.data import create_transform

from backbones.base import DataConfig
from backbones.preprocessing.pixels import normalized
from backbones.preprocessing.transforms import (
    canvas_size,
    detector_size,
    fitted,
    fitted_size,
    on_canvas,
    pixel_mode,
    resized,
    resized_and_cropped,
    to_canvas,
    to_image,
)


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


DETECTOR = DataConfig(
    (3, 64, 96), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), interpolation="bilinear", shorter_side=80, longer_side=133,
    pad_multiple=32,
)  # fmt: skip


@pytest.mark.parametrize(
    ("size", "resized_to", "canvas", "fits"),
    [
        ((640, 480), (107, 80), (128, 96), (85, 64)),
        ((480, 640), (80, 107), (96, 128), (48, 64)),
        # The longer side decides: 133 / 1000 of both.
        ((1000, 300), (133, 40), (160, 64), (96, 29)),
        ((80, 80), (80, 80), (96, 96), (64, 64)),
        ((40, 20), (133, 66), (160, 96), (96, 48)),
        ((3, 2000), (1, 133), (32, 160), (1, 64)),
    ],
)
def test_detectors_resize_by_the_shorter_side_and_pad(size, resized_to, canvas, fits):
    assert detector_size(size, DETECTOR) == resized_to
    assert canvas_size(resized_to, DETECTOR) == canvas
    assert fitted_size(size, DETECTOR) == fits
    image = picture(*size)
    assert resized(image, DETECTOR).shape == (3, resized_to[1], resized_to[0])
    assert fitted(image, DETECTOR).shape == (3, fits[1], fits[0])


def test_padding_is_zero_after_normalization():
    image = normalized(resized(picture(640, 480), DETECTOR), DETECTOR)
    padded = on_canvas(image, (128, 96))
    assert padded.shape == (3, 96, 128)
    assert torch.equal(padded[:, :80, :107], image)
    assert padded.sum() == pytest.approx(image.sum().item(), rel=1e-4)


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (1000, 300), (97, 81)])
def test_boxes_come_back_to_the_pixels_they_came_from(size):
    resized_to = detector_size(size, DETECTOR)
    canvas = canvas_size(resized_to, DETECTOR)
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(50, 4, generator=generator, dtype=torch.float64) * torch.tensor([*size, *size])
    there = to_canvas(boxes / torch.tensor([*size, *size]), resized_to, canvas)
    back = to_image(there, resized_to, canvas) * torch.tensor([*size, *size])
    torch.testing.assert_close(back, boxes, atol=1e-10, rtol=0)
    whole = to_canvas(torch.tensor([0.0, 0.0, 1.0, 1.0]), resized_to, canvas)
    in_pixels = whole * torch.tensor([*canvas, *canvas])
    torch.testing.assert_close(in_pixels, torch.tensor([0.0, 0.0, *resized_to]))


def test_what_is_drawn_at_a_box_is_found_at_its_place_on_the_canvas():
    image = Image.new("RGB", (600, 400))
    image.paste((255, 255, 255), (150, 100, 450, 200))
    pixels = resized(image, DETECTOR)
    size = (pixels.shape[2], pixels.shape[1])
    canvas = canvas_size(size, DETECTOR)
    box = to_canvas(torch.tensor([0.25, 0.25, 0.75, 0.5]), size, canvas) * torch.tensor([*canvas, *canvas])
    rows, columns = torch.where(on_canvas(pixels[:1].float(), canvas)[0] > 127)
    found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    torch.testing.assert_close(found.float(), box, atol=1.0, rtol=0)
