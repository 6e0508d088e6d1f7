"""The patients are as ill as the table says: each flaw is really there, and the attack by hand reaches its figure."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from audit.errors import BadModel
from audit.oracle import check_logits, check_mode
from audit.rng import Stream
from audit.runner import run
from audit.types import ThreatModel
from tests.matrix import examined
from tests.patients import PATIENTS, REJECT, undefended
from tests.patients.attackers import foreign_gradient, last_iterate, two_steps
from tests.patients.by_hand import BY_HAND, hand_attack, margin, whole
from tests.patients.measure import pgd, right, survivors
from tests.patients.networks import ARCHITECTURES, WEIGHTS, from_zoo, trained

pytestmark = pytest.mark.usefixtures("undrawn")

NAMES = list(PATIENTS)
RANDOM = [name for name in NAMES if PATIENTS[name].flag == "randomized"]
FEW = 12


def built(name, n=FEW):
    return PATIENTS[name].build(), *PATIENTS[name].images(n)


def slope(model, x, y, loss=margin):
    """The gradient of the summed loss at x, None where none leads there."""
    x = x.clone().requires_grad_()
    logits = model(x)
    if not logits.requires_grad:
        return None
    return torch.autograd.grad(loss(logits, y).sum(), x, allow_unused=True)[0]


def cross_entropy(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def agreement(model, x, y, length=0.02, directions=30):
    """Correlation over random directions of what the gradient promises and what a step of `length` brings."""
    generator = torch.Generator().manual_seed(0)
    gradient, pairs = slope(model, x, y), []
    for _ in range(directions):
        step = length * torch.randn(x.shape, generator=generator).sign()
        with torch.no_grad():
            brought = margin(model(x + step), y) - margin(model(x - step), y)
        pairs.append(torch.stack([(2 * step * gradient).flatten(1).sum(1), brought]))
    promised, brought = torch.cat(pairs, 1)
    return float(torch.corrcoef(torch.stack([promised, brought]))[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_patient_builds_answers_logits_and_has_its_clean_accuracy(name):
    patient = PATIENTS[name]
    model, x, y = built(name, patient.n)
    check_mode(model)
    check_logits(model(x).detach(), patient.n)
    assert len(x) == patient.n
    assert abs(right(patient, patient.build(), x, y) - patient.clean) <= 0.02


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_patient_names_its_remedy_or_declares_its_flaw(name):
    patient = PATIENTS[name]
    told = {"purifier", "network", "generators", "unrolled", "bpda", "takes_labels"}
    assert not [part for part in patient.build().modules() if any(hasattr(part, word) for word in told)]
    assert patient.flag not in patient.allowed


@pytest.mark.parametrize("name", NAMES)
def test_only_the_random_patients_are_random(name):
    patient = PATIENTS[name]
    _, x, _ = built(name)
    with torch.no_grad(), Stream(0):
        first, second = patient.build()(x), patient.build()(x)
    assert torch.equal(first, second) == (name not in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_gives_the_same_draws(name):
    model, x, _ = built(name)
    answers = []
    for _ in range(2):
        with torch.no_grad(), Stream(1):
            answers.append(model(x))
    assert torch.equal(*answers)


def test_every_attack_by_hand_belongs_to_a_patient():
    assert set(BY_HAND) <= set(PATIENTS)


def test_softmax_appended_answers_probabilities():
    model, x, _ = built("softmax_appended")
    answer = model(x).detach()
    assert torch.allclose(answer.sum(1), torch.ones(FEW))
    assert float(answer.min()) >= 0


def test_the_gradient_of_a_thousandfold_logits_vanishes_under_cross_entropy_alone():
    model, x, y = built("logits_times_1000")
    kept = model(x).argmax(1) == y
    assert not slope(model, x, y, cross_entropy)[kept].any()
    assert slope(model, x, y).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["quantised_input", "bit_depth", "quantised_logits"])
def test_rounding_has_a_derivative_of_zero(name):
    model, x, y = built(name)
    assert not slope(model, x, y).any()


def test_quantised_logits_are_hundredths():
    model, x, _ = built("quantised_logits")
    hundredths = 100 * model(x).detach().double()
    assert float((hundredths - hundredths.round()).abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["jpeg", "detached_fgsm_purifier", "thermometer"])
def test_no_gradient_leads_to_the_image(name):
    model, x, y = built(name)
    assert slope(model, x, y) is None


def test_jpeg_loses_little():
    model, x, _ = built("jpeg")
    assert 0.001 < float((model.front(x) - x).abs().mean()) < 0.05


def test_a_clipped_gradient_is_the_same_everywhere_and_the_answer_exact():
    model, x, y = built("gradient_clipped")
    assert slope(model, x, y).unique().numel() == 1
    assert torch.equal(model(x), model.body(x))


@pytest.mark.parametrize("name", ["ripple", "gradient_clipped", "k_winners"])
def test_a_bent_gradient_promises_what_a_step_does_not_bring(name):
    model, x, y = built(name)
    assert agreement(model, x, y) < 0.35


@pytest.mark.parametrize("name", ["plain", "pgd_at", "two_class"])
def test_a_healthy_gradient_keeps_its_promise(name):
    model, x, y = built(name)
    assert agreement(model, x, y) > 0.7


@pytest.mark.parametrize(("name", "asks"), [("detached_fgsm_purifier", 1), ("anti_adversary", 2), ("plain", 0)])
def test_a_dynamic_patient_takes_gradients_while_it_answers(name, asks, monkeypatch):
    model, x, _ = built(name)
    taken, real = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: taken.append(1) or real(*a, **k))
    with torch.no_grad():
        model(x)
    assert len(taken) == asks


def test_the_step_away_undoes_attacks_on_the_bare_body():
    patient = PATIENTS["detached_fgsm_purifier"]
    model, x, y = built(patient.name, 30)
    adv = pgd(model.body, x, y, patient.eps, patient.seed)
    right_body, right_whole = ((part(adv).argmax(1) == y).float().mean() for part in (model.body, model))
    assert right_whole > right_body + 0.3


def test_an_attack_through_the_steps_toward_fails_where_one_on_the_bare_body_transfers():
    patient = PATIENTS["anti_adversary"]
    model, x, y = built(patient.name)
    through, bare = (pgd(part, x, y, patient.eps, patient.seed) for part in (model, model.body))
    left_through, left_bare = ((model(adv).argmax(1) == y).float().mean() for adv in (through, bare))
    assert left_through > left_bare + 0.3


def test_batch_statistics_make_an_answer_depend_on_its_neighbours():
    for name, depends in (("batch_statistics", True), ("plain", False)):
        model, x, _ = built(name)
        alone = torch.cat([model(part) for part in x.split(4)])
        assert torch.allclose(alone, model(x), atol=1e-3) is not depends


def test_the_stateful_patient_answers_otherwise_after_its_patience():
    model, x, _ = built("stateful")
    with torch.no_grad():
        first, second = model(x), model(x)
        while model.asked < model.patience:
            model(x)
        later = model(x)
    assert torch.equal(first, second)
    assert not torch.allclose(first, later, atol=0.1)


def test_normalised_twice_is_right_less_often_than_its_authors_say():
    patient = PATIENTS["normalised_twice"]
    assert patient.claimed_clean - right(patient, patient.build(), *patient.images()) > 0.2
    once = patient.build()[1]
    assert abs(right(patient, once, *patient.images(1000)) - patient.claimed_clean) <= 0.002


def test_a_model_for_pixels_up_to_255_sees_hardly_more_than_black_in_ours():
    patient = PATIENTS["expects_255"]
    model, x, y = built(patient.name, patient.n)
    assert len(set(model(x).argmax(1).tolist())) <= 2
    assert (model(255 * x).argmax(1) == y).float().mean() > 0.85


@pytest.mark.slow
def test_the_handshake_knows_what_a_model_for_pixels_up_to_255_expects(tmp_path):
    (found,) = (
        d for d in examined(PATIENTS["expects_255"], "quick", 0, tmp_path).audit.diagnoses
        if d.name == "clean_accuracy_handshake"
    )  # fmt: skip
    assert found.status == "flagged"
    assert "type --value-range 0,255" in found.sentence


class Unmoved(torch.nn.Module):
    """Stays in training mode, whatever it is told."""

    def __init__(self):
        super().__init__()
        self.body = trained("normalised")

    def train(self, mode=True):
        return super().train()

    def forward(self, x):
        return self.body(x)


@pytest.mark.slow
def test_a_network_left_in_training_mode_is_audited_in_evaluation_mode_and_the_report_says_so(tmp_path):
    x, y = PATIENTS["plain"].images(12)
    left = trained("normalised").train()
    before = trained("normalised").train()(x).detach()
    options = {"data": (x, y), "suite": "quick", "n": 12, "settings": ("unbounded.n_iter=2",)}
    wrong, right = (run(model=m, out=tmp_path / str(i), **options) for i, m in enumerate((left, trained("normalised"))))
    assert left.training
    assert not torch.allclose(before, trained("normalised")(x), atol=1e-2)  # it matters here
    assert wrong.to_dict()["defense"]["architecture"]["mode"] == "was in training mode, audited in evaluation mode"
    assert "mode" not in right.to_dict()["defense"]["architecture"]
    assert (wrong.results.logits == right.results.logits).all()


def test_a_network_that_stays_in_training_mode_is_refused_before_any_attack():
    x, y = PATIENTS["plain"].images(4)
    with pytest.raises(BadModel, match=r"training mode.*model\.eval\(\)"):
        run(model=Unmoved(), data=(x, y), suite="quick", n=4)


def test_the_sleeper_sleeps_and_is_otherwise_healthy(monkeypatch):
    model, x, _ = built("sleeper")
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert torch.equal(model(x), from_zoo("pgd_at-fashion_mnist-small")(x))
    assert slept == [model.seconds]


def test_the_detector_rejects_plain_attacks_and_few_clean_images():
    patient = PATIENTS["detector"]
    model, x, y = built(patient.name, patient.n)
    adv = pgd(model, x, y, patient.eps, patient.seed)
    assert (model(adv).argmax(1) == REJECT).float().mean() > 0.3
    assert (model(x).argmax(1) == REJECT).float().mean() < 0.1


@pytest.mark.parametrize(("name", "classes"), [("two_class", 2), ("three_class", 3)])
def test_few_classes_have_a_task_of_their_own(name, classes):
    model, x, y = built(name)
    assert model(x).shape[1] == classes
    assert set(y.tolist()) == set(range(classes))


class Remembers(torch.nn.Module):
    """Keeps every answer."""

    def __init__(self, model):
        super().__init__()
        self.model, self.said = model, []

    def forward(self, x):
        logits = self.model(x)
        self.said.append(logits.argmax(1))
        return logits


def attacked(name, function):
    patient = PATIENTS[name]
    model, x, y = built(name, 30)
    recorder = Remembers(model)
    adv = function(recorder, x, y, ThreatModel("Linf", patient.eps), seed=patient.seed)
    return model, recorder, adv, y


def test_last_iterate_passes_by_what_it_found():
    model, recorder, adv, y = attacked("last_iterate", last_iterate)
    found = (torch.stack(recorder.said) != y).any(0)
    assert ((model(adv).argmax(1) == y) & found).float().mean() > 0.2


def test_two_steps_stop_short():
    model, _, adv, y = attacked("two_steps", two_steps)
    assert (model(adv).argmax(1) == y).float().mean() > PATIENTS["two_steps"].by_hand + 0.1


def test_a_foreign_gradient_fools_the_stranger_only():
    model, _, adv, y = attacked("foreign_gradient", foreign_gradient)
    stranger = from_zoo("undefended-fashion_mnist-small")
    assert ((stranger(adv).argmax(1) != y) & (model(adv).argmax(1) == y)).float().mean() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "status"), [(None, "not_measured"), ("fashion_mnist", "clear")])
def test_a_label_that_no_image_has_is_no_class_for_rejections(dataset, status, tmp_path):
    x, y = PATIENTS["plain"].images(24)
    few = (x[y < 9], y[y < 9])
    found = run(model=PATIENTS["plain"].build(), data=few, dataset=dataset, suite="quick", eps=16 / 255, out=tmp_path)
    (reject,) = [d for d in found.diagnoses if d.name == "reject_class"]
    assert (reject.status, reject.blocking) == (status, status == "clear")
    assert found.adaptive.accuracy == 0


def test_weights_are_small_and_none_is_unclaimed():
    files = {path.stem: path.stat().st_size for path in WEIGHTS.glob("*.safetensors")}
    assert set(files) == set(ARCHITECTURES)
    assert max(files.values()) < 800_000


# The networks inside the patients, the patients that they carry, and how many of the patient's images each has left by
# itself at the patient's radius.
BASES = {
    "undefended": (undefended, 0, {
        "plain", "softmax_appended", "logits_times_1000", "quantised_logits", "quantised_input", "bit_depth", "jpeg",
        "gradient_clipped", "ripple", "anti_adversary", "uniform_noise", "random_resize_pad", "random_pick", "stateful",
        "expects_255", "last_iterate", "two_steps",
    }),
    "normalised": (partial(trained, "normalised"), 0, {"normalised_twice", "random_pick", "stateful"}),
    "two_class": (partial(trained, "two_class"), 0, {"two_class"}),
    "three_class": (partial(trained, "three_class"), 0, {"three_class"}),
    "sim_adv": (partial(from_zoo, "sim_adv-fashion_mnist-vanilla"), 6, {"random_pick"}),
    "fgsm_overfitted": (partial(trained, "fgsm_overfitted"), 2, {"detached_fgsm_purifier"}),
}  # fmt: skip
WHOLE = {
    "batch_statistics",
    "thermometer",
    "k_winners",
    "detector",
}  # trained with their flaw: there is no network inside
ROBUST = {"pgd_at", "sleeper", "foreign_gradient"}


def test_every_patient_has_a_base():
    assert set().union(*(names for _, _, names in BASES.values()), WHOLE, ROBUST) == set(PATIENTS)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_the_network_inside_falls_at_the_radius_of_its_patients(base):
    build, left, names = BASES[base]
    (eps,) = {PATIENTS[name].eps for name in names}
    x, y = PATIENTS[min(names)].images()
    model = build()
    stands = (model(x).argmax(1) == y) & (model(whole(model, x, y, eps, 0)).argmax(1) == y)
    assert int(stands.sum()) <= left


LONG = {
    "pgd_at", "sleeper", "jpeg", "gradient_clipped", "ripple", "random_resize_pad", "two_class", "last_iterate",
    "foreign_gradient",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long if n in LONG else pytest.mark.slow) for n in NAMES]
)
def test_the_attack_by_hand_reaches_its_figure(name):
    patient = PATIENTS[name]
    x, y = patient.images()
    with Stream(patient.seed):
        adv = hand_attack(name)(patient.build(), x, y, patient.eps, patient.seed)
    assert float((adv - x).abs().max()) <= patient.eps * 1.0001
    assert 0 <= float(adv.min()) <= float(adv.max()) <= 1
    assert abs(survivors(patient, adv, y) - patient.by_hand) <= 0.02
