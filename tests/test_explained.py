from audit.diagnoses.explained import COMPARISONS, FOLLOWS, explained
from audit.diagnoses.index import INDEX
from tests.built import finding


def statuses(*found):
    return {d.name: (d.status, d.blocking) for d in explained(found)}


def test_a_consequence_leaves_the_blocking_to_its_cause_and_says_so():
    found = explained((finding("flagged", name="shattered_gradient"), finding("flagged", name="unbounded_control")))
    assert [d.blocking for d in found] == [True, False]
    assert found[1].sentence == "the sentence; it follows from shattered gradients"


def test_once_the_cause_is_resolved_the_consequence_stands_for_itself():
    for status in ("resolved", "clear", "not_measured"):
        said = statuses(finding(status, name="shattered_gradient"), finding("flagged", name="unbounded_control"))
        assert said["unbounded_control"] == ("flagged", True)


def test_two_findings_that_were_resolved_together_are_one():
    said = statuses(finding("resolved", name="vanishing_gradient"), finding("resolved", name="zero_gradient_in_attack"))
    assert said == {"vanishing_gradient": ("resolved", True), "zero_gradient_in_attack": ("resolved", False)}


def test_a_cause_that_does_not_block_excuses_nothing():
    quiet = finding("flagged", name="shattered_gradient", blocking=False)
    assert statuses(quiet, finding("flagged", name="unbounded_control"))["unbounded_control"][1]


def test_of_several_causes_one_is_left_to_block():
    names = ("dynamic", "shattered_gradient", "masked_gradient", "black_box_beats_white_box")
    said = statuses(*(finding("flagged", name=name) for name in names))
    assert [name for name, (_, blocks) in said.items() if blocks] == ["dynamic"]


def test_whatever_is_flagged_some_cause_goes_on_blocking():
    names = {*FOLLOWS, *COMPARISONS, "run_integrity"}
    for cause in FOLLOWS:
        said = statuses(*(finding("flagged", name=name) for name in names if name == cause or name in FOLLOWS[cause]))
        assert said[cause][1]
    assert any(blocks for _, blocks in statuses(*(finding("flagged", name=name) for name in names)).values())


def test_every_name_is_that_of_a_diagnosis():
    assert {*FOLLOWS, *COMPARISONS} <= set(INDEX)
