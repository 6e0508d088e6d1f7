"""Do two libraries agree on one attack? `python -m tests.cross_library` prints the table of docs/attacks.md.

The attack that is registered here, and the attack of the same name in another library with the same parameters, on
the same 64 embedded images of three zoo models; both judged by the same Oracle after projection. They draw other random
numbers, so single images differ; what must be shown is that the share left standing does not. A test that finds no
difference shows nothing on 64 images (McNemar's cannot reject at 1 % with fewer than eight that differ), so the burden
lies the other way: the interval of the difference must lie within a margin (Schuirmann 1987, two one-sided tests).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from audit import registry
from audit.geometry import distance, project
from audit.oracle import Oracle
from audit.rng import Stream
from audit.stats import clopper_pearson
from audit.types import Norm, ThreatModel, show_eps

MODELS = {"undefended": 8 / 255, "pgd_at": 0.1, "super_fitting": 8 / 255}  # Linf radii
MARGIN = 0.15  # of the images: three of 58 that only one attack breaks pass, four do not; of 48 two and three
L2_RADII = {"undefended": 0.5, "pgd_at": 1.5, "super_fitting": 0.5}
IMAGES, SEED = 64, 0
Other = Callable[[nn.Module, Tensor, Tensor, ThreatModel], Tensor]


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    import foolbox

    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=20, random_start=True)
    result: Tensor = attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=threat.eps)[1]
    return result


def torchattacks_apgd(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    import torchattacks

    result: Tensor = torchattacks.APGD(model, eps=threat.eps, steps=100, seed=SEED)(x, y)
    return result


def art_square(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = SquareAttack(classifier, eps=threat.eps, max_iter=1000, nb_restarts=1, batch_size=IMAGES, verbose=False)
    return torch.from_numpy(attack.generate(x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]))


def foolbox_cw(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    import foolbox

    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=100)
    result: Tensor = attack(foolbox.PyTorchModel(model, (0, 1)), x, y, epsilons=None)[0]
    return result


@dataclass(frozen=True)
class Pair:
    """A registered attack with its options, and the same in another library.

    weaker: by how much more than `MARGIN` ours may fall behind, where a difference is known and said in the docs.
    """

    name: str
    attack: str
    options: dict[str, int | float]
    norm: Norm
    library: str
    other: Other
    weaker: float = 0.0


PAIRS = (
    Pair("PGD-20", "pgd", {"steps": 20, "rel_stepsize": 0.1}, "Linf", "foolbox", foolbox_pgd),
    Pair("APGD-CE", "apgd-ce", {"n_iter": 100}, "Linf", "torchattacks", torchattacks_apgd),
    Pair("Square, 1,000 queries", "square", {"n_queries": 1000, "rescale": 1}, "Linf", "ART", art_square),
    Pair("C&W L2", "cw-l2", {"steps": 100, "search_steps": 6}, "L2", "foolbox", foolbox_cw, weaker=0.1),
)
VARIANTS = (  # what the docs say of other lengths and schedules: `--variants`
    replace(PAIRS[2], name="Square, patches as for 10,000 queries", options={"n_queries": 1000, "rescale": 0}),
    replace(PAIRS[3], name="C&W L2, 40 steps by the first", options={"steps": 40, "search_steps": 6}),
)


@dataclass(frozen=True)
class Row:
    """Images left standing by each, of `correct` correctly classified ones, and those that only one of them left."""

    pair: Pair
    model: str
    threat: ThreatModel
    correct: int
    ours: int
    others: int
    only_ours: int
    only_others: int
    median: tuple[float, float]

    @property
    def interval(self) -> tuple[float, float]:
        """At least 90 % interval of the share left by ours less that left by the other.

        Each bound joins two exact bounds, of 97.5 % each, on the two kinds of images that differ; so each errs in at most
        5 % of cases, however few images differ.
        """
        ours, others = (clopper_pearson(count, self.correct) for count in (self.only_ours, self.only_others))
        return ours[0] - others[1], ours[1] - others[0]

    @property
    def agrees(self) -> bool:
        low, high = self.interval
        return low >= -MARGIN and high <= MARGIN + self.pair.weaker

    def __str__(self) -> str:
        far = f"{self.median[0]:.3f}, {self.median[1]:.3f}" if self.pair.norm == "L2" else ""
        own = registry.attacks.load(self.pair.attack).library
        low, high = (f"{100 * bound:+.0f}" for bound in self.interval)
        return (
            f"| {self.pair.name} | {own}, {self.pair.library} | {self.model} | {self.threat.norm} {show_eps(self.threat.eps)} | "
            f"{self.correct} | {self.ours} | {self.others} | {self.only_ours}, {self.only_others} | {low} to {high} | {far} |"
        )


def compare(pair: Pair, name: str) -> Row:
    """Both attacks on the first 64 embedded images that the model of that name classifies correctly or not."""
    defense = registry.defenses.load(name)
    model = defense.load(defense.checkpoint("fashion_mnist", None))
    data = registry.datasets.load("fashion_mnist").load("test").first(IMAGES)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    oracle = Oracle(model, batch_size=IMAGES, seed=SEED)
    right = oracle.judge(x, y).correct
    x, y = x[right], y[right]
    threat = ThreatModel(pair.norm, (MODELS if pair.norm == "Linf" else L2_RADII)[name])
    ours = registry.attacks.load(pair.attack)(model, x, y, threat, seed=SEED, **pair.options)
    with Stream(SEED), torch.enable_grad():
        theirs = pair.other(model, x.clone(), y.clone(), threat).detach().float()
    mine, other = (oracle.judge(project(c, x, threat), y).correct.numpy() for c in (ours, theirs))
    far = (float(distance(c, x, threat.norm).median()) for c in (ours, theirs))
    counts = (int(mask.sum()) for mask in (mine, other, mine & ~other, other & ~mine))
    return Row(pair, name, threat, len(x), *counts, median=tuple(far))  # type: ignore[arg-type]


def rows(pairs: Sequence[Pair], models: Sequence[str]) -> Iterator[Row]:
    for pair in pairs:
        for name in models:
            yield compare(pair, name)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument(
        "--variants", action="store_true", help="the same attacks with the lengths and schedules told of"
    )
    asked.add_argument("--attack", choices=[pair.attack for pair in PAIRS], help="one pair instead of all")
    asked.add_argument("--model", choices=list(MODELS), help="one model instead of all")
    typed = asked.parse_args()
    pairs = [pair for pair in (VARIANTS if typed.variants else PAIRS) if typed.attack in (None, pair.attack)]
    print(
        "| attack | libraries | model | threat | correct | left by the first | left by the second | only by one of them | "
        "difference, 90 % | median L2 distances |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for row in rows(pairs, [typed.model] if typed.model else list(MODELS)):
        print(row, flush=True)


if __name__ == "__main__":
    main()
