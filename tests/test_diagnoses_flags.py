"""The diagnoses that read the examination, the traces and pairs of steps: planted evidence, one flaw at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit import diagnoses
from audit.diagnoses import INDEX, diagnose, kind_of_masking
from audit.diagnoses.kind import NONE, masking
from audit.diagnoses.pintor import indicator_4
from audit.results import Results, _outside
from audit.step_results import StepResult
from audit.types import TRAITS
from audit.verdict import judge_claim
from tests.built import EXAMINED, HEALTHY, MEASURED, N, built, claimed, control, mask, ran

BPDA, BASE = ran("apgd-bpda", adapters=("bpda",)), ran("apgd-base", adapters=("base",))
SQUARE, SPSA = ran("square", attack="square"), ran("spsa", attack="spsa")
CRASHED = {"errors": mask((0, 1)), "messages": ("RuntimeError",)}


def status_of(name: str, results: Results) -> str:
    return getattr(diagnoses, name)(results).status


def sloped(cosine: float, agreement: float) -> dict:
    return {"difference_cosine": {"0.001": cosine, "0.1": cosine}, "slope_agreement": agreement}


def shares(**changed: float) -> dict:
    return {"loss_gradients": {**EXAMINED["loss_gradients"], "margin": {**HEALTHY, **changed}}}


def ce(**changed: float) -> dict:
    return {"loss_gradients": {**EXAMINED["loss_gradients"], "ce": {**HEALTHY, **changed}}}


def bent(gap: float) -> dict:
    return {"linearity_gap": {"0.01": 0.1, "0.1": gap, "1": 0.9}}


def curved(*left: float) -> dict:
    return {"eps_curve": [{"eps": 0.1 * (i + 1), "accuracy": a} for i, a in enumerate(left)]}


# what the examination says, and where the line is


@pytest.mark.parametrize(
    ("name", "healthy", "flawed", "blocking"),
    [
        ("dynamic", {}, {"dynamic": True, "dynamic_in": ["purifier", ""]}, True),
        ("too_few_classes", {"classes": 4}, {"classes": 3}, False),
        ("exploding_gradient", shares(bad=0.01), shares(bad=0.02), True),
        ("exploding_gradient", {"difference_ratio": {"0.1": 100.0}}, {"difference_ratio": {"0.1": 101.0}}, True),
        ("masked_gradient", sloped(0.4, 0.99), sloped(0.39, 0.99), True),
        ("unstable_gradient", sloped(0.3, 0.7), sloped(0.3, 0.69), True),
        ("unstable_predictions", {"loss_change": 0.1}, {"loss_change": 0.11}, False),
        ("local_linearity", bent(0.4), bent(0.41), False),
        ("batch_dependent", {"batch_difference": 1e-4}, {"batch_difference": 2e-4, "batch_flips": 0.5}, True),
        ("stateful", {}, {"stateful": True, "state_changes": ["asked"], "state_drift": 0.0}, True),
        ("quantised_output", {"distinct_logits": 0.5}, {"distinct_logits": 0.49}, False),
        ("quantised_output", {}, {"logit_step": 0.01}, False),
        ("larger_eps_does_not_help", curved(0.5, 0.54, 0.3), curved(0.5, 0.56, 0.3), False),
        ("larger_eps_does_not_help", curved(0.5, 0.3), curved(0.5, 0.31), False),  # a tenth is guessing, and 20 points
    ],
)
def test_a_flaw_is_flagged_by_its_own_diagnosis_alone(name, healthy, flawed, blocking):
    sound = claimed(), ran("apgd-margin"), SQUARE, control()
    assert status_of(name, built(*sound, profile=healthy)) == "clear"
    results = built(*sound, profile=flawed)
    found = {d.name: d for d in diagnose(results)}
    assert [d.name for d in found.values() if d.status == "flagged"] == [name]
    assert found[name].blocking == blocking
    assert (judge_claim(MEASURED, results, tuple(found.values())).outcome == "upheld") != blocking


def test_what_a_diagnosis_says_names_the_place_and_the_numbers():
    seen = {"dynamic": True, "dynamic_in": ["purifier", ""], "gradient_cut": True, "gradient_cut_at": ["purifier"]}
    results = built(
        profile={**seen, "max_draw_difference": 0.2, "repeats_correct": [50, 48, 49, 50, 50], "draws_for_snr": 7}
    )
    assert "purifier, the model's own code" in diagnoses.dynamic(results).sentence
    assert diagnoses.shattered_gradient(results).sentence.endswith("not differentiable (purifier)")
    assert "of 64 images 48 to 50 are right in one pass" in diagnoses.randomized(results).sentence
    assert "until 7 are averaged" in diagnoses.randomized(results).sentence
    cut = built(profile={"gradient_cut": True, "gradient_cut_at": []})
    assert "(the model's own code)" in diagnoses.shattered_gradient(cut).sentence


def test_a_run_older_than_the_examination_measures_nothing_and_blocks_nothing():
    results = built(claimed(), ran("apgd-margin"), SQUARE, control(), examined=False)
    found = diagnose(results)
    late = [d for d in found if "older than the measurement" in d.sentence]
    assert {d.name for d in late} == {
        "dynamic", "exploding_gradient", "masked_gradient", "unstable_gradient", "unstable_predictions", "ce_precision",
        "sign_of_zero", "local_linearity",
        "larger_eps_does_not_help", "batch_dependent", "stateful", "quantised_output",
    }  # fmt: skip
    assert not any(d.blocking for d in found if d.status == "not_measured")
    assert judge_claim(MEASURED, results, found).outcome == "upheld"


def test_the_curve_says_how_many_images_it_has():
    curve = [{**point, "n": 30} for point in curved(0.5, 0.3)["eps_curve"]]
    found = diagnoses.larger_eps_does_not_help(built(profile={"eps_curve": curve}))
    assert (found.samples, "of 30 images that were right" in found.sentence) == (30, True)
    assert diagnoses.larger_eps_does_not_help(built(profile=curved(0.5, 0.3))).samples == EXAMINED["examined"]


@pytest.mark.parametrize(
    "name",
    [
        "exploding_gradient", "masked_gradient", "unstable_gradient", "larger_eps_does_not_help", "ce_precision",
        "sign_of_zero", "local_linearity",
    ],
)  # fmt: skip
def test_without_a_gradient_there_is_nothing_to_compare(name):
    gone = dict.fromkeys(
        (
            "loss_gradients", "difference_cosine", "slope_agreement", "eps_curve", "ce_cosine_float64",
            "ce_cosine_rescaled", "linearity_gap",
        )
    )  # fmt: skip
    found = getattr(diagnoses, name)(built(profile={**gone, "gradient_cut": True}))
    assert (found.status, found.blocking) == ("not_measured", False)
    assert "older" not in found.sentence


def test_batches_of_a_random_model_are_not_compared():
    found = diagnoses.batch_dependent(built(profile={"batch_difference": None, "batch_flips": None}))
    assert (found.status, found.blocking) == ("not_measured", False)


def test_memory_is_no_randomness():
    remembers = {"max_draw_difference": 0.2, "stateful": True}
    assert status_of("randomized", built(profile=remembers)) == "clear"
    assert status_of("randomized", built(profile={**remembers, "random_by_seed": True})) == "flagged"


def test_probabilities_repeat_without_being_rounded():
    assert status_of("quantised_output", built(profile={"distinct_logits": 0.2, "softmax_output": True})) == "clear"


def test_what_was_measured_beside_a_finding_is_said():
    said = {d.name: d.sentence for d in diagnose(built(profile={"enables_gradients": True}))}
    assert said["vanishing_gradient"].endswith("; at random points of the ball on 0.0%")
    assert "more than 1 - 1e-7 to one class on 0.0% of a sample" in said["saturated_softmax"]
    assert said["exploding_gradient"].endswith("and has 1 times the size of the slopes over eps/10 (median)")
    assert said["local_linearity"].endswith("gradients that far apart have a median cosine of 0.87")
    assert said["dynamic"].endswith("though gradients are switched on there")
    assert said["softmax_output"] == "the model returns logits, from -21.6 to 24.2 on a sample"


# what resolves them


@pytest.mark.parametrize(
    ("steps", "bare", "status"),
    [
        ((BPDA, BASE, SQUARE), "network", "resolved"),
        ((BPDA, SQUARE), "network", "flagged"),
        ((BPDA, SQUARE), None, "resolved"),  # there is no bare network to transfer from
        ((BASE, SQUARE), None, "flagged"),
        ((BPDA, BASE), None, "flagged"),
        ((replace(BPDA, errors=mask((0, 1))), SQUARE), None, "flagged"),
    ],
)
def test_dynamic_asks_for_the_steps_that_see_through_it(steps, bare, status):
    assert status_of("dynamic", built(*steps, profile={"dynamic": True, "bare_network_at": bare})) == status
    staged = "resolved" if status == "resolved" and BASE in steps else "flagged"
    assert status_of("dynamic", built(*steps, profile={"dynamic": True}, staged=True)) == staged


@pytest.mark.parametrize(("name", "flaw"), [("masked_gradient", sloped(0, 1)), ("unstable_gradient", sloped(0, 0))])
@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((SPSA, SQUARE, control()), "resolved"),
        ((ran("nes", attack="nes"), SQUARE, control()), "resolved"),
        ((SPSA, SQUARE), "flagged"),
        ((SPSA, SQUARE, control(mask((0, 99)))), "flagged"),
        ((SPSA, control()), "flagged"),
        ((SQUARE, control()), "flagged"),
        ((ran("spsa", attack="spsa", **CRASHED), SQUARE, control()), "flagged"),
        ((ran("spsa", attack="spsa", adapters=("base",)), SQUARE, control()), "flagged"),
    ],
)
def test_a_gradient_that_lies_asks_for_estimates_from_scores(name, flaw, steps, status):
    assert status_of(name, built(*steps, profile=flaw)) == status


@pytest.mark.parametrize(
    ("name", "flaw", "step"),
    [
        ("exploding_gradient", shares(bad=1.0), BPDA),
        ("unstable_predictions", {"loss_change": 0.9}, ran("e", adapters=("eot",))),
        ("quantised_output", {"logit_step": 0.1}, ran("rays", attack="rays")),
    ],
)
def test_others_ask_for_one_step(name, flaw, step):
    assert status_of(name, built(profile=flaw)) == "flagged"
    assert status_of(name, built(step, profile=flaw)) == "resolved"
    assert status_of(name, built(replace(step, done=False), profile=flaw)) == "flagged"


@pytest.mark.parametrize(
    ("name", "flaw"), [("batch_dependent", {"batch_difference": 1.0}), ("stateful", {"stateful": True})]
)
def test_some_have_no_remedy_here(name, flaw):
    steps = BPDA, BASE, SQUARE, SPSA, ran("e", adapters=("eot",)), control()
    assert status_of(name, built(*steps, profile=flaw, traits=["stateful"])) == "flagged"


# along the attacks


@pytest.mark.parametrize(
    ("steps", "profile", "status", "blocking"),
    [
        ((ran("a", zero=0.01),), {}, "clear", True),
        ((ran("a", zero=0.9),), {}, "flagged", True),
        ((ran("a", zero=0.9), ran("b", zero=0.5)), {}, "flagged", True),
        ((ran("a", zero=0.9), ran("b", zero=0.0)), {}, "resolved", True),
        ((ran("a", zero=0.9),), {"zero_gradient": 0.9}, "flagged", False),  # vanishing_gradient blocks
        ((ran("a", zero=0.9),), {"gradient_cut": True}, "flagged", False),  # shattered_gradient blocks
        ((), {}, "not_measured", False),
        ((ran("a", zero=None),), {}, "not_measured", False),
        ((ran("a", zero=0.9, adapters=("base",)),), {}, "not_measured", False),
        ((ran("square", attack="square", zero=0.9),), {}, "not_measured", False),
    ],
)
def test_zero_gradient_in_attack(steps, profile, status, blocking):
    found = diagnoses.zero_gradient_in_attack(built(*steps, profile=profile))
    assert (found.status, found.blocking) == (status, blocking)


@pytest.mark.parametrize(
    ("losses", "value"),
    [
        (np.linspace(10, 0, 21), 0.5),
        ([10, 0] + [0] * 19, 0.0),
        ([10] + [5] * 10 + [0] * 10, 0.5),
        ([0, 10] * 10, 0.0),  # the running minimum does not rise again
        ([3, 3, 3], 0.0),
        ([2, 1, 0], 1.0),
        ([2, 1], 1.0),  # two steps
        ([1, 2], 0.0),
        ([float("nan"), 10, 4, 0], 1.0),
    ],
)
def test_indicator_4_by_hand(losses, value):
    assert indicator_4(np.asarray(losses, np.float32)) == pytest.approx(value)
    assert np.isnan(indicator_4(np.zeros(1, np.float32)))


def falling(name: str, margins, zero=0.0, **changes) -> StepResult:
    rows = np.asarray([(1.0, m, 0.0, zero, 1.0) for m in margins], np.float32)
    return replace(ran(name, **changes), traces=(rows,))


SETTLED, FALLING = [10, 5, 1] + [0.1] * 20, list(range(20, 0, -1))
STILL = [10] * 23


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((falling("a", FALLING),), "flagged"),
        ((falling("a", FALLING), falling("b", SETTLED)), "clear"),
        ((falling("a", FALLING, broken=mask((0, 900))),), "clear"),  # there was nothing left to gain
        ((falling("a", FALLING), falling("square", SETTLED, attack="square")), "flagged"),
        ((falling("a", FALLING), falling("base", SETTLED, adapters=("base",))), "flagged"),
        ((falling("base", SETTLED, adapters=("base",)),), "clear"),
        ((falling("a", FALLING), falling("b", SETTLED, done=False)), "flagged"),
        ((falling("a", FALLING), falling("still", STILL, zero=1.0)), "flagged"),  # it had no gradient to follow
        ((falling("a", FALLING), falling("some", STILL, zero=0.02)), "flagged"),
        ((falling("still", STILL, zero=1.0),), "not_measured"),
        ((falling("a", FALLING), falling("b", SETTLED, attacked=mask((0, 9)))), "flagged"),
        ((falling("a", FALLING), falling("b", SETTLED, attacked=mask((0, 10)))), "clear"),
        (
            (falling("a", FALLING), falling("b", FALLING, broken=mask((0, 9)), attacked=mask((0, 9)))),
            "clear",
        ),  # nothing stood
        ((falling("a", [3, 2]),), "flagged"),
        ((falling("a", [3]),), "not_measured"),  # one step has no course
        ((), "not_measured"),
    ],
)
def test_incomplete_optimisation(steps, status):
    found = diagnoses.incomplete_optimisation(built(*steps))
    assert (found.status, found.blocking) == (status, status != "not_measured")


def test_the_slowest_shard_counts():
    both = replace(falling("a", SETTLED), traces=(*falling("a", SETTLED).traces, *falling("a", FALLING).traces))
    assert status_of("incomplete_optimisation", built(both)) == "flagged"


# pairs


def fast(broken: int, **changes) -> StepResult:
    return claimed("fgsm", mask((0, broken)), attack="fgsm", **changes)


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((fast(100), claimed(broken=mask((0, 90)))), "flagged"),
        ((fast(95), claimed(broken=mask((0, 90)))), "clear"),  # half a point, and p = 0.06
        ((fast(98), claimed(broken=mask((0, 90)))), "flagged"),
        ((fast(100), claimed(broken=mask((50, 190)))), "clear"),
        ((fast(100), claimed(broken=mask((0, 90))), claimed("bim-20", mask((0, 100)), attack="bim")), "clear"),
        ((fast(100), claimed(broken=mask((0, 90)), adapters=("base",))), "not_measured"),  # another route
        ((fast(100, adapters=("base",)), claimed(broken=mask((0, 90)), adapters=("base",))), "flagged"),
        ((fast(100), claimed(broken=mask((0, 90)), scope="survivors")), "not_measured"),
        ((fast(100),), "not_measured"),
        ((fast(100), claimed(broken=mask((0, 90))), BPDA), "resolved"),
        ((fast(100), claimed(broken=mask((0, 90))), ran("apgd-margin"), control()), "resolved"),
    ],
)
def test_one_step_beats_iterative(steps, status):
    found = diagnoses.one_step_beats_iterative(built(*steps))
    assert (found.status, found.blocking) == (status, status != "not_measured")


@pytest.mark.parametrize("changes", [{"after": ("fgsm",)}, {"limit": 90}])
def test_an_iterative_attack_on_what_others_left_is_not_paired(changes):
    rest = claimed("transfer-apgd-ce", mask((100, 150)), attack="apgd-ce", adapters=("base",))
    rest = replace(rest, step=replace(rest.step, **changes))
    assert status_of("one_step_beats_iterative", built(fast(100, adapters=("base",)), rest)) == "not_measured"


def test_an_image_on_which_one_of_the_pair_crashed_says_nothing():
    crashed = replace(claimed(broken=mask((0, 90))), crashed=mask((90, 100)))
    assert status_of("one_step_beats_iterative", built(fast(100), crashed)) == "clear"


def test_precision_says_both_cosines_and_a_random_model_is_compared_with_rescaled_logits_alone():
    poor = {"ce_cosine_float64": 0.1, "ce_cosine_rescaled": 0.9}
    found = diagnoses.ce_precision(built(profile=poor))
    assert (found.status, found.value) == ("flagged", 0.1)
    assert "0.10 with the one in float64 and a median cosine of 0.90" in found.sentence
    random = diagnoses.ce_precision(built(profile={**poor, "max_draw_difference": 0.1}))
    assert (random.status, random.value) == ("clear", 0.9)


@pytest.mark.parametrize(
    ("name", "healthy", "flaw"),
    [
        ("ce_precision", {"ce_cosine_float64": 0.5}, {"ce_cosine_float64": 0.49}),
        ("ce_precision", {"ce_cosine_rescaled": 0.5}, {"ce_cosine_rescaled": 0.49}),
        ("sign_of_zero", ce(zero_pixels=0.5), ce(zero_pixels=0.51)),
    ],
)
def test_symptoms_of_a_gradient_that_vanishes_do_not_block(name, healthy, flaw):
    assert status_of(name, built(claimed(), profile=healthy)) == "clear"
    found = [d for d in diagnose(built(claimed(), SQUARE, control(), profile=flaw)) if d.status == "flagged"]
    assert [(d.name, d.blocking) for d in found] == [(name, False)]


@pytest.mark.parametrize(
    ("name", "flaw", "steps"),
    [
        ("ce_precision", {"ce_cosine_float64": 0.0}, (ran("apgd-margin"), control())),
        ("sign_of_zero", ce(zero_pixels=1.0), (ran("apgd-margin"), control())),
        ("sign_of_zero", ce(zero_pixels=1.0), (BPDA,)),
        ("local_linearity", bent(0.9), (SPSA, SQUARE, control())),
    ],
)
def test_what_resolves_the_symptoms(name, flaw, steps):
    assert status_of(name, built(profile=flaw)) == "flagged"
    assert status_of(name, built(*steps, profile=flaw)) == "resolved"


# a class that no image has


def eleven(outside: int, outputs: int = 11, broken: int = 500) -> Results:
    results = built(claimed(), ran("apgd-margin", mask((0, broken))), SQUARE, control(), profile={"classes": outputs})
    plan = replace(results.plan, runtime={"classes": [str(i) for i in range(10)]})
    return replace(results, plan=plan, outside=mask((0, outside)))


@pytest.mark.parametrize(
    ("results", "status"),
    [
        (eleven(51), "flagged"),
        (eleven(50), "clear"),
        (eleven(500, outputs=12), "clear"),  # trained on more classes
        (eleven(0, outputs=10), "clear"),
        (eleven(0, broken=0), "clear"),
        (replace(eleven(51), outside=None), "not_measured"),
    ],
)
def test_one_output_too_many_in_which_attacks_end(results, status):
    assert status_of("reject_class", results) == status


def test_what_may_be_a_rejection_refutes_and_upholds_nothing():
    verdicts = [judge_claim(MEASURED, r, diagnose(r)) for r in (eleven(51), eleven(50))]
    assert [v.outcome for v in verdicts] == ["inconclusive", "refuted"]
    assert any("51 end in the one that no image has" in reason for reason in verdicts[0].reasons)


def test_an_answer_outside_the_classes_counts_until_another_attack_gets_one_inside():
    ids = np.arange(4)
    first = {"ids": ids, "broken": np.array([1, 1, 0, 1], bool), "prediction": np.array([10, 10, 10, 3])}
    second = {"ids": ids[1:2], "broken": np.array([True]), "prediction": np.array([2])}
    assert _outside(10, 4, [first]).tolist() == [True, True, False, False]
    assert _outside(10, 4, [first, second]).tolist() == [True, False, False, False]
    assert _outside(0, 4, [first]) is None


@pytest.mark.parametrize(
    ("shares", "hint"),
    [
        ({"0,255": 0.9, "-1,1": 0.4}, "--value-range 0,255"),
        ({"0,255": None, "-1,1": 0.9}, "--value-range -1,1"),
        ({"0,255": 0.3, "-1,1": None}, "normalised twice"),
    ],
)
def test_the_handshake_names_the_range_that_the_model_seems_to_expect(shares, hint):
    wrong = {"prediction": np.where(mask((0, 150)), 0, 1), "profile": {"right_in_range": shares}}
    assert hint in diagnoses.clean_accuracy_handshake(built(**wrong)).sentence
    unknown = diagnoses.clean_accuracy_handshake(built(**wrong, expected=None)).sentence
    assert ("value-range" in unknown) == ("value-range" in hint)
    healthy = diagnoses.clean_accuracy_handshake(built(profile={"right_in_range": {"0,255": 0.5}}))
    assert "value-range" not in healthy.sentence


@pytest.mark.parametrize(
    ("right", "labels", "guesses"),
    [(0, 10, True), (100, 10, True), (115, 10, True), (150, 10, False), (520, 2, True), (560, 2, False)],
)
@pytest.mark.parametrize("expected", [None, 0.9])
def test_the_handshake_says_when_the_images_seem_to_be_others(right, labels, guesses, expected):
    label = np.arange(N) % labels
    seen = np.where(mask((0, right)), label, (label + 1) % labels)
    results = replace(
        built(prediction=seen, expected=expected, dataset="fashion_mnist"), label=label, correct=seen == label
    )
    found = diagnoses.clean_accuracy_handshake(results)
    assert ("was it trained on fashion_mnist? If not, type --data" in found.sentence) == guesses
    assert found.status == ("flagged" if guesses or expected else "not_measured")


@pytest.mark.parametrize(("extra", "status"), [(0, "clear"), (6, "clear"), (7, "flagged")])
def test_random_search_beats_gradient(extra, status):
    step = ran("random-search", mask((0, extra)), attack="random-search")
    assert status_of("random_search_beats_gradient", built(ran("apgd-margin"), step)) == status
    assert status_of("random_search_beats_gradient", built(replace(step, done=False))) == "not_measured"


def test_random_search_that_had_nothing_to_try_is_not_measured():
    idle = ran("random-search", attack="random-search", attacked=mask())
    assert status_of("random_search_beats_gradient", built(ran("apgd-margin", mask((0, 900))), idle)) == "not_measured"


def test_random_search_on_some_survivors_is_counted_up_to_all():
    some = ran("random-search", mask((0, 7)), attack="random-search", attacked=mask((0, 100)))
    found = diagnoses.random_search_beats_gradient(built(ran("apgd-margin", mask((800, 900))), some))
    assert found.value == pytest.approx(0.07 * 0.8)
    assert (found.samples, found.status) == (100, "flagged")
    assert "McNemar" in found.sentence


@pytest.mark.parametrize(
    ("white", "other", "status"),
    [
        (mask((0, 100)), mask((0, 100)), "clear"),
        (mask((0, 100)), mask((100, 105)), "clear"),
        (mask((0, 100)), mask((100, 106)), "resolved"),
        (mask((0, 100)), mask((900, 950)), "clear"),  # no gradient attack tried those
    ],
)
@pytest.mark.parametrize("kind", [{"attack": "square"}, {"adapters": ("base",)}])
def test_white_box_misses(white, other, status, kind):
    found = diagnoses.white_box_misses(built(ran("apgd-margin", white), ran("other", other, **kind)))
    assert (found.status, found.blocking) == (status, False)


def test_white_box_misses_needs_both():
    assert status_of("white_box_misses", built(ran("apgd-margin"))) == "not_measured"
    assert status_of("white_box_misses", built(SQUARE)) == "not_measured"


def moved(bare: int, whole: int) -> StepResult:
    """A transfer that leaves the bare network wrong on `bare` images and the defense on `whole`."""
    step = ran("grey", mask((0, whole)), adapters=("base",), scope="all")
    fell = (mask((0, 900)) & ~mask((0, bare))).astype(np.float32)
    return replace(step, views={**step.views, "base": fell})


@pytest.mark.parametrize(
    ("bare", "whole", "more", "status"),
    [
        (500, 500, (), "clear"),
        (500, 490, (), "clear"),  # ten of a thousand are one in a hundred
        (500, 489, (), "flagged"),
        (500, 489, (BPDA,), "resolved"),
        (500, 489, (replace(BPDA, errors=mask((0, 1))),), "flagged"),
        (400, 500, (), "clear"),
    ],
)
def test_transfer_failure(bare, whole, more, status):
    found = diagnoses.transfer_failure(built(moved(bare, whole), *more, staged=True))
    assert (found.status, found.blocking) == (status, True)
    assert f"of {bare} images" in found.sentence


def test_transfer_failure_needs_another_model():
    found = diagnoses.transfer_failure(built(ran("apgd-margin")))
    assert (found.status, found.blocking) == ("not_measured", False)


def test_of_several_attacks_by_transfer_the_one_that_is_kept_most_counts():
    pgd, fgsm = replace(moved(800, 100), step=replace(moved(1, 1).step, name="pgd-20")), moved(400, 390)
    results = built(pgd, fgsm, staged=True)
    found = diagnoses.transfer_failure(results)
    assert (found.value, found.status) == (0.7, "flagged")
    assert found.sentence.startswith(
        "of 800 images of pgd-20 that lose the bare network its answer, the defense keeps 700"
    )
    assert found.sentence.endswith("of 800 that lose it by any attack, 410 stand them all")


def test_a_claimed_attack_by_transfer_counts_before_others_and_a_cascade_for_what_it_was_shown():
    claim = replace(moved(400, 390), step=replace(moved(1, 1).step, suite="claimed", name="pgd-20"))
    found = diagnoses.transfer_failure(built(claim, moved(800, 100), staged=True))
    assert found.sentence.startswith("of 400 images of pgd-20 ")
    rest = replace(moved(800, 700), attacked=mask((600, 900)))  # its views hold what those before it did
    found = diagnoses.transfer_failure(built(rest, staged=True))
    assert found.sentence.startswith(
        "of 200 images of grey that lose the bare network its answer, the defense keeps 100"
    )


@pytest.mark.parametrize(
    ("changes", "more", "status"),
    [
        ({"forwards": 0, "backwards": 0}, (), "flagged"),
        ({"forwards": 0, "backwards": 0}, (ran("apgd-margin"),), "resolved"),
        ({"forwards": 0, "backwards": 0}, (ran("apgd-margin", **CRASHED),), "flagged"),
        ({"forwards": 9, "backwards": 0}, (), "not_measured"),  # it asked for scores
        ({"forwards": 9, "backwards": 9}, (), "not_measured"),
    ],
)
def test_a_claimed_attack_that_asks_the_defense_nothing_was_made_for_another_model(changes, more, status):
    foreign = replace(claimed("foreign", mask((0, 100))), **changes)
    found = diagnoses.transfer_failure(built(foreign, *more))
    assert (found.status, found.blocking) == (status, status != "not_measured")
    if status != "not_measured":
        assert (found.value, "the defense keeps 800" in found.sentence) == (0.8, True)
        assert masking(built(foreign, profile={"dynamic": True})).endswith("while it answers")


# the binarisation test


def entry(name="apgd-margin", asr=0.99, **changes) -> dict:
    passed = asr is not None and asr >= 0.95
    return {"name": name, "attack": name, "n": 64, "setup_failed": 0, "asr": asr, "interval": [(asr or 0) - 0.1, asr], "random_asr": 0.1, "passed": passed, **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "status", "value"),
    [
        ([entry()], "clear", 0.99),
        ([entry(asr=0.94)], "flagged", 0.94),
        ([entry("bim-20", 0.3), entry(asr=0.96)], "clear", 0.96),
        ([entry("bim-20", 0.3), entry(asr=0.9)], "flagged", 0.9),
        ([entry(random_asr=0.97)], "not_measured", None),  # a random attacker passes it too
        ([entry(asr=0.5, random_asr=0.97)], "flagged", 0.5),
        ([entry(asr=0.5, setup_failed=55)], "not_measured", None),  # nine problems tell nothing
        ([entry(asr=0.5, setup_failed=54)], "flagged", 0.5),
        ([{"name": "apgd-margin", "error": "RuntimeError: planted"}], "not_measured", None),
        ([entry(setup_failed=64, asr=None, interval=None, random_asr=None, passed=False)], "not_measured", None),
        ([], "not_measured", None),
        (None, "not_measured", None),
    ],
)
def test_binarisation(entries, status, value):
    found = diagnoses.binarisation(built(checks={} if entries is None else {"binarisation": entries}))
    assert (found.status, found.value, found.blocking) == (status, value, status != "not_measured")


# the kind, and the list of all


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        ({}, None),
        ({"dynamic": True, "gradient_cut": True}, "dynamic"),
        ({"gradient_cut": True, "max_draw_difference": 0.1}, "shattered"),
        ({"max_draw_difference": 0.1}, "stochastic"),
        ({"zero_gradient": 0.5}, "vanishing"),
        ({"saturated": 0.5}, "vanishing"),
        (shares(bad=0.5), "exploding"),
        (sloped(0.0, 1.0), "shattered"),
        (sloped(0.0, 0.0), "shattered"),
        ({"loss_change": 0.5, "logit_step": 0.1}, None),
    ],
)
def test_kind_of_masking(profile, kind):
    results = built(claimed(), ran("square", mask((0, 800)), attack="square"), profile=profile)
    assert kind_of_masking(results) == kind
    assert kind_of_masking(built(BPDA, ran("apgd-margin"), control(), profile=profile)) == kind  # resolved or not
    verdict = judge_claim(MEASURED, results, diagnose(results))
    assert verdict.outcome == "refuted"
    open_claim = replace(MEASURED, tolerance=0.9)  # no gap is wide enough for it
    said = judge_claim(open_claim, replace(results, missing=1), diagnose(results))
    assert said.outcome == "inconclusive"
    assert any(reason == f"gradient masking, {masking(results)}" for reason in said.reasons) == (kind is not None)
    assert any(kind and reason.startswith(f"gradient masking, {kind}") for reason in verdict.reasons) == (
        kind is not None
    )


def test_the_words_for_the_kind_tell_whether_images_of_the_bare_network_transfer():
    assert masking(built(claimed())) == NONE
    dynamic = {"dynamic": True}
    assert "transfer" not in masking(built(moved(500, 500), profile=dynamic, staged=True))
    assert "transfer" not in masking(built(moved(500, 250), profile=dynamic, staged=True))  # most do
    for steps in ((moved(500, 200),), (moved(500, 200), BPDA)):  # resolved or not
        said = masking(built(*steps, profile=dynamic, staged=True))
        assert said.startswith("dynamic")
        assert said.endswith("and 300 of 500 images that grey made on the bare network do not transfer")


def test_every_diagnosis_is_in_the_index_and_the_other_way_round():
    found = diagnose(built(traits=sorted(TRAITS), staged=True))
    assert {d.name for d in found} == set(INDEX)
    assert [d.name for d in found if d.name in INDEX] == [d.name for d in found]
    assert all(line and line == line.strip(" .") for line in INDEX.values())
