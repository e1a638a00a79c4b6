"""The explicit YOLOS against transformers' own, its taps, its weights and its specifications."""

import math

import pytest
import safetensors.torch
import torch
from transformers import YolosConfig, YolosForObjectDetection

from backbones import SPECS, Backbone, find_weights, load_backbone
from backbones.families.explicit import AttentionTaps, attention_modules
from backbones.families.yolos_model import COCO_CATEGORY_IDS, ExplicitYolos, from_transformers
from backbones.guidance.outputs import corners
from backbones.loading import WeightsError, build_model

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "patch_size": 8,
    "num_channels": 2,
    "num_detection_tokens": 5,
    "num_labels": 4,
}
SIZES = {"own": (32, 48), "square": (40, 40), "wide": (24, 64), "tall": (64, 24)}


def sharpened(model):
    """Weights large enough for attention to be far from uniform and for every token to matter."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if "layernorm" in name and "weight" in name:
                parameter.copy_(1 + 0.2 * draw)
            else:
                fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 2
                parameter.copy_(draw / math.sqrt(fan_in))
    return model.eval()


def pair(mid_positions):
    """transformers' model and the explicit one with its weights; patch grid 4 x 6."""
    config = YolosConfig(**SMALL, image_size=[32, 48], use_mid_position_embeddings=mid_positions)
    theirs = sharpened(YolosForObjectDetection(config))
    ours = ExplicitYolos(
        input_size=(2, 32, 48),
        position_size=(32, 48),
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=3,
        det_tokens=5,
        mid_positions=mid_positions,
        num_classes=4,
    ).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict()), strict=True)
    return theirs, ours


def batch(size, count=2):
    return torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mid_positions", [False, True])
def test_outputs_equal_transformers_in_every_mode(mid_positions, size):
    theirs, ours = pair(mid_positions)
    images = batch(size)
    with torch.no_grad():
        expected = theirs(images)
        fused = ours(images)
        with AttentionTaps(ours, logits=True, outputs=True, maps=True) as taps:
            tapped = ours(images)
        for module in attention_modules(ours):
            module.quantized = True
        unfused = ours(images)
    assert expected.logits.std() > 0.1
    assert expected.pred_boxes.std() > 0.05
    for found in (fused, tapped, unfused):
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=1e-4, rtol=1e-4)
    assert len(taps.logits) == len(taps.outputs) == len(taps.maps) == 3


def test_tokens_stand_as_cls_then_detection_then_patches():
    theirs, ours = pair(True)
    images = batch((40, 40))
    with torch.no_grad():
        embedded = theirs.vit.embeddings(images)
        cls, patches, detection = embedded.split([1, 25, 5], dim=1)
        torch.testing.assert_close(ours.embed(images), torch.cat([cls, detection, patches], dim=1))


def test_the_prefix_is_everything_but_the_patches():
    _, ours = pair(False)
    teacher = Backbone(SPECS["digits_yolos"], ours, "x")
    images = batch((24, 64))
    moved = images.clone()
    moved[:, :, 8:16, 16:24] += 1  # row 1, column 2 of 3 x 8 patches
    changed = (ours.embed(images) != ours.embed(moved)).any(dim=-1)[0].nonzero().flatten().tolist()
    assert teacher.prefix_tokens == 6
    assert changed == [teacher.prefix_tokens + 1 * 8 + 2]
    assert teacher.patch_grid == (4, 6)


def test_logit_taps_are_the_raw_products_of_every_token():
    _, ours = pair(False)
    seen = []
    ours.blocks[0].attn.qkv.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with AttentionTaps(ours, logits=True, outputs=True) as taps:
        ours(batch((24, 64)))
    assert [tuple(t.shape) for t in taps.logits] == [(2, 3, 30, 30)] * 3
    assert [tuple(t.shape) for t in taps.outputs] == [(2, 3, 30, 8)] * 3
    q, k = (seen[0][1, :, part * 24 + 8 : part * 24 + 16] for part in range(2))
    torch.testing.assert_close(taps.logits[0][1, 1], q @ k.T)


@pytest.mark.parametrize("wanted", ["logits", "outputs", "answers"])
def test_gradients_flow_to_the_image(wanted):
    _, ours = pair(True)
    images = batch((40, 24)).requires_grad_()
    with AttentionTaps(ours, logits=wanted == "logits", outputs=wanted == "outputs") as taps:
        found = ours(images)
    kept = {"logits": taps.logits, "outputs": taps.outputs, "answers": list(found)}[wanted]
    (gradient,) = torch.autograd.grad(sum(tensor.square().sum() for tensor in kept), images)
    assert gradient.isfinite().all()
    assert (gradient != 0).any(dim=(1, 2, 3)).all()


def test_every_embedding_step_is_a_module():
    _, ours = pair(True)
    shapes = {}
    for name in ("tokens", "position", "embedded", "mid_position.1", "mid_embedded.1", "norm"):
        ours.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)})
        )
    ours(batch((24, 64)))
    assert shapes == {
        "tokens": (2, 30, 24),
        "position": (1, 30, 24),
        "embedded": (2, 30, 24),
        "mid_position.1": (1, 30, 24),
        "mid_embedded.1": (2, 30, 24),
        "norm": (2, 5, 24),
    }


def test_images_that_the_patch_does_not_divide_are_refused():
    _, ours = pair(False)
    with pytest.raises(AssertionError, match="divisible by patch size"):
        ours(batch((30, 48)))


def test_detections_are_every_query_with_its_best_class():
    _, ours = pair(False)
    outputs = ours(batch((32, 48)))
    found = ours.detections(outputs)
    assert len(found) == 2
    scores = outputs.logits[1].softmax(-1)[:, :-1].amax(-1)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found[1].scores, scores[order])
    assert found[1].labels.tolist() == outputs.logits[1, :, :-1].argmax(-1)[order].tolist()
    torch.testing.assert_close(found[1].boxes, corners(outputs.boxes[1])[order])


def test_category_ids_are_those_that_torchvision_names():
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    named = [i for i, name in enumerate(names) if name not in ("N/A", "__background__")]
    assert list(COCO_CATEGORY_IDS) == named
    assert len(COCO_CATEGORY_IDS) == 80


def test_the_published_92_outputs_become_80_labels_and_no_object():
    theirs = YolosForObjectDetection(YolosConfig(**{**SMALL, "num_labels": 91}, image_size=[32, 48]))
    weight = theirs.class_labels_classifier.layers[2].weight
    state = from_transformers(theirs.state_dict())
    found = state["class_head.layers.2.weight"]
    assert found.shape == (81, 24)
    assert state["class_head.layers.2.bias"].shape == (81,)
    # Label 0 is 'person' (id 1), label 11 'stop sign' (id 13), label 79 'toothbrush' (id 90).
    for label, output in ((0, 1), (10, 11), (11, 13), (79, 90), (80, 91)):
        assert torch.equal(found[label], weight[output])


def test_the_older_place_of_the_mid_layer_positions_is_known():
    theirs, _ = pair(True)
    state = {k.replace("encoder.interpolation.", "encoder."): v for k, v in theirs.state_dict().items()}
    assert "vit.encoder.mid_position_embeddings" in state
    assert from_transformers(state)["mid_pos_embed"].shape == (2, 1, 30, 24)


def published_yolos_tiny():
    """A model as on the hub, with weights drawn here."""
    return YolosForObjectDetection(
        YolosConfig(
            hidden_size=192,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=[800, 1333],
            use_mid_position_embeddings=False,
            num_labels=91,
        )
    ).eval()


@pytest.fixture(scope="module")
def yolos_tiny():
    return published_yolos_tiny()


def test_yolos_tiny_loads_from_a_folder_and_answers_as_transformers(tmp_path, yolos_tiny):
    yolos_tiny.save_pretrained(tmp_path)
    teacher = load_backbone("yolos_tiny", find_weights(SPECS["yolos_tiny"], given=tmp_path))
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = yolos_tiny(images), teacher.model(images)
    rows = [*COCO_CATEGORY_IDS, 91]
    torch.testing.assert_close(found.logits, expected.logits[..., rows], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=1e-4, rtol=1e-4)
    assert teacher.prefix_tokens == 101
    assert teacher.patch_grid == (32, 54)


def test_pytorch_model_bin_loads_too(tmp_path, yolos_tiny):
    torch.save(yolos_tiny.state_dict(), tmp_path / "pytorch_model.bin")
    found = find_weights(SPECS["yolos_tiny"], given=tmp_path)
    assert found.name == "pytorch_model.bin"
    teacher = load_backbone("yolos_tiny", found)
    assert torch.equal(teacher.model.det_tokens, yolos_tiny.vit.embeddings.detection_tokens)


def test_weights_of_another_yolos_do_not_fit(tmp_path, yolos_tiny):
    safetensors.torch.save_file(yolos_tiny.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit digits_yolos \(yolos\)"):
        load_backbone("digits_yolos", tmp_path / "x.safetensors")


def test_the_hub_is_asked_for_the_authors_weights(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *names: asked.append(names) or str(tmp_path / "x")
    )
    find_weights(SPECS["yolos_small"])
    assert asked == [("hustvl/yolos-small", "model.safetensors")]


def test_yolos_small_is_the_published_architecture():
    model = build_model(SPECS["yolos_small"])
    config = YolosConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=91
    )  # the rest is transformers' default, as in its conversion of the authors' weights
    with torch.device("meta"):
        state = from_transformers(YolosForObjectDetection(config).state_dict())
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
