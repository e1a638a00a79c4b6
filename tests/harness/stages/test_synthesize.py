"""The stage that makes images."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from harness.stages.facts import synthesis_facts
from harness.stages.rebuild import generator_of
from harness.stages.run_stage import run_stage


@pytest.mark.parametrize("name", ["gaussian_noise", "psaq_vit", "real_data"])
def test_images_are_stored_with_labels_and_what_they_cost(bench, name):
    key = bench.images(name).key
    stored, facts = bench.store.tensors(key), synthesis_facts(bench.store, key)
    assert stored["images"].shape == (facts.synthetic_images, 1, 16, 16)
    assert stored["images"].dtype == torch.float32
    assert stored["labels"].shape == (facts.synthetic_images,)
    assert facts.cost.synthesis_seconds > 0
    assert facts.cost.quantization_seconds is None
    assert facts.notes == ()
    assert bool(facts.final_losses) == (name == "psaq_vit")
    assert facts.environment.threads == 1


def test_noise_is_that_of_the_seed_and_its_purpose(bench):
    images = bench.store.tensors(bench.images("gaussian_noise").key)["images"]
    assert torch.equal(images, torch.randn(images.shape, generator=generator_of(0, "synthesize/0")))


def test_streams_differ_by_seed_and_by_purpose():
    def drawn(seed: int, purpose: str) -> list[float]:
        return torch.rand(4, generator=generator_of(seed, purpose)).tolist()

    assert drawn(0, "synthesize/0") == drawn(0, "synthesize/0")
    assert len({tuple(drawn(s, p)) for s in (0, 1) for p in ("synthesize/0", "quantize/0")}) == 4


def test_other_weights_than_planned_are_refused(bench):
    stage = bench.images("gaussian_noise")
    settings = {**stage.settings, "weights_sha256": "0" * 64}
    other = dataclasses.replace(stage, settings=settings, key="other_weights")
    result = run_stage(other, bench.context)
    assert result.status == "failed"
    assert "the weights of digits_vit changed since the run was planned" in result.reason
