"""What an audit does about what it found: rules from diagnoses to steps, as data. Torch-free.

After the suite has run, each rule looks at the results and may ask for more steps. They run as one round, then the
rules look again, until none asks or the suite's rounds are used up. Ways around a hidden gradient are first tried on 32
images; the two that break most are then used on everything that still stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from audit import registry
from audit.diagnoses import diagnose
from audit.diagnoses.settled import DOUBLED, MOVED, gain
from audit.evidence import Evidence
from audit.filled import enough
from audit.plan import Plan
from audit.results import Results
from audit.rules import DRAWS
from audit.suites import SUITES
from audit.transfers import three_rows
from audit.types import AdapterSpec, Diagnosis, Round, Step

TRIALS = 32
CHECKED = 100  # survivors on which twice the steps are tried before all are
MOST_DRAWS = 64
CONVERGED = "nothing that asks for another attack; it remains to see whether more steps break more"
SATURATED = ("vanishing_gradient", "saturated_softmax", "zero_gradient_in_attack", "ce_precision")
HIDDEN = (
    "shattered_gradient", "dynamic", "masked_gradient", "unstable_gradient", "exploding_gradient", "quantised_output",
    "softmax_output",
)  # fmt: skip
OUTDONE = (
    "black_box_beats_white_box", "random_search_beats_gradient", "one_step_beats_iterative", "larger_eps_does_not_help",
    "unstable_predictions", "local_linearity",
)  # fmt: skip
ROUGH = ("masked_gradient", "unstable_gradient")
ANSWERS = ("dynamic", "quantised_output", "declared_test_time_optimisation")
INNER = "inner"  # the way by transfer: images of least margin on the network inside, judged by the whole
SUBSTITUTES = {"identity": "straight through", "binomial_blur": "a blur for", "learned": "a learned surrogate of"}
UNFINISHED = ("incomplete_optimisation",)


Rule = Callable[[Evidence], tuple[list[Diagnosis], list[Step]]]
NOTHING: tuple[list[Diagnosis], list[Step]] = ([], [])


def next_round(results: Results, *, early: bool = False) -> Round | None:
    """The steps that the results so far ask for; None when they ask for none, or the plan has units left to run.

    early: decide before the suite's late steps; None once one of them has begun.
    """
    plan = results.plan
    suite = SUITES.get(plan.identity["suite"])
    if suite is None or len(plan.rounds) >= suite.rounds or not (_ready(results) if early else not results.missing):
        return None
    evidence = Evidence(results, {d.name: d for d in diagnose(results)})
    if not evidence.alive:
        return None
    reasons: dict[str, str] = {}
    steps: dict[str, Step] = {}
    for rule in EARLY if early else RULES:
        because, asked = rule(evidence)
        possible = (_filled(step) for step in asked if _supports(step, plan))
        fresh = {step.name: step for step in possible if not evidence.has(step.name)}
        if fresh:
            reasons |= {d.name: f"{d.name}: {d.sentence}" for d in because}
            steps |= fresh
    if not steps:
        return None
    found = tuple(reasons.values()) or (CONVERGED,)
    run = plan.steps[: plan.late] if early else plan.steps
    added = three_rows(steps.values(), run) if evidence.staged else tuple(steps.values())
    return Round(len(plan.rounds) + 1, found, tuple(reasons), added, early)


def _ready(results: Results) -> bool:
    """Has everything before the late steps run, and are there late steps, none of which has begun?"""
    late = results.plan.late
    seen = bool((results.prediction >= 0).all()) and all(r.done for r in results.steps[:late])
    return seen and late < len(results.steps) and not any(r.attacked.any() or r.done for r in results.steps[late:])


def _supports(step: Step, plan: Plan) -> bool:
    attack = registry.attacks.load(step.attack)
    return plan.threat.norm in attack.norms and enough(attack.needs, plan.profile.get("answers", "gradient"))


def _filled(step: Step) -> Step:
    """The step with every option of its attack written down."""
    return replace(step, params={**registry.attacks.load(step.attack).defaults, **step.params})


def _step(name: str, attack: str, adapters: tuple[AdapterSpec, ...], why: str, **options: object) -> Step:
    return Step(name, attack, "adaptive", adapters=adapters, params=options, why=why)


def hidden_gradient(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """A gradient that is cut, taken inside the defense, or wrong: try what gives another one, then use the best two.

    A defense that declares its parts has these ways in its suite already.
    """
    because = evidence.raised(*HIDDEN)
    if not because or evidence.staged:
        return NOTHING
    if not evidence.trials:
        return because, [
            Step(f"try-{name}", "apgd-margin", "adaptive", "trial", evidence.through(*adapters),
                 {"n_iter": 50}, limit=TRIALS, why=f"{why}; on {TRIALS} images")
            for name, adapters, why in _ways(evidence)
        ]  # fmt: skip
    best = [r.step for r in evidence.trials[:2] if r.broken.any()]
    if evidence.raised("dynamic"):  # the images that hurt the network inside most are tried on the whole in any case
        best += [r.step for r in evidence.trials if r.step.name == f"try-{INNER}" and r.step not in best]
    used = [
        _step(step.name.replace("try-", "best-"), "apgd-margin", step.adapters, step.why.partition(";")[0])
        for step in best
    ]
    return because, [*used, *(_unbounded_again(evidence) if best else ())]


def _unbounded_again(evidence: Evidence) -> list[Step]:
    """The suite's controls once more, through the best way: the first looked at a gradient that is none."""
    controls = (s for s in evidence.results.plan.suite_steps if s.scope == "control")
    return [
        replace(step, name=f"{step.name}-again", adapters=evidence.view, why="with no bound, through the best way")
        for step in controls
    ]


def _ways(evidence: Evidence) -> list[tuple[str, tuple[AdapterSpec, ...], str]]:
    """Name, adapters and reason of each way to see past what hides the gradient."""
    profile = evidence.results.plan.profile
    inner, last, cuts = (
        profile.get("bare_network_at"),
        profile.get("last_network"),
        profile.get("gradient_cut_at") or (),
    )
    ways: list[tuple[str, tuple[AdapterSpec, ...], str]] = []
    if inner:
        ways.append((INNER, (AdapterSpec("inner", {"network": inner}),), f"images made on the network inside, {inner}"))
    shapes = profile.get("gradient_cut_shapes") or {}
    fits = all(shapes.get(path, {}).get("same", True) for path in cuts)
    for substitute, words in SUBSTITUTES.items():
        if last:
            spec = AdapterSpec("front", {"network": last, "substitute": substitute})
            ways.append((f"front-{substitute}", (spec,), f"{words} all before {last}"))
        if cuts and (fits or substitute == "learned"):
            spec = AdapterSpec("bpda", {"modules": ",".join(cuts), "substitute": substitute})
            ways.append((f"bpda-{substitute}", (spec,), f"{words} {', '.join(cuts)}"))
    sigma = evidence.results.plan.threat.eps / 2 if evidence.results.plan.threat.norm == "Linf" else 0.03
    ways.append(("smooth", (AdapterSpec("smooth", {"k": 10, "sigma": sigma}),), "the mean over noisy images"))
    return ways


def noisy_gradient(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """A random defense whose gradient is still mostly noise after the suite's draws: more draws."""
    because = evidence.raised("randomized")
    wanted = min(int(evidence.results.plan.profile.get("draws_for_snr") or 0), MOST_DRAWS)
    if not because or wanted <= DRAWS:
        return NOTHING
    rest = tuple(a for a in evidence.view if a.name != "eot")
    spec = AdapterSpec("eot", {"k": wanted, "estimator": "logits"})
    return because, [_step(f"eot{wanted}-margin", "apgd-margin", (*rest, spec), f"the mean over {wanted} draws")]


def lucky_draws(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """A random defense: steps that no noisy loss shortens, whose momentum averages over the draws of many steps.

    All images, because one that most draws get wrong still counts with those that do not; once more through the mean
    probability, which follows the draws that are still right, where the mean of logits follows those long lost.
    """
    because = evidence.raised("randomized", "declared_stochastic")
    if not because or not evidence.stochastic:
        return NOTHING
    rest = tuple(a for a in evidence.view if a.name != "eot")
    probs = AdapterSpec("eot", {"k": DRAWS, "estimator": "probs"})
    return because, [
        replace(_step("momentum", "mi-fgsm", evidence.through(*rest), "momentum over draws", steps=50), scope="all"),
        _step("momentum-probs", "mi-fgsm", (*rest, probs), "momentum, by the mean probability", steps=100),
    ]


def false_gradient(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """A gradient that is not the slope of the loss: slopes from scores."""
    because = evidence.raised(*ROUGH)
    if not because:
        return NOTHING
    return because, [_step("nes", "nes", evidence.through(), "slopes from scores, over a radius")]


def decisions(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """A defense that optimises at test time, or rounds its logits: decisions alone, which neither hides."""
    because = evidence.raised(*ANSWERS)
    if not because or evidence.stochastic:
        return NOTHING
    step = _step("rays", "rays", (), "decisions alone, end to end", n_queries=1000)
    some = [r for r in evidence.results.steps if r.step.name == "rays-check"]
    if not some:
        return because, [replace(step, name="rays-check", limit=50, why=f"{step.why}; 50 images")]
    return (because, [step]) if gain(some[0], evidence.results) >= MOVED else NOTHING


def outdone_gradient(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """Something that asks for less found more: other directions and more restarts for the gradient."""
    because = evidence.raised(*OUTDONE)
    if not because:
        return NOTHING
    restarts = 2 if evidence.stochastic else 5
    return because, [
        _step("restarts-margin", "apgd-margin", evidence.view, f"{restarts} random starts", n_restarts=restarts),
        _step("a3", "a3", evidence.view, "many directions to start in", restarts=restarts),
    ]


def saturated_loss(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """Cross-entropy that vanishes: Carlini and Wagner's margin, in steps of fixed size."""
    because = evidence.raised(*SATURATED)
    attack = {"L2": "cw-l2"}.get(evidence.results.plan.threat.norm, "pgd-margin")
    return because, [_step(f"more-{attack}", attack, evidence.view, "Carlini and Wagner's margin")] if because else []


def more_steps(evidence: Evidence) -> tuple[list[Diagnosis], list[Step]]:
    """Twice the steps and restarts, on some survivors first and on all where that broke half a point, until it does not."""
    because = evidence.raised(*UNFINISHED)
    doubled = [r for r in evidence.results.steps if r.step.name.startswith(DOUBLED)]
    if not doubled:
        return because, [_doubled(evidence, 1, CHECKED)]
    if not gain(doubled[-1], evidence.results) >= MOVED:
        return NOTHING
    return because, [_doubled(evidence, 1 + sum(r.step.limit is None for r in doubled), None)]


def _doubled(evidence: Evidence, power: int, limit: int | None) -> Step:
    factor = 2**power
    name = f"{DOUBLED}{factor}" + ("-check" if limit else "")
    why = f"{factor} times the steps, {factor} restarts" + (f"; on up to {limit} survivors" if limit else "")
    return Step(
        name, "apgd-margin", "adaptive", adapters=evidence.view,
        params={"n_iter": 100 * factor, "n_restarts": factor}, limit=limit, why=why,
    )  # fmt: skip


EARLY: tuple[Rule, ...] = (saturated_loss, hidden_gradient, noisy_gradient)
RULES: tuple[Rule, ...] = (
    *EARLY,
    lucky_draws,
    false_gradient,
    decisions,
    outdone_gradient,
    more_steps,
)
