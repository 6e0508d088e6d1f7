"""The margin of a classification, by hand."""

import torch

from audit.margins import margin_loss


def test_the_margin_is_the_best_other_logit_less_the_labels():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    assert margin_loss(logits, torch.tensor([0, 1, 0])).tolist() == [-1, 2, 0]


def test_its_gradient_lifts_the_best_other_and_lowers_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    margin_loss(logits, torch.tensor([0])).sum().backward()
    assert logits.grad.tolist() == [[-1, 0, 1]]


def test_what_is_no_number_stays_none():
    logits = torch.tensor([[float("nan"), 1.0, 2.0], [1.0, float("nan"), 2.0]])
    assert margin_loss(logits, torch.tensor([0, 0])).isnan().all()
    assert margin_loss(torch.tensor([[float("inf"), 1.0]]), torch.tensor([0])).tolist() == [-float("inf")]
