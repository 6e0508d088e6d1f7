"""Restarts and target classes: which run each image keeps, and that a targeted attack is still an attack."""

from __future__ import annotations

import pytest
import torch

from audit import registry
from audit.attacks.rounds import EACH, TARGETS, Best, Nearest, Toward, best_of, class_by_class, goals
from audit.errors import BadInput
from audit.geometry import distance
from audit.testing import check_attack
from audit.types import ThreatModel
from tests.planted import Counting, TinyCNN, images

SHORT = {
    "fmn": {"steps": 50}, "cw-l2": {"steps": 8, "search_steps": 5, "above": 1.6}, "cw-linf": {"steps": 8, "queries": 100},
    "ti-dim": {"len_kernel": 3, "diversity_prob": 0.0, "above": 1.5},
    "spsa": {"steps": 10, "samples": 64, "above": 1.5}, "eot-pgd": {"eot_iter": 2},
    "square": {"n_queries": 60, "above": 8.0, "share": 0.5},
    "cw-l0": {"steps": 5, "search_steps": 5, "rounds": 30}, "zoo": {"steps": 10, "search_steps": 4, "above": 4.0},
}  # fmt: skip
TARGETED = [name for name in registry.attacks.names() if "target" in registry.attacks.load(name).defaults]
DEAR = ("cw-l0", "cw-l2", "cw-linf", "fmn", "square", "zoo")
RESTARTED = ["pgd", "pgd-l2", "pgd-margin"]


def call(name, model, x, y, eps=0.05, **options):
    attack = registry.attacks.load(name)
    short = {k: v for k, v in SHORT.get(name, {}).items() if k in attack.defaults}
    threat = ThreatModel(attack.norms[0], eps if attack.norms[0] == "Linf" else 20 * eps)
    return attack(model, x, y, threat, seed=0, **{**short, **options})


def test_what_can_be_aimed_is_what_the_libraries_aim():
    assert set(TARGETED) == {
        "fgsm",
        "bim",
        "pgd",
        "pgd-l2",
        "r-fgsm",
        "mi-fgsm",
        "ti-dim",
        "eot-pgd",
        "spsa",
        "square",
        "ddn",
        "fmn",
        "cw-l2",
        "cw-linf",
        "cw-l0",
        "zoo",
    }


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, target, marks=pytest.mark.slow if name in DEAR else ())
        for name in TARGETED
        for target in ("second", "each")
    ],
)
def test_an_aimed_attack_keeps_the_contract(name, target):
    check_attack(registry.attacks.load(name), target=target, **SHORT.get(name, {}))


@pytest.mark.parametrize("name", RESTARTED)
def test_restarts_keep_the_contract(name):
    check_attack(registry.attacks.load(name), restarts=2)


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_that_is_none_is_refused_before_the_run_and_in_it(name):
    attack, model = registry.attacks.load(name), TinyCNN()
    with pytest.raises(BadInput, match=f"'{name}' has no target 'secnd': did you mean 'second'"):
        attack.check({"target": "secnd"})
    with pytest.raises(BadInput, match="did you mean 'second'"):
        call(name, model, *images(model, 2), target="secnd")


@pytest.mark.parametrize(("name", "options"), [("bim", {}), ("ddn", {}), ("cw-l2", {}), ("square", {"n_queries": 600})])
def test_it_goes_for_the_class_that_is_named(name, options):
    model = TinyCNN()
    x, y = images(model, 6)
    (goal,) = goals(model, x, y, "least-likely")
    found = model(call(name, model, x, y, eps=1.0, target="least-likely", **options)).argmax(1)
    assert (found == goal).float().mean() > 0.6
    assert set(found.tolist()) <= {*goal.tolist(), *y.tolist()} or name == "bim"  # a miss comes back clean


def test_which_classes_are_named():
    model = TinyCNN()
    x, y = images(model, 5)
    logits = model(x).detach().scatter(1, y[:, None], float("-inf"))
    assert goals(model, x, y, "none") == [None]
    assert torch.equal(goals(model, x, y, "second")[0], logits.argmax(1))
    assert torch.equal(goals(model, x, y, "least-likely")[0], logits.scatter(1, y[:, None], float("inf")).argmin(1))
    every = torch.stack(goals(model, x, y, "each"), 1)
    assert [sorted([*row, label]) for row, label in zip(every.tolist(), y.tolist(), strict=True)] == [[0, 1, 2, 3]] * 5
    torch.manual_seed(0)
    drawn = torch.stack([goals(model, x, y, "random")[0] for _ in range(40)], 1)
    assert not (drawn == y[:, None]).any()
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert len(goals(TinyCNN(classes=12), x, y, "each")) == EACH
    assert {"none", "second", "least-likely", "random", "each"} == set(TARGETS)


@pytest.mark.parametrize("target", ["none", "second", "each"])
@pytest.mark.parametrize("name", ["pgd", "fgsm"])
def test_what_rounds_cost(name, target):
    attack, model = registry.attacks.load(name), TinyCNN(classes=10)
    x, y = images(model, 1)
    for restarts in (1, 3) if name == "pgd" else (1,):
        options = {"target": target, **({"restarts": restarts, "steps": 4} if name == "pgd" else {})}
        counting = Counting(model)
        call(name, counting, x, y, **options)
        assert counting.rows == attack.cost({**attack.defaults, **options})[0]


def test_one_run_is_returned_as_it_is_and_asks_no_more():
    model = Counting(TinyCNN())
    x, y = images(TinyCNN(), 3)
    assert torch.equal(best_of("pgd", lambda goal: x + 1 if goal is None else x, model, x, y), x + 1)
    assert model.rows == 0


def runs(*results):
    found = iter(results)
    return lambda _: next(found)


def test_a_success_in_any_run_is_kept_and_else_the_highest_margin():
    model = TinyCNN()
    x, y = images(model, 8)
    found = [call("pgd", model, x, y, eps=eps) for eps in (0.02, 0.1, 0.05)]
    kept = best_of("pgd", runs(*found), model, x, y, restarts=3)
    broken = torch.stack([model(z).argmax(1) != y for z in found])
    assert torch.equal(model(kept).argmax(1) != y, broken.any(0))
    assert broken.any()
    margins = Best(x, y)
    for z in found:
        margins.keep(z, model(z))
    assert torch.equal(margins.x, kept)


def test_of_several_distances_the_nearest_success_is_kept():
    model = TinyCNN()
    x, y = images(model, 8)
    near, far = (call("ddn", model, x, y, steps=n) for n in (100, 10))
    for order in ((near, far), (far, near)):
        kept = best_of("ddn", runs(*order, x), model, x, y, restarts=3, nearest="L2")
        both = torch.stack([distance(z, x, "L2").masked_fill(model(z).argmax(1) == y, 9e9) for z in (near, far)])
        assert torch.equal(distance(kept, x, "L2"), both.amin(0))
    clean = Nearest(x, y, "L2")
    clean.keep(x, model(x))
    assert torch.equal(clean.x, x)


def test_what_is_no_number_in_every_run_is_passed_on_and_else_another_run_counts():
    model = TinyCNN()
    x, y = images(model, 3)
    torn, nan = x.clone(), torch.full_like(x, float("nan"))
    torn[0] = float("nan")
    kept = best_of("pgd", runs(torn, x), model, x, y, restarts=2)
    assert torch.equal(kept, x)
    kept = best_of("pgd", runs(nan, torn), model, x, y, restarts=2)
    assert torch.isnan(kept[0]).all()
    assert torch.equal(kept[1:], x[1:])


@pytest.mark.parametrize("name", RESTARTED)
def test_restarts_break_what_one_start_does_not(name):
    model = TinyCNN()
    x, y = images(model, 64)
    left = [int((model(call(name, model, x, y, 0.03, restarts=n, steps=3)).argmax(1) == y).sum()) for n in (1, 8)]
    assert 0 < left[1] < left[0] < len(x)


@pytest.mark.parametrize("name", RESTARTED)
def test_two_restarts_start_apart(name, monkeypatch):
    """With steps of no size the end of each run is its start."""
    ends, keep = [], Best.keep
    monkeypatch.setattr(Best, "keep", lambda best, z, logits: (ends.append(z), keep(best, z, logits))[1])
    model = TinyCNN()
    x, y = images(model, 8)
    call(name, model, x, y, 0.03, restarts=2, steps=1, rel_stepsize=1e-6)
    first, second = ends[:1][0], ends[-1:][0]
    norm = registry.attacks.load(name).norms[0]
    assert (distance(first, second, norm) > (0.006 if norm == "Linf" else 0.12)).all()  # a fifth of eps


def test_two_logits_say_whether_the_goal_is_reached():
    model = TinyCNN()
    x, _ = images(model, 8)
    for goal in range(4):
        logits = Toward(model, goal)(x)
        assert torch.equal(logits[:, 1], model(x)[:, goal])
        assert torch.equal(logits.argmax(1) == 1, model(x).argmax(1) == goal)


def test_class_by_class_puts_every_image_back_where_it_was():
    model = TinyCNN()
    x, y = images(model, 7)
    goal = torch.tensor([1, 2, 1, 3, 0, 2, 1])
    sizes = []

    def mark(part, rows, labels):
        sizes.append(len(rows))
        assert not labels.any()
        return rows + part.goal

    found = class_by_class(mark, model, x, y)(goal)
    assert torch.equal(found, x + goal.view(-1, 1, 1, 1))
    assert sizes == [1, 3, 2, 1]
    untargeted = class_by_class(lambda _, rows, labels: rows + labels.view(-1, 1, 1, 1), model, x, y)
    assert torch.equal(untargeted(None), x + y.view(-1, 1, 1, 1))


# --- pgd-margin


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_pgd_on_the_margin_does_not_saturate_and_stands_still_beyond_kappa(norm):
    model = TinyCNN(scale=1e4)
    x, y = images(model, 16)
    threat = ThreatModel(norm, 0.1 if norm == "Linf" else 1.0)
    attack = registry.attacks.load("pgd-margin")
    left = {kappa: model(attack(model, x, y, threat, seed=0, kappa=kappa)).detach() for kappa in (0.0, 1e9)}
    assert all(int((logits.argmax(1) != y).sum()) >= 12 for logits in left.values())
    own = {k: logits.gather(1, y[:, None])[:, 0] for k, logits in left.items()}
    margin = {k: logits.scatter(1, y[:, None], float("-inf")).amax(1) - own[k] for k, logits in left.items()}
    assert float(margin[0.0].median()) < float(margin[1e9].median())
