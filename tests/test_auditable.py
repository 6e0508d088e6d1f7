"""How many of the papers' accuracies a run can be held against, and that what is advised for the others can be run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from audit import papers
from audit.auditable import in_a_ball
from audit.claimed import runnable
from audit.errors import BadInput
from audit.papers import find
from audit.preparation import prepare

ACCURACIES = ("robust_accuracy", "noise_accuracy", "success_rate")


def refusal(line):
    try:
        in_a_ball(line)
        runnable(line)
    except BadInput as error:
        return str(error)
    return ""


def test_the_docs_count_the_lines_that_can_be_audited():
    lines = [line for line in papers.all_claims() if line.quantity in ACCURACIES]
    fine = sum(not refusal(line) for line in lines)
    page = Path(__file__).parent.parent.joinpath("docs", "attacks.md").read_text(encoding="utf-8")
    assert f"{fine} of the {len(lines):,}" in " ".join(page.split())
    assert fine > 900


def test_the_lower_of_white_box_and_transferred_images_can_be_audited():
    lines = [line for line in papers.all_claims() if line.knowledge == "white and transfer"]
    assert len(lines) == 96
    assert not any(refusal(line) for line in lines)


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("cw-t6-r2-best-mnist-prob", ""),
        ("cw-t6-r2-average-mnist-prob", ""),
        ("cw-t4-r5-best-mnist-mean", ""),
        ("tpap-t2-r1-cw2", ""),
        ("madry-t2-r7-pgd", "--defense pgd_at"),
        ("yopo-t2-r1-pgd20", "--defense pgd_at"),
    ],
)
def test_what_is_advised_can_be_run(line, more):
    """On shipped weights, as a plan."""
    advice = re.search(r"(--(?:defense|claim-robust) .*?)(?: shows|, there|;)", refusal(find(line)))[1]
    words = shlex.split(f"{advice} {more}".replace("MODEL", "undefended").replace("RADIUS", "8/255"))
    flags = [(words[i].lstrip("-").replace("-", "_"), words[i + 1]) for i in range(0, len(words), 2)]
    typed = {flag: value for flag, value in flags if flag != "set"}
    if "claim_robust" in typed:
        typed["claim_robust"] = float(typed["claim_robust"])
    options = [value for flag, value in flags if flag == "set"]
    plan = prepare(**typed, settings=options, n=4, device="cpu").plan
    asked = typed["claim_attack"]
    assert any(step.name in (asked, f"claimed-{asked}") for step in plan.steps if step.suite == "claimed")
