"""Published numbers keep their source and come in a fixed order."""

from __future__ import annotations

from results.published import published_numbers, published_values


def test_every_row_is_read():
    assert len(published_numbers()) >= 728
    assert all(number.source for number in published_numbers())


def test_the_authors_own_number_comes_first():
    numbers = published_values("PSAQ-ViT", "DeiT-T", "w4a8", "imagenet")
    assert numbers[0].value == 65.57
    assert numbers[0].source.startswith("PSAQ-ViT README")
    assert {number.value for number in numbers} == {65.57, 66.16, 65.682}


def test_disagreeing_sources_are_all_kept_the_authors_own_first():
    numbers = published_values("PSAQ-ViT", "DeiT-S", "w4a8", "imagenet")
    assert [number.value for number in numbers] == [73.23, 76.56, 72.04, 72.324]
    assert numbers[0].source.startswith("PSAQ-ViT README")
    assert numbers[1].source.startswith("MaskAQ paper Table 1")


def test_a_number_under_another_quantizer_has_a_name_of_its_own():
    own = published_values("PSAQ-ViT", "DeiT-S", "w4a4", "imagenet")
    other = published_values("PSAQ-ViT (SARDFQ quantizer)", "DeiT-S", "w4a4", "imagenet")
    assert ([n.value for n in own], [n.value for n in other]) == ([5.90], [58.28])
    assert "SECONDARY" in other[0].note


def test_full_precision_rows_are_found_by_bits_alone():
    numbers = published_values("whatever", "ViT-T", "fp32", "imagenet")
    assert [number.value for number in numbers] == [72.01, 75.454]
    assert published_values("FP baseline", "ViT-T", "w4a4", "imagenet") == ()


def test_box_ap_goes_by_several_names_and_is_no_mask_ap():
    repq = published_values("RepQ-ViT", "Mask R-CNN Swin-S", "w4a4", "coco", "ap")
    assert [number.value for number in repq] == [44.2, 42.7, 42.6]
    assert {n.metric for n in repq} == {"AP_box"}
    others = published_values("Task-specific ZSQ", "Mask R-CNN Swin-T", "w6a6", "coco", "ap")
    assert [(n.value, n.metric) for n in others] == [(42.0, "mAP")]
    full = published_values("whatever", "Mask R-CNN Swin-S", "fp32", "coco", "ap")
    assert [number.value for number in full] == [48.5]
    assert published_values("RepQ-ViT", "Mask R-CNN Swin-S", "w4a4", "coco") == ()


def test_a_task_that_no_paper_uses_has_no_numbers():
    assert published_values("PSAQ-ViT", "DeiT-T", "w4a8", "digits") == ()


def test_another_metric_is_not_mistaken_for_top1():
    assert published_values("PSAQ-ViT", "DeiT-T", "w4a8", "imagenet", metric="agreement") == ()
    assert all(number.metric == "top1" for number in published_values("MaskAQ", "Swin-T", "w4a4", "imagenet"))
