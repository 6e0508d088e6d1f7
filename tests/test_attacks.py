"""Every attack of the registry keeps the contract, and a bad one is caught or fenced in."""

import sys
from dataclasses import replace

import pytest
import torch

from audit import registry
from audit.attacks.common import BrokenAttack
from audit.errors import BadInput, Unsupported
from audit.gates import fingerprint_model
from audit.margins import margin_loss
from audit.testing import Linear, _check_inside, check_attack
from audit.types import ThreatModel
from tests import planted
from tests.planted import Counting, TinyCNN, images

NAMES = registry.attacks.names()
ALONE = [name for name in NAMES if name != "transfer"]  # it needs a run or a surrogate: tests/test_transfer.py
SHORT = {
    "square": {"n_queries": 60, "above": 8.0, "share": 0.5},  # few queries reach less far
    "a3": {"restarts": 2, "init_steps": 3, "steps": 10},
    "fwa": {"steps": 25},
    "nes": {"steps": 40},
    "random-search": {"n_draws": 250},
    "rays": {"n_queries": 500, "above": 2.0},
    "st-adv": {"steps": 40},
    "ti-dim": {
        "len_kernel": 3,
        "diversity_prob": 0.0,
        "above": 1.5,
    },  # pixels of the linear problem do not hang together
    "apgd-dlr": {"n_iter": 20},
    "eot-pgd": {"eot_iter": 2},
    "fmn": {"steps": 50},
    "spsa": {"steps": 10, "samples": 64, "above": 1.5},
    "cw-l0": {"steps": 5, "search_steps": 5, "rounds": 30},
    "cw-l2": {"steps": 8, "search_steps": 5, "above": 1.6},
    "cw-linf": {"steps": 8, "queries": 100},
    "hopskipjump": {"queries": 1000, "above": 3.0, "share": 0.8},
    "boundary": {"queries": 1000, "above": 6.0},
    "zoo": {"steps": 10, "search_steps": 4, "above": 4.0},
}
DEAR = ("boundary", "cw-l0", "cw-linf", "fmn", "hopskipjump", "square", "zoo")
BY_COST = [pytest.param(name, marks=pytest.mark.slow if name in DEAR else ()) for name in ALONE]
BOUNDED = ("cw-l0", "cw-l2", "cw-linf", "hopskipjump", "boundary", "zoo")  # may end sooner than their cost says


def few_classes(name):
    """The option that counts classes, at what a network with four of them leaves of it."""
    return {"apgd-t": {"n_target_classes": 3}, "fab-t": {"n_target_classes": 3}, "deepfool": {"candidates": 4}}.get(
        name, {}
    )


def options(name):
    return SHORT.get(name, {"n_iter": 12} if "n_iter" in registry.attacks.load(name).defaults else {})


@pytest.mark.parametrize("name", BY_COST)
def test_it_keeps_the_contract(name):
    check_attack(registry.attacks.load(name), **options(name))


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (3, 3)])
@pytest.mark.parametrize("name", BY_COST)
def test_it_works_with_few_classes_and_with_colour(name, classes, channels):
    check_attack(registry.attacks.load(name), classes=classes, channels=channels, seed=1, **options(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_it_keeps_the_contract_with_its_defaults(name):
    """The whole default budget of each; boundary, hopskipjump, zoo and cw-linf take one image at a time and minutes."""
    check_attack(registry.attacks.load(name))


@pytest.mark.parametrize("name", [pytest.param("square", marks=pytest.mark.slow), "ti-dim"])
def test_what_asks_for_more_room_or_less_success_declares_it(name):
    """With shipped defaults and nothing typed."""
    check_attack(registry.attacks.load(name))


def test_the_share_that_an_attack_declares_is_what_it_is_held_to():
    with pytest.raises(AssertionError, match=r"broke 0 of 6 images within 1.25 times.*expected a share of 0.5"):
        check_attack(replace(planted.idle, share=0.5))
    with pytest.raises(AssertionError, match="within 4 times"):
        check_attack(replace(planted.idle, reach={"Linf": 4.0}))
    with pytest.raises(AssertionError, match=r"within 1.25 times"):
        check_attack(replace(planted.idle, reach={"L0": 4.0}))


def test_fmn_asks_for_more_room_only_where_pixels_are_counted():
    assert registry.attacks.load("fmn").reach == {"L0": 2.0}


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    attack = registry.attacks.load(name)
    assert attack.name == name
    assert attack.kind in ("budget", "minimal")
    assert attack.reference
    assert attack.function.__doc__


@pytest.mark.filterwarnings("ignore:there are")
@pytest.mark.parametrize("name", ALONE)
def test_it_costs_at_most_what_it_says(name):
    attack, model = registry.attacks.load(name), TinyCNN()
    x, y = images(model, 1)
    counting, short = Counting(model), {k: v for k, v in options(name).items() if k in attack.defaults}
    threat = ThreatModel("Linf", 1e-6) if "Linf" in attack.norms else ThreatModel(attack.norms[0], 1.0)
    attack(counting, x, y, threat, seed=0, **short)  # nothing falls: the whole attack runs
    forwards, _ = attack.cost({**short, **few_classes(name)})
    if name in BOUNDED:
        assert 0.2 * forwards <= counting.rows <= forwards
        return
    probing = 1 if name in ("apgd-dlr", "apgd-t", "fab-t") else 0  # one image, to learn the number of classes
    assert counting.rows - probing <= 1.1 * forwards + 2
    if name != "deepfool":  # which ends where all images have crossed, however far
        assert counting.rows - probing >= 0.9 * forwards - 2


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_named_with_the_nearest(name):
    attack, model = registry.attacks.load(name), TinyCNN()
    x, y = images(model)
    with pytest.raises(BadInput, match="has no option 'n_itr'"):
        attack(model, x, y, ThreatModel(attack.norms[0], 1.0), seed=0, n_itr=3)


def test_an_unsupported_norm_is_named():
    model = TinyCNN()
    x, y = images(model)
    with pytest.raises(Unsupported, match="'pgd' supports Linf, not L2"):
        registry.attacks.load("pgd")(model, x, y, ThreatModel("L2", 0.5), seed=0)


def test_the_margin_loss_is_positive_where_the_class_is_wrong():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert margin_loss(logits, torch.tensor([0, 1])).tolist() == [-1.0, 2.0]


# --- planted attacks


def test_a_good_attack_passes():
    check_attack(planted.good)


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        (planted.idle, "broke 0 of 6 images"),
        (planted.leaves_ball, "left the ball"),
        (planted.never_clips, "on black and white images, left the box: pixels"),
        (planted.trains, "changed the model's mode"),
        (planted.retrains, "changed the model's mode, parameters or buffers"),
        (planted.counts, "changed the model's mode, parameters or buffers"),
        (planted.remembers, "changed the model's mode, parameters or buffers"),
        (planted.traces, "changed the trace function"),
        (planted.unwrapped_overwrites, "changed the images or labels that it was given"),
        (planted.forgets_seed, "different images under the same seed"),
        (planted.unwrapped_nan, "NaN"),
        (planted.unwrapped_cropped, "shape"),
        (planted.unwrapped_reseeds, "moved the global random generators"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_bad_attack_is_caught(attack, sentence):
    watching = sys.gettrace()
    try:
        with pytest.raises(AssertionError, match=sentence):
            check_attack(attack)
    finally:
        sys.settrace(watching)


def test_a_minimal_attack_that_fills_its_ball_is_caught():
    """It breaks them all, and farther off than 1.25 times the distance of each, which eps is for the farthest alone."""
    with pytest.raises(AssertionError, match=r"broke [0-5] of 6 images within 1.25 times the distance"):
        check_attack(replace(planted.good, kind="minimal"))


def test_a_success_nearer_than_the_boundary_is_caught(monkeypatch):
    """On the linear problem there is none, so the distance is made out to be twice what it is."""
    exact = Linear.distance
    monkeypatch.setattr(Linear, "distance", lambda *args: 2 * exact(*args))
    with pytest.raises(AssertionError, match=r"'good' under Linf succeeded inside 0.8 times the distance"):
        check_attack(planted.good)


def test_moving_the_generator_of_an_accelerator_is_caught(monkeypatch):
    state = torch.zeros(4, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone()])
    check_attack(planted.good)

    def draws(*args, **options):
        state.add_(1)
        return planted.good.function(*args, **options)

    with pytest.raises(AssertionError, match="moved the global random generators"):
        check_attack(replace(planted.good, function=draws))


def test_a_buffer_that_is_not_saved_is_part_of_the_fingerprint():
    model = TinyCNN()
    saved = fingerprint_model(model)
    model.register_buffer("seen", torch.zeros(3), persistent=False)
    before = fingerprint_model(model)
    model.seen[1] = 1.0
    assert len({saved, before, fingerprint_model(model)}) == 3
    del model.seen
    assert fingerprint_model(model) == saved


def test_leaving_the_box_is_caught():
    x = torch.full((1, 1, 8, 8), 0.999)
    with pytest.raises(AssertionError, match="left the box: pixels up to"):
        _check_inside(x + 0.01, x, ThreatModel("Linf", 0.02), "planted")
    with pytest.raises(AssertionError, match="left the box: pixels down to"):
        _check_inside(x - 1.0, x, ThreatModel("Linf", 1.0), "planted")


@pytest.mark.parametrize("attack", [planted.cropped], ids=lambda a: a.name)
def test_what_is_no_batch_of_images_is_refused(attack):
    model = TinyCNN()
    x, y = images(model)
    with pytest.raises(BrokenAttack, match="returned"):
        attack(model, x, y, ThreatModel(), seed=0)


def test_reseeding_is_fenced_in():
    before = torch.get_rng_state()
    check_attack(planted.reseeds)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_images_and_model_are_left_alone():
    model = TinyCNN()
    x, y = images(model)
    kept, weights = x.clone(), fingerprint_model(model)
    planted.good(model, x, y, ThreatModel(), seed=0)
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert fingerprint_model(model) == weights
