"""Explicit models against timm's own, and what the taps collect."""

import copy
import math

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from backbones import SPECS
from backbones.families.explicit import AttentionTaps, attention_modules, make_explicit
from backbones.loading import build_model

VIT = {
    "img_size": 16,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}
SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 5,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
    "drop_path_rate": 0.0,
}


def sharpened(model):
    """Weights large enough for attention to be far from uniform, so that an error in it shows."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                scale = 2 / math.sqrt(parameter[0].numel()) if parameter.ndim < 3 else 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images(model, count=2, seed=0):
    channels = model.patch_embed.proj.in_channels
    size = model.patch_embed.img_size
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def pair(model):
    """timm's model and the explicit form of a copy."""
    sharpened(model)
    return model, make_explicit(copy.deepcopy(model))


CASES = {
    "vit": lambda: VisionTransformer(**VIT),
    "swin": lambda: SwinTransformer(**SWIN),
    "digits_vit": lambda: timm.create_model(
        SPECS["digits_vit"].timm_name, **SPECS["digits_vit"].model_settings
    ),
    "digits_swin": lambda: timm.create_model(
        SPECS["digits_swin"].timm_name, drop_path_rate=0.0, **SPECS["digits_swin"].model_settings
    ),
    "deit_tiny": lambda: timm.create_model(SPECS["deit_tiny"].timm_name),
    "vit_tiny": lambda: timm.create_model(SPECS["vit_tiny"].timm_name),
    "swin_tiny": lambda: timm.create_model(SPECS["swin_tiny"].timm_name, drop_path_rate=0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_timms_in_every_mode(case):
    original, explicit = pair(CASES[case]())
    batch = images(original)
    with torch.no_grad():
        expected = original(batch)
        fused = explicit(batch)
        with AttentionTaps(explicit, logits=True, outputs=True) as taps:
            tapped = explicit(batch)
        for module in attention_modules(explicit):
            module.quantized = True
        unfused = explicit(batch)
    assert expected.std() > 0.1
    for found in (fused, tapped, unfused):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(taps.logits) == len(taps.outputs) == len(attention_modules(explicit))


@pytest.mark.parametrize("case", ["vit", "swin"])
def test_explicit_form_keeps_timms_weights_and_names(case):
    original, explicit = pair(CASES[case]())
    assert list(explicit.state_dict()) == list(original.state_dict())


def test_vit_taps_are_the_raw_products_before_the_scale():
    _, model = pair(CASES["vit"]())
    seen = []
    model.blocks[0].attn.qkv.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with AttentionTaps(model, logits=True, outputs=True) as taps:
        model(images(model, 2))
    assert [tuple(t.shape) for t in taps.logits] == [(2, 3, 17, 17)] * 2
    assert [tuple(t.shape) for t in taps.outputs] == [(2, 3, 17, 8)] * 2
    for image in range(2):
        for head in range(3):
            q, k, v = (seen[0][image, :, part * 24 + head * 8 :][:, :8] for part in range(3))
            by_hand = q @ k.T
            torch.testing.assert_close(taps.logits[0][image, head], by_hand)
            attended = torch.softmax(by_hand / math.sqrt(8), dim=-1) @ v
            torch.testing.assert_close(taps.outputs[0][image, head], attended, atol=1e-5, rtol=1e-4)


def test_swin_taps_are_per_window_with_q_scaled_and_no_bias():
    _, model = pair(CASES["swin"]())
    seen = []
    model.layers[0].blocks[0].attn.qkv.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with AttentionTaps(model, logits=True, outputs=True) as taps:
        model(images(model, 2))
    # 16 x 16 patches make 16 windows of 16 tokens, then 8 x 8 make 4.
    assert [tuple(t.shape) for t in taps.logits] == [(32, 2, 16, 16)] * 2 + [(8, 4, 16, 16)] * 2
    assert [tuple(t.shape) for t in taps.outputs] == [(32, 2, 16, 4)] * 2 + [(8, 4, 16, 4)] * 2
    q, k = (seen[0][5, :, part * 8 + 4 : part * 8 + 8] for part in range(2))
    torch.testing.assert_close(taps.logits[0][5, 1], q @ k.T / math.sqrt(4))


@pytest.mark.parametrize("case", ["vit", "swin"])
def test_maps_are_what_the_softmax_gives(case):
    _, model = pair(CASES[case]())
    seen = []
    for module in attention_modules(model):
        module.softmax.register_forward_hook(lambda _m, _i, out: seen.append(out))
    batch = images(model)
    with AttentionTaps(model, maps=True) as taps:
        tapped = model(batch)
    assert len(taps.maps) == len(seen) == len(attention_modules(model))
    assert all(torch.equal(found, expected) for found, expected in zip(taps.maps, seen, strict=True))
    torch.testing.assert_close(taps.maps[0].sum(dim=-1), torch.ones(taps.maps[0].shape[:-1]))
    assert not taps.logits
    torch.testing.assert_close(tapped, model(batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", ["vit", "swin"])
@pytest.mark.parametrize("wanted", [{"logits": True}, {"outputs": True}])
def test_gradients_flow_from_taps_to_the_image(case, wanted):
    _, model = pair(CASES[case]())
    batch = images(model).requires_grad_()
    with AttentionTaps(model, **wanted) as taps:
        model(batch)
    kept, empty = (taps.logits, taps.outputs) if "logits" in wanted else (taps.outputs, taps.logits)
    assert not empty
    (gradient,) = torch.autograd.grad(sum(tensor.square().sum() for tensor in kept), batch)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(dim=(1, 2, 3)).all()


def test_a_second_forward_starts_the_lists_anew():
    _, model = pair(CASES["vit"]())
    first, second = images(model, 1), images(model, 3, seed=1)
    with AttentionTaps(model, logits=True) as taps:
        model(first)
        model(second)
    assert [t.shape[0] for t in taps.logits] == [3, 3]


def test_nested_taps_are_refused_and_an_error_inside_frees_the_model():
    _, model = pair(CASES["vit"]())
    with AttentionTaps(model, logits=True) as outer:
        with pytest.raises(RuntimeError, match="already tapped"), AttentionTaps(model, outputs=True):
            pass
        model(images(model))
        assert len(outer.logits) == 2
    with pytest.raises(ZeroDivisionError), AttentionTaps(model, logits=True):
        raise ZeroDivisionError
    with AttentionTaps(model, outputs=True) as taps:
        model(images(model))
    assert len(taps.outputs) == 2


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: timm.create_model("test_convnext"), "ConvNeXt is not supported"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "is not supported"),
        (lambda: VisionTransformer(**VIT, reg_tokens=1), "one CLS token"),
        (lambda: VisionTransformer(**VIT, class_token=False, global_pool="avg"), "one CLS token"),
        (lambda: VisionTransformer(**VIT, no_embed_class=True), "one CLS token"),
        (lambda: VisionTransformer(**VIT, dynamic_img_size=True), "must be fixed"),
        (lambda: VisionTransformer(**VIT, qk_norm=True), "blocks.0.attn uses query/key norm"),
        (lambda: VisionTransformer(**VIT, attn_drop_rate=0.1), "blocks.1.attn.attn_drop has drop rate 0.1"),
        (lambda: VisionTransformer(**VIT, drop_path_rate=0.2), "drop_path1 has drop rate 0.2"),
        (lambda: SwinTransformer(**{**SWIN, "drop_path_rate": 0.1}), "build the model with all drop rates 0"),
    ],
)
def test_models_that_are_not_reproduced_are_refused(build, reason):
    with pytest.raises(ValueError, match=reason):
        make_explicit(build())


@pytest.mark.parametrize("name", [name for name in SPECS if "base" not in name and "small" not in name])
def test_every_small_specification_builds_and_fits_its_data(name):
    spec = SPECS[name]
    model = build_model(spec).eval()
    assert model.num_classes == spec.num_classes
    embedding = (model.backbone.body if spec.family == "mask_rcnn" else model).patch_embed
    assert tuple(embedding.img_size) == spec.data.input_size[1:]
    assert embedding.proj.in_channels == spec.data.input_size[0] == len(spec.data.mean)


def test_building_a_model_leaves_the_global_random_state():
    before = torch.get_rng_state()
    build_model(SPECS["digits_vit"])
    assert torch.equal(torch.get_rng_state(), before)
