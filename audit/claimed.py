"""From the attack that a claim names to the steps that run it. Attacks are loaded to learn their options and norms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

from audit import registry
from audit.claim_lines import LENGTHS, lines, obstacle, passed_over, timed
from audit.errors import BadInput, UnknownName, Unsupported
from audit.papers import PaperClaim
from audit.registry import closest
from audit.rules import EOT_PGD
from audit.suites import CLAIMED_BY, CLAIMED_STEPS, SUITES, standard, steps_for
from audit.types import Step

UNNAMED = "unnamed"
AUTOATTACK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("apgd-ce", {"n_iter": 100}), ("apgd-t", {}), ("fab-t", {}), ("square", {}),
)  # fmt: skip
STEP_SIZE = 0.1  # of eps; super-fitting, Sec. 4. Where a paper prints none, a note of its table says so (`tables.csv`)
STAND_IN = "the suite's own claimed attacks stand in, and their figure is no printed claim's"
STEP_SIZES = {"co_noise": 0.125}  # 2/255 at 16/255, of a public re-implementation: the paper prints none
FEW = {step.attack: step for step in SUITES["full"].steps if step.limit and step.scope != "control"}
TAKEN = {step.name for suite in SUITES.values() for step in suite.steps if step.suite != "claimed"} | {EOT_PGD.name}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The steps of a run, and a sentence for each attack of a claim that none of them runs."""

    steps: tuple[Step, ...]
    left_out: tuple[str, ...] = ()


def choose(
    suite: str, defense: str, dataset: str, norm: str, *, attack: str = UNNAMED, line: PaperClaim | None = None
) -> Chosen:
    """The steps of a suite, with what the claim under audit asks for.

    A line of a paper replaces the suite's claimed steps by its own attack; a typed attack joins them. Suite "claimed"
    of a defense that printed claims speak of runs all that those for this data set name, or for any if none is for it;
    where none of these attacks can run, what the suite has; dear ones run on few images, beside the claimed. AutoAttack is its four parts, each on what those before it
    left. The other suites keep the claimed steps of `audit.suites`, of AutoAttack at most two parts: time matters there.
    Raises UnknownName, BadInput, Unsupported when suite "claimed" has no attack for the norm, and what loading an
    attack raises.
    """
    steps = steps_for(suite, defense, norm)
    claimed = tuple(step for step in steps if step.suite == "claimed")
    few, left_out = tuple[Step, ...](), tuple[str, ...]()
    if line is not None:
        runnable(line)
        claimed = tuple(_steps(line.attack, line.params, defense, norm))
    elif suite == "claimed":
        named, few, left_out = _named(defense, dataset, norm)
        if not named and (few or left_out):
            left_out = (
                *left_out,
                f"no printed claim on {defense} names an attack for every image under {norm}: {STAND_IN}",
            )
        claimed = named or _fitting(claimed, defense, norm, joined=attack != UNNAMED or bool(few))
    if attack != UNNAMED:
        claimed = _joined(claimed, _under(norm, attack, typed(attack, defense, norm)))
    return Chosen((*claimed, *few, *(step for step in steps if step.suite != "claimed")), left_out)


def _under(norm: str, text: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps of a typed attack. Raises Unsupported when one of them does not support the norm."""
    for step in steps:
        norms = registry.attacks.load(step.attack).norms
        if norm not in norms:
            raise Unsupported(
                f"--claim-attack {text} is for {', '.join(norms)}, this run for {norm}; type --norm {norms[0]}, or another "
                "--claim-attack"
            )
    return steps


def typed(text: str, defense: str, norm: str = "Linf") -> tuple[Step, ...]:
    """The steps of an attack typed by hand: a claimed step's name, an attack, or attack-length as `pgd-100`.

    norm: AutoAttack's parts differ under L1.

    Raises UnknownName for no such attack, BadInput for a length where it has none, MissingDependency.
    """
    named = {step.name: step for step in (*CLAIMED_STEPS, *CLAIMED_BY.get(defense, ()))}
    if text in named:
        return (named[text],)
    if text in ("aa", "autoattack"):
        return tuple(_steps("autoattack", {}, defense, norm))
    known = registry.attacks.names()
    found = re.fullmatch(r"(.+)-([1-9]\d*)", text)
    if text in known or found is None or found[1] not in known:
        if text not in known:
            hint = _meant(re.sub(r"-\d+$", "", text), [*known, "autoattack"])
            raise UnknownName(f"--claim-attack names attack {text!r}: {hint} A length follows a dash, as in pgd-100")
        return tuple(_steps(text, {}, defense))
    options = registry.attacks.load(found[1]).defaults
    length = next((name for name in LENGTHS if name in options), None)
    if length is None:
        raise BadInput(f"--claim-attack is {text!r}, but {found[1]} has no length; type --claim-attack {found[1]}")
    return tuple(_steps(found[1], {length: int(found[2])}, defense))


def _meant(stem: str, known: list[str]) -> str:
    """The hint for an attack that is none: those that its name begins, else the nearest."""
    kin = [name for name in known if name.startswith(f"{stem}-")]
    return f"did you mean {' or '.join(map(repr, kin))}?" if kin and stem not in known else closest(stem, known)


def _named(defense: str, dataset: str, norm: str) -> tuple[tuple[Step, ...], tuple[Step, ...], tuple[str, ...]]:
    """The steps of all attacks that printed claims name, short ones first; the dear ones; why others are left out."""
    steps, few = tuple[Step, ...](), tuple[Step, ...]()
    said: dict[tuple[str, str], str] = {}  # of one attack that cannot run for one reason, the first line
    for line in lines(defense, dataset):
        if not timed(line) and any(step.attack == line.attack and not step.after for step in steps):
            continue  # its length is not printed, and others print theirs
        found = obstacle(line, norm)
        if found:
            said.setdefault((line.attack, found), f"the attack of claim {line.id} is left out: {found}")
        elif line.attack in FEW:
            few = _joined(few, [_on_few(line)])
        else:
            steps = _joined(steps, _steps(line.attack, line.params, defense, norm))
    return tuple(sorted(steps, key=_length)), few, (*said.values(), *passed_over(defense, dataset))


def _on_few(line: PaperClaim) -> Step:
    """Suite full's images for a dear attack, with the claim's options and else the attack's own, not that suite's short ones.

    It is no claimed step: those attack every image.
    """
    step, usual = FEW[line.attack], registry.attacks.load(line.attack).defaults
    why = f"named by claim {line.id}; too dear for every image: {step.limit} of them, for the worst case alone"
    return replace(step, params={**{option: usual[option] for option in step.params}, **line.params}, why=why)


def _fitting(claimed: tuple[Step, ...], defense: str, norm: str, *, joined: bool) -> tuple[Step, ...]:
    """The steps, some of which support the norm; Unsupported otherwise, unless a typed attack is to join them."""
    norms = sorted({known for step in claimed for known in registry.attacks.load(step.attack).norms})
    if norm in norms or joined:
        return claimed
    raise Unsupported(
        f"the claims on {defense} name no attack that runs under {norm}, this suite's are for {', '.join(norms)}; type "
        f"--norm {norms[0]}, or --suite adaptive --norm {norm}"
    )


def runnable(line: PaperClaim) -> None:
    """Raise BadInput when the attack of a line cannot run here."""
    found = obstacle(line, line.norm)
    if found:
        raise BadInput(
            f"claim {line.id} cannot be audited ({found}), expected an attack of `list attacks`; to hold the defense to "
            f"its number all the same type --claim-robust {line.value}"
        )


def by_hand(line: PaperClaim, defense: str) -> str:
    """What to type to hold a run of `defense` to a line's number, under the line's attack where it can run."""
    robust = f"--claim-robust {line.value}"
    return robust if obstacle(line, line.norm) else f"{robust} {attack_by_hand(line, defense)}"


def attack_by_hand(line: PaperClaim, defense: str) -> str:
    """What to type for the attack of a line that can run."""
    usual = typed(line.label, defense)
    said = [f"--claim-attack {line.label}"]
    if line.attack != "autoattack":
        known = {**registry.attacks.load(line.attack).defaults, **usual[0].params}
        said += [f"--set {usual[0].name}.{o}={v}" for o, v in line.params.items() if known[o] != v]
    return " ".join(said)


def _steps(attack: str, params: Mapping[str, Any], defense: str, norm: str = "Linf") -> Iterator[Step]:
    if attack == "autoattack":
        before: tuple[str, ...] = ()
        for number, (part, own) in enumerate(AUTOATTACK, 1):
            for step in _steps(part, {**own, **standard(part, norm)}, defense):
                whole = f"AutoAttack {number} of {len(AUTOATTACK)}"
                yield replace(step, after=before, why=f"{whole}, on what is left") if before else step
                before = (*before, step.name)
        return
    if "rel_stepsize" in registry.attacks.load(attack).defaults:
        params = {"rel_stepsize": STEP_SIZES.get(defense, STEP_SIZE), **params}
    shipped = (*CLAIMED_BY.get(defense, ()), *CLAIMED_STEPS)
    same = next((step for step in shipped if step.attack == attack and step.params == params), None)
    if same is not None:
        yield same
        return
    length = next((params[name] for name in LENGTHS if name in params), None)
    name = attack if length is None else f"{attack}-{length}"
    name = f"claimed-{name}" if name in TAKEN else name
    yield Step(name, attack, "claimed", "all", params=dict(params), why="named by the claim")


def _joined(steps: tuple[Step, ...], more: Iterable[Step]) -> tuple[Step, ...]:
    """Steps, and those of `more` that are not among them; of two with one name the second is numbered.

    An attack that is a part of AutoAttack and claimed by itself too runs by itself, on every image, and says so.
    """
    names: dict[str, str] = {}
    for step in more:
        same = next((old for old in steps if _whole(old) == _whole(step)), None)
        if same is not None:
            names[step.name] = same.name
            alone = same if step.after or not same.after else replace(same, after=(), why=step.why)
            steps = tuple(alone if old is same else old for old in steps)
            continue
        taken = {old.name for old in steps}
        free = (name for name in chain([step.name], (f"{step.name}-{n}" for n in count(2))) if name not in taken)
        names[step.name] = next(free)
        after = tuple(names.get(part, part) for part in step.after)
        steps = (*steps, replace(step, name=names[step.name], after=after))
    return steps


def _whole(step: Step) -> tuple[str, dict[str, Any]]:
    return step.attack, {**registry.attacks.load(step.attack).defaults, **step.params}


def _length(step: Step) -> tuple[int, int]:
    """What to run first: one step, then by length and in the usual order; attacks that set their own length last."""
    usual = [known.attack for known in CLAIMED_STEPS]
    given = [int(step.params[name]) for name in LENGTHS if name in step.params]
    length = given[0] if given else 1 if step.attack == "fgsm" else 1_000_000
    return length, usual.index(step.attack) if step.attack in usual else len(usual)
