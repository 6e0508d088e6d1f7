"""FGSM, BIM, PGD and kin from torchattacks 3.5.1: the attacks that most papers report, under cross-entropy; and SPSA.

Papers write BIM(n1, n2) and Madry(n1, n2) for n2 steps of eps/n1: `bim` and `pgd` with rel_stepsize 1/n1 and steps n2.
The option `target` (`audit.attacks.rounds`) is the library's targeted mode: down the cross-entropy of another class.
The library has no restarts; those of `pgd` and `pgd-l2` are a loop of ours around it.

torchattacks averages the loss over the batch before it differentiates, so gradients below about 1e-38 times the
batch size vanish. That is part of what a reported "PGD" number means, and is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from audit.attacks.common import Check, attack, one_of
from audit.attacks.rounds import TARGETS, Run, best_of, in_rounds
from audit.attacks.torchattacks_shapes import AnyShape, FirstChannels, depthwise
from audit.types import ThreatModel

LIBRARY = "torchattacks"


def _per_step(params: Mapping[str, Any]) -> tuple[int, int]:
    return int(params["steps"]), int(params["steps"])


def _aims(name: str) -> Check:
    """The `check` of an attack whose one option in words is its target."""
    return one_of(name, "target", TARGETS)


def _run(engine: torchattacks.attack.Attack, x: Tensor, y: Tensor) -> Run:
    def aimed(goal: Tensor | None) -> Tensor:
        if goal is not None:
            engine.set_mode_targeted_by_label(quiet=True)
        result: Tensor = engine(x, y if goal is None else goal)
        return result

    return aimed


@attack(
    "fgsm", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(lambda _: (1, 1)), check=_aims("fgsm"),
    reference="Goodfellow et al. 2015, arXiv 1412.6572",
)  # fmt: skip
def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, target: str = "none"
) -> Tensor:  # fmt: skip
    """One step of size eps along the sign of the cross-entropy gradient, without random start."""
    engine = torchattacks.FGSM(model, eps=threat.eps)
    return best_of("fgsm", _run(engine, x, y), model, x, y, target=target)


@attack(
    "bim", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(_per_step), check=_aims("bim"),
    reference="Kurakin et al. 2017, arXiv 1607.02533",
)  # fmt: skip
def bim(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, rel_stepsize: float = 0.1, target: str = "none",
) -> Tensor:  # fmt: skip
    """Iterated FGSM from the clean image; each step is `rel_stepsize` times eps. BIM(10, 40) is 40 steps of 0.1."""
    engine = torchattacks.BIM(model, eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps)
    return best_of("bim", _run(engine, x, y), model, x, y, target=target)


@attack(
    "pgd", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(_per_step), check=_aims("pgd"),
    reference="Madry et al. 2018, arXiv 1706.06083",
)  # fmt: skip
def pgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, rel_stepsize: float = 0.1, restarts: int = 1, target: str = "none",
) -> Tensor:  # fmt: skip
    """BIM from a uniformly random point of the ball. Madry(10, 40) is 40 steps of 0.1.

    restarts: runs from other random points; each image keeps its result of highest margin, so one success is enough.
    """
    engine = torchattacks.PGD(model, eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps)
    return best_of("pgd", _run(engine, x, y), model, x, y, target=target, restarts=restarts)


@attack(
    "pgd-l2", library=LIBRARY, norms=("L2",), needs="gradient", cost=in_rounds(_per_step), check=_aims("pgd-l2"),
    reference="Madry et al. 2018, arXiv 1706.06083",
)  # fmt: skip
def pgd_l2(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, rel_stepsize: float = 0.1, restarts: int = 1, target: str = "none",
) -> Tensor:  # fmt: skip
    """PGD along normalised gradients, from a random direction at a uniformly random radius; restarts as in `pgd`.

    Gradients shorter than about 1e-10 count as shorter still: the library adds that to each length.
    """
    engine = torchattacks.PGDL2(model, eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps)
    return best_of("pgd-l2", _run(engine, x, y), model, x, y, target=target, restarts=restarts)


@attack(
    "r-fgsm", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(lambda _: (1, 1)), reach=4.0,
    check=_aims("r-fgsm"), reference="Tramer et al. 2018, arXiv 1705.07204",
)  # fmt: skip
def r_fgsm(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, target: str = "none"
) -> Tensor:  # fmt: skip
    """R+FGSM: a random sign step of eps/2, then one step of eps/2 along the sign of the cross-entropy gradient.

    The paper's second step is eps - alpha, the library's alpha: the same at the paper's alpha = eps/2 and at no other.
    Half the budget is spent at random, now and then the wrong way: up to four times the distance to the boundary.
    """
    engine = torchattacks.RFGSM(model, eps=threat.eps, alpha=threat.eps / 2, steps=1)
    return best_of("r-fgsm", _run(engine, x, y), model, x, y, target=target)


@attack(
    "mi-fgsm", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(_per_step), check=_aims("mi-fgsm"),
    reference="Dong et al. 2018, arXiv 1710.06081",
)  # fmt: skip
def mi_fgsm(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 10, rel_stepsize: float = 0.1, decay: float = 1.0, target: str = "none",
) -> Tensor:  # fmt: skip
    """BIM along a running sum of gradients, each divided by its mean absolute value.

    Where the gradient vanishes once, that is 0/0: the sum is NaN, its sign 0, and the image stays there for good.
    """
    alpha = rel_stepsize * threat.eps
    engine = torchattacks.MIFGSM(model, eps=threat.eps, alpha=alpha, steps=steps, decay=decay)
    return best_of("mi-fgsm", _run(engine, x, y), model, x, y, target=target)


@attack(
    "ti-dim", library=LIBRARY, norms=("Linf",), needs="gradient", cost=in_rounds(_per_step), reach=8.0, share=0.5,
    check=_aims("ti-dim"), reference="Dong et al. 2019, arXiv 1904.02884",
)  # fmt: skip
def ti_dim(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 10, rel_stepsize: float = 0.1, decay: float = 1.0, diversity_prob: float = 0.7, len_kernel: int = 15,
    target: str = "none",
) -> Tensor:  # fmt: skip
    """MI-FGSM on randomly shrunk and padded images, its gradient smoothed by a Gaussian of `len_kernel` pixels.

    The library smooths in three groups of channels whatever the image has, so empty channels are added up to a
    multiple of three. Its Gaussian spans three sigma to each side. Made to transfer: on the network under attack
    smoothing and shrinking cost strength, most where pixels matter one by one: up to eight times the distance, and
    there half of the images. An image stays where its gradient once vanishes, as in `mi-fgsm`.
    Images that are not square are stretched to a square, shrunk there and stretched back.
    """
    channels = x.shape[1]
    padded = F.pad(x, (0, 0, 0, 0, 0, -channels % 3))
    engine = AnyShape(
        FirstChannels(model, channels), eps=threat.eps, alpha=rel_stepsize * threat.eps, steps=steps, decay=decay,
        diversity_prob=diversity_prob, len_kernel=len_kernel,
    )  # fmt: skip
    engine.stacked_kernel = depthwise(engine.stacked_kernel[0, 0], padded.shape[1])
    run = _run(engine, padded, y)
    return best_of("ti-dim", lambda goal: run(goal)[:, :channels], model, x, y, target=target)


@attack(
    "eot-pgd", library=LIBRARY, norms=("Linf",), needs="gradient", reference="Zimmermann 2019, arXiv 1907.00895",
    cost=in_rounds(lambda params: (int(params["steps"]) * int(params["eot_iter"]),) * 2), check=_aims("eot-pgd"),
)  # fmt: skip
def eot_pgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, rel_stepsize: float = 0.1, eot_iter: int = 10, target: str = "none",
) -> Tensor:  # fmt: skip
    """PGD for random defenses: each step follows the mean over `eot_iter` draws of the loss's gradient.

    Of the three estimators that go by EOT this is the mean of loss gradients ("losses" of the adapter `eot`), one pass
    after another. Do not put it behind that adapter too. Target "each" chooses between its images by one draw each.
    """
    alpha = rel_stepsize * threat.eps
    engine = torchattacks.EOTPGD(model, eps=threat.eps, alpha=alpha, steps=steps, eot_iter=eot_iter)
    return best_of("eot-pgd", _run(engine, x, y), model, x, y, target=target)


@attack(
    "spsa", library=LIBRARY, norms=("Linf",), needs="scores", reference="Uesato et al. 2018, arXiv 1802.05666",
    cost=in_rounds(lambda params: (2 * int(params["steps"]) * int(params["samples"]), 0)), check=_aims("spsa"),
)  # fmt: skip
def spsa(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int,
    steps: int = 20, samples: int = 128, step_size: float = 0.01, delta: float = 0.01, target: str = "none",
) -> Tensor:  # fmt: skip
    """Adam on the margin, its gradient estimated from pairs of queries `delta` to either side in random sign patterns.

    Step size and delta, in pixel units, are the paper's. It takes up to 8,192 samples in each of 100 steps; here are
    5,120 queries in all, about as many as Square's.
    """
    engine = torchattacks.SPSA(model, eps=threat.eps, delta=delta, lr=step_size, nb_iter=steps, nb_sample=samples)
    run = _run(engine, x, y)
    return best_of("spsa", lambda goal: run(goal).clamp(0, 1), model, x, y, target=target)
