"""Builds the two-class problems, runs the attack on them, and judges what it found with the exact models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adapters.probe import Probe
from audit import registry
from audit.attempt import call
from audit.binarisation.model import Ambiguous, Binary, Readout, apart
from audit.binarisation.points import check_norm
from audit.binarisation.problem import Problem, build, harder, suited
from audit.binarisation.result import TOO_EASY, BinarisationTest, Outcome, Settings
from audit.court import Court, judge_attack
from audit.errors import BadInput, Unsupported
from audit.gates import adapt
from audit.geometry import contains, project
from audit.oracle import Oracle, check_mode
from audit.rng import Stream, derive_seed
from audit.types import SELECTION_DRAWS, Step, ThreatModel


def binarisation_test(
    model: nn.Module, x: Tensor, y: Tensor, step: Step, threat: ThreatModel, *, n: int = 64, seed: int = 0,
    draws: int = 1, replay: bool = False, settings: Settings | None = None, batch_size: int = 250,
    beat: Callable[[str], None] = lambda _: None,
) -> BinarisationTest:  # fmt: skip
    """Does the attack of `step` find adversarial images that exist by construction?

    model: the whole defense in evaluation mode; x (m, c, h, w) in [0,1] with labels y (m,): the first n correctly
    classified are tried. draws: forward passes that judge an image, more than 1 for a random defense; replay: may a
    repeated question be answered from memory (see `adapters.probe`)? beat: told what is done at the moment.
    The step's scope counts as in an audit: "all" counts the images returned, "survivors" also those met on the way. A
    step with a radius of its own is tested at that radius.
    Raises Unsupported for a norm, attack or model that cannot be tested, BadInput for settings or images that make no
    problem, BadModel when the model cannot be judged.
    """
    threat = threat if step.eps is None else ThreatModel(threat.norm, step.eps)
    check_step(step, threat)
    if n < 1:
        raise BadInput(f"--n is {n}, expected at least 1")
    check_mode(model)
    chosen = _correct(model, x, y, n, draws, seed, batch_size)
    with Stream(derive_seed(seed, "binarisation", "readout")):
        readout = Readout(model, x[chosen[:2]])
        features = readout.features(x[chosen[:1]])[0].shape[1]
    asked = suited(settings or Settings(), features, random=draws > 1)
    tries = min(max(registry.attacks.load(step.attack).cost(step.params)[0], 1), asked.most_tries)
    setup = _Setup(readout, x[chosen], threat, asked, draws, seed, tries, batch_size, beat)
    ready = setup.ready(asked)
    easy = ready.blind_share >= TOO_EASY
    if easy:
        asked = harder(asked, random=draws > 1)
        ready = setup.ready(asked)
    beat(f"attacking {len(ready.rows)} two-class models")
    found, error = _attack(setup, ready, step, replay)
    outcomes: list[Outcome] = ["setup failed"] * len(chosen)
    for row, hit in zip(ready.rows, found, strict=True):
        outcomes[row] = "found" if hit else "missed" if error is None else "crashed"
    return BinarisationTest(
        step, threat.norm, threat.eps, seed, tuple(outcomes), tuple(chosen), ready.random_found, tries, features,
        asked.inner, easy, asked, error,
    )  # fmt: skip


def check_step(step: Step, threat: ThreatModel) -> None:
    """Raise Unsupported for a norm or an attack that cannot be tested."""
    check_norm(threat.norm)
    attack = registry.attacks.load(step.attack)
    if threat.norm not in attack.norms:
        raise Unsupported(
            f"attack {step.attack} supports {', '.join(attack.norms)}, not {threat.norm}; choose another --norm"
        )
    if step.attack == "transfer":
        raise Unsupported("attack transfer shows images of another network; name an attack that asks this model")


def _correct(model: nn.Module, x: Tensor, y: Tensor, n: int, draws: int, seed: int, batch_size: int) -> list[int]:
    """Indices of the first n correctly classified images; fewer where there are no more."""
    oracle = Oracle(model, batch_size=batch_size, seed=derive_seed(seed, "binarisation", "clean"), draws=draws)
    chosen: list[int] = []
    for start in range(0, len(x), batch_size):
        judged = oracle.judge(x[start : start + batch_size], y[start : start + batch_size])
        chosen += [start + int(i) for i in (judged.p_correct >= 0.5).nonzero().flatten()]
        if len(chosen) >= n:
            break
    if not chosen:
        raise BadInput("no image is classified correctly, so there is none to test with; choose others with --data")
    return chosen[:n]


@dataclass(frozen=True)
class _Ready:
    """The problems that came about, of the images `rows`. random_found: by the random attacker; blind_share: the share
    found by 200 random tries.
    """

    rows: list[int]
    problems: list[Problem]
    random_found: int
    blind_share: float


@dataclass(frozen=True)
class _Setup:
    """What all problems share; x (n, c, h, w) are the images tried."""

    readout: Readout
    x: Tensor
    threat: ThreatModel
    settings: Settings
    draws: int
    seed: int
    tries: int
    batch_size: int
    beat: Callable[[str], None]

    def ready(self, settings: Settings) -> _Ready:
        """Builds every image's problem and keeps those whose exact model says 0 of the image and 1 of the far point."""
        problems: dict[int, Problem] = {}
        for i, image in enumerate(self.x):
            self.beat(f"two-class model {i + 1} of {len(self.x)}")
            made = build(
                self.readout, image, self.threat, settings, tries=self.tries, random=self.draws > 1,
                seed=derive_seed(self.seed, "binarisation", i),
            )  # fmt: skip
            if made.head is not None:
                problems[i] = made
        rows, tried = list[int](), list[list[bool]]()
        for i, problem in problems.items():
            oracle = self.oracle(self.binary([i], [problem]), "setup", i)
            images = torch.cat([self.x[i : i + 1], problem.far[None], problem.tries])
            own, far, *blind = fooled(oracle, images).tolist()
            if not own and far:
                rows.append(i)
                tried.append(blind)
        own_tries, many_tries = (sum(column) for column in zip(*tried, strict=True)) if tried else (0, 0)
        return _Ready(rows, [problems[i] for i in rows], own_tries, many_tries / max(len(rows), 1))

    def binary(self, rows: Sequence[int], problems: Sequence[Problem]) -> Binary:
        """One model for the images `rows`, of which no two are near one another."""
        heads = [problem.head for problem in problems if problem.head is not None]
        weight = torch.stack([torch.from_numpy(head.weight) for head in heads])
        bias = torch.tensor([head.bias for head in heads], dtype=torch.float64)
        clean = self.x[list(rows)]
        return self.readout.binary(weight.to(clean), bias.to(clean), clean, self.threat.norm)

    def oracle(self, binary: Binary, *stream: object, draws: int | None = None) -> Oracle:
        seed = derive_seed(self.seed, "binarisation", *stream)
        return Oracle(binary, batch_size=self.batch_size, seed=seed, draws=draws or self.draws)


def fooled(oracle: Oracle, images: Tensor) -> Tensor:
    """Which images (m, c, h, w) are judged 1, not 0: bool (m,)."""
    zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    judged = oracle.judge(images, zeros, strict=False)
    return judged.valid & (judged.p_correct < 0.5)


def _attack(setup: _Setup, ready: _Ready, step: Step, replay: bool) -> tuple[list[bool], str | None]:
    """Whether the attack found an adversarial image of each problem, and what it said where it crashed.

    Images whose balls do not meet are attacked together. An attack that leaves the balls so far that a query might
    belong to another image starts again on each image alone.
    """
    found, errors = [False] * len(ready.rows), list[str]()
    groups = apart(setup.x[ready.rows], setup.threat.norm, setup.threat.eps, setup.batch_size) if ready.rows else []
    while groups:
        group = groups.pop(0)
        try:
            hits, error = _together(
                setup, [ready.rows[i] for i in group], [ready.problems[i] for i in group], step, replay
            )
        except Ambiguous:
            groups = [[i] for i in group] + groups
            continue
        errors += [error] if error else []
        for i, hit in zip(group, hits, strict=True):
            found[i] = hit
    return found, errors[0] if errors else None


def _together(
    setup: _Setup, rows: list[int], problems: list[Problem], step: Step, replay: bool
) -> tuple[list[bool], str | None]:
    """One run of the attack, as the engine runs it; what it found is judged by exact models that it never saw."""
    x, y = setup.x[rows], torch.zeros(len(rows), dtype=torch.int64, device=setup.x.device)
    exact, seed = setup.binary(rows, problems), derive_seed(setup.seed, "binarisation", step.name, *rows)
    court = Court(setup.oracle(exact, "select", *rows, draws=SELECTION_DRAWS if setup.draws > 1 else 1))
    probe = Probe(
        adapt(setup.binary(rows, problems), step.adapters), x, y, setup.threat,
        stream=Stream(derive_seed(seed, "defense")), confirm=lambda images, who: court.fooled(images, y[who]),
        stop_early=step.scope != "all", replay=replay,
    )  # fmt: skip
    returned = call(step, probe, x, y, setup.threat, seed)
    images = _kept(court, probe, returned.images, x, y, setup.threat, step)
    hits = fooled(setup.oracle(exact, "score", *rows), images) & contains(images, x, setup.threat)
    return hits.tolist(), returned.error


def _kept(
    court: Court, probe: Probe, images: Tensor | None, x: Tensor, y: Tensor, threat: ThreatModel, step: Step
) -> Tensor:
    """The image of each row that counts, in the ball and the box: (n, c, h, w)."""
    usable = torch.ones_like(y, dtype=torch.bool) if images is None else torch.isfinite(images).flatten(1).all(1)
    if step.scope == "all":
        sound = x if images is None else torch.where(usable.view(-1, *[1] * (x.ndim - 1)), images, x)
        return project(sound, x, threat)
    worst = judge_attack(court, probe, images, usable, x, y, threat)["worst"]
    return torch.from_numpy(worst).to(x)
