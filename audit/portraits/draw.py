"""Measures the portraits of a run, part by part, and stores them once."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audit.engine import Target
from audit.errors import AuditError
from audit.examination.frozen import Frozen
from audit.ledger import Ledger, write_atomically
from audit.plan import Plan
from audit.portraits import features, losses
from audit.portraits.attention import attention
from audit.portraits.found import Found, changed, one_each, spread, stored_images
from audit.portraits.history import training_table
from audit.portraits.increments import increments
from audit.portraits.layers import answers_at, inputs_at, operations, places
from audit.portraits.subject import Subject, sitting
from audit.rng import Stream, derive_seed

VERSION, FILE = 4, "portraits.npz"
MOST, FEWEST = 200, 16  # images
GIGA = 1e9  # multiplications; a busy core does some 30 of these in a second
NO_CONVOLUTION = "the network has no two-dimensional convolution with an extent"
NO_GRADIENT = "no gradient leads from the losses to the images"
NOTHING_BROKEN = "no stored adversarial image"
log = logging.getLogger("audit")


def write_portraits(run_dir: Path, plan: Plan, target: Target, weights: Path) -> None:
    """Measure and store `portraits.npz`, unless it holds the portraits of these very records. Raises CannotWrite.

    What a model does not allow is left out, with a sentence in `notes`.
    """
    found = changed(stored_images(plan, Ledger(run_dir, plan.fingerprint)), target.x.cpu().numpy())
    key = _key(plan, found)
    if _stored_key(run_dir / FILE) == key:
        return
    started = time.perf_counter()
    arrays, about = Sitting(plan, target, found).all()
    about |= {"key": key, "training": training_table(weights)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.array(json.dumps(about, sort_keys=True)), **arrays)
    write_atomically(run_dir / FILE, buffer.getvalue())
    log.info("portraits: %.1f s; left out: %s", time.perf_counter() - started, about["notes"] or "nothing")


def _key(plan: Plan, found: list[Found]) -> str:
    seen = hashlib.sha256(f"{VERSION} {plan.fingerprint}".encode())
    for item in found:
        seen.update(f"{item.id} {item.step}".encode() + np.ascontiguousarray(item.x_adv).tobytes())
    return seen.hexdigest()


def _stored_key(path: Path) -> str | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            key = json.loads(str(stored["about"]))["key"]
    except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
        return None
    return str(key)


class Sitting:
    """One measurement of all portraits. Large networks are measured on fewer images, so that it stays a matter of seconds:
    what each part may cost is counted in multiplications, for a clock would say something else each time.
    """

    def __init__(self, plan: Plan, target: Target, found: list[Found]) -> None:
        self.plan, self.target = plan, target
        self.cost = _cost(target.model, target.x[:1], plan.seed)
        self.label = target.y.cpu().numpy()
        self.few = spread(found, self.label, 6)
        rows = min(len(target.x), self._afford(16, FEWEST, MOST))
        self.x, self.y = target.x[:rows], target.y[:rows]
        self.pairs = one_each(found, rows)
        self.arrays, self.about = dict[str, Any](), dict[str, Any]()

    def _afford(self, budget: float, least: int, most: int) -> int:
        """How many passes of one image fit into so many billions of multiplications."""
        return max(least, min(most, int(budget * GIGA / self.cost)))

    def all(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arrays, and what is said about them as plain JSON."""
        notes = dict[str, str]()
        parts = {"attention": self._attention, "features": self._features, "channels": self._channels, "losses": self._losses, "surface": self._surface}  # fmt: skip
        seed = derive_seed(self.plan.seed, "portraits")
        with sitting(self.target.model, seed=seed, draws=self.plan.draws) as subject:
            for name, part in parts.items():
                why = _attempt(lambda part=part: part(subject), derive_seed(seed, name))  # type: ignore[misc]
                if why:
                    notes[name] = why
        if "losses" not in notes and "norms" not in self.arrays:
            notes["norms"] = NO_GRADIENT
        return self.arrays, {**self.about, "notes": notes}

    def _adversarial(self, chosen: list[Found]) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images, adversarial images and labels of stored pairs."""
        if not chosen:
            raise _Nothing(NOTHING_BROKEN)
        place = self.target.x.device
        ids = torch.tensor([found.id for found in chosen], device=place)
        x_adv = torch.from_numpy(np.stack([found.x_adv for found in chosen])).to(place)
        return self.target.x[ids], x_adv, self.target.y[ids]

    def _attention(self, subject: Subject) -> None:
        clean, x_adv, y = self._adversarial(self.few)
        path = _convolution(subject, clean)
        columns = dict[str, list[Any]](images=[], heat=[], answer=[], confidence=[])
        views = subject.views(clean, x_adv)
        for _, images in views:
            answer, confidence = subject.answer(subject.network, images)
            with Stream(subject.seed):
                heat = attention(subject.network, path, images, torch.from_numpy(answer).to(images.device))
            for name, value in zip(columns, (_bytes(images), _bytes(heat), answer, confidence), strict=True):
                columns[name].append(value)
        self.arrays |= {f"attention_{name}": np.stack(values, 1) for name, values in columns.items()}
        self.arrays |= {"attention_ids": np.asarray([f.id for f in self.few]), "attention_label": y.cpu().numpy(), "attention_step": np.asarray([f.step for f in self.few])}  # fmt: skip
        self.about |= {"attention_views": [name for name, _ in views], "convolution": path}

    def _features(self, subject: Subject) -> None:
        _, x_adv, y_adv = self._adversarial(self.pairs)
        if len(self.x) + len(x_adv) < features.FEWEST:
            raise _Nothing(f"only {len(self.x) + len(x_adv)} images, fewer than {features.FEWEST}")
        path = places(subject.network, self.x[:1])[1]
        if path is None:
            raise _Nothing("the network has no last linear layer that its features could be read from")

        def read(images: Tensor, purifier: torch.nn.Module | None) -> features.Floats:
            seen = images if purifier is None else subject.each(purifier, images)
            found = subject.each(lambda rows: inputs_at(subject.network, path, rows), seen)
            return np.asarray(found.flatten(1).double().cpu().numpy(), np.float64)

        def both(purifier: torch.nn.Module | None) -> dict[str, features.Floats]:
            return {"clean": read(self.x, purifier), "adversarial": read(x_adv, purifier)}

        labels = {"clean": self.y.cpu().numpy(), "adversarial": y_adv.cpu().numpy()}
        found = features.mapped(both(subject.purifier), labels, derive_seed(subject.seed, "map"))
        if subject.purifier is not None:  # the same images as the network sees them bare: TPAP, Fig. 7
            bare = features.mapped(both(None), labels, derive_seed(subject.seed, "map"))
            self.arrays |= {"bare_points": bare["points"], "bare_strangers": bare["strangers"]}
        self.about |= {"method": found.pop("method"), "layer": path, "behind": subject.purifier is not None}
        self.arrays |= found

    def _channels(self, subject: Subject) -> None:
        clean, x_adv, _ = self._adversarial(self.pairs[:100])
        path = _convolution(subject, clean)
        before, after, noise = (
            subject.each(lambda rows: answers_at(subject.network, path, rows), images)
            for images in (clean, x_adv, features.as_noisy(clean, x_adv))
        )
        self.arrays |= {"channels": np.stack([features.moved(before, after), features.moved(before, noise)])}
        self.about |= {"convolution": path, "channel_images": len(clean)}
        few = slice(0, self._afford(1.2, 4, 32))
        steps = increments(
            Frozen(subject.network, subject.seed), lambda rows: subject.each(lambda part: answers_at(subject.network, path, part), rows),
            self.x[few], self.y[few], self.plan.threat,
        )  # fmt: skip
        if steps is not None:
            self.arrays["increments"] = steps

    def _losses(self, subject: Subject) -> None:
        self.arrays["losses_clean"] = losses.both_losses(subject.each(subject.model, self.x), self.y)
        if self.pairs:
            _, x_adv, y = self._adversarial(self.pairs)
            self.arrays["losses_adversarial"] = losses.both_losses(subject.each(subject.model, x_adv), y)
        for name, part in (("the defense", subject.model), ("the bare network", subject.network)):
            norms = losses.gradient_norms(Frozen(part, subject.seed), self.x, self.y)
            if norms is not None:
                self.arrays["norms"] = norms
                self.about["norms_of"] = name
                return

    def _surface(self, subject: Subject) -> None:
        margins = losses.both_losses(subject.each(subject.model, self.x), self.y)[:, 1]
        right = np.flatnonzero(margins > 0)
        if not len(right):
            raise _Nothing("no image is classified rightly")
        middle = np.argsort(np.abs(margins[right] - np.median(margins[right])), kind="stable")
        chosen = right[middle[: self._afford(0.4, 1, 4)]]
        ask, bare = Frozen(subject.model, subject.seed), Frozen(subject.network, subject.seed)
        x, y = self.x[chosen], self.y[chosen]
        found = losses.surface(ask, ask, x, y, self.plan.threat)
        self.about["surface_of"] = "the defense"
        if found["along"] == "random" and subject.purifier is not None:
            found = losses.surface(ask, bare, x, y, self.plan.threat)
            self.about["surface_of"] = "the bare network"
        self.about |= {"along": found.pop("along"), "surface_ids": [int(i) for i in chosen]}
        self.arrays |= found


class _Nothing(Exception):
    """There is nothing to measure, and that is no fault."""


def _attempt(part: Callable[[], None], seed: int) -> str:
    """Run one part on random numbers of its own; why it was left out, or nothing."""
    try:
        with Stream(seed):
            part()
    except (_Nothing, AuditError) as error:
        return str(error)
    except Exception as error:  # a model is foreign code
        log.exception("a portrait was left out")
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _cost(model: torch.nn.Module, x: Tensor, seed: int) -> int:
    """Multiplications of one pass over one image x (1, c, h, w), at least 1; 1 where they cannot be counted."""
    try:
        with sitting(model, seed=seed, draws=1) as subject, Stream(seed):
            return max(1, operations(subject.model, x))
    except Exception:  # a model is foreign code; what fails here fails again where it is said
        log.exception("the cost of a pass could not be counted")
        return 1


def _convolution(subject: Subject, x: Tensor) -> str:
    path = places(subject.network, x[:1])[0]
    if path is None:
        raise _Nothing(NO_CONVOLUTION)
    return path


def _bytes(values: Tensor) -> Any:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
