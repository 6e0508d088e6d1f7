"""The judge of "adversarial"."""

import pytest
import torch
from torch import nn

from audit.errors import BadModel
from audit.oracle import Oracle, check_logits
from tests.planted import Brightness, Noisy, TinyCNN, dark, images


class Fixed(nn.Module):
    """Answers what it was told, whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.eval()

    def forward(self, x):
        return self.answer(len(x))


def test_it_tells_right_from_wrong():
    x, _ = dark(4)
    judged = Oracle(Brightness(0.44), batch_size=3, seed=0).judge(x, torch.zeros(4, dtype=torch.int64))
    assert judged.prediction.tolist() == [0, 0, 1, 1]
    assert judged.correct.tolist() == [True, True, False, False]
    assert judged.p_correct.tolist() == [1, 1, 0, 0]
    assert judged.logits.shape == (4, 2)


def test_it_takes_no_gradient_and_judges_float32():
    model = TinyCNN()
    x, y = images(model)
    judged = Oracle(model, batch_size=8, seed=0).judge(x.double().requires_grad_(), y)
    assert judged.logits.dtype == torch.float32
    assert not judged.logits.requires_grad
    assert judged.correct.all()


def test_several_draws_vote():
    x, y = dark(6)
    model = Noisy(Brightness(0.44), sigma=0.3)
    judged = Oracle(model, batch_size=4, seed=0, draws=9).judge(x, y)
    assert ((judged.p_correct * 9).round() / 9 - judged.p_correct).abs().max() < 1e-6
    assert torch.equal(judged.correct, judged.p_correct >= 0.5)
    assert 0 < float(judged.p_correct.mean()) < 1


def test_its_randomness_is_its_own():
    x, y = dark(4)
    model = Noisy(Brightness(0.44))
    before = torch.get_rng_state()
    first = Oracle(model, batch_size=4, seed=3).judge(x, y)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    oracle = Oracle(model, batch_size=4, seed=3)
    assert torch.equal(oracle.judge(x, y).logits, first.logits)
    assert not torch.equal(oracle.judge(x, y).logits, first.logits)  # fresh draws, not the same ones again


def test_a_part_in_training_mode_is_named():
    model = TinyCNN()
    model.head.train()
    with pytest.raises(BadModel, match=r"training mode \(head\)"):
        Oracle(model, batch_size=4, seed=0).judge(*images(TinyCNN()))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda n: torch.full((n, 3), float("nan")), "NaN or infinite logits for 4 of 4"),
        (lambda n: torch.full((n, 3), float("inf")), "NaN or infinite"),
        (lambda n: torch.zeros(n, 1), "shape"),
        (lambda n: torch.zeros(n, 3, 2), "shape"),
        (lambda n: torch.zeros(n + 1, 3), "shape"),
    ],
)
def test_what_cannot_be_judged_is_refused(answer, sentence):
    with pytest.raises(BadModel, match=sentence):
        Oracle(Fixed(answer), batch_size=4, seed=0).judge(torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64))


def test_finite_logits_pass():
    check_logits(torch.zeros(5, 2), 5)
