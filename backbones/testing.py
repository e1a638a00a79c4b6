"""The contract of a family as checks on one of its backbones, for families of plug-ins too.

    from backbones.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_contract(check):
        check(Backbone(SPEC, build_model(SPEC).eval().requires_grad_(False), "x"))

Each check takes a small teacher, which it leaves as it was, and raises AssertionError, whose sentence says
what does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from backbones.base import Backbone
from backbones.families.explicit import AttentionTaps, attention_modules
from backbones.loading import build_model

_IMAGES = 2


def check_building(teacher: Backbone) -> None:
    """The family builds a model with these weights' names and leaves the global random state alone."""
    before = torch.get_rng_state()
    model = build_model(teacher.spec)
    _hold(torch.equal(torch.get_rng_state(), before), "building a model changes the global random state")
    same = model.state_dict().keys() == teacher.model.state_dict().keys()
    _hold(same, "building a model twice gives different names of weights")


def check_weights(teacher: Backbone) -> None:
    """A state dict that has the model's own names comes through the conversion as it is."""
    state = teacher.model.state_dict()
    converted = teacher.family.convert_weights(dict(state), teacher.model)
    _hold(converted.keys() == state.keys(), "the model's own weights lose their names in the conversion")
    same = all(torch.equal(value, state[name]) for name, value in converted.items())
    _hold(same, "the model's own weights change in the conversion")


def check_attention(teacher: Backbone) -> None:
    """Every attention is tapped once, its maps are probabilities, and looking changes no output."""
    modules = attention_modules(teacher.model)
    _hold(len(modules) > 0, "no attention module is explicit: see backbones.families.explicit")
    images = _images(teacher)
    with torch.no_grad():
        plain = teacher.guidance.disagreement(teacher.model(images), teacher.model(images))
        with AttentionTaps(teacher.model, logits=True, outputs=True, maps=True) as taps:
            seen = teacher.model(images)
        drift = teacher.guidance.disagreement(teacher.model(images), seen)
    for what in ("logits", "outputs", "maps"):
        found = len(getattr(taps, what))
        _hold(found == len(modules), f"{found} of {len(modules)} attention modules show their {what}")
    sums = all(torch.allclose(m.sum(dim=-1), m.new_ones(()), atol=1e-4) for m in taps.maps)
    _hold(sums, "the rows of an attention map do not sum to 1")
    _hold(float(plain) == 0, "the model answers the same images differently")
    _hold(float(drift) < 1e-3, f"tapped attention changes the outputs by a share of {float(drift):.2g}")


def check_patches(teacher: Backbone) -> None:
    """The patch grid divides the image; global attention spans the prefix tokens and the patches."""
    rows, columns = teacher.patch_grid
    _, height, width = teacher.data.input_size
    divides = height % rows == 0 and width % columns == 0
    _hold(divides, f"a grid of {rows} x {columns} patches does not divide {height} x {width} pixels")
    if teacher.is_windowed:
        _hold(teacher.prefix_tokens == 0, "windowed attention has no prefix tokens")
        return
    with torch.no_grad(), AttentionTaps(teacher.model, maps=True) as taps:
        teacher.model(_images(teacher))
    tokens, expected = taps.maps[0].shape[-1], teacher.prefix_tokens + rows * columns
    _hold(tokens == expected, f"attention spans {tokens} tokens, prefix and patches are {expected}")


def check_heads(teacher: Backbone) -> None:
    """Some modules belong to the heads, no attention does, and every prefix names a module."""
    names = [name for name, _ in teacher.model.named_modules()]
    for prefix in teacher.family.head_prefixes:
        _hold(any(f"{name}.".startswith(prefix) for name in names), f"no module's name begins '{prefix}'")
    trunk = {id(module) for module in attention_modules(teacher.model)}
    wrong = [n for n, m in teacher.model.named_modules() if id(m) in trunk and teacher.is_of_heads(n)]
    _hold(not wrong, f"attention belongs to the trunk, not to the heads: {', '.join(wrong)}")


def check_quantization_points(teacher: Backbone) -> None:
    """Every point is a module, listed once; each attention contributes its product and its projection."""
    points = teacher.quantization_points()
    _hold(len(set(points)) == len(points), "a quantization point is listed twice")
    modules: dict[str, nn.Module] = dict(teacher.model.named_modules())
    unknown = [point for point in points if point not in modules]
    _hold(not unknown, f"quantization points that are no modules: {', '.join(unknown)}")
    attentions = {id(module) for module in attention_modules(teacher.model)}
    expected = {f"{n}.{p}" for n, m in modules.items() if id(m) in attentions for p in ("av", "proj")}
    missing = sorted(expected - set(points))
    _hold(not missing, f"attention without quantization points: {', '.join(missing)}")


def check_guidance(teacher: Backbone) -> None:
    """Targets have one form, their loss reaches the images, and a teacher does not differ from itself."""
    guidance = teacher.guidance
    targets = guidance.draw(_IMAGES, generator=Generator().manual_seed(0))
    again = guidance.draw(_IMAGES, generator=Generator().manual_seed(0))
    _hold(torch.equal(targets, again), "a seed does not decide the targets")
    nothing = guidance.nothing(_IMAGES)
    same_form = (targets.shape, targets.dtype) == (nothing.shape, nothing.dtype)
    _hold(same_form, "drawn targets and those of images for nothing differ in shape or type")
    images = _images(teacher).requires_grad_()
    outputs: Any = teacher.model(images)
    loss = guidance.loss(outputs, targets.to(teacher.device))
    _hold(loss.dim() == 0 and bool(loss.isfinite()), "the loss is not a finite number")
    (gradient,) = torch.autograd.grad(loss, images)
    _hold(bool(gradient.isfinite().all()), "the loss has no finite gradient at the images")
    with torch.no_grad():
        _hold(float(guidance.disagreement(outputs, outputs)) == 0, "a teacher disagrees with itself")
        other: Any = teacher.model(_images(teacher, seed=1))
        apart = float(guidance.distillation(outputs, other, 1.0))
        together = float(guidance.distillation(outputs, outputs, 1.0))
    _hold(apart > together, "the distillation loss is no smaller for the teacher's own outputs")


CHECKS: tuple[Callable[[Backbone], None], ...] = (
    check_building,
    check_weights,
    check_attention,
    check_patches,
    check_heads,
    check_quantization_points,
    check_guidance,
)
"""All of them; a family that passes works with every method and engine that declares `FAMILIES`."""


def _images(teacher: Backbone, seed: int = 0) -> Tensor:
    """(2, C, H, W) noise in normalized space."""
    noise = torch.randn(_IMAGES, *teacher.data.input_size, generator=Generator().manual_seed(seed))
    return noise.to(teacher.device)


def _hold(fact: bool, otherwise: str) -> None:
    if not fact:
        raise AssertionError(otherwise)
