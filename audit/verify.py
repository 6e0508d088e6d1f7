"""Judge the stored adversarial images again: `audit verify`, and the last check of every run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from audit.device import exact, find_device
from audit.engine import Target
from audit.errors import BadInput
from audit.geometry import contains
from audit.ledger import Arrays, Ledger
from audit.oracle import Oracle
from audit.plan import Plan, read_plan
from audit.protocols import Defense
from audit.rng import derive_seed
from audit.sources import Sources
from audit.types import SELECTION_DRAWS, ThreatModel

OTHER_BATCH = 37  # unlike any batch the run used, so that an answer that depends on the batch shows
SHOWN = 20


def verify_images(plan: Plan, target: Target, ledger: Ledger) -> dict[str, Any]:
    """Check every stored adversarial image: in the ball, in [0,1], misclassified by the deployed defense.

    Images are judged in reversed order and another batch size than in the run. Returns the counts `verified` (images
    looked at), `rejected`, `missing` and `damaged` (units), the sorted `rejected_ids` of images, those of them whose fall
    no other stored image proves (`unproven_ids`; of a random defense all, for its figure is that of its worst image), and
    up to 20 `failures` as sentences. A unit whose images do not fit its records has all of them rejected.
    """
    verified, rejected, missing, damaged = 0, list[int](), 0, 0
    proven = set[int]()
    failures, lost = list[str](), list[str]()
    oracle = Oracle(target.model, batch_size=OTHER_BATCH, seed=derive_seed(plan.seed, "verify"), draws=plan.draws)
    for unit in plan.units():
        stored = ledger.read(unit.name)
        if stored is None:
            is_damaged = ledger.damaged(unit.name)
            damaged, missing = damaged + is_damaged, missing + (not is_damaged)
            lost.append(f"unit {unit.name} is {'damaged or of another plan' if is_damaged else 'missing'}")
        elif unit.step is not None:
            eps = plan.steps[unit.step].eps
            threat = plan.threat if eps is None else ThreatModel(plan.threat.norm, eps)
            problems = _problems(stored[0], target, threat, oracle)
            verified += int(stored[0]["kept"].sum())
            rejected += problems
            if plan.draws == 1 and plan.steps[unit.step].scope != "control":
                proven |= set(stored[0]["ids"][stored[0]["kept"]].tolist()) - set(problems)
            failures += [f"image {image} of {unit.name} {problem}" for image, problem in problems.items()]
    return {
        "verified": verified, "rejected": len(rejected), "rejected_ids": sorted(set(rejected)), "unproven_ids": sorted(set(rejected) - proven),
        "missing": missing, "damaged": damaged, "failures": (failures + lost)[:SHOWN],
    }  # fmt: skip


def _problems(arrays: Arrays, target: Target, threat: ThreatModel, oracle: Oracle) -> dict[int, str]:
    """What is wrong with the images of a unit, by image id."""
    kept = arrays["kept"]
    ids, told = arrays["ids"][kept], torch.from_numpy(arrays["p_select"][kept]).to(target.x.device).flip(0)
    if arrays["x_adv"].shape != (len(ids), *target.x.shape[1:]):
        problem = f"lacks its proof: {len(arrays['x_adv'])} images are stored for {len(ids)} broken ones"
        return dict.fromkeys(ids.tolist(), problem)
    if not len(ids):
        return {}
    found = torch.from_numpy(arrays["x_adv"]).to(target.x.device).flip(0)
    rows = torch.from_numpy(ids.copy()).to(target.x.device).flip(0)
    inside = contains(found, target.x[rows], threat)
    problems = dict.fromkeys(rows[~inside].tolist(), "is outside the ball or the box")
    if inside.any():  # only these are images that the model must answer for
        judged = oracle.judge(found[inside], target.y[rows[inside]])
        # Draws differ; by chance the two shares lie this far apart on one image of 10,000, and less on most.
        slack = 4 * (0.25 / SELECTION_DRAWS + 0.25 / oracle.draws) ** 0.5 if oracle.draws > 1 else 0.0
        wrong = judged.p_correct - told[inside] > slack
        problems |= dict.fromkeys(rows[inside][wrong].tolist(), "is classified correctly")
    return problems


def sound(found: Mapping[str, Any]) -> bool:
    """Is every unit there and every stored image proven?"""
    return not (found["rejected"] or found["missing"] or found["damaged"])


def reverify(
    run_dir: Path,
    device: str = "auto",
    *,
    weights: Path | None = None,
    data: Path | None = None,
    data_dir: Path | None = None,
    model: Any = None,
) -> dict[str, Any]:
    """Judge the stored images of a run again, with the weights and images it names; see `verify_images`.

    weights, data, data_dir: where those lie now, if they were moved. model: the object that was audited, where it was one
    of a Python session. Raises BadInput when the checkpoint or the images
    are not those that were audited.
    """
    plan = read_plan(run_dir)
    sources = Sources.recorded(plan.runtime["sources"], weights=weights, data=data, data_dir=data_dir)
    if plan.runtime["sources"].get("session") and model is None:
        raise BadInput(
            f"{run_dir} audited an object of a Python session, which no file holds; from Python call "
            "audit.verify.reverify(run_dir, model=...)"
        )
    known: Defense = sources.defense(plan.identity["defense"] if model is None else model)
    checkpoint = sources.checkpoint(known, plan.identity["dataset"])
    if checkpoint.sha256 != plan.identity["weights_sha256"]:
        raise BadInput(
            f"{checkpoint.path} is not the checkpoint that was audited (sha256 differs); restore it, or type --weights FILE"
        )
    images = sources.images(plan.identity["dataset"])
    if len(images.x) < plan.n:
        raise BadInput(f"{images.source} has {len(images.x)} images, the run audited {plan.n}; type --data PATH")
    images = images.first(plan.n)
    if images.digest != plan.identity["dataset_digest"]:
        raise BadInput(
            f"{images.source} are not the images that were audited (digest differs); type --data PATH or --data-dir DIRECTORY"
        )
    place = exact(find_device(device))
    x, y = torch.from_numpy(images.x).to(place), torch.from_numpy(images.y).to(place)
    known = sources.deployed(known, checkpoint)
    target = Target(known.load(checkpoint).to(place), x, y, known.traits)
    return verify_images(plan, target, Ledger(run_dir, plan.fingerprint))
