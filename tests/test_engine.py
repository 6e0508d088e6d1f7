"""Units run once, alone and repeatably; a crash is never robustness."""

import dataclasses

import numpy as np
import pytest
import torch

from audit import registry
from audit.engine import LocalEngine, Target
from audit.errors import BadModel
from audit.gates import fingerprint_model
from audit.ledger import Ledger
from audit.plan import Plan
from audit.results import read_results
from audit.runner import Silent
from audit.types import AdapterSpec, Step
from audit.verify import verify_images
from tests.planted import Brightness, Noisy, TinyCNN, images

EPS = 0.05
PLANTED = {
    "crashes": "crashes", "crashes-late": "crashes_late", "interrupted": "interrupted", "idle": "idle",
    "passes-through": "passes_through", "good": "good", "nan": "nan", "leaves-ball": "leaves_ball",
    "one-nan": "one_nan",
    "unwrapped-nan": "unwrapped_nan", "unwrapped-cropped": "unwrapped_cropped",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _planted_attacks(monkeypatch):
    for name, attribute in PLANTED.items():
        monkeypatch.setitem(registry.attacks._targets, name, f"tests.planted:{attribute}")


def make_plan(steps, *, n=8, classes=2, seed=0, batch_size=3, eps=EPS, drift=0.0):
    identity = {"n": n, "seed": seed, "batch_size": batch_size, "norm": "Linf", "eps": eps}
    return Plan(identity, tuple(steps), {"max_draw_difference": drift, "classes": classes})


def grey():
    """Eight grey images labelled 0. Images 6 and 7 are misclassified; with EPS, 3 to 5 can be broken and 0 to 2 not."""
    x = torch.linspace(0.4, 0.52, 8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone()
    return Target(Brightness(), x, torch.zeros(8, dtype=torch.int64), frozenset())


def run(plan, target, folder, watcher=None):
    plan.write(folder)
    engine = LocalEngine(plan, target, Ledger(folder, plan.fingerprint))
    engine.run(watcher or Silent())
    return engine, read_results(folder)


def arrays_of(plan, folder):
    return {unit.name: Ledger(folder).read(unit.name) for unit in plan.units()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        (a, meta_a), (b, meta_b) = first[name], second[name]
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            assert a[key].tobytes() == b[key].tobytes(), f"{key} of {name} differs"
        assert {**meta_a, "seconds": 0} == {**meta_b, "seconds": 0}


# --- crashes


@pytest.mark.parametrize("scope", ["all", "survivors"])
@pytest.mark.parametrize("name", ["crashes", "nan", "unwrapped-nan", "unwrapped-cropped"])
def test_a_crash_is_an_error_and_nothing_else(name, scope, tmp_path):
    plan = make_plan([Step("planted", name, "claimed", scope)])
    engine, results = run(plan, grey(), tmp_path)
    (step,) = results.steps
    assert step.attacked.tolist() == [True] * 6 + [False] * 2
    assert step.errors.tolist() == step.attacked.tolist()
    assert not step.broken.any()
    assert not step.returned.any()
    assert results.unknown.tolist() == step.attacked.tolist()
    assert len(step.messages) == 2  # the third shard holds no correctly classified image
    assert engine.alive.tolist() == results.correct.tolist()


def test_the_message_names_the_exception(tmp_path):
    _, results = run(make_plan([Step("planted", "crashes", "claimed", "all")]), grey(), tmp_path)
    assert results.steps[0].messages[0] == "ValueError: planted"


@pytest.mark.parametrize("scope", ["all", "survivors"])
def test_what_a_crashing_attack_had_passed_through_counts_as_broken(scope, tmp_path):
    _, results = run(make_plan([Step("planted", "crashes-late", "claimed", scope)]), grey(), tmp_path)
    (step,) = results.steps
    assert step.broken.nonzero()[0].tolist() == [3, 4, 5]
    # the shard of 3 to 5 ends, all broken, before it can crash when early stop is on
    assert results.unknown.nonzero()[0].tolist() == [0, 1, 2]
    assert len(step.messages) == (2 if scope == "all" else 1)
    assert not (step.errors & step.broken).any()
    assert verify_images(results.plan, grey(), Ledger(tmp_path))["rejected"] == 0


def test_a_later_step_still_attacks_what_a_crash_left(tmp_path):
    steps = [Step("planted", "crashes", "claimed", "all"), Step("mended", "good", "adaptive")]
    _, results = run(make_plan(steps), grey(), tmp_path)
    assert results.steps[1].broken.nonzero()[0].tolist() == [3, 4, 5]
    assert results.unknown.nonzero()[0].tolist() == [0, 1, 2]


def test_ctrl_c_is_not_an_error_of_the_attack(tmp_path):
    plan = make_plan([Step("fine", "good", "claimed", "all"), Step("planted", "interrupted", "claimed", "all")])
    with pytest.raises(KeyboardInterrupt):
        run(plan, grey(), tmp_path)
    ledger = Ledger(tmp_path)
    assert [unit.name for unit in plan.units() if unit.name not in ledger] == [
        f"02-planted-{i:04d}" for i in range(3)
    ]  # fmt: skip


def test_an_option_that_does_not_exist_is_no_robustness(tmp_path):
    _, results = run(make_plan([Step("typo", "pgd", "claimed", "all", params={"stepz": 3})]), grey(), tmp_path)
    assert results.unknown.tolist() == results.correct.tolist()
    assert "no option 'stepz'" in results.steps[0].messages[0]


def test_a_model_that_answers_nan_to_an_adversarial_image_is_unknown(tmp_path):
    class Flaky(Brightness):
        def forward(self, x):
            return super().forward(x).masked_fill((x.flatten(1).mean(1) > 0.521)[:, None], float("nan"))

    target = dataclasses.replace(grey(), model=Flaky())  # image 5 at 0.486 + EPS is the one that meets NaN
    _, results = run(make_plan([Step("fine", "good", "claimed", "all")]), target, tmp_path)
    assert results.unknown[5]
    assert not results.unknown[:3].any()


def test_a_model_in_training_mode_ends_the_run(tmp_path):
    target = grey()
    target.model.train()
    with pytest.raises(BadModel, match="training mode"):
        run(make_plan([Step("fine", "good", "claimed", "all")]), target, tmp_path)


def test_one_nan_image_costs_that_image_alone(tmp_path):
    _, results = run(make_plan([Step("planted", "one-nan", "claimed", "all")]), grey(), tmp_path)
    (step,) = results.steps
    assert step.errors.nonzero()[0].tolist() == [0, 3]  # the first image of each shard that has one
    assert step.broken.nonzero()[0].tolist() == [4, 5]
    assert "NaN or infinite pixels for 1 images" in step.messages[0]


def test_the_control_takes_its_images_from_every_shard(tmp_path):
    steps = [Step("control", "good", "control", "control", eps=0.2, limit=5)]
    _, results = run(make_plan(steps), grey(), tmp_path)
    assert results.steps[0].attacked.nonzero()[0].tolist() == [0, 1, 2, 3, 4]


# --- who is attacked, and what counts


def test_a_silent_success_counts_as_broken_but_not_as_returned(tmp_path):
    _, results = run(make_plan([Step("planted", "passes-through", "claimed", "all")]), grey(), tmp_path)
    (step,) = results.steps
    assert step.silent.nonzero()[0].tolist() == [3, 4, 5]
    assert not results.unknown.any()
    assert results.survives_claimed.tolist() == results.correct.tolist()
    assert results.survives_all.nonzero()[0].tolist() == [0, 1, 2]


def test_an_attack_that_leaves_the_ball_gains_nothing(tmp_path):
    _, results = run(make_plan([Step("planted", "leaves-ball", "claimed", "all")]), grey(), tmp_path)
    assert results.steps[0].broken.nonzero()[0].tolist() == [3, 4, 5]
    found = verify_images(results.plan, grey(), Ledger(tmp_path))
    assert (found["verified"], found["rejected"], found["failures"]) == (3, 0, [])


def test_survivors_are_what_no_earlier_step_broke(tmp_path):
    steps = [
        Step("first", "good", "claimed", "all"), Step("second", "idle", "adaptive"),
        Step("third", "good", "claimed", "all"),
    ]  # fmt: skip
    _, results = run(make_plan(steps), grey(), tmp_path)
    assert [step.attacked.nonzero()[0].tolist() for step in results.steps] == [
        [0, 1, 2, 3, 4, 5], [0, 1, 2], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip


def test_a_control_has_its_own_radius_and_limit_and_no_say(tmp_path):
    steps = [
        Step("control", "good", "control", "control", eps=0.2, limit=2), Step("real", "idle", "adaptive"),
    ]  # fmt: skip
    engine, results = run(make_plan(steps), grey(), tmp_path)
    control, real = results.steps
    assert control.attacked.nonzero()[0].tolist() == [0, 1]
    assert control.broken.nonzero()[0].tolist() == [0, 1]
    assert real.attacked.nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert engine.alive.nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert results.survives_all.nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_adapted_attack_is_judged_by_the_deployed_defense(tmp_path):
    steps = [
        Step(
            "wide", "good", "adaptive", adapters=(AdapterSpec("float64"), AdapterSpec("rescale", {"temperature": 9.0}))
        )
    ]
    _, results = run(make_plan(steps), grey(), tmp_path)
    assert results.steps[0].broken.nonzero()[0].tolist() == [3, 4, 5]


def test_the_model_is_left_as_it_was(tmp_path):
    target = cnn_target()
    before = fingerprint_model(target.model)
    run(make_plan(STEPS, n=10, classes=4, batch_size=4), target, tmp_path)
    assert fingerprint_model(target.model) == before


# --- again and again

STEPS = (
    Step("pgd", "pgd", "claimed", "all", params={"steps": 4}),
    Step("apgd", "apgd-margin", "adaptive", params={"n_iter": 5}),
    Step("square", "square", "adaptive", params={"n_queries": 8}),
    Step("control", "apgd-margin", "control", "control", params={"n_iter": 5}, eps=1.0, limit=3),
)  # fmt: skip


def cnn_target(*, noisy=False):
    model = TinyCNN()
    x, y = images(model, 10)
    y[3] = (y[3] + 1) % 4  # one that is wrong from the start
    return Target(Noisy(model, 0.02) if noisy else model, x, y, frozenset({"stochastic"} if noisy else ()))


@pytest.mark.filterwarnings("ignore:there are")
def test_two_runs_of_one_seed_agree_bit_for_bit(tmp_path):
    plan = make_plan(STEPS, n=10, classes=4, batch_size=4)
    for folder in ("a", "b"):
        torch.rand(3)  # whatever the process drew before must not matter
        run(plan, cnn_target(), tmp_path / folder)
    assert_same(arrays_of(plan, tmp_path / "a"), arrays_of(plan, tmp_path / "b"))


def test_another_seed_gives_another_run(tmp_path):
    found = []
    for seed in (0, 1):
        plan = make_plan(STEPS[:1], n=10, classes=4, batch_size=4, seed=seed)
        run(plan, cnn_target(), tmp_path / str(seed))
        found.append(Ledger(tmp_path / str(seed)).read("01-pgd-0000")[0]["trace"])
    assert not np.array_equal(*found)


@pytest.mark.filterwarnings("ignore:there are")
@pytest.mark.parametrize("noisy", [False, True])
def test_a_resumed_run_agrees_bit_for_bit(noisy, tmp_path):
    plan, target = make_plan(STEPS, n=10, classes=4, batch_size=4, drift=float(noisy)), cnn_target(noisy=noisy)
    run(plan, target, tmp_path)
    whole = arrays_of(plan, tmp_path)
    names = list(whole)
    for lost in (names[:1], names[4:5], names[2::3], names):
        for name in lost:
            Ledger(tmp_path).path(name).unlink()
        seen = Recorder()
        run(plan, target, tmp_path, seen)
        assert seen.begun == lost
        assert seen.ended == names
        assert_same(arrays_of(plan, tmp_path), whole)


class Recorder(Silent):
    def __init__(self):
        self.begun, self.ended, self.beats = [], [], 0

    def begin(self, unit, images):
        self.begun.append(unit.name)

    def beat(self, forwards):
        self.beats += 1

    def end(self, unit, arrays, meta):
        self.ended.append(unit.name)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_unit_is_computed_anew(keep, tmp_path):
    plan, target = make_plan(STEPS[:1], n=10, classes=4, batch_size=4), cnn_target()
    run(plan, target, tmp_path)
    whole = arrays_of(plan, tmp_path)
    path = Ledger(tmp_path).path("01-pgd-0001")
    path.write_bytes(path.read_bytes()[:keep])
    seen = Recorder()
    run(plan, target, tmp_path, seen)
    assert seen.begun == ["01-pgd-0001"]
    assert_same(arrays_of(plan, tmp_path), whole)


def test_the_watcher_hears_of_every_unit(tmp_path):
    seen = Recorder()
    plan = make_plan(STEPS[:1], n=10, classes=4, batch_size=4)
    run(plan, cnn_target(), tmp_path, seen)
    assert seen.begun == seen.ended == [unit.name for unit in plan.units()]
    assert seen.beats == 4 * 3


# --- verification


def tampered(tmp_path, change):
    plan = make_plan([Step("fine", "good", "claimed", "all")])
    run(plan, grey(), tmp_path)
    before = verify_images(plan, grey(), Ledger(tmp_path))
    assert (before["verified"], before["rejected"], before["failures"]) == (3, 0, [])
    ledger, unit = Ledger(tmp_path), "01-fine-0001"  # images 3, 4 and 5
    arrays, meta = ledger.read(unit)
    ledger.write(unit, {**arrays, "x_adv": change(arrays["x_adv"].copy())}, meta)  # with a digest that fits
    return verify_images(plan, grey(), ledger)


def test_an_image_outside_the_ball_is_rejected(tmp_path):
    def brighten(x_adv):
        x_adv[0] += 0.02
        return x_adv

    found = tampered(tmp_path, brighten)
    assert found["rejected"] == 1
    assert found["failures"] == ["image 3 of 01-fine-0001 is outside the ball or the box"]


def test_an_image_that_is_classified_correctly_is_rejected(tmp_path):
    def darken(x_adv):
        x_adv[1] -= 0.05
        return x_adv

    found = tampered(tmp_path, darken)
    assert found["failures"] == ["image 4 of 01-fine-0001 is classified correctly"]


def test_an_image_that_is_no_number_is_rejected(tmp_path):
    def spoil(x_adv):
        x_adv[2, 0, 0, 0] = np.nan
        return x_adv

    found = tampered(tmp_path, spoil)
    assert found["failures"] == ["image 5 of 01-fine-0001 is outside the ball or the box"]


def test_a_model_with_other_weights_rejects_the_images(tmp_path):
    plan = make_plan([Step("fine", "good", "claimed", "all")])
    run(plan, grey(), tmp_path)
    other = dataclasses.replace(grey(), model=Brightness(0.9))
    assert verify_images(plan, other, Ledger(tmp_path))["rejected"] == 3
