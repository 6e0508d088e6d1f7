"""From names to a plan: what is audited, on which images, with which attacks. Nothing is attacked yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit import __version__, registry
from audit.accepted import accepts, numbers
from audit.again import of_a_session, python_line
from audit.claim_lines import borrowed
from audit.claimed import UNNAMED, Chosen, choose
from audit.claims import Asked, boundless_claims, chosen_line, expected_clean, meant, radius, stated_claim, told_claims
from audit.datasets import Dataset
from audit.device import exact, find_device
from audit.engine import Target
from audit.filled import filled, gives_way
from audit.gates import profile, staged
from audit.models.own import answers
from audit.models.preprocessing import Preprocessing
from audit.models.spec import Declared, usual_place
from audit.oracle import draws_for
from audit.plan import Plan
from audit.protocols import Checkpoint, Defense
from audit.randomness import random_drift
from audit.rng import derive_seed
from audit.rules import Nature, answered, fit, omitted
from audit.settings import resolve_temperature
from audit.sources import Sources, check_shape, command_line
from audit.suites import get_suite
from audit.types import Step, ThreatModel, parse_eps
from audit.versions import versions
from audit.weakened import weakened

USUAL_EPS = 8 / 255


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first attack: what `--dry-run` prints."""

    plan: Plan
    target: Target
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Subject:
    """What is audited. model: on its device; x, y: the images (n, c, h, w) in [0,1] and labels (n,) beside it;
    images: where they come from; dataset: its name, or None where the images are one's own.
    """

    name: str
    known: Defense
    images: Dataset
    dataset: str | None
    checkpoint: Checkpoint
    threat: ThreatModel
    model: nn.Module
    x: Tensor
    y: Tensor


def prepare(
    defense: str | Defense | None = None, *, model: Any = None, suite: str = "adaptive", dataset: str | None = None,
    data: str | Path | tuple[Any, Any] | None = None, data_dir: str | Path | None = None, download: bool = False,
    weights: str | Path | None = None, n: int | None = None, seed: int = 0, eps: float | str | None = None,
    norm: str = "Linf", device: str = "auto", batch_size: int = 250, settings: Sequence[str] = (), claim_robust: float | None = None, claim_attack: str = UNNAMED,
    claim_clean: float | None = None, claim: str | None = None, network: str | None = None, width: float | None = None,
    preprocessing: Preprocessing | None = None, traits: Sequence[str] = (), model_dir: str | Path | None = None,
    inference: Sequence[str] = (), command: str = "",
) -> Prepared:  # fmt: skip
    """Resolve every name, load the model and the images, measure the model, and make the plan.

    defense: a name, a Python path, or a Defense, which beside an object model describes it; or instead of it model: `SCHEME:NAME` (`audit.models.spec`), an nn.Module,
    a fitted scikit-learn classifier or a callable. preprocessing, traits: what is declared of such a model; model_dir: where
    RobustBench's checkpoints lie. dataset: the one that the model was trained for, unless typed. data: a path, or images and
    labels as arrays or tensors.
    claim_clean: the clean accuracy that the claim states, in [0,1]; without it the checkpoint's own record counts.
    claim: the id of a line of `audit.papers` to audit; it gives the radius, the attack and the number, and the defense and
    the data set where they are not typed.
    network, width: what a bare state dict was trained as, where it is not the defense's first recipe.
    inference: `KEY=VALUE` of the test-time part, over what the checkpoint says; no printed claim speaks of that, unless named.
    Raises the AuditError that says what is wrong with the input.
    """
    if model is None and (defense is None or isinstance(defense, str)):
        defense, dataset = meant(claim, defense, dataset, at_hand=weights is not None or data is not None)
    given = model if defense is None else defense
    declared = Declared(preprocessing, tuple(traits), usual_place(given, model_dir), download)
    declared = declared if model is None else declared.joined(defense)
    sources = Sources.given(weights, data, data_dir, declared, download=download, network=network, width=width, inference=tuple(inference))  # fmt: skip
    known = sources.defense(defense, model)
    name = given if isinstance(given, str) else known.name
    dataset = sources.dataset(dataset, known, name)
    line = chosen_line(claim, name, dataset, claim_robust, own_images=sources.own_images)
    asked, eps = Asked(claim_robust, claim_attack, claim_clean, line), radius(line, eps, norm)
    n, seed, batch_size = numbers(n, seed, batch_size)
    chosen = choose(suite, name, dataset, norm, attack=claim_attack, line=line)
    subject = _load(sources, known, name, dataset, suite=suite, n=n, eps=eps, norm=norm, device=device)
    stated = stated_claim(
        asked, known, dataset, subject.checkpoint, subject.threat, own_images=sources.own_images or bool(inference)
    )
    seen = _examined(subject, chosen, settings, seed=seed, batch_size=batch_size)
    nature = Nature.of(
        subject.known.traits, staged=staged(subject.model), drift=random_drift(seen), cut=seen["gradient_cut"],
        unrolls=callable(getattr(getattr(subject.model, "purifier", None), "unrolled", None)),
    )  # fmt: skip
    own, steps, unsupported = _filled(fit(answered(chosen.steps, seen["answers"]), nature), settings, subject, seen["answers"])  # fmt: skip
    identity = _identity(subject, nature, own, steps) | {
        "dataset": dataset, "seed": seed, "suite": suite, "batch_size": batch_size,
        "expected_clean_acc": expected_clean(subject.checkpoint, claim_clean), "claim": asdict(stated) if stated else None,
    }  # fmt: skip
    record = {
        **sources.record(subject.images),
        **({} if isinstance(given, str) else {"session": True, "described": None not in (defense, model)}),
    }
    from_others = borrowed(name, dataset, subject.threat) if suite == "claimed" and line is None else ()
    repeated = python_line if of_a_session(record) else command_line
    runtime = _runtime(subject) | {
        "command": command or repeated(identity, record, settings, stated, claim_clean, claim), "sources": record,
        "unsupported": [
            *filter(None, [getattr(subject.checkpoint, "note", "")]), *from_others, *chosen.left_out, *omitted(chosen.steps, nature), *unsupported, *gives_way(steps, seen["classes"]),
        ],
    }  # fmt: skip
    plan = Plan(_plain(identity), resolve_temperature(steps, seen["logit_gap"]), seen, _plain(runtime))
    return Prepared(plan, Target(subject.model, subject.x, subject.y, subject.known.traits), subject.checkpoint)


def _load(
    sources: Sources, known: Defense, name: str, dataset: str, *, suite: str, n: int | None, eps: float | str | None,
    norm: str, device: str,
) -> Subject:  # fmt: skip
    """The model and as many images as are typed, or as the defense and the suite are audited on."""
    images = sources.images(dataset)
    images.first(n)  # a wrong --n is said before a model is loaded
    place = exact(find_device(device))
    checkpoint = sources.checkpoint(known, dataset)
    known = sources.deployed(known, checkpoint)
    threat = ThreatModel(norm, parse_eps((checkpoint.meant_for_eps or USUAL_EPS) if eps is None else eps, norm))  # type: ignore[arg-type]
    check_shape(checkpoint, images)
    model = known.load(checkpoint).to(place)
    nature, wanted = Nature.of(known.traits, staged=staged(model), drift=0.0), get_suite(suite)
    by_suite = wanted.random_images if nature.stochastic else None
    few = (len(images.x), nature.images, wanted.images, by_suite, getattr(known, "images", None))
    images = images.first(min(filter(None, few)) if n is None else n)
    x, y = torch.from_numpy(images.x).to(place), torch.from_numpy(images.y).to(place)
    return Subject(name, known, images, None if sources.own_images else dataset, checkpoint, threat, model, x, y)


def _examined(
    subject: Subject, chosen: Chosen, settings: Sequence[str], *, seed: int, batch_size: int
) -> dict[str, Any]:
    """What is measured of the model before the first attack; a mistyped setting is said before that, which takes seconds."""
    model = subject.model
    if not staged(model):
        _filled(answered(chosen.steps, answers(model)), settings, subject, answers(model))
    with accepts(subject.images.source, subject.x):
        seen = profile(
            model, subject.x, subject.y, batch_size=batch_size, seed=derive_seed(seed, "profile"), threat=subject.threat
        )
    return seen | {"answers": answers(model)}


def _filled(
    steps: Sequence[Step], settings: Sequence[str], subject: Subject, scores: str
) -> tuple[tuple[Step, ...], tuple[Step, ...], list[str]]:
    """See `audit.filled.filled`; scores: what the model answers with."""
    return filled(steps, settings, subject.threat, subject.images.x.shape[1:], subject.dataset, scores)


def _identity(subject: Subject, nature: Nature, own: Sequence[Step], steps: Sequence[Step]) -> dict[str, Any]:
    """What makes two runs comparable: its digest is the fingerprint. own: the steps before anything typed changed them."""
    checkpoint, images, threat = subject.checkpoint, subject.images, subject.threat
    return {
        "defense": subject.name, "architecture": dict(checkpoint.architecture), "weights_sha256": checkpoint.sha256,
        "inference": dict(checkpoint.inference), "traits": sorted(subject.known.traits), "staged": nature.staged,
        "draws": draws_for(len(images.x)) if nature.stochastic else 1, "dataset_digest": images.digest,
        "n": len(images.x), "norm": threat.norm, "eps": threat.eps, "steps": [step.to_dict() for step in steps],
        "weakened": weakened(own, steps, lambda step, params: registry.attacks.load(step.attack).cost(params)),
        "code": __version__, "versions": versions(registry.attacks.load(step.attack).library for step in steps),
    }  # fmt: skip


def _runtime(subject: Subject) -> dict[str, Any]:
    """What a reader wants to know and another machine may change."""
    return {
        "device": str(subject.x.device), "weights": str(subject.checkpoint.path), "data_source": subject.images.source,
        "classes": list(subject.images.classes), "classes_guessed": subject.images.guessed,
        "paper_claims": told_claims(subject.known, subject.dataset or ""), "boundless_claims": boundless_claims(subject.known),
        "threads": torch.get_num_threads(), "precision": "float32",
    }  # fmt: skip


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Through JSON and back, so that what is compared later is what was stored."""
    result: dict[str, Any] = json.loads(json.dumps(data))
    return result
