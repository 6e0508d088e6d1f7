"""One audit, from names to a finished run directory. What `audit.run` and the command line share."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from audit import __version__, registry
from audit.datasets import Dataset, load_path
from audit.device import find_device
from audit.diagnoses import FORWARD_SAMPLE
from audit.engine import LocalEngine, Target, Watcher
from audit.errors import BadInput, BadModel, CannotWrite, Unsupported
from audit.gallery import write_gallery
from audit.gates import fingerprint_model, forward_mismatch, profile, staged
from audit.ledger import Arrays, Ledger, write_json
from audit.oracle import draws_for
from audit.plan import Plan, Unit, match, read_plan
from audit.protocols import Checkpoint, Defense
from audit.rng import derive_seed
from audit.rules import Nature, fit
from audit.suites import override, resolve_temperature, steps_for
from audit.summary import Audit, load_run
from audit.types import Claim, Step, ThreatModel, parse_eps
from audit.verify import verify_images
from audit.versions import versions
from audit.weakened import weakened

STOCHASTIC_N = 250  # twenty draws of each of twenty looks make an image about as dear as the rest of a suite


class Silent:
    """A watcher that shows nothing."""

    def begin(self, unit: Unit, images: int) -> None: ...
    def beat(self, forwards: int) -> None: ...
    def end(self, unit: Unit, arrays: Arrays, meta: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first attack: what `--dry-run` prints."""

    plan: Plan
    target: Target
    checkpoint: Checkpoint


def prepare(
    defense: str, *, suite: str = "adaptive", dataset: str = "fashion_mnist", data: Path | None = None,
    data_dir: Path | None = None, download: bool = False, weights: Path | None = None, n: int | None = None,
    seed: int = 0, eps: float | str = "8/255", norm: str = "Linf", device: str = "auto", batch_size: int = 250,
    settings: Sequence[str] = (), claim_robust: float | None = None, claim_attack: str = "unnamed",
    claim_clean: float | None = None, command: str = "",
) -> Prepared:  # fmt: skip
    """Resolve every name, load the model and the images, measure the model, and make the plan.

    Raises the AuditError that says what is wrong with the input.
    """
    threat = ThreatModel(norm, parse_eps(eps, norm))  # type: ignore[arg-type]
    if batch_size < 1:
        raise BadInput(f"--batch-size is {batch_size}, expected at least 1")
    chosen = steps_for(suite, defense)
    known: Defense = registry.defenses.load(defense)
    images = _images(dataset, data, data_dir, download)
    few = min(STOCHASTIC_N, len(images.x)) if "stochastic" in known.traits else None
    images = images.first(few if n is None else n)
    place = find_device(device)
    checkpoint = known.checkpoint(dataset, weights)
    model = known.load(checkpoint).to(place)
    _check_channels(checkpoint, images)
    x, y = torch.from_numpy(images.x).to(place), torch.from_numpy(images.y).to(place)
    seen = profile(model, x, y, batch_size=batch_size, seed=derive_seed(seed, "profile"))
    nature = Nature.of(known.traits, staged=staged(model), drift=seen["max_draw_difference"])
    fitted = fit(chosen, nature)
    options = {step.attack: registry.attacks.load(step.attack).defaults for step in fitted}
    own, asked = override(fitted, (), options), override(fitted, settings, options)
    steps = _supported(asked, threat)
    claims = _claims(known, dataset, checkpoint, threat) if data is None else []
    stated = _stated(claims, claim_robust, claim_attack, claim_clean, known, dataset, checkpoint, threat)
    identity = {
        "defense": defense, "dataset": dataset, "architecture": dict(checkpoint.architecture),
        "weights_sha256": checkpoint.sha256, "inference": dict(checkpoint.inference), "traits": sorted(known.traits),
        "staged": nature.staged, "draws": draws_for(len(images.x)) if nature.stochastic else 1,
        "dataset_digest": images.digest,
        "n": len(images.x), "norm": threat.norm, "eps": threat.eps, "seed": seed, "suite": suite,
        "batch_size": batch_size, "steps": [step.to_dict() for step in steps],
        "weakened": weakened(own, steps, lambda step, params: registry.attacks.load(step.attack).cost(params)),
        "expected_clean_acc": _expected(checkpoint, claim_clean), "claim": asdict(stated) if stated else None,
        "code": __version__, "versions": versions(),
    }  # fmt: skip
    runtime = {
        "command": command, "device": str(place), "weights": str(checkpoint.path), "data_source": images.source,
        "images": {"data": str(data or ""), "data_dir": str(data_dir or "")},
        "classes": list(images.classes), "paper_claims": [asdict(c) for c in known.claims],
        "threads": torch.get_num_threads(), "precision": "float32",
    }  # fmt: skip
    plan = Plan(_plain(identity), resolve_temperature(steps, seen["logit_gap"]), seen, _plain(runtime))
    return Prepared(plan, Target(model, x, y, known.traits), checkpoint)


def run(defense: str, *, out: str | Path | None = None, watcher: Watcher | None = None, **options: Any) -> Audit:
    """Audit a defense by name and return the finished run; see `prepare` for the options.

    out: the run directory; a directory with the same plan is resumed, one with another plan is refused
    (PlanMismatch). Default: `runs/DEFENSE-SUITE-FINGERPRINT`, so the same command resumes.
    """
    prepared = prepare(defense, **options)
    return execute(prepared, directory(prepared.plan, out), watcher or Silent())


def directory(plan: Plan, out: str | Path | None) -> Path:
    """Where a plan's run lives."""
    default = Path("runs") / f"{plan.identity['defense']}-{plan.identity['suite']}-{plan.fingerprint[:8]}"
    return Path(out) if out is not None else default


def execute(prepared: Prepared, run_dir: Path, watcher: Watcher) -> Audit:
    """Run what the directory lacks, check the stored images again, and read the result."""
    plan = prepared.plan
    if (run_dir / "plan.json").exists():
        plan = match(read_plan(run_dir), plan, run_dir)
    else:
        plan.write(run_dir)
    target, model = prepared.target, prepared.target.model
    before = fingerprint_model(model)
    ledger = Ledger(run_dir)
    with logging_to(run_dir / "run.log"):
        LocalEngine(plan, target, ledger).run(watcher)
        sample = target.x[:FORWARD_SAMPLE]
        mismatch = forward_mismatch(model, plan.steps, sample, seed=derive_seed(plan.seed, "forward"))
        verified = verify_images(plan, target, ledger)
        unchanged = fingerprint_model(model) == before
        write_gallery(run_dir / "gallery.npz", plan, target, ledger)
        write_json(run_dir / "checks.json", {"forward_mismatch": mismatch, "model_unchanged": unchanged, **verified})
    return load_run(run_dir)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append the audit's log records to a file while the block runs. Raises CannotWrite."""
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise CannotWrite(
            f"could not write {path} ({error.strerror}), expected a writable place; type --out DIRECTORY"
        ) from error
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.getLogger("audit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _images(dataset: str, data: Path | None, data_dir: Path | None, download: bool) -> Dataset:
    known = registry.datasets.load(dataset)
    if data is not None:
        return load_path(data, dataset, known.classes)
    found: Dataset = known.load("test", data_dir=data_dir, download=download)
    return found


def _check_channels(checkpoint: Checkpoint, images: Dataset) -> None:
    expected = checkpoint.architecture.get("channels"), checkpoint.architecture.get("size")
    got = images.x.shape[1], images.x.shape[2]
    if None not in expected and expected != got:
        raise BadModel(
            f"the model expects images of {expected[0]} channels and size {expected[1]}, {images.source} has {got[0]} and {got[1]}; "
            "choose the --dataset it was trained on"
        )


def _supported(steps: Sequence[Step], threat: ThreatModel) -> tuple[Step, ...]:
    """The steps whose attack supports the norm. Raises Unsupported when none is left."""
    kept = tuple(s for s in steps if threat.norm in registry.attacks.load(s.attack).norms)
    if not any(s.scope != "control" for s in kept):
        raise Unsupported(f"no attack of this suite supports {threat.norm}; choose another --norm or --suite")
    if threat.norm != "Linf":  # a control's eps of 1 spans the box in Linf only
        kept = tuple(replace(s, eps=1e4) if s.scope == "control" else s for s in kept)
    return kept


def _claims(known: Defense, dataset: str, checkpoint: Checkpoint, threat: ThreatModel) -> list[Claim]:
    """The paper's claims that speak of this very data set, network and threat. Never of images of one's own."""
    network = (checkpoint.architecture.get("name"), checkpoint.architecture.get("width"))
    return [c for c in known.claims if c.dataset == dataset and c.threat == threat and network == (c.architecture, 1.0)]


def _stated(
    claims: list[Claim], typed: float | None, attack: str, clean: float | None, known: Defense, dataset: str,
    checkpoint: Checkpoint, threat: ThreatModel,
) -> Claim | None:  # fmt: skip
    """A typed claim wins; then the paper's lowest for this model; None leaves the claim to be measured."""
    if typed is not None:
        network = str(checkpoint.architecture.get("name", "unknown"))
        return Claim(known.name, dataset, network, threat, attack, typed, "typed", clean, basis="typed")
    return min(claims, key=lambda c: c.robust_acc, default=None)


def _expected(checkpoint: Checkpoint, typed: float | None) -> float | None:
    """The clean accuracy to hold the model against: typed, else recorded after training. Raises BadInput."""
    if typed is not None and not 0 <= typed <= 1:
        raise BadInput(f"--claim-clean is {typed}, expected a fraction in [0,1]; type 0.91 for 91 %")
    recorded: float | None = checkpoint.measured.get("clean_accuracy")
    return recorded if typed is None else typed


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Through JSON and back, so that what is compared later is what was stored."""
    result: dict[str, Any] = json.loads(json.dumps(data))
    return result


def reverify(run_dir: Path, device: str = "auto") -> dict[str, Any]:
    """Judge the stored images of a run again, with the weights it names; see `verify_images`.

    Raises BadInput when the checkpoint or the images are not those that were audited.
    """
    plan = read_plan(run_dir)
    known: Defense = registry.defenses.load(plan.identity["defense"])
    checkpoint = known.checkpoint(plan.identity["dataset"], Path(plan.runtime["weights"]))
    if checkpoint.sha256 != plan.identity["weights_sha256"]:
        raise BadInput(f"{checkpoint.path} is not the checkpoint that was audited (sha256 differs); restore the file")
    source = {key: Path(value) if value else None for key, value in plan.runtime["images"].items()}
    images = _images(plan.identity["dataset"], source["data"], source["data_dir"], download=False).first(plan.n)
    if images.digest != plan.identity["dataset_digest"]:
        raise BadInput(f"{images.source} are not the images that were audited (digest differs); restore the files")
    place = find_device(device)
    x, y = torch.from_numpy(images.x).to(place), torch.from_numpy(images.y).to(place)
    target = Target(known.load(checkpoint).to(place), x, y, known.traits)
    return verify_images(plan, target, Ledger(run_dir))
