"""The training loop and the losses: closed-form values, and a killed training that ends as an unbroken one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from audit.errors import BadInput, BadModel
from audit.margins import margin_loss
from audit.training import adjusted
from defenses.networks import MiddleCNN
from defenses.recipes import Recipe, cross_entropy, plain
from defenses.super_fitting import RECIPES
from defenses.super_fitting.losses import KAPPA, bounded_mucs, ce_mucs, mucs
from defenses.training import Trainer

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [2.0, 5.0, 4.0]])
LABELS = torch.tensor([0, 2])


def recipe(**changes) -> Recipe:
    return Recipe("tiny", **{"loss": plain(cross_entropy), "network": "middle_cnn", "width": 0.1, "epochs": 3, "source": "test",
                             "batch_size": 8, "decay": "linear", **changes})  # fmt: skip


def trainer(checkpoint=None, **changes) -> Trainer:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(24, 1, 8, 8, generator=generator), torch.randint(0, 3, (24,), generator=generator)
    torch.manual_seed(0)
    return Trainer(MiddleCNN(1, 8, 3, 0.1), recipe(**changes), x, y, seed=5, checkpoint=checkpoint)


def test_losses_in_closed_form():
    assert margin_loss(LOGITS, LABELS).tolist() == [-2.0, 1.0]
    ce = (math.log(1 + math.exp(-2) + math.exp(-3)) + math.log(math.exp(-2) + math.exp(1) + 1)) / 2
    assert float(cross_entropy(LOGITS, LABELS)) == pytest.approx(ce, rel=1e-5)
    assert float(mucs(LOGITS, LABELS)) == pytest.approx(-0.5)
    assert float(ce_mucs(LOGITS, LABELS)) == pytest.approx(ce - 0.5, rel=1e-5)
    assert float(bounded_mucs(LOGITS, LABELS)) == pytest.approx(ce + KAPPA - 0.5, rel=1e-5)


def test_the_bounded_loss_stops_pushing_at_kappa_and_the_papers_does_not():
    logits = torch.tensor([[KAPPA + 1.0, 0.0, -5.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(bounded_mucs(logits, torch.tensor([0])), logits)
    assert torch.equal(gradient, torch.zeros_like(logits))
    (gradient,) = torch.autograd.grad(ce_mucs(logits, torch.tensor([0])), logits)
    assert gradient.tolist() == [[-1.0, 1.0, 0.0]]


def test_the_papers_recipes_are_table_1():
    assert {name: (r.epochs, r.lr, r.width, r.images, r.decay) for name, r in RECIPES.items() if name != "small"} == {
        "paper": (500, 1e-3, 1.0, None, "none"),
        "paper-ce": (30_000, 1e-3, 1.0, None, "none"),
        "paper-mucs": (500, 1e-3, 1.0, None, "none"),
        "paper-resnet18": (3_000, 1e-3, 1.0, None, "none"),
        "paper-resnet18-ce": (30_000, 1e-3, 1.0, None, "none"),
        "paper-resnet18-mucs": (3_000, 1e-3, 1.0, None, "none"),
    }


def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    whole = trainer()
    rows = list(whole.epochs())
    first = trainer(tmp_path / "c.pt")
    for _ in first.epochs():
        break  # as if it were killed after the first epoch
    second = trainer(tmp_path / "c.pt")
    assert [row.epoch for row in second.table] == [1]
    list(second.epochs())
    assert [row.loss for row in second.table] == [row.loss for row in rows]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_a_checkpoint_of_another_run_or_torn_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    list(trainer(path).epochs())
    with pytest.raises(BadInput, match="another training run"):
        trainer(path, lr=0.5)
    other = trainer()
    with pytest.raises(BadInput, match="another training run"):
        Trainer(other.network, other.recipe, 1 - other.x, other.y, seed=5, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadInput, match="not a training checkpoint"):
        trainer(path)


def test_no_step_of_one_seed_draws_what_a_step_of_another_does():
    seen: dict[int, list[int]] = {}
    for seed in (0, 1, 10**10):

        def watched(batch, seed=seed):
            seen.setdefault(seed, []).append(batch.seed)
            return batch.x

        start = trainer()
        list(Trainer(start.network, recipe(adversary=watched), start.x, start.y, seed=seed).epochs())
    assert seen[0] == list(range(9))  # three epochs of three steps each
    assert len({step for steps in seen.values() for step in steps}) == 3 * 9
    assert all(step < 2**32 for steps in seen.values() for step in steps)  # more is no seed for numpy


def test_a_loss_that_is_not_finite_stops_the_training():
    def diverge(logits, y):
        return logits.sum() * float("inf")

    with pytest.raises(BadModel, match="lower the learning rate"):
        list(trainer(loss=plain(diverge)).epochs())


def test_the_learning_rate_falls_to_zero_and_the_adversary_is_asked():
    asked = []

    def nudge(batch):
        assert not batch.network.training
        asked.append(batch.seed)
        return batch.x

    run = trainer(adversary=nudge)
    rates = [row.learning_rate for row in run.epochs()]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-3 / 9)
    assert len(asked) == len(set(asked)) == 9
    assert not run.network.training


def test_an_adjusted_recipe_says_so_in_its_name():
    changed = adjusted(RECIPES["small"], epochs=2, images=100)
    assert (changed.name, changed.epochs, changed.images) == ("small-epochs2-images100", 2, 100)
    assert adjusted(RECIPES["small"], epochs=None, images=None) == RECIPES["small"]
    with pytest.raises(BadInput, match="at least 1"):
        adjusted(replace(RECIPES["small"]), epochs=0, images=None)
