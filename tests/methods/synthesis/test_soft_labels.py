import torch

from methods.synthesis.soft_labels import soft_labels


def made(count: int, classes: int, wanted: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(count, classes, dtype=torch.bool)
    mask[:, :wanted] = True
    return mask, soft_labels(mask, generator=torch.Generator().manual_seed(seed))


def test_rows_sum_to_one_and_follow_the_seed():
    _, labels = made(20, 10, 3)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(20))
    assert torch.equal(labels, made(20, 10, 3)[1])
    assert not torch.equal(labels, made(20, 10, 3, seed=1)[1])


def test_wanted_logits_are_uniform_from_5_to_10_over_a_standard_normal_background():
    wanted, labels = made(200, 1000, 4)
    logits = labels.log()
    background = logits[~wanted].view(200, -1)
    logits = logits - background.mean(dim=1, keepdim=True)  # softmax forgets the origin
    assert abs(background.std(dim=1).mean() - 1) < 0.02
    raised = logits[wanted]
    assert 5 - 0.15 < raised.min() < 5.2
    assert 9.8 < raised.max() < 10 + 0.15
    assert abs(raised.mean() - 7.5) < 0.15
    assert abs(raised.var() - 25 / 12) < 0.2


def test_a_wanted_class_outweighs_every_other():
    wanted, labels = made(50, 10, 1)
    assert (labels.argmax(dim=1) == 0).all()
    assert labels[wanted].min() > 0.6
