"""Official detection checkpoints: every key has one place, and faults are one sentence."""

import pytest
import safetensors.torch
import torch

from backbones import SPECS, WeightsError, find_weights, load_backbone, register
from backbones.families.mmdet_keys import from_official, official_file, official_name
from backbones.loading import build_model
from tests.backbones.families import official_mask_rcnn as official


@pytest.fixture
def named():
    """The tiny specification under its name."""
    register(official.SPEC)
    return official.SPEC.name


def with_buffers(state):
    """What the official code's state holds besides weights."""
    buffers = {}
    for key in state:
        if key.endswith("relative_position_bias_table"):
            index = key.replace("bias_table", "index")
            buffers[index] = torch.zeros(49, 49, dtype=torch.int64)
    return state | buffers


def test_every_weight_has_its_own_official_name_and_shape():
    model = build_model(official.SPEC)
    found = {official_name(key): tuple(value.shape) for key, value in model.state_dict().items()}
    assert len(found) == len(model.state_dict())
    assert found == official.official_shapes()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("backbone.body.layers.1.downsample.norm.bias", "backbone.layers.0.downsample.norm.bias"),
        ("backbone.body.layers.3.blocks.1.mlp.fc1.weight", "backbone.layers.3.blocks.1.mlp.fc1.weight"),
        ("backbone.norms.3.weight", "backbone.norm3.weight"),
        ("backbone.fpn.inner_blocks.2.0.bias", "neck.lateral_convs.2.conv.bias"),
        ("rpn.head.conv.0.0.weight", "rpn_head.rpn_conv.weight"),
        ("roi_heads.box_head.fc7.weight", "roi_head.bbox_head.shared_fcs.1.weight"),
        ("roi_heads.mask_predictor.conv5_mask.weight", "roi_head.mask_head.upsample.weight"),
    ],
)
def test_names_follow_the_table(ours, theirs):
    assert official_name(ours) == theirs


def test_a_name_without_counterpart_is_an_error():
    with pytest.raises(KeyError, match=r"roi_heads\.other"):
        official_name("roi_heads.other.weight")


def test_classes_keep_their_order_with_the_background_last():
    state = official.random_state()
    model = build_model(official.SPEC)
    converted = from_official(state, model.state_dict())
    assert converted["roi_heads.class_logits.weight"] is state["roi_head.bbox_head.fc_cls.weight"]
    assert converted["roi_heads.box_deltas.weight"] is state["roi_head.bbox_head.fc_reg.weight"]
    model.load_state_dict(converted)
    for bias in (model.roi_heads.class_logits.bias, model.roi_heads.box_deltas.bias):
        bias.data.zero_()
    model.roi_heads.class_logits.weight.data.zero_()
    model.roi_heads.class_logits.bias.data[4] = 9.0
    outputs = model.eval()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert set(outputs.detections[0].labels.tolist()) == {4}


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_official_file_loads(tmp_path, named, wrapped):
    state = with_buffers(official.random_state())
    content = {"meta": {"epoch": 36, "CLASSES": ("person", "bicycle")}, "state_dict": state}
    torch.save(content if wrapped else state, tmp_path / "official.pth")
    backbone = load_backbone(named, tmp_path / "official.pth")
    loaded = backbone.model.state_dict()
    assert all(torch.equal(state[official_name(key)], value) for key, value in loaded.items())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert backbone.patch_grid == (24, 32)


def test_safetensors_with_official_names_load(tmp_path, named):
    safetensors.torch.save_file(official.random_state(), tmp_path / "official.safetensors")
    assert load_backbone(named, tmp_path / "official.safetensors").num_classes == official.CLASSES


def fault(tmp_path, named, state):
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"does not fit tiny_mask_rcnn") as caught:
        load_backbone(named, tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x.pth") in str(caught.value)
    return str(caught.value)


def test_missing_and_unknown_weights_are_named_together(tmp_path, named):
    state = official.random_state()
    del state["neck.fpn_convs.3.conv.bias"]
    state["roi_head.mask_iou_head.fc.weight"] = torch.zeros(1)
    message = fault(tmp_path, named, state)
    assert "without neck.fpn_convs.3.conv.bias" in message
    assert "unknown roi_head.mask_iou_head.fc.weight" in message


def test_many_missing_weights_are_counted(tmp_path, named):
    state = official.random_state()
    kept = {key: value for key, value in state.items() if key.startswith("backbone.")}
    message = fault(tmp_path, named, kept)
    assert f"and {len(state) - len(kept) - 5} more" in message
    assert "unknown" not in message


def test_weights_of_another_size_are_named(tmp_path, named):
    state = official.random_state()
    state["roi_head.bbox_head.fc_cls.bias"] = torch.zeros(81)
    assert "roi_heads.class_logits.bias" in fault(tmp_path, named, state)


@pytest.mark.parametrize("name", ["maskrcnn_swin_tiny", "maskrcnn_swin_small"])
def test_without_a_file_the_official_one_is_asked_for(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("asked the hub"))
    size = name.rpartition("_")[2]
    assert official_file(SPECS[name]) == f"mask_rcnn_swin_{size}_patch4_window7.pth"
    with pytest.raises(WeightsError, match=f"--weights {name}=FILE") as caught:
        find_weights(SPECS[name])
    assert official_file(SPECS[name]) in str(caught.value)
