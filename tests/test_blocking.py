"""Which diagnoses forbid "upheld", as docs/diagnoses.md lists them, against what the code says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from audit import diagnoses
from audit.diagnoses import INDEX, _all
from audit.results import Results
from audit.types import TRAITS
from tests.built import CHECKS, built, claimed, control, mask, ran
from tests.test_diagnoses_flags import entry, moved

PAGE = Path(__file__).parent.parent / "docs/diagnoses.md"
ROW = re.compile(r"^\| (\w+) \| (.*) \| (no|while flagged|while flagged or unmeasured) \|$", re.MULTILINE)


def everything() -> Results:
    """A run in which every diagnosis is measured."""
    known = {"n": 100, "left": 0, "expected": 0, "tolerance": 1, "attack": "a", "reference": "undefended", "eps": 0.1}
    results = built(
        claimed("fgsm", attack="fgsm"), claimed("pgd-20"), moved(500, 500), ran("apgd-margin"),
        ran("random-search", attack="random-search"), ran("square", attack="square"), control(), ran("doubled-2-check"),
        checks={**CHECKS, "controls": [known], "binarisation": [entry()]}, staged=True, traits=sorted(TRAITS),
    )  # fmt: skip
    plan = replace(results.plan, runtime={"classes": [str(i) for i in range(10)]})
    return replace(results, plan=plan, outside=mask())


def test_the_page_says_of_every_diagnosis_whether_it_blocks():
    measured = {d.name: d for d in _all(everything())}
    assert [d.name for d in measured.values() if d.status == "not_measured"] == []
    bare = replace(built(profile={"clean_correct": 0}, expected=None, examined=False), checks={})
    unmeasured = {d.name for d in _all(bare) if d.status == "not_measured" and d.blocking}
    said = {
        name: "no" if not d.blocking else "while flagged or unmeasured" if name in unmeasured else "while flagged"
        for name, d in measured.items()
    }
    listed = ROW.findall(PAGE.read_text())
    assert [(name, what, blocks) for name, what, blocks in listed] == [(n, INDEX[n], said[n]) for n in INDEX]
    assert set(said) == set(diagnoses.INDEX)
