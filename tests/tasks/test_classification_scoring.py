"""Scores against scipy and scikit-learn, and what happens to broken logits."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import top_k_accuracy_score

from backbones import SPECS, Backbone
from tasks.base import DataError, EvaluationOptions
from tasks.classification_scoring import Batch, compare, rank_labels, score

COUNT, CLASSES = 50, 10


class Table(torch.nn.Module):
    """A classifier that looks its logits up: an image is the number of its row."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.nn.Parameter(rows, requires_grad=False)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.rows[images[:, 0, 0, 0].long()]


def random_logits(seed, scale=2.0):
    return scale * torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))


def batches(labels=None, size=7):
    labels = torch.arange(COUNT) % CLASSES if labels is None else labels
    rows = torch.arange(COUNT, dtype=torch.float32).view(-1, 1, 1, 1)
    return [Batch(i, y) for i, y in zip(rows.split(size), labels.split(size), strict=True)]


def scored(q, p, labelled=True, **options):
    teacher = Backbone(SPECS["digits_vit"], Table(p), "x")
    chosen = EvaluationOptions(**{"reference": p} | options)
    return score(Table(q), teacher, batches(), chosen, total=COUNT, labelled=labelled)


def test_accuracies_equal_scikit_learns():
    q = random_logits(1)
    labels = np.arange(COUNT) % CLASSES
    metrics = scored(q, random_logits(2)).metrics
    for name, k in (("top1", 1), ("top5", 5)):
        expected = 100 * top_k_accuracy_score(labels, q.numpy(), k=k, labels=range(CLASSES))
        assert metrics[name] == pytest.approx(expected)
    assert 0 < metrics["top1"] < metrics["top5"] < 100


def test_divergence_equals_scipys_from_the_full_precision_model_to_the_student():
    q, p = random_logits(1), random_logits(2)
    expected = entropy(softmax(p.double().numpy(), axis=1), softmax(q.double().numpy(), axis=1), axis=1)
    scores = scored(q, p)
    np.testing.assert_allclose(scores.outcomes["kl"].numpy(), expected, rtol=1e-4)
    assert scores.metrics["kl"] == pytest.approx(expected.mean(), rel=1e-5)


def test_agreement_counts_equal_first_answers():
    q, p = random_logits(1), random_logits(2)
    q[:30] = p[:30] + 0.5
    same = q.argmax(1) == p.argmax(1)
    scores = scored(q, p)
    assert torch.equal(scores.outcomes["agreement"], same)
    assert scores.metrics["agreement"] == pytest.approx(100 * same.double().mean().item())


def test_outcomes_are_one_value_per_sample_in_order():
    q = random_logits(1)
    outcomes = scored(q, random_logits(2)).outcomes
    assert set(outcomes) == {"top1", "top5", "agreement", "kl"}
    assert all(len(values) == COUNT for values in outcomes.values())
    assert all(outcomes[name].dtype == torch.bool for name in ("top1", "top5", "agreement"))
    assert outcomes["kl"].dtype == torch.float32
    assert torch.equal(outcomes["top1"], q.argmax(1) == torch.arange(COUNT) % CLASSES)


def test_metrics_do_not_depend_on_the_batch_size():
    q, p = random_logits(1), random_logits(2)
    teacher = Backbone(SPECS["digits_vit"], Table(p), "x")
    runs = [
        score(Table(q), teacher, batches(size=s), EvaluationOptions(reference=p), total=COUNT).metrics
        for s in (1, 16, 50)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_without_a_reference_the_teacher_runs_beside_the_student():
    q, p = random_logits(1), random_logits(2)
    assert scored(q, p, reference=None).metrics == scored(q, p).metrics


def test_the_teacher_agrees_with_itself_and_runs_once():
    p = random_logits(2)
    teacher = Backbone(SPECS["digits_vit"], Table(p), "x")
    scores = score(teacher.model, teacher, batches(), EvaluationOptions(keep_outputs=True), total=COUNT)
    assert scores.metrics["agreement"] == 100
    assert scores.metrics["kl"] == 0
    assert teacher.model.calls == len(batches())
    assert torch.equal(scores.outputs, p)


def test_outputs_are_kept_only_on_request():
    assert scored(random_logits(1), random_logits(2)).outputs is None


def test_unlabelled_images_have_no_accuracy():
    scores = scored(random_logits(1), random_logits(2), labelled=False)
    assert set(scores.metrics) == set(scores.outcomes) == {"agreement", "kl"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_image_with_a_broken_logit_is_wrong_and_noted(bad):
    p = random_logits(2)
    p[torch.arange(COUNT), torch.arange(COUNT) % CLASSES] = 20  # every answer is right
    q = p.clone()
    q[3, 0], q[4, 5] = bad, bad
    scores = scored(q, p)
    wrong = torch.zeros(COUNT, dtype=torch.bool)
    wrong[3:5] = True
    for name in ("top1", "top5", "agreement"):
        assert torch.equal(~scores.outcomes[name], wrong)
        assert scores.metrics[name] == pytest.approx(96)
    assert torch.equal(scores.outcomes["kl"].isnan(), wrong)
    assert scores.metrics["kl"] == 0
    assert scores.notes == ("2 of 50 images gave logits that are not finite; they count as wrong",)


def test_a_wholly_broken_model_has_zeros_and_no_divergence():
    scores = scored(torch.full((COUNT, CLASSES), float("nan")), random_logits(2))
    assert scores.metrics == {"agreement": 0, "top1": 0, "top5": 0}


def test_sound_models_have_no_notes_and_plain_floats():
    scores = scored(random_logits(1), random_logits(2))
    assert scores.notes == ()
    assert all(type(value) is float for value in scores.metrics.values())


def test_top5_of_few_classes_takes_what_there_is():
    ranks = rank_labels(torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), torch.tensor([0, 0]))
    assert ranks["top1"].tolist() == [False, True]
    assert ranks["top5"].tolist() == [True, True]


def test_divergence_of_two_coins_by_hand():
    # P = (3/4, 1/4), Q = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2).
    found = compare(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 1.0]]).log())
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert found["kl"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [COUNT - 1, COUNT + 1])
def test_a_reference_over_other_images_is_refused(rows):
    p = random_logits(2)
    reference = torch.cat([p, p])[:rows]
    with pytest.raises(DataError, match=f"hold {rows} rows"):
        scored(random_logits(1), p, reference=reference)


def test_nothing_to_score_is_an_error():
    teacher = Backbone(SPECS["digits_vit"], Table(random_logits(2)), "x")
    with pytest.raises(DataError, match="no image"):
        score(teacher.model, teacher, [], total=0)


def test_progress_is_told_after_each_batch():
    seen = []
    scored(random_logits(1), random_logits(2), progress=lambda *call: seen.append(call))
    assert seen == [(done, COUNT, {}) for done in (7, 14, 21, 28, 35, 42, 49, 50)]
