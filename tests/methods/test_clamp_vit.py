import pytest
import torch

from backbones.families.explicit import AttentionTaps
from methods.clamp_vit import ClampVitConfig, ClampVitObjective
from methods.synthesis.loop import Batch
from methods.synthesis.patch_contrast import patch_contrast_loss, patch_maps
from methods.testing.models import DIGITS_MODELS, blobs, tiny


def objective_on(name: str, **settings) -> ClampVitObjective:
    batch = Batch(tiny(name), torch.arange(4), torch.Generator().manual_seed(0))
    return ClampVitObjective(ClampVitConfig(**settings), batch)


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_the_terms_are_what_they_say(name):
    teacher, images = tiny(name), blobs(4)
    objective = objective_on(name, contrast_weight=2.0, positives=3, temperature=0.2)
    with torch.no_grad():
        losses = objective.losses(images, images, 0)
        with AttentionTaps(teacher.model, outputs=True) as taps:
            predictions = teacher.model(images)
    maps = patch_maps(teacher, taps.outputs)
    contrasts = [patch_contrast_loss(m, positives=3, temperature=0.2) for m in maps]
    assert losses["patch_contrast"].item() == pytest.approx(2 * sum(c.item() for c in contrasts) / 4)
    wanted = -predictions.log_softmax(dim=1)[torch.arange(4), torch.arange(4)].mean()
    torch.testing.assert_close(losses["one_hot"], wanted)
    torch.testing.assert_close(losses["variation"], objective.variation(images))


@pytest.mark.parametrize("name", DIGITS_MODELS)
def test_the_contrast_falls_when_it_alone_is_optimised(name):
    objective = objective_on(name)
    images = blobs(4).requires_grad_()
    values = []
    optimizer = torch.optim.Adam([images], lr=0.05)
    for _ in range(15):
        loss = objective.losses(images, images, 0)["patch_contrast"]
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0]
