"""TPAP: purification in closed form, its unrolled twin, the definition of robust overfitting, the recipes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from audit.claims import own_claims
from audit.datasets import FASHION_MNIST
from audit.errors import BadInput, BadWeights
from audit.linear import Linear, linear_problem
from audit.preparation import prepare
from defenses.adversaries import CW
from defenses.networks import MiddleCNN
from defenses.overfitting import accuracy, overfitting_probe, perturbed
from defenses.recipes import Batch
from defenses.staged import Staged
from defenses.tpap import RECIPES, TPAP
from defenses.tpap.overfitting import measured_overfitting, robust_overfitting
from defenses.tpap.purification import CWPurifier, SignPurifier, purified_by
from defenses.tpap.recipes import BOTH_RADII
from defenses.training import Trainer
from tests.planted import TinyCNN, images

XI = 0.03


def by_hand(model: Linear, x: torch.Tensor, xi: float) -> torch.Tensor:
    """Eq. 6-8 for logits W x + b: the gradient of CE at label t is W^T (softmax - onehot_t)."""
    logits = model(x).detach()
    label = logits.argmax(1)
    gradient = (logits.softmax(1) - F.one_hot(label, logits.shape[1])) @ model.weight.detach()
    return (x + xi * gradient.view_as(x).sign()).clamp(0, 1)


def test_the_purifier_is_fgsm_on_the_own_prediction():
    model, x, _ = linear_problem(0)
    x = torch.cat([x, torch.rand(4, *x.shape[1:], generator=torch.Generator().manual_seed(0))])  # the box binds here
    purified = SignPurifier(model, XI)(x)
    torch.testing.assert_close(purified, by_hand(model, x, XI), atol=1e-7, rtol=0)
    assert (purified - x).abs().amax() <= XI + 1e-7
    assert (purified != x).any()


def test_two_classes_in_full():
    """One pixel decides: the predicted class is 1 above 0.5, so the step goes down; below, up."""
    model = Linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5])).eval()
    x = torch.tensor([0.7, 0.2, 0.02, 1.0]).view(4, 1, 1, 1)
    found = SignPurifier(model, 0.1)(x).flatten()
    torch.testing.assert_close(found, torch.tensor([0.6, 0.3, 0.12, 0.9]))
    walk = SignPurifier(model, 0.1, steps=3, step_size=0.04)(x).flatten()  # 0.12, cut to 0.1
    torch.testing.assert_close(walk, torch.tensor([0.6, 0.3, 0.12, 0.9]))
    walk = SignPurifier(model, 0.1, steps=2, step_size=0.04)(x).flatten()
    torch.testing.assert_close(walk, torch.tensor([0.62, 0.28, 0.10, 0.92]))


def test_an_image_without_a_gradient_is_left_alone():
    network = TinyCNN(scale=1e6)  # softmax saturates: the cross-entropy gradient is exactly zero
    x, _ = images(network)
    assert torch.equal(SignPurifier(network, 0.1)(x), x)
    assert torch.equal(SignPurifier(network, 0.1).unrolled(0.1)(x), x)
    soft = SignPurifier(network, 0.1).unrolled(0.1)(leaf := x.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(soft.sum(), leaf)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("purifier", [SignPurifier, CWPurifier])
def test_purification_leaves_no_trace(purifier):
    network = TinyCNN()
    x, _ = images(network)
    x.requires_grad_()
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    with torch.no_grad():
        first = purifier(network)(x)
    again = purifier(network)(x)
    assert torch.equal(first, again)
    assert not again.requires_grad
    assert x.grad is None
    assert all(torch.equal(weight.grad, torch.ones_like(weight)) for weight in network.parameters())
    assert all(weight.requires_grad for weight in network.parameters())
    assert not network.training


def test_the_batch_does_not_matter():
    network = TinyCNN()
    x, _ = images(network)
    purify = SignPurifier(network, 0.1)
    torch.testing.assert_close(torch.cat([purify(row[None]) for row in x]), purify(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_unrolled_map_tends_to_the_exact_one(steps):
    network = TinyCNN().double()
    x = images(network.float())[0].double()
    network.double()
    purify = SignPurifier(network, 0.1, steps=steps, step_size=0.05)
    exact = purify(x)
    with torch.no_grad():
        errors = [float((purify.unrolled(t)(x) - exact).abs().mean()) for t in (1.0, 0.1, 1e-3, 1e-9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-6


def test_the_unrolled_map_has_the_derivative_of_what_it_computes():
    class Smooth(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double())

        def forward(self, x):
            return (x.flatten(1).tanh() @ self.weight.T).sin() * 3

    network = Smooth().eval()
    x = (0.3 + 0.4 * torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1))).double().requires_grad_()
    soft = SignPurifier(network, 0.05).unrolled(0.7)
    assert torch.autograd.gradcheck(soft, x)
    (through,) = torch.autograd.grad(network(soft(x)).square().sum(), x)
    (straight,) = torch.autograd.grad(network(soft(x.detach()).detach() + (x - x.detach())).square().sum(), x)
    assert not torch.allclose(through, straight)  # the purifier's own derivative is part of it
    with torch.no_grad():
        assert not soft(x).requires_grad


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(BadInput, match="expected a positive number"):
        SignPurifier(TinyCNN()).unrolled(temperature)


def test_cw_changes_the_prediction_at_a_small_distance():
    model, x, y = linear_problem(0)
    purified = CWPurifier(model, steps=300, lr=1e-3)(x)
    assert (model(purified).argmax(1) != y).all()
    shortest = model.distance(x, y, "L2")
    ratio = (purified - x).flatten(1).norm(dim=1) / shortest
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.5).all()  # it follows one class, the nearest boundary may be another


def test_training_with_cw_sees_the_nearest_image_that_is_not_the_true_class():
    model, x, y = linear_problem(0)
    wrong = torch.arange(len(x)) % 2 == 0  # these the model gets wrong from the start: nothing is to be done
    y = torch.where(wrong, (y + 1) % 3, y)
    found = CW(steps=300, lr=1e-3)(Batch(model, x, y, torch.arange(len(x)), 0, 0, 0, {}, x))
    assert (model(found).argmax(1) != y).all()
    far = (found - x).flatten(1).norm(dim=1)
    assert (far[wrong] < 1e-5).all()
    assert (far[~wrong] > 0.9 * model.distance(x, y, "L2")[~wrong]).all()
    assert not found.requires_grad


def test_ten_steps_of_cw_as_the_recipe_takes_them_fool_a_network_that_is_not_defended():
    prepared = prepare("undefended", suite="quick", n=40)
    x, y, network = prepared.target.x, prepared.target.y, prepared.target.model
    found = RECIPES["paper-cw"].adversary(Batch(network, x, y, torch.arange(len(x)), 0, 0, 0, {}, x))
    with torch.no_grad():
        assert (network(found).argmax(1) != y).float().mean() > 0.9


def test_the_manifest_chooses_the_purification():
    network = TinyCNN()
    x, _ = images(network)
    assert torch.equal(purified_by(network, {"purify": "none"})(x), network(x))
    found = purified_by(network, {"purify": "fgsm", "xi": 0.2}).purifier
    assert (found.xi, found.steps, found.step_size) == (0.2, 1, 0.2)
    found = purified_by(network, {"purify": "pgd", "xi": 0.2}).purifier
    assert (found.xi, found.steps, found.step_size) == (0.2, 10, 0.05)
    assert isinstance(purified_by(network, {"purify": "cw"}).purifier, CWPurifier)
    with pytest.raises(BadWeights, match="purification 'magic', expected fgsm, pgd, cw or none"):
        purified_by(network, {"purify": "magic"})


@pytest.mark.parametrize(("fits", "falls", "clean", "known"), list(itertools.product([True, False], repeat=4)))
def test_robust_overfitting_needs_every_condition_of_section_3_2(fits, falls, clean, known):
    found = robust_overfitting(
        0.95 if fits else 0.85, [0.02, 0.05 if falls else 0.3], 0.86 if clean else 0.5, 0.94 if known else 0.6
    )
    assert (found.fits_its_attack, found.falls_to_others, found.generalises) == (fits, falls, clean and known)
    assert bool(found) == (fits and falls and clean and known)


def test_robust_overfitting_at_the_edges():
    assert robust_overfitting(0.95, [0.0018], 0.8633, 0.9441)  # Table 6, the training numbers read off Fig. 1 and 4
    assert not robust_overfitting(0.9, [0.0], 0.9, 0.9)  # "higher than 90 %"
    assert not robust_overfitting(0.95, [0.1], 0.9, 0.9)  # "less than 10 %"
    assert not robust_overfitting(0.95, [], 0.9, 0.9)  # no other attack was measured
    assert not robust_overfitting(0.95, [0.0], 0.9, 0.9, high=0.95)


def test_robust_overfitting_is_measured_on_training_and_test_images():
    """The attack trained with does nothing, the others cross every boundary: overfitted, but not under a smaller eps."""
    model, x, y = linear_problem(0)
    reach, wrong = model.distance(x, y, "Linf"), (y + 1) % 3
    wide = replace(RECIPES["small"], adversary=lambda batch: batch.x, eps=1.5 * float(reach.max()))
    found = measured_overfitting(model, wide, (x, y), (x, y))
    assert found["holds"] is True
    assert {found[f"train_{name}"] for name in ("fgsm", "bim_10", "pgd_20")} == {0.0}
    assert (found["train_known"], found["test_clean"], found["test_known"], found["n_train"]) == (1, 1, 1, len(x))
    narrow = replace(wide, eps=0.5 * float(reach.min()))
    assert not measured_overfitting(model, narrow, (x, y), (x, y))["falls_to_others"]
    assert not measured_overfitting(model, wide, (x, y), (x, wrong))["generalises"]
    assert not measured_overfitting(model, wide, (x, wrong), (x, y))["fits_its_attack"]
    for name, others in (
        ("small", {"train_bim_10", "train_pgd_20"}),
        ("paper-pgd-10", {"train_fgsm"}),
        ("paper-cw", {"train_fgsm", "train_bim_10", "train_pgd_20"}),
    ):
        found = measured_overfitting(model, RECIPES[name], (x, y), (x, y))  # another length of its own is no other
        assert {key for key in found if key.startswith("train_")} - {"train_known"} == others
    assert measured_overfitting(model, replace(wide, adversary=None), (x, y), (x, y)) == {}


def test_accuracy_looks_at_every_image_once():
    model, x, y = linear_problem(0)
    many, labels = x.repeat(150, 1, 1, 1)[:601], y.repeat(150)[:601].clone()
    labels[300:] = (labels[300:] + 1) % 3
    seen = []
    found = accuracy(model, many, labels, lambda batch: seen.append(len(batch.x)) or batch.x)
    assert (found, seen) == (300 / 601, [250, 250, 101])
    assert perturbed(model, x, y, lambda batch: batch.x + batch.rows.view(-1, 1, 1, 1)).sum() > x.sum()


def test_the_probe_measures_what_its_columns_say():
    model, x, y = linear_problem(0)
    reach = model.distance(x, y, "Linf")
    wide = overfitting_probe(1.5 * float(reach.max()))(model, x, y)
    assert wide == {"probe_clean": 1.0, "probe_fgsm": 0.0, "probe_pgd": 0.0}
    assert overfitting_probe(0.5 * float(reach.min()))(model, x, y) == dict.fromkeys(wide, 1.0)


def test_the_papers_recipes_are_those_of_section_4_1():
    paper = RECIPES["paper"]
    assert (paper.network, paper.width, paper.eps, paper.optimizer, paper.momentum) == (
        "resnet18",
        1.0,
        8 / 255,
        "sgd",
        0.9,
    )
    assert (paper.lr, paper.weight_decay, paper.milestones, paper.batch_size) == (0.01, 1e-3, (75, 90, 140), 128)
    assert paper.augment == "crop-flip"
    assert RECIPES["paper-16"].eps == 16 / 255
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def trained(recipe, classes: int = 3):
    dice = torch.Generator().manual_seed(1)
    x, y = torch.rand(32, 1, 8, 8, generator=dice), torch.randint(0, classes, (32,), generator=dice)
    torch.manual_seed(0)
    recipe = replace(recipe, network="middle_cnn", width=0.1, epochs=1, images=32, batch_size=16, augment="none")
    trainer = Trainer(MiddleCNN(1, 8, classes, 0.1), recipe, x, y, seed=5)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    return trainer, list(trainer.epochs()), before


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name):
    trainer, (row,), before = trained(RECIPES[name])
    assert torch.isfinite(torch.tensor(row.loss))
    assert {"probe_clean", "probe_fgsm", "probe_pgd"} <= set(row.columns())
    after = trainer.network.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before if key.endswith("weight"))


def test_both_radii_are_trained_on():
    """TPAP*: cross-entropy on FGSM images of eps and of 2 eps, which share one gradient sign."""
    from defenses.recipes import Batch

    model, x, y = linear_problem(0)
    near = x + 0.02 * (by_hand(model, x, 1.0) - x).sign()
    batch = Batch(model, x, y, torch.arange(len(x)), 0, 0, 0, {}, near)
    loss, logits = BOTH_RADII(batch)
    far = (2 * near - x).clamp(0, 1)
    expected = 0.5 * (F.cross_entropy(model(near), y) + F.cross_entropy(model(far), y))
    torch.testing.assert_close(loss, expected)
    assert torch.equal(logits, model(near))


def test_the_deployed_model_is_staged_and_named_in_the_checkpoint(tmp_path):
    """The file holds the bare network and the radius; what is loaded answers as Eq. 6 to 9 by hand do."""
    checkpoint = TPAP.checkpoint("fashion_mnist")
    model = TPAP.load(checkpoint)
    assert isinstance(model, Staged)
    assert isinstance(model.purifier, SignPurifier)
    assert model.purifier.network is model.network
    assert checkpoint.inference == {"purify": "fgsm", "xi": model.purifier.xi}
    assert set(load_file(checkpoint.path)) == set(model.network.state_dict())
    x = torch.from_numpy(FASHION_MNIST.load().x[:8]).requires_grad_()
    logits = model.network(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1), reduction="sum"), x)
    purified = (x + 0.2 * gradient.sign()).clamp(0, 1).detach()
    torch.testing.assert_close(model(x.detach()), model.network(purified))
    assert not torch.allclose(model(x.detach()), logits)


def test_the_traits_and_claims_are_the_papers():
    assert TPAP.traits == {"nondifferentiable", "test_time_optimisation"}
    assert {claim.attack for claim in own_claims(TPAP)} >= {"fgsm", "pgd-20", "autoattack"}
