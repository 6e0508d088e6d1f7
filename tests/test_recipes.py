"""The parts of recipes: describing, schedules, augmentation, memory, replays, and each method's losses by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from audit import registry
from audit.datasets import FASHION_MNIST
from audit.errors import BadInput
from audit.training import adjusted, train
from defenses.adversaries import BIM, FGSM, RFGSM, Madry
from defenses.augmentation import crop_flip
from defenses.distillation import Distilled, Tempered
from defenses.mart import MARTLoss, boosted_cross_entropy
from defenses.networks import LeNet, build
from defenses.recipes import Batch, Recipe, clean_and_adversarial, cross_entropy, plain
from defenses.trades import KLAdversary, TRADESLoss, divergence
from defenses.training import Trainer
from defenses.weights import load_network

EPS = 0.1
DEFENSES = ("sim_adv", "trades", "mart", "distillation", "pgd_at", "undefended")
METHODS = [
    (name, recipe)
    for name in DEFENSES
    for recipe in registry.defenses.load(name).recipes.values()
    if recipe.network != "resnet18"
]


class Fixed(nn.Module):
    """A network that answers images of value 0 with `clean` and all others with `adv`, whatever the batch."""

    def __init__(self, clean, adv):
        super().__init__()
        self.clean, self.adv = torch.tensor(clean), torch.tensor(adv)

    def forward(self, x):
        return torch.where((x.flatten(1).sum(1) == 0)[:, None], self.clean, self.adv)


def fixed_batch(clean, adv, y, **memory) -> Batch:
    n = len(y)
    x, rows = torch.zeros(n, 1, 2, 2), torch.arange(n)
    return Batch(Fixed(clean, adv), x, torch.tensor(y), rows, 0, 0, 0, memory, x + EPS)


def linear_batch(seed=3, n=5) -> Batch:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    dice = torch.Generator().manual_seed(1)
    x = 0.5 + 0.6 * (torch.rand(n, 1, 6, 6, generator=dice) - 0.5)
    return Batch(network, x, torch.randint(0, 3, (n,), generator=dice), torch.arange(n), 0, 0, seed, {}, x)


def test_a_manifest_names_every_part_and_number_that_is_not_at_its_default():
    recipe = Recipe("r", clean_and_adversarial, "lenet", 1.0, 2, "here", adversary=BIM(0.2, 10, 30), replays=3,
                    decay="milestones", milestones=(1, 2))  # fmt: skip
    told = recipe.describe()
    assert told["loss"] == "clean_and_adversarial"
    assert told["adversary"] == "BIM(eps=0.2, n1=10, n2=30)"
    assert (told["replays"], told["milestones"], told["images"]) == (3, [1, 2], None)
    assert "optimizer" not in told
    assert json.loads(json.dumps(told)) == told


def test_no_two_recipes_of_a_defense_are_described_alike():
    for name in registry.defenses:
        recipes = registry.defenses.load(name).recipes.values()
        told = [json.dumps({**r.describe(), "name": "", "source": ""}, sort_keys=True) for r in recipes]
        assert len(set(told)) == len(told), name


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(BadInput, match="expected one of adam, sgd"):
        Recipe("r", plain(cross_entropy), "lenet", 1.0, 1, "here", optimizer="adagrad")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decay", "rates"),
    [("none", [1, 1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25, 0]), ("milestones", [1, 1, 0.5, 0.5, 0.25]),
     ("one-cycle", [0, 0.5, 1, 0.5, 0])],
)  # fmt: skip
def test_learning_rates(decay, rates):
    recipe = Recipe("r", plain(cross_entropy), "lenet", 1.0, 4, "here", lr=1.0, decay=decay, milestones=(2, 4),
                    factor=0.5, peak=0.5)  # fmt: skip
    assert [recipe.rate(epoch / 4, epoch) for epoch in range(5)] == pytest.approx(rates)


def test_crops_are_shifts_by_at_most_four_and_flips_are_mirrors():
    x = torch.zeros(64, 1, 28, 28)
    x[:, :, 13, 10] = 1
    seen = crop_flip(x, 7)
    assert torch.equal(seen, crop_flip(x, 7))
    assert not torch.equal(seen, crop_flip(x, 8))
    places = [tuple(place) for place in seen[:, 0].nonzero()[:, 1:].tolist()]
    assert len(places) == 64
    rows, columns = {r for r, _ in places}, {c for _, c in places}
    assert rows == set(range(9, 18))
    assert columns <= set(range(6, 15)) | set(range(13, 22))  # 10 or, mirrored, 17; four to either side
    assert min(columns) < 10
    assert max(columns) > 17


@torch.no_grad()
def rise(attack, batch, found) -> float:
    if isinstance(attack, KLAdversary):
        return float(divergence(batch.network(batch.x), batch.network(found)).mean())
    before, after = (cross_entropy(batch.network(x), batch.y) for x in (batch.x, found))
    return float(after - before)


@pytest.mark.parametrize("attack", [FGSM(EPS), RFGSM(EPS, EPS / 2), BIM(EPS, 4, 6), Madry(EPS, 4, 6),
                                    KLAdversary(EPS, EPS / 4, 6)])  # fmt: skip
def test_adversaries_stay_in_the_ball_raise_the_loss_and_repeat(attack):
    batch = linear_batch()
    found = attack(batch)
    assert not found.requires_grad
    assert float((found - batch.x).abs().max()) <= EPS + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert rise(attack, batch, found) > 1e-3
    assert torch.equal(found, attack(batch))
    assert all(p.grad is None for p in batch.network.parameters())


def test_fgsm_is_one_step_and_bim_counts_steps():
    batch = linear_batch()
    assert torch.allclose((FGSM(EPS)(batch) - batch.x).abs(), torch.tensor(EPS))
    assert torch.allclose((BIM(EPS, 10, 3)(batch) - batch.x).abs().amax(), torch.tensor(0.3 * EPS))
    assert torch.allclose(BIM(EPS, 1, 1)(batch), FGSM(EPS)(batch))


def test_fgsm_with_the_networks_own_label_ignores_the_true_one():
    batch = linear_batch()
    other = replace(batch, y=(batch.y + 1) % 3)
    assert torch.equal(FGSM(EPS, own_label=True)(batch), FGSM(EPS, own_label=True)(other))
    assert not torch.equal(FGSM(EPS)(batch), FGSM(EPS)(other))


def test_random_starts_differ_from_seed_to_seed():
    for attack in (RFGSM(EPS, EPS / 2), Madry(EPS, 4, 1), KLAdversary(EPS, EPS / 4, 1)):
        assert not torch.equal(attack(linear_batch(3)), attack(linear_batch(4)))


def test_the_mixed_loss_is_the_mean_of_both_cross_entropies():
    loss, logits = clean_and_adversarial(fixed_batch([0.0, 0.0], [math.log(3), 0.0], [1, 1]))
    assert float(loss) == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-5)
    assert torch.equal(logits, torch.zeros(2, 2))


def test_trades_and_mart_in_closed_form():
    batch = fixed_batch([0.0, 0.0], [math.log(3), 0.0], [0])  # clean (1/2, 1/2), adversarial (3/4, 1/4)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(TRADESLoss()(batch)[0]) == pytest.approx(math.log(2) + 6 * kl, rel=1e-5)
    bce = -math.log(0.75) - math.log(1 - 0.25)
    assert float(MARTLoss()(batch)[0]) == pytest.approx(bce + 5 * kl * 0.5, rel=1e-5)


def test_the_boosted_cross_entropy_stays_finite_where_a_rival_is_certain():
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0])).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert bool(logits.grad.isfinite().all())


def test_distillation_at_temperature_100_in_closed_form():
    gap = 100 * math.log(3)
    batch = fixed_batch([gap, 0.0], [0.0, 0.0], [1], teacher=torch.tensor([[0.0, 0.0]]))
    hard, soft = -math.log(0.25), -(math.log(0.75) + math.log(0.25)) / 2
    assert float(Tempered()(batch)[0]) == pytest.approx(hard, rel=1e-4)
    assert float(Distilled()(batch)[0]) == pytest.approx(soft, rel=1e-4)


def test_lenet_is_lecuns_in_size():
    assert sum(p.numel() for p in LeNet().parameters()) == 61_706
    assert LeNet(3, 32, 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def tiny(recipe: Recipe) -> Recipe:
    teacher = tiny(recipe.teacher) if recipe.teacher else None
    return replace(adjusted(recipe, epochs=1, images=2 * recipe.batch_size), width=0.1, teacher=teacher)


@pytest.mark.parametrize(("name", "recipe"), METHODS, ids=lambda part: part if isinstance(part, str) else part.name)
def test_every_recipe_trains_one_epoch_and_its_checkpoint_loads(name, recipe, tmp_path):
    data = FASHION_MNIST.load().first(256)
    defense = registry.defenses.load(name)
    stored = train(defense, tiny(recipe), data, data.first(50), seed=0, out=tmp_path, command="test",
                   device=torch.device("cpu"))  # fmt: skip
    assert stored.manifest["recipe"] == json.loads(json.dumps(tiny(recipe).describe()))
    torch.manual_seed(0)
    start = build(stored.architecture).state_dict()
    end = load_network(stored).state_dict()
    assert any(not torch.equal(start[key], end[key]) for key in start)
    assert not list(tmp_path.glob("*.training.pt"))


def trainer(recipe, checkpoint=None, seed=5) -> Trainer:
    dice = torch.Generator().manual_seed(1)
    x, y = torch.rand(30, 1, 28, 28, generator=dice), torch.randint(0, 10, (30,), generator=dice)
    torch.manual_seed(0)
    return Trainer(LeNet(width=0.5), replace(recipe, images=None, batch_size=8), x, y, seed=seed, checkpoint=checkpoint)


def small(name, **changes) -> Recipe:
    return replace(registry.defenses.load("sim_adv").recipes[name], epochs=4, **changes)


@pytest.mark.parametrize("recipe", [
    small("sim"), small("free"), small("atda"),
    small("madry", optimizer="sgd", augment="crop-flip", decay="one-cycle", probe=lambda *_: {"one": 1.0}),
], ids=lambda r: r.name)  # fmt: skip
def test_a_killed_training_with_memory_ends_as_an_unbroken_one(recipe, tmp_path):
    if recipe.name == "madry":
        recipe = replace(recipe, adversary=Madry(0.2, 2, 2))
    whole = trainer(recipe)
    rows = list(whole.epochs())
    for stopped, _ in enumerate(trainer(recipe, tmp_path / "c.pt").epochs()):
        if stopped == 1:
            break
    second = trainer(recipe, tmp_path / "c.pt")
    assert [row.epoch for row in second.table] == [1, 2]
    list(second.epochs())
    assert [row.loss for row in second.table] == [row.loss for row in rows]
    assert second.memory.keys() == whole.memory.keys()
    for mine, other in ((whole.network.state_dict(), second.network.state_dict()), (whole.memory, second.memory)):
        for key, value in mine.items():
            assert torch.equal(value, other[key]), key


def test_a_checkpoint_that_is_a_state_dict_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    torch.save(LeNet().state_dict(), path)
    with pytest.raises(BadInput, match="not a training checkpoint"):
        trainer(small("vanilla"), path)
    torch.save([1, 2], path)
    with pytest.raises(BadInput, match="not a training checkpoint"):
        trainer(small("vanilla"), path)


def test_replays_and_hooks_are_called_in_order_and_each_has_its_seed():
    seen = []

    def adversary(batch):
        seen.append(("attack", batch.epoch, batch.step, batch.replay, batch.seed, batch.network.training))
        return batch.x

    def after(batch):
        seen.append(("after", batch.epoch, batch.step, batch.replay, batch.seed, batch.network.training))

    recipe = small("vanilla", replays=2, adversary=adversary, after=after, adversary_mode="train")
    next(trainer(recipe).epochs())
    assert [entry[0] for entry in seen] == ["attack", "after"] * 6
    assert [entry[2:4] for entry in seen[::2]] == [(s, r) for s in range(3) for r in range(2)]
    assert len({entry[4] for entry in seen}) == 6
    assert all(entry[5] for entry in seen)


def test_the_probes_columns_reach_the_table(tmp_path):
    def probe(network, x, y):
        assert not network.training
        return {"fgsm_accuracy": len(x) / 100}

    data = FASHION_MNIST.load().first(64)
    recipe = replace(tiny(small("vanilla")), images=64, batch_size=32, probe=probe, name="probed")
    defense = registry.defenses.load("sim_adv")
    train(defense, recipe, data, data.first(50), seed=0, out=tmp_path, command="test", device=torch.device("cpu"))
    header, row = (tmp_path / "sim_adv-fashion_mnist-probed.csv").read_text().splitlines()
    assert header == "epoch,loss,train_accuracy,learning_rate,seconds,fgsm_accuracy"
    assert row.split(",")[-1] == "0.5"


def test_half_precision_trains_and_differs_from_single():
    weights = []
    for precision in ("float32", "bf16"):
        run = trainer(small("vanilla", precision=precision))
        next(run.epochs())
        weights.append(np.concatenate([p.detach().flatten().numpy() for p in run.network.parameters()]))
    assert weights[1].dtype == np.float32
    assert 0 < np.abs(weights[0] - weights[1]).max() < 0.01


def test_dropout_draws_from_the_seed_and_leaves_the_callers_generator_alone():
    def run(seed):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(4, 2))
        x, y = torch.ones(16, 1, 2, 2), torch.arange(16) % 2
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        recipe = replace(small("vanilla"), epochs=1, batch_size=8)
        row = next(Trainer(network, recipe, x, y, seed=1).epochs())
        assert torch.equal(state, torch.get_rng_state())
        return row.loss

    assert run(3) == run(4)
