"""How many passes does the adaptive suite save? Printed, not asserted: `make bench`, or `python -m tests.benchmark -n 200`.

Left: the audit's own adaptive suite on the embedded data. Right: the same attacks with the same parameters, each run
by its library on all the images, as a user without this tool would. Both count forward and backward passes of single
images; both are timed side by side on this machine, so only the ratio means anything.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from audit import execution, preparation, registry, runner
from audit.gates import adapt
from audit.types import ThreatModel


class Counter(nn.Module):
    """Counts the single-image passes through `model`, and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)
            x.register_hook(self._count)
        logits: Tensor = self.model(x)
        return logits

    def _count(self, grad: Tensor) -> None:
        self.backwards += len(grad)


def libraries(prepared: preparation.Prepared) -> list[tuple[str, int, float]]:
    """Passes and seconds of every step's attack, run by its library on all the images."""
    rows = []
    target, plan = prepared.target, prepared.plan
    for step in plan.steps:
        threat = plan.threat if step.eps is None else ThreatModel(plan.threat.norm, step.eps)
        counter, started = Counter(adapt(target.model, step.adapters)), time.perf_counter()
        attack = registry.attacks.load(step.attack)
        images, labels = target.x[: step.limit], target.y[: step.limit]
        for x, y in zip(images.split(plan.shard_size), labels.split(plan.shard_size), strict=True):
            attack(counter, x, y, threat, seed=plan.seed, **step.params)
        rows.append((step.name, counter.forwards + counter.backwards, time.perf_counter() - started))
        print(f"  library {step.name:12} {rows[-1][1]:>10,} passes {rows[-1][2]:8.1f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="images (default: all 1,000)")
    parser.add_argument("--eps", default="8/255")
    options = parser.parse_args()
    prepared = preparation.prepare("super_fitting", suite="adaptive", n=options.n, eps=options.eps)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        audit = execution.execute(prepared, Path(folder) / "run", runner.Silent())
        ours_seconds = time.perf_counter() - started
        totals = audit.to_dict()["totals"]
    ours = totals["forwards"] + totals["backwards"]
    for result in audit.results.steps:
        print(
            f"  audit   {result.step.name:12} {result.forwards + result.backwards:>10,} passes {result.seconds:8.1f} s"
        )
    theirs = libraries(prepared)
    passes, seconds = sum(p for _, p, _ in theirs), sum(s for *_, s in theirs)
    print(f"n = {options.n}, eps {options.eps}, adaptive accuracy {audit.adaptive}")
    print(f"audit     {ours:>12,} passes {ours_seconds:8.1f} s")
    print(f"libraries {passes:>12,} passes {seconds:8.1f} s")
    print(f"ratio     {ours / passes:>12.3f} passes {ours_seconds / seconds:8.3f} wall clock")


if __name__ == "__main__":
    main()
