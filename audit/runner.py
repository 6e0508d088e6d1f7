"""One audit, from names to a finished run directory. What `audit.run` and the command line share."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audit import __version__, registry
from audit.accepted import accepts, numbers
from audit.budget import Budget
from audit.claimed import UNNAMED, choose
from audit.claims import Asked, chosen_line, expected_clean, meant, own_claims, radius, stated_claim
from audit.device import exact, find_device
from audit.engine import Target, Watcher
from audit.execution import execute
from audit.filled import filled, gives_way
from audit.gates import profile, staged
from audit.ledger import Arrays
from audit.models.own import answers
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared, usual_place
from audit.oracle import draws_for
from audit.paired import FOLDER
from audit.plan import Plan, Unit, forget_errors, settle
from audit.protocols import Checkpoint, Defense
from audit.rng import derive_seed
from audit.rules import Nature, answered, fit, omitted
from audit.settings import resolve_temperature
from audit.sources import Sources, check_shape, command_line
from audit.suites import get_suite
from audit.summary import Audit
from audit.types import ThreatModel, parse_eps
from audit.versions import versions
from audit.weakened import weakened

USUAL_EPS = 8 / 255
log = logging.getLogger("audit")


class Silent:
    """A watcher that shows nothing."""

    def begin(self, unit: Unit, images: int) -> None: ...
    def beat(self, forwards: int) -> None: ...
    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None: ...
    def extend(self, plan: Plan) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first attack: what `--dry-run` prints."""

    plan: Plan
    target: Target
    checkpoint: Checkpoint


def prepare(
    defense: str | Defense | None = None, *, model: Any = None, suite: str = "adaptive", dataset: str | None = None,
    data: str | Path | tuple[Any, Any] | None = None, data_dir: str | Path | None = None, download: bool = False,
    weights: str | Path | None = None, n: int | None = None, seed: int = 0, eps: float | str | None = None,
    norm: str = "Linf", device: str = "auto", batch_size: int = 250, settings: Sequence[str] = (), claim_robust: float | None = None, claim_attack: str = UNNAMED,
    claim_clean: float | None = None, claim: str | None = None, network: str | None = None, width: float | None = None,
    preprocessing: Preprocessing | None = None, traits: Sequence[str] = (), model_dir: str | Path | None = None,
    command: str = "",
) -> Prepared:  # fmt: skip
    """Resolve every name, load the model and the images, measure the model, and make the plan.

    defense: a name, a Python path, or a Defense; or instead of it model: `SCHEME:NAME` (`audit.models.spec`), an nn.Module,
    a fitted scikit-learn classifier or a callable. preprocessing, traits: what is declared of such a model; model_dir: where
    RobustBench's checkpoints lie. dataset: the one that the model was trained for, unless typed. data: a path, or images and
    labels as arrays or tensors.
    claim_clean: the clean accuracy that the claim states, in [0,1]; without it the checkpoint's own record counts.
    claim: the id of a line of `audit.papers` to audit; it gives the radius, the attack and the number, and the defense and
    the data set where they are not typed.
    network, width: what a bare state dict was trained as, where it is not the defense's first recipe.
    Raises the AuditError that says what is wrong with the input.
    """
    if model is None and (defense is None or isinstance(defense, str)):
        defense, dataset = meant(claim, defense, dataset, at_hand=weights is not None or data is not None)
    given = model if defense is None else defense
    declared = Declared(preprocessing, tuple(traits), usual_place(given, model_dir), download)
    sources = Sources.given(weights, data, data_dir, declared, download=download, network=network, width=width)
    known = sources.defense(defense, model)
    name = given if isinstance(given, str) else known.name
    dataset = sources.dataset(dataset, known, name)
    line = chosen_line(claim, name, dataset, claim_robust, own_images=sources.own_images)
    asked, eps = Asked(claim_robust, claim_attack, claim_clean, line), radius(line, eps, norm)
    n, seed, batch_size = numbers(n, seed, batch_size)
    chosen = choose(suite, name, dataset, norm, attack=claim_attack, line=line)
    images = sources.images(dataset)
    images.first(n)  # a wrong --n is said before a model is loaded
    place = exact(find_device(device))
    checkpoint = sources.checkpoint(known, dataset)
    threat = ThreatModel(norm, parse_eps((checkpoint.meant_for_eps or USUAL_EPS) if eps is None else eps, norm))  # type: ignore[arg-type]
    check_shape(checkpoint, images)
    model = known.load(checkpoint).to(place)
    by_nature = Nature.of(known.traits, staged=staged(model), drift=0.0).images
    few = (len(images.x), by_nature, get_suite(suite).images, getattr(known, "images", None))
    images = images.first(min(filter(None, few)) if n is None else n)
    x, y = torch.from_numpy(images.x).to(place), torch.from_numpy(images.y).to(place)
    where = None if sources.own_images else dataset
    if not staged(model):  # a mistyped setting is said before the model is examined, which takes seconds
        filled(answered(chosen.steps, answers(model)), settings, threat, images.x.shape[1:], where, answers(model))
    with accepts(images.source, x):
        seen = profile(model, x, y, batch_size=batch_size, seed=derive_seed(seed, "profile"), threat=threat)
    seen["answers"] = answers(model)
    nature = Nature.of(
        known.traits, staged=staged(model), drift=seen["max_draw_difference"], cut=seen["gradient_cut"],
        unrolls=callable(getattr(getattr(model, "purifier", None), "unrolled", None)),
    )  # fmt: skip
    own, steps, unsupported = filled(
        fit(answered(chosen.steps, seen["answers"]), nature), settings, threat, images.x.shape[1:],
        where, seen["answers"],
    )  # fmt: skip
    stated = stated_claim(asked, known, dataset, checkpoint, threat, own_images=sources.own_images)
    identity = {
        "defense": name, "dataset": dataset, "architecture": dict(checkpoint.architecture),
        "weights_sha256": checkpoint.sha256, "inference": dict(checkpoint.inference), "traits": sorted(known.traits),
        "staged": nature.staged, "draws": draws_for(len(images.x)) if nature.stochastic else 1,
        "dataset_digest": images.digest,
        "n": len(images.x), "norm": threat.norm, "eps": threat.eps, "seed": seed, "suite": suite,
        "batch_size": batch_size, "steps": [step.to_dict() for step in steps],
        "weakened": weakened(own, steps, lambda step, params: registry.attacks.load(step.attack).cost(params)),
        "expected_clean_acc": expected_clean(checkpoint, claim_clean), "claim": asdict(stated) if stated else None,
        "code": __version__,
        "versions": versions(registry.attacks.load(step.attack).library for step in steps),
    }  # fmt: skip
    record = {**sources.record(images), **({} if isinstance(given, str) else {"session": True})}
    runtime = {
        "command": command or command_line(identity, record, settings, stated, claim_clean, claim), "device": str(place),
        "weights": str(checkpoint.path), "data_source": images.source, "sources": record,
        "unsupported": [
            *chosen.left_out, *omitted(chosen.steps, nature), *unsupported, *gives_way(steps, seen["classes"]),
        ],
        "classes": list(images.classes), "paper_claims": [asdict(c) for c in own_claims(known)],
        "threads": torch.get_num_threads(), "precision": "float32",
    }  # fmt: skip
    plan = Plan(_plain(identity), resolve_temperature(steps, seen["logit_gap"]), seen, _plain(runtime))
    return Prepared(plan, Target(model, x, y, known.traits), checkpoint)


def run(
    defense: str | Defense | None = None,
    *,
    out: str | Path | None = None,
    watcher: Watcher | None = None,
    retry_errors: bool = False,
    budget: Budget | None = None,
    reference: str | Sequence[str] = (),
    **options: Any,
) -> Audit:
    """Audit a defense or a model and return the finished run; see `prepare` for the options.

    out: the run directory; a directory with the same plan is resumed, one with another plan is refused
    (PlanMismatch). Default: `runs/DEFENSE-SUITE-FINGERPRINT`, so the same command resumes. retry_errors: units in
    which an attack crashed in an earlier run are run again. budget: what the run may cost; see `audit.budget`. reference: names as
    "standard,pgd_at", on which the same suite runs inside the run directory; see `audit.references`.
    """
    from audit.references import prepare_references

    asked = prepare(defense, **options)
    others = prepare_references(reference, asked, options)
    run_dir, prepared = enter(asked, out, retry_errors=retry_errors)
    for name, other in others.items():
        place, other = enter(other, run_dir / FOLDER / name, retry_errors=retry_errors)
        execute(other, place, watcher or Silent(), budget, portraits=False)
    return execute(prepared, run_dir, watcher or Silent(), budget)


def directory(plan: Plan, out: str | Path | None) -> Path:
    """Where a plan's run lives."""
    plain = re.sub(r"[^\w.-]+", "-", plan.identity["defense"])
    default = Path("runs") / f"{plain}-{plan.identity['suite']}-{plan.fingerprint[:8]}"
    return Path(out) if out is not None else default


def enter(prepared: Prepared, out: str | Path | None, *, retry_errors: bool = False) -> tuple[Path, Prepared]:
    """Where the run lives, and what to run there: a plan on disk keeps its profile. See `directory` and `settle`.

    retry_errors: units in which an attack crashed run again. Raises PlanMismatch, CannotWrite.
    """
    run_dir = directory(prepared.plan, out)
    plan = settle(prepared.plan, run_dir)
    if retry_errors:
        forget_errors(plan, run_dir)
    return run_dir, replace(prepared, plan=plan)


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Through JSON and back, so that what is compared later is what was stored."""
    result: dict[str, Any] = json.loads(json.dumps(data))
    return result
