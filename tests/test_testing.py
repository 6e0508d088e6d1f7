"""The contract checks themselves: is the linear problem what it says, and is a bad defense caught?"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from audit import registry
from audit.datasets import Dataset
from audit.linear import DUAL, Linear, linear_problem
from audit.testing import STRETCH, check_attack, check_defense
from tests import planted
from tests.planted import Noisy, TinyCNN


@pytest.mark.parametrize("norm", DUAL)
def test_the_distance_is_exact(norm):
    """The shortest step to the nearest boundary, written out, just crosses it; no random step of that size does."""
    model, x, y = linear_problem(3, classes=3)
    reach = model.distance(x, y, norm)
    logits, flat = model(x).detach(), x.flatten(1)
    for row in range(len(x)):
        ways = []
        for other in set(range(3)) - {int(y[row])}:
            normal = (model.weight[other] - model.weight[y[row]]).detach()
            if norm == "Linf":
                step = normal.sign()
            elif norm == "L2":
                step = normal / normal.norm()
            else:
                step = torch.zeros_like(normal)
                step[normal.abs().argmax()] = normal[normal.abs().argmax()].sign()
            ways.append((float((logits[row, y[row]] - logits[row, other]) / (step @ normal)), step))
        shortest, step = min(ways, key=lambda way: way[0])
        assert shortest == pytest.approx(float(reach[row]), rel=1e-4)
        assert int(model((flat[row] + 1.001 * shortest * step)[None]).argmax()) != y[row]
        assert int(model((flat[row] + 0.999 * shortest * step)[None]).argmax()) == y[row]


def test_a_misclassified_image_has_a_negative_distance():
    model, x, y = linear_problem(0)
    assert (model.distance(x, (y + 1) % 4, "L2") < 0).all()


def test_the_L0_distance_is_what_every_set_of_pixels_says():
    """Four pixels, all sixteen sets of them, each pushed to the side of the box that helps."""
    weight = torch.tensor([[3.0, -1.0, 0.5, 0.0], [0.0, 2.0, 0.0, 1.0]])
    x, y = torch.tensor([[0.9, 0.2, 0.7, 0.1], [0.4, 0.9, 0.5, 0.5], [0.95, 0.0, 1.0, 0.0]]), torch.tensor([0, 1, 0])
    model = Linear(weight, torch.tensor([0.0, -0.9])).eval()
    for row in range(len(x)):
        push = ((weight[1 - y[row]] - weight[y[row]]) > 0).float()
        fewest = min(
            (len(chosen) for size in range(5) for chosen in combinations(range(4), size)
             if int(model(x[row].scatter(0, torch.tensor(chosen, dtype=torch.int64), push)[None]).argmax()) != y[row]),
            default=float("inf"),
        )  # fmt: skip
        assert float(model.distance(x, y, "L0")[row]) == fewest


@pytest.mark.parametrize(("classes", "channels", "size"), [(2, 1, 8), (3, 3, 8), (4, 1, 8), (10, 1, 8), (10, 3, 16)])
def test_the_problem_is_what_it_says(classes, channels, size):
    model, x, y = linear_problem(5, n=7, classes=classes, channels=channels, size=size)
    assert x.shape == (7, channels, size, size)
    assert not model.training
    assert torch.equal(model(x).argmax(1), y)
    assert x.min() >= 0.4
    assert x.max() <= 0.6
    near = model.distance(x, y, "L1")
    assert near.min() > 0.09
    assert near.max() < 0.21
    stretched = 0.5 + STRETCH * (x - 0.5)
    assert stretched.min() >= 0
    assert stretched.max() <= 1
    assert model.distance(stretched, y, "L0").median() >= 2  # 0.8 times it still allows a pixel


def test_the_problem_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = linear_problem(2)
    torch.manual_seed(2)
    again, other = linear_problem(2), linear_problem(3)
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[1], other[1])


def test_linear_is_linear():
    model = Linear(torch.ones(2, 4), torch.tensor([0.0, 1.0]))
    assert model(torch.ones(1, 1, 2, 2)).tolist() == [[4.0, 5.0]]


def test_an_attack_that_accepts_anything_is_caught():
    class Lax(planted.Unwrapped):
        """Takes every norm and every option in silence."""

        def __call__(self, model, x, y, threat, **options):
            return x if threat.norm != "Linf" else super().__call__(model, x, y, threat, seed=0)

    with pytest.raises(AssertionError, match="under L2 returned, expected it to raise Unsupported"):
        check_attack(Lax(planted.good))
    lax = Lax(planted.good)
    lax.norms = ("Linf", "L2", "L1", "L0")
    with pytest.raises(AssertionError, match="under L2 broke 0 of 6"):
        check_attack(lax)
    with pytest.raises(AssertionError, match="an unknown option returned, expected it to raise BadInput"):
        check_attack(lax, share=0.0)


# --- defenses


@dataclass
class Defended:
    """A defense around a model that is ready."""

    model: nn.Module
    traits: frozenset = frozenset()
    name: str = "planted"
    summary: str = ""
    claims: tuple = field(default=())

    def checkpoint(self, dataset, weights):
        return None

    def load(self, checkpoint):
        return self.model


class Broken(nn.Module):
    """TinyCNN with its logits changed by `change`."""

    def __init__(self, change):
        super().__init__()
        self.model, self.change = TinyCNN(), change
        self.eval()

    def forward(self, x):
        return self.change(self.model(x))


def tiny_dataset(labels=4):
    x = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32)
    return Dataset("tiny", x, np.arange(20) % labels, np.arange(20), ("a", "b", "c", "d"), "made up")


def test_a_good_defense_passes():
    check_defense(Defended(TinyCNN()), tiny_dataset())
    check_defense(Defended(Noisy(TinyCNN()), frozenset({"stochastic"})), tiny_dataset())


def test_the_global_generators_are_left_alone():
    defense = Defended(Noisy(TinyCNN()), frozenset({"stochastic"}))
    before = torch.get_rng_state()
    check_defense(defense, tiny_dataset())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (TinyCNN().train(), "training mode"),
        (Noisy(TinyCNN()), "add the trait 'stochastic'"),
        (Broken(lambda z: z * float("nan")), "NaN"),
        (Broken(lambda z: z[:, :, None]), "shape"),
        (Broken(lambda z: z.double()), "float64, expected float32"),
        (Broken(lambda z: z[:, :3]), "no logit for label 3"),
    ],
)
def test_a_bad_defense_is_caught(model, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_defense(Defended(model), tiny_dataset())


def test_an_unknown_trait_is_caught():
    with pytest.raises(AssertionError, match="traits \\['magic'\\]"):
        check_defense(Defended(TinyCNN(), frozenset({"magic"})), tiny_dataset())


@pytest.mark.parametrize("name", registry.defenses.names())
def test_the_shipped_defenses_keep_the_contract(name):
    defense = registry.defenses.load(name)
    if "fashion_mnist" not in {*defense.zoo, *defense.external}:
        pytest.skip(f"{name} ships no weights for fashion_mnist")
    check_defense(defense, registry.datasets.load("fashion_mnist").load("test"))
