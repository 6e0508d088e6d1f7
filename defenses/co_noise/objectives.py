"""Training of the catastrophic-overfitting paper: FGSM-RS and FGSM-MEP, and the terms that avoid or induce CO.

The adversaries leave x + delta_0, the image before the gradient step, in `memory["start"]` for the objectives. They
expect `adversary_mode="train"`, as the public code of FGSM-MEP has it. The paper calls delta_0 "uniformly random"
(below Eq. 8), which it is under FGSM-RS; under FGSM-MEP it is the perturbation carried from the last epoch, which is the
start that FGSM-MEP has, and random in the epoch of a reset only. It may then lie outside [0,1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.adversaries import ascend, input_gradient, random_start, within
from defenses.co_noise.activations import (
    channel_difference,
    features_and_logits,
    masked_logits,
    positions,
    top_channels,
)
from defenses.recipes import Batch

ALPHA_3 = 200.0
GAMMA = 10.0
KEEP = 0.6
MEMORY = 0.99


def smoothed_cross_entropy(logits: Tensor, y: Tensor, keep: float = KEEP) -> Tensor:
    """Cross-entropy with probability `keep` on the label and the rest spread over the other classes. Scalar.

    The public code of FGSM-MEP trains and attacks with keep = 0.6; keep = 1 is plain cross-entropy.
    """
    log_p = F.log_softmax(logits, 1)
    own = log_p.gather(1, y[:, None])[:, 0]
    others = (log_p.sum(1) - own) / (logits.shape[1] - 1)
    return -(keep * own + (1 - keep) * others).mean()


@dataclass(frozen=True)
class FGSMRS:
    """FGSM-RS (Wong et al. 2020): a uniform start in the ball, one step of `scale` * eps, back to the ball.

    scale 1.25 is Wong et al.'s (10/255 at eps 8/255).
    """

    eps: float
    scale: float = 1.25

    def __call__(self, batch: Batch) -> Tensor:
        start = random_start(batch, self.eps)
        batch.memory["start"] = start
        return ascend(batch, start, self.eps, self.scale * self.eps, 1)


@dataclass(frozen=True)
class FGSMMEP:
    """FGSM-MEP (Jia et al. 2022): each image starts from its own perturbation, kept from epoch to epoch.

    With g the gradient of the smoothed cross-entropy at x + delta and m = g / |g|_1 + decay * m: the step trained on
    is delta + scale * eps * sign(g), the perturbation kept is delta + scale * eps * sign(m), both clipped to eps and to
    the box. Every `reset` epochs both start anew, delta at scale * eps * sign(uniform). As in the public code, the start
    is not clipped to the box, |g|_1 is taken over the whole batch, and delta stays where it is when the image is cropped
    or mirrored. Needs `mep_buffers`.
    """

    eps: float
    scale: float = 1.0
    decay: float = 0.3
    reset: int = 40
    keep: float = KEEP

    def __call__(self, batch: Batch) -> Tensor:
        memory, rows, step = batch.memory, batch.rows, self.scale * self.eps
        if batch.epoch % self.reset == 0 and batch.step == 0 and batch.replay == 0:
            self._restart(batch)
        start = batch.x + memory["delta"][rows]
        gradient = input_gradient(batch.network, start, batch.y, partial(smoothed_cross_entropy, keep=self.keep))
        momentum = gradient / gradient.abs().sum().clamp_min(1e-30) + self.decay * memory["momentum"][rows]
        memory["momentum"][rows] = momentum
        memory["delta"][rows] = within(start + step * momentum.sign(), batch.x, self.eps) - batch.x
        memory["start"] = start
        return within(start + step * gradient.sign(), batch.x, self.eps)

    def _restart(self, batch: Batch) -> None:
        dice = torch.Generator().manual_seed(batch.seed)
        delta = batch.memory["delta"]
        noise = torch.rand(delta.shape, generator=dice) - 0.5
        batch.memory["delta"] = (self.scale * self.eps * noise.sign()).clamp(-self.eps, self.eps).to(delta)
        batch.memory["momentum"] = torch.zeros_like(delta)


def mep_buffers(x: Tensor) -> dict[str, Tensor]:
    """The memory that `FGSMMEP` needs, for all training images x (n, c, h, w)."""
    return {"delta": torch.zeros_like(x), "momentum": torch.zeros_like(x)}


@dataclass(frozen=True)
class OnAdversarial:
    """Smoothed cross-entropy on x + delta, plus gamma * MSE of its logits from those of x + delta_0 (Eq. 10).

    gamma 0 leaves the term out, and FGSM training then overfits catastrophically: what "Ours-CO" exploits. Both
    logits keep their gradient, as in the public code of FGSM-MEP.
    """

    gamma: float = 0.0
    keep: float = KEEP

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = batch.network(batch.adv)
        loss = smoothed_cross_entropy(logits, batch.y, self.keep)
        if self.gamma:
            loss = loss + self.gamma * F.mse_loss(logits, batch.network(batch.memory["start"]))
        return loss, logits


def feature_term(adversarial: Tensor, start: Tensor, alpha_3: float, chosen: Tensor | None = None) -> Tensor:
    """L_stable, Eq. 8: alpha_3 / (N * H * W) * sum over channels of V_act, averaged over images. Scalar.

    chosen: bool (N,), the channels summed over; all where it is None.
    """
    difference = channel_difference(adversarial, start).mean(0)
    total = difference.sum() if chosen is None else difference[chosen].sum()
    return alpha_3 * total / (len(difference) * positions(adversarial))


@dataclass(frozen=True)
class Stable:
    """ "Ours-FD": smoothed cross-entropy on x + delta, plus gamma * Eq. 10, plus L_stable (Eq. 8) at `node`."""

    alpha_3: float = ALPHA_3
    node: str = "B"
    gamma: float = GAMMA
    keep: float = KEEP

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features, logits = features_and_logits(batch.network, self.node, batch.adv)
        before, first = features_and_logits(batch.network, self.node, batch.memory["start"])
        loss = smoothed_cross_entropy(logits, batch.y, self.keep) + feature_term(features, before, self.alpha_3)
        return loss + self.gamma * F.mse_loss(logits, first), logits


@dataclass(frozen=True)
class Induce:
    """Eq. 9 added to cross-entropy: makes catastrophic overfitting happen where it would not by itself.

    L_co = CE of the network without the channels C_p% - L_stable(C_p%). C_p% are the top `percent` % of T_act at
    `node` over the training set; here a running mean over its batches stands for that statistic (T_act grows with
    V_act, so both rank channels alike). As in Eq. 6, their V_act is between x and x + delta, for which the clean images
    take a pass of their own, in the network's mode; that of L_stable is between x + delta_0 and x + delta. L_stable has
    no upper bound, and neither has how far this can push; the paper reports that p = 20 does not converge. It prints no alpha_3 for this use. It adds L_co to Eq. 1 and does not say
    whether Eq. 10 stays; Eq. 10 pulls the other way and is left out.
    """

    percent: float = 10.0
    alpha_3: float = 1.0
    node: str = "B"
    keep: float = KEEP

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features, logits = features_and_logits(batch.network, self.node, batch.adv)
        before, _ = features_and_logits(batch.network, self.node, batch.memory["start"])
        with torch.no_grad():
            clean, _ = features_and_logits(batch.network, self.node, batch.x)
            excited = channel_difference(features, clean).mean(0)
        chosen = top_channels(self._running(batch, excited), self.percent)
        masked = masked_logits(batch.network, self.node, chosen, batch.adv)
        loss = smoothed_cross_entropy(logits, batch.y, self.keep) + smoothed_cross_entropy(masked, batch.y, self.keep)
        return loss - feature_term(features, before, self.alpha_3, chosen), logits

    @staticmethod
    def _running(batch: Batch, difference: Tensor) -> Tensor:
        mean = batch.memory.get("v_act", difference)
        batch.memory["v_act"] = MEMORY * mean + (1 - MEMORY) * difference
        return batch.memory["v_act"]
