"""What a run found, frozen into one small file (`robust.json`), image by image. Torch-free.

The file holds, for the clean images, for every attack and for the worst case over all of them, how many of the draws each
image was right in. So a later run can be compared with it image by image; see `audit.regression`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from audit.errors import BadInput
from audit.ledger import write_json
from audit.plan import Plan
from audit.results import Results
from audit.stats import Counts, estimate
from audit.step_results import Bools, Floats, StepResult
from audit.summary import Audit
from audit.types import Estimate
from audit.verdict import proven, unknown_images

VERSION = 1
WORST, CLEAN = "worst case", "clean"
Kind = Literal["worst", "clean", "alone", "cumulative"]


@dataclass(frozen=True)
class Figure:
    """One accuracy, image by image. hits: in how many of `draws` draws each image is right, int64 (n,).

    kind: "worst" over all that ran; "clean"; "alone", by the images that one attack returned; "cumulative", the worst
    case up to and with one attack on survivors. An image on which the attack crashed has no hits.
    """

    name: str
    kind: Kind
    hits: Counts
    draws: int

    @property
    def estimate(self) -> Estimate:
        return estimate(float(self.hits.sum()) / self.draws, len(self.hits))

    def to_dict(self) -> dict[str, Any]:
        found = self.estimate
        packed = np.packbits(self.hits.astype(bool)) if self.draws == 1 else self.hits.astype("<u2")
        return {
            "name": self.name, "kind": self.kind, "accuracy": found.accuracy, "interval": list(found.interval),
            "n": found.n, "hits": int(self.hits.sum()), "draws": self.draws,
            "outcomes": base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        """Raises ValueError when the outcomes are torn, or do not add up to the figure that stands beside them."""
        raw, n, draws = zlib.decompress(base64.b64decode(data["outcomes"], validate=True)), data["n"], data["draws"]
        packed = np.frombuffer(raw, np.uint8 if draws == 1 else "<u2")
        hits = (np.unpackbits(packed)[:n] if draws == 1 else packed).astype(np.int64)
        if len(hits) != n or hits.sum() != data["hits"] or (hits > draws).any():
            raise ValueError(f"the outcomes of {data['name']!r} are not those of its accuracy")
        return cls(str(data["name"]), data["kind"], hits, draws)


@dataclass(frozen=True)
class Baseline:
    """A run as frozen: what was measured, on what, and by which versions.

    comparable: the fields in which two runs must agree to be compared; digest: of the images and labels; record: what
    else may explain a difference (seed, weights, versions, device, ...); figures: worst case and clean first. unknown: images
    that nobody could judge, which count as broken in the figures.
    """

    comparable: Mapping[str, Any]
    digest: str
    fingerprint: str
    record: Mapping[str, Any]
    figures: tuple[Figure, ...]
    unknown: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The content of robust.json, version 1 (schema: reports/schema/baseline-1.json)."""
        return {
            "baseline_version": VERSION, "comparable": dict(self.comparable), "dataset_digest": self.digest,
            "fingerprint": self.fingerprint, "record": dict(self.record),
            "figures": [figure.to_dict() for figure in self.figures],
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """Raises CannotWrite."""
        write_json(path, self.to_dict())


def freeze(audit: Audit) -> Baseline:
    """The baseline of a finished run. Raises BadInput where the run is not whole or its proofs do not stand."""
    found = snapshot(audit)
    again = f"type {audit.results.plan.runtime.get('command') or 'the command of the run'} --retry-errors"
    if found.unknown:
        raise BadInput(
            f"{audit.path} has {found.unknown} images that nobody could judge (an attack crashed on them, or a stored image "
            f"was rejected), expected none in a baseline; {again}"
        )
    if not audit.results.checks.get("model_unchanged", True):
        raise BadInput(f"the model of {audit.path} was changed by an attack, expected it to be left alone; {again}")
    return found


def snapshot(audit: Audit) -> Baseline:
    """What a finished run found; images that nobody could judge count as broken. Raises BadInput for an unfinished one."""
    results = audit.results
    if results.missing:
        raise BadInput(
            f"{audit.path} is not finished ({results.missing} units are missing), expected a whole run; type "
            f"{results.plan.runtime.get('command') or 'the command of the run again'}"
        )
    identity, runtime = results.plan.identity, results.plan.runtime
    unknown = unknown_images(results)
    record = {name: identity[name] for name in ("defense", "architecture", "weights_sha256", "seed", "batch_size")}
    record |= {"code": identity["code"], "versions": dict(identity["versions"])}
    record |= {name: runtime.get(name) for name in ("device", "threads", "command", "data_source")}
    return Baseline(
        comparable(results.plan), identity["dataset_digest"], results.plan.fingerprint, record, _figures(results, unknown),
        int(unknown.sum()),
    )  # fmt: skip


def comparable(plan: Plan) -> dict[str, Any]:
    """The fields in which two runs must agree to be compared; known before the first attack."""
    found = {name: plan.identity[name] for name in ("dataset", "n", "norm", "eps", "suite")}
    return {**found, "draws": plan.draws, "steps": {step["name"]: _step(step) for step in plan.identity["steps"]}}


def read_baseline(path: Path) -> Baseline:
    """Raises BadInput when there is none, or it is not what `audit baseline` writes."""
    try:
        data = json.loads(path.read_text())
        version = data["baseline_version"]
        if version != VERSION:
            raise ValueError(f"it has version {version!r}, expected {VERSION}")
        figures = tuple(Figure.from_dict(figure) for figure in data["figures"])
        found = Baseline(data["comparable"], data["dataset_digest"], data["fingerprint"], data["record"], figures)
        _check(found)
    except FileNotFoundError:
        raise BadInput(f"there is no baseline {path}; type python -m audit baseline RUN -o {path}") from None
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise BadInput(
            f"{path} is no baseline ({type(error).__name__}: {error}), expected a file of `audit baseline`; type python -m "
            f"audit baseline RUN -o {path}"
        ) from error
    return found


def _check(found: Baseline) -> None:
    n = found.comparable["n"]
    if not isinstance(found.comparable["steps"], dict) or not isinstance(found.record["versions"], dict):
        raise TypeError("steps and versions are tables")
    if [f.name for f in found.figures[:2]] != [WORST, CLEAN] or any(len(f.hits) != n for f in found.figures):
        raise ValueError(f"its figures are not the {WORST}, the {CLEAN} accuracy and the attacks on {n} images")


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """What of a step can change a figure: all but its name, which is the key, and the sentence that explains it."""
    return {name: value for name, value in step.items() if name not in ("name", "why")}


def _figures(results: Results, unknown: Bools) -> tuple[Figure, ...]:
    draws = results.plan.draws

    def figure(name: str, kind: Kind, shares: Floats, lost: Bools) -> Figure:
        shares = np.where(lost, 0, np.nan_to_num(shares, nan=0.0))
        return Figure(name, kind, np.rint(shares * np.float64(draws)).astype(np.int64), draws)

    nothing = np.zeros_like(unknown)
    made = [
        figure(WORST, "worst", proven(results, results.p_worst), unknown),
        figure(CLEAN, "clean", results.p_clean, nothing),
    ]
    failed = nothing
    for result in results.counted:
        if result.step.scope == "trial":
            continue  # on a few images; what it broke is in the worst case
        failed = failed | result.errors
        if result.step.scope == "all":
            made.append(figure(result.step.name, "alone", _returned(result), result.crashed))
        else:
            standing = proven(results, result.p_after)
            made.append(figure(result.step.name, "cumulative", standing, failed & (standing >= 0.5)))
    return tuple(made)


def _returned(result: StepResult) -> Floats:
    """P(correct) of what the attack returned; where it returned nothing at all, of what it met."""
    return result.views.get("returned", result.p_own)
