"""SIM-Adv, Free-Adv and ATDA against their equations, and the claims against Table 3."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from audit.claims import own_claims
from audit.linear import Linear
from defenses.adversaries import BIM
from defenses.recipes import Batch
from defenses.sim_adv import EPS, RECIPES, SIM_ADV
from defenses.sim_adv.atda import ATDALoss, UndividedATDALoss, coral, margin, mmd, moved_centres
from defenses.sim_adv.free import FreeBuffers, FreeStep, free_images
from defenses.sim_adv.ratio import rho, rho_curve, rho_steps
from defenses.sim_adv.sim import SIM, sim_buffers


def linear_batch(n=6) -> Batch:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    dice = torch.Generator().manual_seed(1)
    x, y = torch.rand(n, 1, 4, 4, generator=dice), torch.randint(0, 3, (n,), generator=dice)
    return Batch(network, x, y, torch.arange(n), 0, 0, 0, sim_buffers(x), x)


def after_epochs(attack, batch, epochs) -> list[torch.Tensor]:
    return [attack(replace(batch, epoch=epoch)) for epoch in range(epochs)]


def distances(images, batch) -> list[float]:
    return [float((image - batch.x).abs().max()) for image in images]


def test_sim_images_grow_by_one_step_an_epoch_stay_in_the_ball_and_start_over_after_n2():
    batch = linear_batch()
    images = after_epochs(SIM(0.2, 4, 6), batch, 8)
    expected = [0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.05, 0.1]
    assert distances(images, batch) == pytest.approx(expected, abs=1e-6)
    assert all(0 <= float(image.min()) <= float(image.max()) <= 1 for image in images)
    assert torch.equal(images[6], images[0])  # the network did not change, and the memory is forgotten


def test_sim_over_n2_epochs_is_bim_where_the_network_does_not_change():
    batch = linear_batch()
    assert torch.equal(after_epochs(SIM(0.2, 4, 6), batch, 6)[-1], BIM(0.2, 4, 6)(batch))


def test_equation_14_taken_literally_leaves_the_ball_but_not_the_box():
    batch = linear_batch()
    images = after_epochs(SIM(0.2, 4, 8, clip_total=False), batch, 8)
    assert distances(images, batch)[-1] == pytest.approx(0.4, abs=1e-6)
    assert 0 <= float(images[-1].min()) <= float(images[-1].max()) <= 1


def test_sim_follows_each_image_by_its_row_and_one_that_missed_the_reset_starts_over():
    whole = linear_batch()
    half = replace(whole, x=whole.x[[4, 1]], y=whole.y[[4, 1]], rows=torch.tensor([4, 1]))
    attack = SIM(0.2, 4, 2)
    first = attack(whole)
    assert torch.equal(attack(replace(half, epoch=1)), after_epochs(attack, linear_batch(), 2)[1][[4, 1]])
    assert torch.equal(whole.memory["images"][0], first[0])
    assert torch.equal(attack(replace(whole, epoch=3)), first)  # rows 0, 2, 3, 5 were left out of epoch 2 too


def test_free_adv_steps_the_whole_radius_along_the_gradient_that_training_leaves():
    batch = linear_batch()
    batch.memory.update(FreeBuffers(8)(batch.x))
    step = FreeStep(0.2)
    expected = torch.zeros_like(batch.x)
    for _ in range(3):
        adv = free_images(batch)
        assert torch.equal(adv.detach(), (batch.x + expected).clamp(0, 1))
        nn.functional.cross_entropy(batch.network(adv), batch.y).backward()
        step(replace(batch, adv=adv))
        expected = (expected + 0.2 * adv.grad.sign()).clamp(-0.2, 0.2)
    assert torch.equal(batch.memory["delta"], expected)
    assert float(expected.abs().max()) == pytest.approx(0.2)


def test_atda_terms_by_hand():
    clean, adv = torch.tensor([[0.0, 2.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    assert float(coral(clean, adv)) == pytest.approx((0 + 4 + 4 + 0) / 4)  # [[2,-2],[-2,2]] against [[2,2],[2,2]]
    assert float(coral(clean.repeat(2, 1), adv.repeat(2, 1), divided=False)) == pytest.approx((0 + 8 + 8 + 0) / 4)
    assert float(mmd(clean, adv)) == pytest.approx(1.0)  # means (1,1) and (2,2)
    centres = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    loss = margin(torch.tensor([[1.0, 1.0]]), torch.tensor([0]), centres)  # distances 1 and 3
    assert float(loss) == pytest.approx(math.log(1 + math.exp(1 - 3)), rel=1e-6)
    three = torch.cat([torch.nn.functional.pad(centres, (0, 1)), torch.tensor([[0.0, 0.0, 2.0]])])
    loss = margin(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), torch.tensor([0, 2]), three)  # distances 1, 3 and 4
    terms = [(1 - 3, 1 - 4), (4 - 1, 4 - 3)]  # Eq. 10: the sum over the others over k - 1, then the mean over images
    expected = sum(sum(math.log(1 + math.exp(gap)) for gap in row) / (3 - 1) for row in terms) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    moved = moved_centres(centres, torch.tensor([[1.0, 1.0], [3.0, 3.0]]), torch.tensor([0, 0]), 0.1)
    expected = [1 - 0.1 * (2 * 1 - 4) / 3, 0 - 0.1 * (0 - 4) / 3]
    assert moved[0].tolist() == pytest.approx(expected)
    assert torch.equal(moved[1], centres[1])


def test_atda_adds_the_terms_and_moves_untrained_centres():
    batch = replace(linear_batch(), memory={})
    batch = replace(batch, adv=BIM(0.2, 4, 6)(batch))
    clean, adv = batch.network(batch.x), batch.network(batch.adv)
    zeros, both, labels = torch.zeros(3, 3), torch.cat([clean, adv]), torch.cat([batch.y, batch.y])
    fit = nn.functional.cross_entropy(clean, batch.y) + nn.functional.cross_entropy(adv, batch.y)
    terms = coral(clean, adv) + mmd(clean, adv) + margin(both, labels, zeros)
    loss, logits = ATDALoss()(batch)
    undivided, _ = UndividedATDALoss()(replace(batch, memory={}))
    assert float((undivided - loss).detach()) == pytest.approx((len(clean) - 2) * float(coral(clean, adv).detach()) / 3)
    assert float(loss.detach()) == pytest.approx(float((fit + terms / 3).detach()), rel=1e-6)
    assert torch.equal(logits, clean)
    centres = batch.memory["centres"]
    assert torch.equal(centres, moved_centres(zeros, both.detach(), labels, 0.1))
    assert not centres.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        ATDALoss()(anew := replace(batch, memory={}))
    assert anew.memory["centres"].dtype == torch.float32
    assert float(ATDALoss()(batch)[0].detach()) != float(loss.detach())  # the second step sees the moved centres


def test_rho_divides_by_the_strongest_setting():
    assert rho({1: 0.2, 30: 0.8, 10: 0.6}) == pytest.approx({1: 0.25, 10: 0.75, 30: 1.0})
    with pytest.raises(ValueError, match="more than 0"):
        rho({1: 0.2, 30: 0.0})
    with pytest.raises(ValueError, match="at least one"):
        rho({})


def test_the_rho_curves_in_closed_form():
    """One pixel decides at 0.5: an image falls after as many steps of 0.05 as lead across, the last one never."""
    model = Linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5])).eval()
    away = torch.tensor([0.03, 0.08, 0.12, 0.18, 0.3]).repeat(60)  # more images than one part
    x, y = (0.5 - away).view(-1, 1, 1, 1), torch.zeros(300, dtype=torch.int64)
    steps = rho_steps(model, x, y, eps=0.2, n1=4, n2=6)
    assert steps == pytest.approx({0: 0, 1: 0.25, 2: 0.5, 3: 0.75, 4: 1, 5: 1, 6: 1})
    assert rho_curve(model, x, y, eps=0.2, settings=(10, 0, 1)) == pytest.approx({0: 0, 1: 1, 10: 1})  # all go 0.2 far
    wrong = torch.cat([torch.ones(60, dtype=torch.int64), y[60:]])  # wrong from the start: 60, and in the end
    assert rho_steps(model, x, wrong, eps=0.1, n1=1, n2=1)[0] > 0
    with pytest.raises(ValueError, match="raise eps"):
        rho_curve(model, x, y, eps=0.01, settings=(0, 2))


def test_claims_are_table_3_of_the_paper_and_table_4_where_it_names_the_learning_rate_of_the_zoo():
    claims = [c for c in own_claims(SIM_ADV) if c.dataset == "fashion_mnist"]
    rows = {(c.attack, c.clean_acc, c.robust_acc) for c in claims}
    table_3 = {("fgsm", 0.8896, 0.7978), ("bim-40", 0.8896, 0.6593), ("pgd-40", 0.8896, 0.6688)}
    assert rows == table_3 | {("fgsm", None, 0.7468), ("bim-40", None, 0.6107), ("pgd-40", None, 0.6146)}
    assert RECIPES["sim-adv-only"].lr == 1e-3
    assert all((c.threat.eps, c.architecture) == (0.2, "lenet") for c in claims)


def test_recipes_are_the_settings_of_table_3():
    assert RECIPES["sim"].adversary == SIM(EPS, 10, 20)
    assert repr(RECIPES["bim"].adversary) == "BIM(eps=0.2, n1=10, n2=30)"
    assert repr(RECIPES["madry"].adversary) == "Madry(eps=0.2, n1=10, n2=30)"
    assert RECIPES["free"].replays == 10
    assert (RECIPES["sim"].lr, RECIPES["sim-1e-4"].lr) == (1e-3, 1e-4)
    free = RECIPES["free"]
    assert free.buffers == FreeBuffers(free.batch_size)
