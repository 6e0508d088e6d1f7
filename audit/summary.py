"""From a run directory to everything that is said about it: `Audit`, and the dictionary that is `report.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from audit.curves import Curve, curves
from audit.diagnoses import diagnose
from audit.diagnoses.kind import kind_of_masking, masking
from audit.leaderboard import placement
from audit.paired import Paired, compare, references_of
from audit.results import Results, read_results
from audit.routes import Routes, end_to_end_ran, overall, routes
from audit.stats import estimate, total
from audit.step_results import StepResult
from audit.types import Claim, Diagnosis, Estimate, Round, ThreatModel, Verdict, show_eps
from audit.verdict import judge_claim, proven, unknown_images

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Audit:
    """A run, read from its directory. Everything is derived; nothing is stored twice."""

    path: Path
    results: Results

    @cached_property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        return diagnose(self.results)

    @cached_property
    def claim(self) -> Claim | None:
        """The claim under audit: the one in the plan, or what its attacks measure on this model; None if neither.

        A checkpoint that does not reach the paper's number under the paper's own attacks is not the paper's model: then
        what they measure on it is audited.
        """
        stated = self.results.plan.identity.get("claim")
        printed = None if stated is None else Claim(**{**stated, "threat": ThreatModel(**_threat(stated["threat"]))})
        if printed is not None and not self._falls_short(printed):
            return printed
        if self.claimed is None:
            return None
        identity = self.results.plan.identity
        names = ", ".join(r.step.name for r in self.results.claimed)
        return Claim(
            identity["defense"], identity["dataset"], str(identity["architecture"].get("name", "unknown")),
            self.results.plan.threat, names, self.claimed.accuracy, "measured on this model by the claim's own attacks",
            self.clean.accuracy, basis="measured",
        )  # fmt: skip

    def _falls_short(self, printed: Claim) -> bool:
        """Is the whole interval of what the paper's attacks leave of this model below the paper's number?"""
        if printed.basis != "paper" or self.claimed is None or self.claimed_unknown or self.results.missing:
            return False
        return self.claimed.interval[1] < printed.robust_acc - printed.tolerance

    @cached_property
    def verdict(self) -> Verdict:
        return judge_claim(self.claim, self.results, self.diagnoses)

    @property
    def clean(self) -> Estimate:
        """Over the images that the clean pass has come to; all of them, once the run is finished."""
        return estimate(total(self.results.p_clean), self._seen)

    @property
    def _seen(self) -> int:
        return int((self.results.prediction >= 0).sum())

    @property
    def claimed(self) -> Estimate | None:
        """Worst case over the claimed attacks, by the images that they returned; None when none ran.

        Images on which one of them crashed count as broken here: see `claimed_unknown`.
        """
        if not self.results.claimed:
            return None
        return estimate(total(self.results.p_claimed), self._seen)

    @property
    def claimed_unknown(self) -> int:
        """Images that no claimed attack returned broken and on which one of them crashed."""
        returned, failed = (np.zeros_like(self.results.correct) for _ in range(2))
        for result in self.results.claimed:
            returned, failed = returned | result.returned, failed | result.crashed
        return int((failed & ~returned).sum())

    @property
    def adaptive(self) -> Estimate:
        """Worst case per image over everything that ran. Images that are unknown count as surviving here."""
        return estimate(total(proven(self.results, self.results.p_worst)), self._seen)

    @property
    def headline(self) -> Estimate | None:
        """`adaptive`, or None where it would mislead: no attack has seen the whole of a defense with a test-time part."""
        return self.adaptive if end_to_end_ran(self.results) else None

    @property
    def worst_draw(self) -> Estimate | None:
        """The share of images that every draw of a stochastic defense gets right; never a headline. Else None."""
        if self.results.plan.draws == 1:
            return None
        return estimate(int((self.results.p_worst == 1).sum()), self._seen)

    @property
    def unknown(self) -> int:
        """Images that nothing provably broke and on which an attack crashed, or whose broken image was rejected."""
        return int(unknown_images(self.results).sum())

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json, version 1 (schema: reports/schema/report-1.json)."""
        plan, identity = self.results.plan, self.results.plan.identity
        data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "robustness-audit", "version": identity["code"], "versions": identity["versions"]},
            "run": {
                "fingerprint": plan.fingerprint, "seed": plan.seed, "suite": identity["suite"],
                "batch_size": plan.shard_size, "missing_units": self.results.missing, **plan.runtime,
            },
            "defense": {
                "name": identity["defense"], "architecture": identity["architecture"],
                "weights_sha256": identity["weights_sha256"], "traits": identity["traits"],
                "inference": identity.get("inference", {}),
            },
            "dataset": {
                "name": identity["dataset"], "source": plan.runtime.get("data_source", ""), "n": plan.n,
                "digest": identity["dataset_digest"],
            },
            "threat": {"norm": plan.threat.norm, "eps": plan.threat.eps, "eps_text": show_eps(plan.threat.eps)},
            "claim": asdict(self.claim) if self.claim else None,
            "paper_claims": list(plan.runtime.get("paper_claims", [])),
            "clean": _estimate(self.clean),
            "claimed": {**_estimate(self.claimed), "unknown": self.claimed_unknown},
            "adaptive": {**_estimate(self.headline), "unknown": self.unknown},
            "draws": plan.draws,
            "worst_draw": _estimate(self.worst_draw),
            "overall": {route: _estimate(figure) for route, figure in overall(self.results).items()},
            "routes": [_route(family) for family in routes(self.results)],
            "attacks": [self._attack(result) for result in self.results.steps],
            "curves": [_curve(curve) for curve in curves(self.results)],
            "eps_curve": list(plan.profile.get("eps_curve") or ()),
            "rounds": [_round(found) for found in plan.rounds],
            "diagnoses": [asdict(d) for d in self.diagnoses],
            "masking": {"kind": kind_of_masking(self.results), "words": masking(self.results)},
            "verdict": asdict(self.verdict),
            "totals": {
                "forwards": sum(r.forwards for r in self.results.steps),
                "backwards": sum(r.backwards for r in self.results.steps),
                "seconds": sum(r.seconds for r in self.results.steps),
            },
        }  # fmt: skip
        others = [paired_entry(compare(name, self.results, other), other) for name, other in references_of(self.path)]
        return {**data, "leaderboard": placement(data), "references": others}

    def _attack(self, result: StepResult) -> dict[str, Any]:
        step = result.step
        counted, kind = self._counted(result)
        figure = _estimate(counted)
        return {
            "name": step.name, "attack": step.attack, "suite": step.suite, "scope": step.scope, "why": step.why,
            "adapters": [asdict(a) for a in step.adapters], "route": "transfer" if step.transfers else "end-to-end",
            "params": dict(step.params), "eps": step.eps, "after": list(step.after),
            "accuracy": figure["accuracy"], "accuracy_is": kind, "interval": figure["interval"], "n": figure["n"],
            "cumulative": _estimate(self._cumulative(result)), "attacked": int(result.attacked.sum()),
            "broken": int(result.broken.sum()), "silent": int(result.silent.sum()) if step.scope == "all" else None,
            "errors": int((result.crashed if step.scope == "all" else result.errors).sum()),
            "messages": sorted(set(result.messages)), "done": result.done,
            "forwards": result.forwards, "backwards": result.backwards, "seconds": round(result.seconds, 3),
        }  # fmt: skip

    def _cumulative(self, result: StepResult) -> Estimate | None:
        if result.step.scope == "control":
            return None
        return estimate(total(proven(self.results, result.p_after)), self._seen)

    def _counted(self, result: StepResult) -> tuple[Estimate | None, str]:
        """The figure of one attack and what it counts; None where it crashed, or attacked nothing."""
        kind = {"survivors": "cumulative", "all": "alone", "trial": "trial", "control": "control"}[result.step.scope]
        if (result.crashed if result.step.scope == "all" else result.errors).any() or not result.done:
            return None, kind
        if result.step.scope == "survivors":
            return self._cumulative(result), kind
        if result.step.scope == "all":
            returned = result.views.get("returned")
            return (None if returned is None else estimate(total(returned), self._seen)), kind
        left, attacked = int((result.attacked & ~result.broken).sum()), int(result.attacked.sum())
        return (estimate(left, attacked) if attacked else None), kind


def _route(family: Routes) -> dict[str, Any]:
    names = ("bare", "transfer", "first", "lowest", "alone", "end_to_end")
    figures = {name: _estimate(getattr(family, name)) for name in names}
    kind = {"cumulative": family.cumulative, "cascade": family.cascade}
    return {"attack": family.attack, **figures, "step": family.step, **kind}


def _round(found: Round) -> dict[str, Any]:
    return {"number": found.number, "found": list(found.found), "steps": [step.name for step in found.steps]}


def _curve(curve: Curve) -> dict[str, Any]:
    median = curve.median if math.isfinite(curve.median) else None
    points = [{"eps": eps, **_estimate(figure)} for eps, figure in curve.points]
    return {"step": curve.step, "median": median, "missed": curve.missed, "points": points}


def paired_entry(pair: Paired, other: Results) -> dict[str, Any]:
    """What is said of a reference: its own figures, and the defense less it."""
    beside = Audit(Path(), other)
    return {**asdict(pair), "clean": _estimate(beside.clean), "adaptive": _estimate(beside.headline)}


def _threat(data: Mapping[str, Any]) -> dict[str, Any]:
    return {**data, "bounds": tuple(data["bounds"])}


def _estimate(value: Estimate | None) -> dict[str, Any]:
    if value is None or not value.n:
        return {"accuracy": None, "interval": None, "n": None, "correct": None}
    return {
        "accuracy": value.accuracy,
        "interval": list(value.interval),
        "n": value.n,
        "correct": value.correct,
    }


def load_run(path: str | Path) -> Audit:
    """Read a run directory. Raises PlanMismatch when it is none."""
    return Audit(Path(path), read_results(Path(path)))
