"""The plan: identity alone makes the fingerprint, another identity is refused by name, units come in order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from audit.errors import PlanMismatch
from audit.ledger import Ledger
from audit.plan import Plan, Unit, differences, forget_errors, match, read_plan, settle
from audit.types import AdapterSpec, Step, ThreatModel

STEPS = (
    Step("fgsm", "fgsm", "claimed", "all"),
    Step("rescaled-ce", "apgd-ce", "adaptive", adapters=(AdapterSpec("rescale", {"temperature": 12.5}),)),
    Step("unbounded", "apgd-margin", "control", "control", params={"n_iter": 100}, eps=1.0, limit=100),
)
IDENTITY = {
    "defense": "super_fitting", "dataset": "fashion_mnist", "architecture": {"name": "middle_cnn", "width": 0.5},
    "weights_sha256": "aa", "traits": [], "dataset_digest": "bb", "n": 10, "norm": "Linf", "eps": 8 / 255, "seed": 0,
    "suite": "adaptive", "batch_size": 4, "steps": json.loads(json.dumps([s.to_dict() for s in STEPS])),
    "expected_clean_acc": 0.911, "claim": None, "code": "0.1.0", "versions": {"torch": "2.6", "numpy": "2.0"},
}  # fmt: skip
OTHER = {
    "defense": "undefended", "dataset": "mnist", "architecture": {"name": "middle_cnn", "width": 1.0},
    "weights_sha256": "ab", "traits": ["stochastic"], "dataset_digest": "bc", "n": 11, "norm": "L2", "eps": 4 / 255,
    "seed": 1, "suite": "quick", "batch_size": 5, "steps": [], "expected_clean_acc": 0.9,
    "claim": {"robust_acc": 0.5}, "code": "0.2.0", "versions": {"torch": "2.7", "numpy": "2.0"},
}  # fmt: skip


@pytest.fixture
def plan() -> Plan:
    return Plan(IDENTITY, STEPS, {"logit_gap": 12.5, "classes": 10}, {"device": "cpu", "command": "audit run"})


def changed(plan: Plan, **fields) -> Plan:
    return replace(plan, identity={**plan.identity, **fields})


def test_fields(plan):
    assert (plan.n, plan.seed, plan.shard_size, plan.shards) == (10, 0, 4, 3)
    assert plan.threat == ThreatModel("Linf", 8 / 255)


def test_fingerprint_is_the_sha256_of_the_identity(plan):
    assert plan.fingerprint == hashlib.sha256(json.dumps(IDENTITY, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("field", list(IDENTITY))
def test_fingerprint_changes_with_each_identity_field(plan, field):
    assert changed(plan, **{field: OTHER[field]}).fingerprint != plan.fingerprint


def test_fingerprint_ignores_the_order_of_fields(plan):
    assert replace(plan, identity=dict(reversed(IDENTITY.items()))).fingerprint == plan.fingerprint


def test_fingerprint_ignores_runtime_and_profile(plan):
    other = replace(plan, runtime={"device": "cuda:0"}, profile={"logit_gap": 3.0}, steps=STEPS[:1])
    assert other.fingerprint == plan.fingerprint


def test_rows_cover_each_image_once(plan):
    assert [list(plan.rows(s)) for s in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(("n", "size", "shards"), [(1, 250, 1), (250, 250, 1), (251, 250, 2), (500, 250, 2), (3, 1, 3)])
def test_shards(plan, n, size, shards):
    split = changed(plan, n=n, batch_size=size)
    assert split.shards == shards
    assert [row for shard in range(shards) for row in split.rows(shard)] == list(range(n))


def test_units_come_clean_first_then_step_by_step(plan):
    assert list(plan.units()) == [
        Unit(None, 0, "00-clean-0000"),
        Unit(None, 1, "00-clean-0001"),
        Unit(None, 2, "00-clean-0002"),
        Unit(0, 0, "01-fgsm-0000"),
        Unit(0, 1, "01-fgsm-0001"),
        Unit(0, 2, "01-fgsm-0002"),
        Unit(1, 0, "02-rescaled-ce-0000"),
        Unit(1, 1, "02-rescaled-ce-0001"),
        Unit(1, 2, "02-rescaled-ce-0002"),
        Unit(2, 0, "03-unbounded-0000"),
        Unit(2, 1, "03-unbounded-0001"),
        Unit(2, 2, "03-unbounded-0002"),
    ]
    assert plan.clean_units() == list(plan.units())[:3]


def test_round_trip(plan, tmp_path):
    plan.write(tmp_path)
    found = read_plan(tmp_path)
    assert found == plan
    assert found.fingerprint == plan.fingerprint == json.loads((tmp_path / "plan.json").read_text())["fingerprint"]


def test_a_directory_without_a_plan(tmp_path):
    with pytest.raises(PlanMismatch, match=r"holds no plan.json, expected the directory of an audit"):
        read_plan(tmp_path)
    with pytest.raises(PlanMismatch, match=r"nowhere holds no plan.json"):
        read_plan(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '"text"', '{"steps": [1]}', "\x00"])
def test_an_unreadable_plan(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(PlanMismatch, match=r"plan.json cannot be read .*expected a plan of version 1; start anew"):
        read_plan(tmp_path)


def test_a_plan_that_is_not_text(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanMismatch, match="cannot be read"):
        read_plan(tmp_path)


@pytest.mark.parametrize("key", ["plan_version", "identity", "steps", "profile", "runtime"])
def test_a_plan_that_lacks_a_part(plan, tmp_path, key):
    data = plan.to_dict()
    del data[key]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanMismatch, match=rf"cannot be read .*{key}"):
        read_plan(tmp_path)


def test_a_plan_of_another_version(plan, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({**plan.to_dict(), "plan_version": 2}))
    with pytest.raises(PlanMismatch, match=r"has plan version 2, expected 1; start anew with --out"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("found", "wanted", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"a": 1}, {}, ["a: 1 -> null"]),
        ({}, {"b": "x"}, ['b: null -> "x"']),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c: 1 -> 2"]),
        ({"a": [1, 2, 3]}, {"a": [1, 5, 3]}, ["a[1]: 2 -> 5"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ["a[1].b: 2 -> 3"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] -> [1, 2]"]),
        ({"a": {"b": 1}}, {"a": None}, ['a: {"b": 1} -> null']),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ["a: 1 -> 2", "b: 1 -> 2"]),
        ({"a": "x" * 80}, {"a": ""}, [f'a: "{"x" * 56}... -> ""']),
    ],
)
def test_differences(found, wanted, lines):
    assert differences(found, wanted) == lines


@pytest.mark.parametrize("field", list(IDENTITY))
def test_match_names_the_field_that_differs(plan, tmp_path, field):
    with pytest.raises(
        PlanMismatch, match=rf"holds another plan; it differs in {field}\b.* -> .*; choose another --out"
    ):
        match(plan, changed(plan, **{field: OTHER[field]}), tmp_path)


def test_match_names_every_field_that_differs(plan, tmp_path):
    with pytest.raises(PlanMismatch) as caught:
        match(plan, replace(plan, identity=OTHER), tmp_path)
    lines = differences(IDENTITY, OTHER)
    assert len(lines) >= len(IDENTITY)
    assert [line for line in lines if line not in str(caught.value)] == []


def test_match_follows_the_plan_on_disk(plan, tmp_path):
    asked = replace(plan, profile={"logit_gap": 99.0}, runtime={"device": "cuda:0"})
    assert match(plan, asked, tmp_path) is plan


@pytest.mark.parametrize(("part", "key"), [("profile", "classes"), ("profile", "logit_gap"), ("runtime", "device")])
def test_a_key_that_a_plan_lacks_is_a_damaged_plan_to_whoever_asks(plan, tmp_path, part, key):
    data = json.loads(json.dumps(plan.to_dict()))
    del data[part][key]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    found = read_plan(tmp_path)
    with pytest.raises(PlanMismatch, match=rf"plan.json cannot be read \(its {part} lacks '{key}'\).*start anew with"):
        getattr(found, part)[key]
    assert getattr(found, part).get(key) is None


def test_results_of_a_damaged_plan_are_refused(plan, tmp_path):
    from audit.results import read_results

    replace(plan, profile={"logit_gap": 12.5}).write(tmp_path)
    with pytest.raises(PlanMismatch, match="its profile lacks 'classes'"):
        read_results(tmp_path)


def test_a_plan_whose_identity_was_edited_is_refused(plan, tmp_path):
    data = json.loads(json.dumps(plan.to_dict()))
    data["identity"]["eps"] = 4 / 255
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanMismatch, match=r"plan.json was altered: its identity has fingerprint .*, expected the rec"):
        read_plan(tmp_path)


def test_settle_writes_a_new_plan_and_keeps_an_old_one(plan, tmp_path):
    assert settle(plan, tmp_path) is plan
    asked = replace(plan, profile={"logit_gap": 99.0})
    assert settle(asked, tmp_path).profile == plan.profile
    with pytest.raises(PlanMismatch, match="it differs in seed: 0 -> 5"):
        settle(changed(plan, seed=5), tmp_path)
    assert read_plan(tmp_path) == plan


def test_settle_refuses_units_of_an_unknown_plan(plan, tmp_path):
    Ledger(tmp_path, "f").write("00-clean-0000", {"a": np.zeros(1)}, {})
    with pytest.raises(PlanMismatch, match=r"holds units but no plan.json, expected a new directory .*another --out"):
        settle(plan, tmp_path)
    assert not (tmp_path / "plan.json").exists()


def test_only_units_that_crashed_are_forgotten(plan, tmp_path):
    ledger = Ledger(tmp_path, plan.fingerprint)
    for unit in list(plan.units())[:7]:
        error = "ValueError: x" if unit.name in ("01-fgsm-0001", "02-rescaled-ce-0000") else None
        ledger.write(unit.name, {"a": np.zeros(1)}, {} if unit.step is None else {"error": error})
    assert forget_errors(plan, tmp_path) == ["01-fgsm-0001", "02-rescaled-ce-0000"]
    assert "01-fgsm-0001" not in ledger
    assert all(name in ledger for name in ("00-clean-0000", "01-fgsm-0000", "01-fgsm-0002"))
    assert forget_errors(plan, tmp_path) == []


def test_steps_that_were_altered_are_refused(tmp_path):
    steps = (Step("wide", "apgd-ce", "adaptive", adapters=(AdapterSpec("rescale", {"temperature": 3.0}),)),)
    auto = {**steps[0].to_dict(), "adapters": [{"name": "rescale", "params": {"temperature": "auto"}}]}
    Plan({"n": 4, "steps": [auto]}, steps, {}).write(tmp_path)
    assert read_plan(tmp_path).steps == steps
    stored = json.loads((tmp_path / "plan.json").read_text())
    stored["steps"][0]["eps"] = 1.0
    (tmp_path / "plan.json").write_text(json.dumps(stored))
    with pytest.raises(PlanMismatch, match="its steps are not those of its identity"):
        read_plan(tmp_path)
