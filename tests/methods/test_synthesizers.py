"""What the synthesizers that optimise images have in common beyond the contract, and what imports cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from methods import configure, get_method, method_names
from methods.base import SynthesisTask
from methods.synthesis.loop import ImageOptimizer
from methods.testing.models import DIGITS_MODELS, disturbed, seeded, synthesizer, untrained

OPTIMISERS = [
    name
    for name in method_names()
    if (made := get_method(name).synthesizer) is not None and issubclass(made, ImageOptimizer)
]
# The loss of fdd changes from stage to stage, that of smi with the tokens that are left.
CHANGING = {"fdd", "smi"}
COUNTS = {
    "psaq_vit": ((32, 32, 1000), (32, 32, 300)),
    "mimiq": ((10_000, 16, 2000), (128, 16, 150)),
    "maskaq": ((10_000, 16, 2000), (128, 16, 150)),
    "clamp_vit": ((32, 32, 1000), (32, 32, 200)),
    "sardfq": ((32, 32, 1000), (32, 32, 150)),
    "smi": ((32, 32, 4000), (32, 32, 300)),
    "fdd": ((32, 32, 1000), (32, 32, 200)),
    "d4c": ((128, 16, 3000), (128, 16, 150)),
    "psaq_vit_v2": ((10_000, 32, 500), (128, 32, 40)),
}
"""Images, batch size and iterations under the budgets paper and fast."""


@pytest.mark.parametrize("family", DIGITS_MODELS)
@pytest.mark.parametrize("name", [name for name in OPTIMISERS if name not in CHANGING])
def test_optimisation_lowers_the_total_loss(family, name):
    teacher, totals = untrained(family), []
    synthesizer(name, iterations=60, images=4, learning_rate=0.02).synthesize(
        SynthesisTask(
            teacher,
            seeded(),
            lambda step, total, losses: totals.append(sum(losses.values())),
            student=disturbed(teacher),
        )
    )
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_budgets_have_the_paper_s_counts_and_shorter_ones(name):
    budgets = [configure(get_method(name).synthesizer.Config, budget, {}) for budget in ("paper", "fast")]
    assert tuple((c.images, c.batch_size, c.iterations) for c in budgets) == COUNTS[name]


def test_full_precision_has_no_synthesizer_and_no_engine():
    method = get_method("fp32")
    assert method.synthesizer is None
    assert method.engine is None


def test_importing_every_method_and_engine_imports_neither_a_data_set_nor_torch():
    code = (
        "import sys, methods\n"
        "for name in methods.method_names(): methods.get_method(name)\n"
        "for name in methods.engine_names(): methods.get_engine(name)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tasks', 'torch', 'timm', 'torchvision'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_synthesizing_imports_no_data_set():
    code = (
        "import sys\n"
        "from methods.base import SynthesisTask\n"
        "from methods.testing.models import disturbed, seeded, synthesizer, untrained\n"
        "teacher = untrained('digits_vit')\n"
        f"for name in {OPTIMISERS!r}:\n"
        "    synthesizer(name).synthesize(SynthesisTask(teacher, seeded(), student=disturbed(teacher)))\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'tasks'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
