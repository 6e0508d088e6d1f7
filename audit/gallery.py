"""A few adversarial images beside their originals, kept for the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from audit.engine import Target
from audit.ledger import Ledger, write_atomically
from audit.plan import Plan

SHOWN = 12


def write_gallery(path: Path, plan: Plan, target: Target, ledger: Ledger) -> None:
    """Store up to 12 images that "survivors" steps broke (else any step): clean, x_adv float32 (m, c, h, w);
    label, prediction int64 (m,); image ids and step names (m,). Raises CannotWrite.
    """
    chosen: dict[int, tuple[str, np.ndarray, int]] = {}
    order = sorted(range(len(plan.steps)), key=lambda i: plan.steps[i].scope != "survivors")
    for unit in sorted((u for u in plan.units() if u.step is not None), key=lambda u: order.index(u.step or 0)):
        stored = ledger.read(unit.name)
        if stored is None or unit.step is None or plan.steps[unit.step].scope == "control":
            continue
        arrays = stored[0]
        kept = arrays["kept"]
        columns = (arrays[name][kept] for name in ("ids", "prediction", "broken"))
        for image, prediction, broken, adversarial in zip(*columns, arrays["x_adv"], strict=True):
            if broken and len(chosen) < SHOWN and int(image) not in chosen:
                chosen[int(image)] = (plan.steps[unit.step].name, adversarial, int(prediction))
    if not chosen:
        return
    ids = np.asarray(list(chosen), np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=ids,
        clean=target.x[ids].cpu().numpy(),
        x_adv=np.stack([adversarial for _, adversarial, _ in chosen.values()]),
        label=target.y[ids].cpu().numpy(),
        prediction=np.asarray([prediction for *_, prediction in chosen.values()], np.int64),
        step=np.asarray([name for name, *_ in chosen.values()]),
    )
    write_atomically(path, buffer.getvalue())
