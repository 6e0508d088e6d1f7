"""What a suite becomes for the defense at hand: steps in, steps out, as data.

A defense with a test-time part is attacked along two routes. *By transfer*: images are made against the bare network
and then judged by the whole defense; that is how the papers measure, so the claimed steps take it. *End to end*: the
attack sees the whole defense, through BPDA where a part has no useful gradient, and through EOT where it is random.
Every attack that goes end to end also goes by transfer, so that each family has its three rows (`audit.routes`).
The suites that carry AutoAttack's name run its parts end to end first, so that what these leave is AutoAttack's figure,
and behind them what a test-time part asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from audit.transfers import AUTOATTACK_SUITES, AVERAGING, BARE_NETWORK, DEAREST, SCORES, by_transfer, three_rows
from audit.types import BESIDE, AdapterSpec, Step

STRAIGHT_THROUGH = AdapterSpec("bpda", {"modules": "purifier", "substitute": "identity"})
UNROLLED = AdapterSpec("unroll", {"temperature": 1.0})
DRAWS = 10  # half of what AutoAttack's version for random defenses takes, so that minutes on two cores suffice
AVERAGED = AdapterSpec("eot", {"k": DRAWS, "estimator": "logits"})
AVERAGED_SCORES = AdapterSpec("eot", {"k": 5, "estimator": "logits"})
LEAST_NORM = ("fmn", "ddn", "deepfool", "cw-l2", "cw-linf")
TOO_DEAR_WITH_EOT = ("float64-ce", "apgd-t", "fab", "fab-t", "fwa", "spsa", "nes", "rays", *LEAST_NORM, *DEAREST)
TOO_DEAR_WITH_PURIFIER = ("float64-ce", "fab", "fab-t", *DEAREST)  # a pass costs two or three of the bare network
EOT_PGD = Step("eot-pgd", "eot-pgd", "full", why="PGD along the mean gradient of ten draws")
FEWER_QUERIES = 1000
FEW = 5  # images, where each takes as long as a hundred elsewhere
GRADIENT_FREE = (
    Step("nes", "nes", "adaptive", why="gradients from scores alone, by normal draws"),
    Step("random-search", "random-search", "adaptive", why="1,000 random corners of the ball"),
    Step("rays", "rays", "adaptive", params={"n_queries": 2000}, why="decisions alone: the ray that leaves the class first"),
    Step("hopskipjump", "hopskipjump", "adaptive", limit=20, params={"queries": 5000},
         why="decisions alone, along the boundary; 20 images"),
)  # fmt: skip
NOT_UNROLLED = (
    "step unroll-margin is left out: the purifier has no method unrolled(temperature), a smooth version of itself"
)
SQUARE = Step(  # not called "square": suites quick and rand, which it joins, are not to uphold a defense by it (`audit.diagnoses`)
    f"square-{FEWER_QUERIES}", "square", "adaptive", params={"n_queries": FEWER_QUERIES, "rescale": 1}, late=True,
    why=f"no gradient at all, {FEWER_QUERIES:,} queries: the part in front may hide it",
)  # fmt: skip
DEAR = 50  # iterations above which a claimed attack is not repeated end to end through EOT on every image


@dataclass(frozen=True, slots=True)
class Nature:
    """What the rules need to know. staged: it has a purifier before a bare network; blind: its gradient is useless.

    unrolls: a blind purifier offers a differentiable version of itself.
    """

    staged: bool = False
    stochastic: bool = False
    blind: bool = False
    unrolls: bool = True

    @property
    def images(self) -> int | None:
        """How many images to audit unless told: so many that two cores need minutes. None: all there are."""
        return 100 if self.stochastic else 200 if self.blind else None

    @classmethod
    def of(
        cls, traits: Iterable[str], *, staged: bool, drift: float, cut: bool = False, unrolls: bool = True
    ) -> Nature:
        """drift: the largest change of normalised logits between passes; above 1e-4 the defense is random, said or not.

        cut: no gradient leads from the logits to the images; then it is not differentiable, said or not.
        """
        named = set(traits)
        blind = staged and (cut or bool(named & {"nondifferentiable", "test_time_optimisation"}))
        return cls(staged, "stochastic" in named or drift > 1e-4, blind, unrolls or not blind)


def fit(steps: Iterable[Step], nature: Nature) -> tuple[Step, ...]:
    """The steps for a defense of this nature, cheap to dear; unchanged for a plain network."""
    steps = tuple(steps)
    claimed = [s for s in steps if s.suite == "claimed"]
    others = [s for s in _with_eot_pgd(steps, nature) if s.suite != "claimed"]
    whole = [_end_to_end(_shortened(s, nature), nature) for s in others if not _too_dear(s, nature)]
    as_claimed = [by_transfer(s) for s in claimed] if nature.staged else claimed
    if not whole or nature == Nature():
        return (*as_claimed, *whole)
    named = any(step.suite in AUTOATTACK_SUITES for step in whole)
    again = tuple(_again(claimed, nature))
    unrolled = tuple(_unrolled(nature))
    extra = (*_transfers(whole), *unrolled) if nature.staged and (unrolled or not named) else ()
    square = (SQUARE,) if nature.blind and "square" not in {step.attack for step in (*again, *whole)} else ()
    few = tuple(_few(claimed, (*again, *whole, *square), nature))
    late = next((i for i, step in enumerate(whole) if step.late), len(whole))
    if not nature.staged:
        return (*as_claimed, *again, *whole[:late], *few, *whole[late:])
    if not named:
        return three_rows((*as_claimed, *again, *extra, *whole[:late], *few, *whole[late:], *square))
    first = (*as_claimed, *again, *whole)
    rows = (*first, *(step for step in three_rows(first) if step not in first))
    return (*rows, *three_rows((*extra, *square, *few), rows))


def _with_eot_pgd(steps: tuple[Step, ...], nature: Nature) -> tuple[Step, ...]:
    """Suite full's steps of a random defense: EOT-PGD comes before what attacks survivors. Of a plain one it is PGD."""
    first = next((i for i, s in enumerate(steps) if s.suite == "full" and s.scope == "survivors"), None)
    return steps if first is None or not nature.stochastic else (*steps[:first], EOT_PGD, *steps[first:])


def answered(steps: Iterable[Step], answers: str) -> tuple[Step, ...]:
    """The steps, and where the model has no gradient those that ask for none; claimed attacks and AutoAttack stay alone.

    answers: "gradient", "scores" or "decision".
    """
    steps = tuple(steps)
    if answers == "gradient" or all(step.suite in ("claimed", *AUTOATTACK_SUITES) for step in steps):
        return steps
    steps = tuple(step for step in steps if step.attack != "random-search" or step.limit is None)  # more of it follows
    there = {step.attack for step in steps}
    return (*steps, *(step for step in GRADIENT_FREE if step.attack not in there))


def omitted(steps: Iterable[Step], nature: Nature) -> list[str]:
    """A sentence for each step that `fit` drops because it costs too much or cannot be."""
    through = "averaged draws" if nature.stochastic else "a purifier"
    dear = [f"step {s.name} is left out: too dear through {through}" for s in steps if _too_dear(s, nature)]
    return dear if nature.unrolls else [*dear, NOT_UNROLLED]


def _too_dear(step: Step, nature: Nature) -> bool:
    if step.suite == "claimed":
        return False
    if nature.stochastic:
        return step.name in TOO_DEAR_WITH_EOT
    return nature.blind and step.suite not in AUTOATTACK_SUITES and step.name in TOO_DEAR_WITH_PURIFIER


def _shortened(step: Step, nature: Nature) -> Step:
    """A suite's Square with fewer queries where passes are dear; AutoAttack keeps its own but for random defenses."""
    dear = nature.stochastic or (nature.blind and step.suite not in AUTOATTACK_SUITES)
    if step.attack != "square" or not dear:
        return step
    fewer = {**step.params, "n_queries": FEWER_QUERIES, "rescale": 1}
    return replace(step, params=fewer, why=f"{step.why}, {FEWER_QUERIES:,} queries")


def _end_to_end(step: Step, nature: Nature) -> Step:
    """The step through what makes the whole defense attackable: BPDA innermost, EOT outermost and once."""
    scores = step.attack in SCORES
    first = (STRAIGHT_THROUGH,) if nature.blind and not scores else ()
    # An average of averages would cost k times k.
    averaged = step.attack in AVERAGING or any(adapter.name == "eot" for adapter in step.adapters)
    last = (AVERAGED_SCORES if scores else AVERAGED,) if nature.stochastic and not averaged else ()
    return replace(step, adapters=(*first, *step.adapters, *last))


def _again(claimed: Iterable[Step], nature: Nature) -> Iterator[Step]:
    """Each claimed attack once more, on the whole defense; of one attack at several lengths, the first.

    The targeted attack takes nine times as long as the others, and so do the later parts of AutoAttack, which are for
    what the first leaves: where no suite has them, they come again on a few survivors (`_few`).
    """
    done = {"apgd-t", "transfer"}  # images of a surrogate depend on nothing that is seen
    for step in claimed:
        if step.after:
            continue
        length = max(int(step.params.get(option, 1)) for option in ("steps", "n_iter"))
        if step.attack not in done and not (nature.stochastic and length > DEAR):
            done.add(step.attack)
            seen = replace(step, name=f"e2e-{step.name}", suite="adaptive", why="the claimed attack, end to end")
            yield _end_to_end(seen, nature)


def _few(claimed: Iterable[Step], whole: Iterable[Step], nature: Nature) -> Iterator[Step]:
    """Of each claimed attack that no step takes end to end because it is dear, one that does, on a few survivors."""
    done = {step.attack for step in whole} | {"transfer"}
    for step in claimed:
        if step.attack not in done:
            done.add(step.attack)
            why = f"the claimed attack, end to end, on {FEW} of the images that are left"
            few = replace(
                step, name=f"e2e-{step.name}", suite="adaptive", scope="survivors", limit=FEW, after=(), why=why
            )
            yield _end_to_end(few, nature)


def _transfers(whole: Iterable[Step]) -> tuple[Step, ...]:
    """The margin attack by transfer, as long as the suite's own."""
    why = "images of lowest margin on the bare network, each tried on the whole defense"
    params = next((step.params for step in whole if step.attack == "apgd-margin"), {})
    return (Step(f"{BESIDE}apgd-margin", "apgd-margin", "adaptive", "all", (BARE_NETWORK,), params, why=why),)


def _unrolled(nature: Nature) -> tuple[Step, ...]:
    if not (nature.blind and nature.unrolls):
        return ()
    why = "through the purification itself, its sign made smooth"
    last = (AVERAGED,) if nature.stochastic else ()
    return (Step("unroll-margin", "apgd-margin", "adaptive", adapters=(UNROLLED, *last), why=why),)
