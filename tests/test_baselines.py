"""A baseline is what the run found, image by image; what was altered, torn or unsound is refused."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from audit.baselines import Figure, freeze, read_baseline, snapshot
from audit.errors import BadInput
from tests.built import CHECKS, claimed, mask, ran
from tests.frozen import audited

SCHEMA = json.loads((Path(__file__).parent.parent / "reports/schema/baseline-1.json").read_text())


def by_name(baseline):
    return {figure.name: figure for figure in baseline.figures}


def test_the_figures_are_those_of_the_run():
    audit = audited()
    found = freeze(audit)
    assert [(f.name, f.kind) for f in found.figures] == [
        ("worst case", "worst"), ("clean", "clean"), ("pgd-20", "alone"), ("apgd", "cumulative")
    ]  # fmt: skip
    assert [f.estimate.accuracy for f in found.figures] == [0.5, 0.9, 0.6, 0.5]
    assert by_name(found)["worst case"].estimate == audit.adaptive
    assert by_name(found)["clean"].estimate == audit.clean
    assert by_name(found)["pgd-20"].hits.tolist() == mask((300, 900)).astype(int).tolist()


def test_what_can_explain_or_forbid_a_comparison_is_kept():
    found = freeze(audited(seed=3))
    assert found.comparable["steps"]["apgd"]["attack"] == "apgd-margin"
    assert "why" not in found.comparable["steps"]["apgd"]
    assert {k: found.comparable[k] for k in ("dataset", "n", "norm", "suite", "draws")} == {
        "dataset": "fashion_mnist", "n": 1000, "norm": "Linf", "suite": "quick", "draws": 1
    }  # fmt: skip
    assert found.record["seed"] == 3
    assert found.record["versions"] == {"torch": "2.15"}
    assert found.digest == "cd" * 32


def test_a_baseline_comes_back_from_its_file_and_keeps_the_schema(tmp_path):
    found = freeze(audited())
    found.write(tmp_path / "deep" / "robust.json")
    data = json.loads((tmp_path / "deep" / "robust.json").read_text())
    jsonschema.validate(data, SCHEMA)
    again = read_baseline(tmp_path / "deep" / "robust.json")
    assert again.to_dict() == found.to_dict() == data
    for old, new in zip(found.figures, again.figures, strict=True):
        np.testing.assert_array_equal(old.hits, new.hits)
    assert (tmp_path / "deep" / "robust.json").stat().st_size < 8_000


def test_shares_of_draws_come_back_as_they_were():
    draws = 97
    hits = np.random.default_rng(0).integers(0, draws + 1, 100)
    found = Figure.from_dict(Figure("worst case", "worst", hits, draws).to_dict())
    np.testing.assert_array_equal(found.hits, hits)
    assert found.estimate.accuracy == pytest.approx(hits.mean() / draws)


def test_a_random_defense_is_frozen_in_shares_of_its_draws():
    audit = audited(draws=30)
    share = np.linspace(0, 1, 31, dtype=np.float32)[np.arange(1000) % 31]  # every multiple of 1/30
    object.__setattr__(audit.results.steps[-1], "p_after", share)
    found = by_name(freeze(audit))["worst case"]
    assert found.draws == 30
    np.testing.assert_array_equal(found.hits, np.arange(1000) % 31)


def test_an_image_on_which_an_attack_crashed_has_no_hits():
    audit = audited(claimed("pgd-20", mask((0, 300)), errors=mask((800, 850))), ran("apgd", mask((0, 400))))
    found = snapshot(audit)
    assert found.unknown == 50
    assert by_name(found)["worst case"].hits.sum() == 450
    assert by_name(found)["pgd-20"].hits.sum() == 550
    assert by_name(found)["apgd"].hits.sum() == 450
    with pytest.raises(BadInput, match=r"runs/planted has 50 images that nobody could judge.*--retry-errors"):
        freeze(audit)


def test_a_crash_on_images_that_another_attack_broke_leaves_the_worst_case_known():
    found = freeze(audited(claimed("pgd-20", errors=mask((0, 50))), ran("apgd", mask((0, 400)))))
    assert by_name(found)["worst case"].hits.sum() == 500
    assert by_name(found)["pgd-20"].hits.sum() == 850


def test_an_unfinished_run_or_a_changed_model_makes_no_baseline():
    with pytest.raises(BadInput, match=r"not finished \(2 units are missing\), expected a whole run; type the command"):
        freeze(audited(missing=2))
    with pytest.raises(BadInput, match="was changed by an attack"):
        freeze(audited(checks={**CHECKS, "model_unchanged": False}))
    with pytest.raises(BadInput, match="has 1 images that nobody could judge"):
        freeze(audited(checks={**CHECKS, "rejected": 1, "rejected_ids": [5]}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["figures"][0].update(hits=501), "the outcomes of 'worst case' are not those of its accuracy"),
        (lambda d: d["figures"][0].update(outcomes="AAAA"), "error"),
        (lambda d: d["figures"][0].update(outcomes="ä"), "ValueError"),
        (lambda d: d["figures"].pop(0), "not the worst case"),
        (lambda d: d["comparable"].update(n=999), "attacks on 999 images"),
        (lambda d: d["comparable"].pop("n"), "KeyError: 'n'"),
        (lambda d: d["record"].update(versions=None), "TypeError"),
        (lambda d: d.update(baseline_version=2), "version 2, expected 1"),
        (lambda d: d.clear(), "baseline_version"),
    ],
)
def test_a_file_that_was_altered_is_refused_in_one_sentence(tmp_path, change, said):
    data = freeze(audited()).to_dict()
    change(data)
    (tmp_path / "robust.json").write_text(json.dumps(data))
    with pytest.raises(BadInput, match="is no baseline") as caught:
        read_baseline(tmp_path / "robust.json")
    assert said in str(caught.value)
    assert f"python -m audit baseline RUN -o {tmp_path}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'"text"', b'{"baseline_version": 1}'])
def test_what_is_no_baseline_at_all_is_refused(tmp_path, content):
    (tmp_path / "robust.json").write_bytes(content)
    with pytest.raises(BadInput, match="is no baseline"):
        read_baseline(tmp_path / "robust.json")


def test_a_baseline_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(BadInput, match=r"there is no baseline .*; type python -m audit baseline RUN -o"):
        read_baseline(tmp_path / "robust.json")
    with pytest.raises(BadInput, match=r"is no baseline .IsADirectoryError"):
        read_baseline(tmp_path)
