"""Is the model random, and how many draws must be averaged before its gradient says something?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.examination.structure import gradient_at
from audit.rng import Stream

REPEATS = 5
MORE, FEW = 16, 8  # passes, images
DRAWS = 16
CAP = 64
Loss = Callable[[Tensor, Tensor], Tensor]


def repeats(model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> dict[str, Any]:
    """AutoAttack's test of randomness on images x (n, c, h, w) with labels y (n,): five passes, and 16 over a few images.

    A defense that draws once for a whole pass, as one that picks a network, answers alike in five passes too often.
    Keys: repeats_correct (list of 5: correct predictions in each); repeats_difference (largest L2 distance between the
    normalised logits of one image in two passes).
    """
    stream = Stream(seed)
    with stream, torch.no_grad():
        answers = [model(x).float() for _ in range(REPEATS)]
        more = [model(x[:FEW]).float() for _ in range(MORE)]
    return {
        "repeats_correct": [int((answer.argmax(1) == y).sum()) for answer in answers],
        "repeats_difference": max(_spread(answers), _spread(more)),
    }


def _spread(answers: Sequence[Tensor]) -> float:
    units = torch.stack([F.normalize(answer, dim=1) for answer in answers])
    return float(torch.stack([(units - unit).norm(dim=2).amax() for unit in units]).max())


def signal(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, seed: int, draws: int = DRAWS, random: bool = True
) -> dict[str, Any]:
    """The signal-to-noise ratio of the gradient of `loss`, over `draws` passes that differ in the model's draws alone.

    With g_i the gradient of one draw at one image, the noise is tr(cov g) and the signal |mean g|^2 - tr(cov g) / draws,
    which is unbiased. The mean of k draws then has the ratio k * signal / noise.
    random: was the model seen to be? If not, two equal gradients are enough.
    Keys: gradient_snr (median over images of signal / noise of one draw; None where nothing is random or there is no
    gradient); draws_for_snr (the least k for which that ratio of the mean is 1, at most 64; 1 where nothing is random;
    None where the gradient is missing or exactly zero). At 1, half of the mean's squared length is signal: its expected cosine with the true
    gradient is about 0.7, which is enough for attacks that take many steps, as each one draws anew.
    """
    stream = Stream(seed)
    gradients = []
    for _ in range(draws):
        images = x.clone().requires_grad_()
        with stream, torch.enable_grad():
            gradient = gradient_at(loss(model(images).float(), y), images)
        if gradient is None or not bool(gradient.any()):
            return {"gradient_snr": None, "draws_for_snr": None}
        gradients.append(gradient.flatten(1).double())
        if not random and len(gradients) == 2 and torch.equal(*gradients):
            break
    found = torch.stack(gradients)
    noise = found.var(0).sum(1)
    if not bool(noise.any()):
        return {"gradient_snr": None, "draws_for_snr": 1}
    power = (found.mean(0).square().sum(1) - noise / draws).clamp_min(0)
    ratio = float((power / noise).nan_to_num(0.0).median())
    return {"gradient_snr": ratio, "draws_for_snr": min(CAP, max(1, math.ceil(1 / ratio))) if ratio > 0 else CAP}
