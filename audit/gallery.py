"""A few adversarial images beside their originals, with what the defense says of them, kept for the report."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audit.engine import Target
from audit.ledger import Ledger, write_atomically
from audit.plan import Plan
from audit.portraits.found import Found, changed, spread, stored_images
from audit.portraits.subject import sitting
from audit.rng import derive_seed
from audit.types import SELECTION_DRAWS

SHOWN = 24
NUMBERS = 2_000_000  # float32 numbers of all pictures together: fewer of them where they are large
log = logging.getLogger("audit")


def write_gallery(path: Path, plan: Plan, target: Target, ledger: Ledger) -> None:
    """Store up to 24 broken images, in turn over attacks and classes: clean, x_adv float32 (m, c, h, w); label,
    prediction int64 (m,); image ids and step names (m,); and of the `views` (v,) of each what `_views` says.
    Raises CannotWrite.
    """
    shown = min(SHOWN, max(6, NUMBERS // (2 * target.x[0].numel())))
    found = changed(stored_images(plan, ledger), target.x.cpu().numpy())
    chosen = spread(found, target.y.cpu().numpy(), shown)
    if not chosen:
        return
    ids = np.asarray([found.id for found in chosen], np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=ids,
        clean=target.x[ids].cpu().numpy(),
        x_adv=np.stack([found.x_adv for found in chosen]),
        label=target.y[ids].cpu().numpy(),
        prediction=np.asarray([found.prediction for found in chosen], np.int64),
        step=np.asarray([found.step for found in chosen]),
        **_views(plan, target, ids, chosen),
    )
    write_atomically(path, buffer.getvalue())


def _views(plan: Plan, target: Target, ids: Any, chosen: list[Found]) -> dict[str, Any]:
    """views: names (v,); answers int64 (m, v) and confidences float32 (m, v), the softmax probability of the answer;
    pictures float32 (m, v - 2, c, h, w): what a test-time part makes of the clean and the adversarial image.

    Behind such a part the answer is the defense's, a mean over 20 draws where it is random; before it, that of its
    bare network. Nothing where the model fails.
    """
    try:
        x_adv = torch.from_numpy(np.stack([found.x_adv for found in chosen])).to(target.x.device)
        seed, draws = derive_seed(plan.seed, "gallery"), SELECTION_DRAWS if plan.draws > 1 else 1
        with sitting(target.model, seed=seed, draws=draws) as subject:
            views = subject.views(target.x[ids], x_adv)
            whole = [images for _, images in views[:2]]
            answers = [subject.answer(subject.network, images, _own(subject.purifier, draws)) for images in whole]
            answers += [subject.answer(subject.model, images, draws) for images in whole[: len(views) - 2]]
            pictures = [images.cpu().numpy() for _, images in views[2:]]
    except Exception:  # a model is foreign code, and the gallery is no evidence
        log.exception("the pictures of the gallery could not be answered for")
        return {}
    answered = {
        "views": np.asarray([name for name, _ in views]),
        "answers": np.stack([answer for answer, _ in answers], 1),
        "confidences": np.stack([confidence for _, confidence in answers], 1),
    }
    return answered | ({"pictures": np.stack(pictures, 1).astype(np.float32)} if pictures else {})


def _own(purifier: Any, draws: int) -> int:
    """Draws of the network by itself: one, where the randomness lies in front of it."""
    return draws if purifier is None else 1
