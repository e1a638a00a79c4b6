"""Every synthesizer on the tiny models, and what each method's objective promises."""

import copy
import subprocess
import sys

import pytest
import torch

from backbones import SPECS, Backbone
from backbones.loading import build_model
from methods import configure, get_method, method_names
from methods.base import SynthesisTask
from methods.maskaq import Maskaq, MaskaqConfig, MaskaqObjective
from methods.mimiq import MimiqConfig, MimiqObjective
from methods.psaq_vit import PsaqVit, PsaqVitConfig, PsaqVitObjective
from methods.synthesis.loop import Batch

OPTIMISED = ("psaq_vit", "mimiq", "maskaq", "clamp_vit", "sardfq", "smi", "fdd")


@pytest.fixture(scope="module", params=["digits_vit", "digits_swin"])
def teacher(request) -> Backbone:
    return untrained(request.param)


def untrained(name: str) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(SPECS[name])
    return Backbone(SPECS[name], model.eval().requires_grad_(False), "x")


def student_of(teacher: Backbone) -> torch.nn.Module:
    """Stands for a quantized model: the teacher with disturbed weights."""
    student = copy.deepcopy(teacher.model)
    source = seeded(9)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=source)
    return student.requires_grad_(True)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smoke(name: str, **overrides):
    synthesizer = get_method(name).synthesizer
    return synthesizer(configure(synthesizer.Config, "smoke", overrides))


def batch_of(teacher: Backbone, count: int = 4, **more) -> Batch:
    return Batch(teacher, torch.arange(count), seeded(), **more)


@pytest.mark.parametrize("name", OPTIMISED)
def test_smoke_is_deterministic_and_in_range(teacher, name):
    student = student_of(teacher)
    before = torch.get_rng_state()
    first, again, other = (
        smoke(name).synthesize(SynthesisTask(teacher, generator=seeded(seed), student=student, epoch=30))
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert first.final_losses == again.final_losses
    assert not torch.equal(first.images, other.images)
    low, high = teacher.pixel_range()
    assert ((first.images >= low) & (first.images <= high)).all()
    assert first.images.shape == (4, 1, 16, 16)
    assert all(parameter.grad is None for parameter in student.parameters())


# fdd's loss changes from stage to stage, smi's with the tokens that are left; they have tests of their own.
@pytest.mark.parametrize("name", [name for name in OPTIMISED if name not in ("fdd", "smi")])
def test_optimisation_lowers_the_total_loss(teacher, name):
    totals = []
    smoke(name, iterations=60, images=4).synthesize(
        SynthesisTask(
            teacher,
            generator=seeded(),
            student=student_of(teacher),
            epoch=30,
            progress=lambda step, total, losses: totals.append(sum(losses.values())),
        )
    )
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("name", OPTIMISED)
@pytest.mark.parametrize("budget", ["paper", "fast", "smoke"])
def test_every_budget_gives_a_valid_config(name, budget):
    config = configure(get_method(name).synthesizer.Config, budget, {})
    expected = {
        ("psaq_vit", "paper"): (32, 32, 1000),
        ("psaq_vit", "fast"): (32, 32, 300),
        ("mimiq", "paper"): (10_000, 16, 2000),
        ("mimiq", "fast"): (128, 16, 150),
        ("maskaq", "paper"): (10_000, 16, 2000),
        ("maskaq", "fast"): (128, 16, 150),
        ("clamp_vit", "paper"): (32, 32, 1000),
        ("clamp_vit", "fast"): (32, 32, 200),
        ("sardfq", "paper"): (32, 32, 1000),
        ("sardfq", "fast"): (32, 32, 150),
        ("smi", "paper"): (32, 32, 4000),
        ("smi", "fast"): (32, 32, 300),
        ("fdd", "paper"): (32, 32, 1000),
        ("fdd", "fast"): (32, 32, 200),
    }
    counts = (config.images, config.batch_size, config.iterations)
    assert counts == expected.get((name, budget), (4, 4, config.iterations))


def test_gaussian_noise_is_standard_normal(teacher):
    made = smoke("gaussian_noise", images=64).synthesize(SynthesisTask(teacher, generator=seeded()))
    assert made.images.shape == (64, 1, 16, 16)
    assert made.images.mean().item() == pytest.approx(0, abs=0.03)
    assert made.images.std().item() == pytest.approx(1, abs=0.03)
    assert made.labels.tolist() == [-1] * 64
    assert torch.equal(
        made.images,
        smoke("gaussian_noise", images=64).synthesize(SynthesisTask(teacher, generator=seeded())).images,
    )


def test_real_data_hands_on_the_first_images(teacher):
    given = (torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 16, 16), torch.arange(6))
    made = smoke("real_data").synthesize(SynthesisTask(teacher, generator=seeded(), real_images=given))
    assert torch.equal(made.images, given[0][:4])
    assert made.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("given", [None, (torch.zeros(3, 1, 16, 16), torch.zeros(3))])
def test_real_data_says_how_many_images_are_missing(teacher, given):
    count = 0 if given is None else 3
    with pytest.raises(ValueError, match=f"needs 4 real images and was given {count}"):
        smoke("real_data").synthesize(SynthesisTask(teacher, generator=seeded(), real_images=given))


def test_full_precision_has_no_synthesizer_and_no_engine():
    method = get_method("fp32")
    assert method.synthesizer is None
    assert method.engine is None


def test_psaq_rates_warm_up_in_both_phases():
    rate = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_vit"))).learning_rate
    assert [rate(i) for i in (0, 99, 100, 300)] == pytest.approx([0.002, 0.2, 0.2, 0.1])
    assert rate(499) == pytest.approx(0, abs=1e-4)
    assert [rate(i) for i in (500, 599, 800)] == pytest.approx([0.002, 0.2, 0.1])
    swin = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_swin")))
    assert swin.learning_rate(99) == pytest.approx(0.25)


def test_psaq_wants_the_paper_s_variation_scaled_to_the_batch():
    teacher = untrained("digits_vit")
    images = torch.zeros(4, 1, 16, 16)
    wanted = []
    for seed in range(200):
        batch = Batch(teacher, torch.arange(4), seeded(seed))
        objective = PsaqVitObjective(PsaqVitConfig(variation_weight=1.0), batch)
        wanted.append(objective.losses(images, images, 0)["variation"].item())
    scale = (4 * 1 * 16 * 16 / (32 * 3 * 224 * 224)) ** 0.5
    assert 2500 * scale <= min(wanted) < 2520 * scale
    assert 2980 * scale < max(wanted) <= 3000 * scale


def test_psaq_drops_a_swin_patch_only_when_asked():
    teacher = untrained("digits_swin")
    images = torch.randn(4, 1, 16, 16, generator=seeded())

    def entropy(**settings) -> torch.Tensor:
        objective = PsaqVitObjective(PsaqVitConfig(**settings), batch_of(teacher))
        return objective.losses(images, images, 0)["patch_entropy"]

    assert entropy() != entropy(faithful_swin_drop=True)
    vit = PsaqVitObjective(PsaqVitConfig(faithful_swin_drop=True), batch_of(untrained("digits_vit")))
    kept = PsaqVitObjective(PsaqVitConfig(), batch_of(untrained("digits_vit")))
    assert vit.losses(images, images, 0)["patch_entropy"] == kept.losses(images, images, 0)["patch_entropy"]


def test_psaq_ends_with_more_diverse_patches_than_noise(teacher):
    noise = torch.randn(4, 1, 16, 16, generator=seeded())
    objective = PsaqVitObjective(PsaqVitConfig(), batch_of(teacher))
    before = objective.losses(noise, noise, 0)["patch_entropy"]
    alone = {"iterations": 80, "learning_rate": 0.02, "one_hot_weight": 0, "variation_weight": 0}
    synthesizer = PsaqVit(configure(PsaqVitConfig, "smoke", alone))
    made = synthesizer.synthesize(SynthesisTask(teacher, generator=seeded())).images
    assert objective.losses(made, made, 0)["patch_entropy"] < before


def test_mimiq_rate_falls_along_the_cosine():
    rate = MimiqObjective(MimiqConfig(), batch_of(untrained("digits_vit"))).learning_rate
    assert rate(0) == pytest.approx(0.1)
    assert rate(1000) == pytest.approx((0.1 + 0.001) / 2)
    assert rate(1999) == pytest.approx(0.001, abs=1e-6)


def test_mimiq_colour_shift_fades_out():
    images = torch.zeros(64, 1, 16, 16)
    objective = MimiqObjective(MimiqConfig(iterations=1000), batch_of(untrained("digits_vit")))
    spread = [objective.view(images, i).std().item() for i in (0, 999)]
    assert spread[1] < spread[0]


def test_maskaq_makes_the_first_set_without_the_student(teacher):
    synthesizer = Maskaq(configure(MaskaqConfig, "smoke", {}))
    alone = synthesizer.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=0))
    together = synthesizer.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=student_of(teacher), epoch=0)
    )
    assert torch.equal(alone.images, together.images)
    assert set(alone.final_losses) == {"head_similarity", "one_hot", "variation", "row_entropy"}


def test_maskaq_in_faithful_mode_aligns_from_the_start(teacher):
    synthesizer = Maskaq(configure(MaskaqConfig, "smoke", {"mode": "faithful"}))
    made = synthesizer.synthesize(
        SynthesisTask(teacher, generator=seeded(), student=student_of(teacher), epoch=0)
    )
    assert made.final_losses["alignment"] > 0
    with pytest.raises(ValueError, match="needs the student"):
        synthesizer.synthesize(SynthesisTask(teacher, generator=seeded(), epoch=0))


def test_maskaq_s_alignment_sends_gradients_through_both_models(teacher):
    config = MaskaqConfig(entropy_weight=0.0, head_weight=0.0, one_hot_weight=0.0, variation_weight=0.0)
    student = student_of(teacher)
    images = torch.randn(4, 1, 16, 16, generator=seeded())

    def gradient(through_teacher: bool) -> torch.Tensor:
        x = images.clone().requires_grad_()
        objective = MaskaqObjective(config, batch_of(teacher, student=student))
        seen = x if through_teacher else x.detach()
        original = teacher.model.forward

        def teacher_forward(view: torch.Tensor) -> torch.Tensor:
            return original(seen)

        teacher.model.forward = teacher_forward
        try:
            loss = objective.losses(x, x, 0)["alignment"]
        finally:
            teacher.model.forward = original
        return torch.autograd.grad(loss, x)[0]

    assert gradient(True).abs().sum() > 0
    assert not torch.equal(gradient(True), gradient(False))


def test_maskaq_s_alignment_vanishes_for_a_perfect_student(teacher):
    objective = MaskaqObjective(MaskaqConfig(), batch_of(teacher, student=copy.deepcopy(teacher.model)))
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    assert objective.losses(images, images, 0)["alignment"] == 0


@pytest.mark.parametrize(
    ("off", "term"), [("entropy_weight", "row_entropy"), ("alignment_weight", "alignment")]
)
def test_maskaq_s_parts_can_be_switched_off(teacher, off, term):
    student = student_of(teacher)

    def terms(**overrides) -> set[str]:
        synthesizer = Maskaq(configure(MaskaqConfig, "smoke", overrides))
        return set(
            synthesizer.synthesize(
                SynthesisTask(teacher, generator=seeded(), student=student, epoch=30)
            ).final_losses
        )

    assert terms() - terms(**{off: 0}) == {term}


def test_maskaq_without_entropy_and_student_is_mimiq(teacher):
    overrides = {"iterations": 4}
    plain = smoke("mimiq", **overrides).synthesize(SynthesisTask(teacher, generator=seeded()))
    reduced = smoke("maskaq", entropy_weight=0, alignment_weight=0, **overrides)
    assert torch.equal(plain.images, reduced.synthesize(SynthesisTask(teacher, generator=seeded())).images)


@pytest.mark.parametrize("setting", ["mask_drop", "mask_first", "entropy_rows"])
def test_maskaq_s_mask_and_rows_change_the_losses(setting):
    teacher = untrained("digits_vit")
    student = student_of(teacher)
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    value = {"mask_drop": 0.0, "mask_first": 0.2, "entropy_rows": 8}[setting]

    def losses(config: MaskaqConfig) -> dict:
        objective = MaskaqObjective(config, batch_of(teacher, student=student))
        return dict(objective.losses(images, images, 0))

    changed = "row_entropy" if setting == "entropy_rows" else "alignment"
    assert losses(MaskaqConfig())[changed] != losses(MaskaqConfig(**{setting: value}))[changed]


def test_maskaq_refreshes_every_thirty_epochs():
    synthesizer = Maskaq(MaskaqConfig())
    assert [epoch for epoch in range(100) if synthesizer.refreshes_at(epoch)] == [30, 60, 90]
    fast = Maskaq(configure(MaskaqConfig, "fast", {}))
    assert [epoch for epoch in range(10) if fast.refreshes_at(epoch)] == [5]
    assert not Maskaq(MaskaqConfig(refresh_every=0)).refreshes_at(30)


def test_engine_settings_follow_the_config():
    settings = get_method("maskaq").engine_settings
    assert settings(MaskaqConfig()) == {"head_distillation": "masked", "mode": "fixed"}
    assert settings(MaskaqConfig(masked_distillation=False, mode="faithful")) == {
        "head_distillation": "structural",
        "mode": "faithful",
    }
    assert get_method("mimiq").engine_settings(MimiqConfig()) == {"head_distillation": "structural"}


def test_importing_every_method_imports_neither_a_data_set_nor_torch():
    names = [name for name in method_names() if name]
    code = (
        "import sys, methods\n"
        f"for name in {names!r}: methods.get_method(name)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tasks', 'torch', 'timm', 'torchvision'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_synthesizing_with_every_method_imports_no_data_set():
    code = (
        "import sys, copy, torch\n"
        "from backbones import SPECS, Backbone\n"
        "from backbones.loading import build_model\n"
        "from methods import SynthesisTask, configure, get_method\n"
        "spec = SPECS['digits_vit']\n"
        "teacher = Backbone(spec, build_model(spec).eval().requires_grad_(False), 'x')\n"
        f"for name in {OPTIMISED!r}:\n"
        "    make = get_method(name).synthesizer\n"
        "    make(configure(make.Config, 'smoke', {})).synthesize(SynthesisTask(\n"
        "        teacher, torch.Generator(), student=copy.deepcopy(teacher.model), epoch=30))\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'tasks'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
