"""Steps by transfer: made on the bare network, then judged by the whole defense; beside which steps they go. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from audit.types import BARE, BESIDE, AdapterSpec, Step

BARE_NETWORK = AdapterSpec(BARE)
DEAREST = ("cw-l0", "zoo", "boundary", "hopskipjump")  # tens of thousands of passes an image
SCORES = ("square", "spsa", "nes", "rays", "random-search", "transfer", *DEAREST[1:])  # they ask for no gradient
ENDS_WITH_SUCCESS = ("square", "random-search")  # so of a network that falls to gradients they ask little
AUTOATTACK_SUITES = ("standard", "plus", "rand")  # who types one asks for AutoAttack: whole where possible, and first
AVERAGING = ("eot-pgd",)  # attacks that draw many times by themselves


def three_rows(steps: Iterable[Step], before: Iterable[Step] = ()) -> tuple[Step, ...]:
    """The steps, and behind the first of each attack that no step takes by transfer, here or `before`, one that does.

    It takes all images, so that its figures are its own; but in a suite of AutoAttack, or where it takes a few images
    end to end or asks thousands of queries of each, it takes what no such transfer on all images has taken from the bare
    network so far, and its figures count these, too. BPDA and averages over draws are left out, of which the bare network
    has no need. What follows no gradient comes last, so that end to end it is still told from what does. Images of a
    surrogate are made for neither network.
    """
    steps, before = tuple(steps), tuple(before)
    known = {step.attack for step in (*before, *steps) if step.transfers} | {"transfer"}
    ran = [step.name for step in before if _whole_transfer(step)]
    found, blind = list[Step](), list[Step]()
    for step in steps:
        found.append(step)
        if _whole_transfer(step):
            ran.append(step.name)
        if step.attack in known or step.scope in ("control", "trial"):
            continue
        known.add(step.attack)
        if step.attack in SCORES:
            blind.append(replace(step, late=any(s.late for s in steps)))
        else:
            found.append(_beside(step, ran))
    found.extend(_beside(step, ran) for step in blind)
    return tuple(found)


def _whole_transfer(step: Step) -> bool:
    return step.transfers and step.scope == "all" and step.limit is None


def _beside(step: Step, ran: list[str]) -> Step:
    """A step end to end, by transfer. ran: the transfers on all images before it, which it joins if it is one."""
    own = tuple(adapter for adapter in step.adapters if adapter.name not in ("bpda", "unroll", "eot"))
    after, limit = (tuple(ran), step.limit) if _spared(step) else ((), None)
    params = {**step.params, "eot_iter": 1} if step.attack in AVERAGING else step.params
    name = f"{BESIDE}{step.name}"
    beside = replace(step, name=name, scope="all", adapters=own, params=params, after=after, limit=limit)
    if limit is None:
        ran.append(beside.name)
    return by_transfer(beside)


def _spared(step: Step) -> bool:
    """Is a step by transfer kept from the images that others have taken from the bare network?"""
    if step.attack in ENDS_WITH_SUCCESS:
        return step.suite in AUTOATTACK_SUITES
    few = step.limit is not None or step.suite in AUTOATTACK_SUITES or step.attack in SCORES
    return few and step.scope == "survivors"


def by_transfer(step: Step) -> Step:
    return replace(
        step, adapters=(BARE_NETWORK, *step.adapters), why=f"{step.why}; made on the bare network, then judged whole"
    )
