"""A passive module between an attack and the model: it counts, remembers, and spares work that cannot matter.

The probe sits around the adapted model that an attack sees. It

- counts forward and backward passes of each image;
- keeps, per image, the first in-ball query that fools the model, and the one with the smallest margin, which
  harvests "silent successes" (the attack passed through an adversarial image and did not return it; Pintor et al.
  2022, indicator 3);
- records loss, margin and gradient traces;
- with `stop_early`, retires an image once a query of it is confirmed adversarial: later queries of it are answered
  from memory, and the attack ends when every image is retired. Published attacks run all iterations for a batch
  that is long broken;
- with `replay` (deterministic defenses only), answers a query that equals the image's previous one bit for bit from
  memory, gradient included. Where the gradient is zero, sign(0) = 0 and iterative attacks ask the same question again.

An attack may query any subset of its images in any order. A row belongs to the image around which it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.memory import Memory
from adapters.passes import Passes
from audit.geometry import contains, distance
from audit.margins import margin_loss
from audit.rng import Stream
from audit.types import ThreatModel


class AllBroken(BaseException):
    """Every image is broken: unwinds the attack. Not an Exception, so that no library swallows it."""


class _Replay(torch.autograd.Function):
    """Remembered logits forward; backward asks the probe for the remembered gradient."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, probe: Probe, owner: Tensor) -> Tensor:
        ctx.probe = probe
        ctx.save_for_backward(queries, owner)
        return probe.memory.recall(owner)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        queries, owner = ctx.saved_tensors
        return ctx.probe.replayed_gradient(queries, owner, grads[0]), None, None


class Probe(nn.Module):
    """Wraps `model` for one attack on images x (n, c, h, w) with labels y (n,).

    A model with `takes_labels = True` is called with the labels of the queried images as well (`adapters.eot`).
    confirm: asked with candidates and the indices of their images, answers which are adversarial to the deployed
    defense; called at most once per improvement, only with `stop_early`.
    stream: the defense's own random numbers, used in every forward pass and by nothing else.
    beat: called after every forward pass (a progress display).
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        stream: Stream,
        confirm: Callable[[Tensor, Tensor], Tensor],
        stop_early: bool,
        replay: bool,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.model = model
        self._x, self._y, self._threat = x, y, threat
        self._stream, self._confirm, self._beat = stream, confirm, beat
        self._stop_early, self._replay = stop_early, replay
        self._passes = Passes(model)
        n = len(x)
        self.forwards = torch.zeros(n, dtype=torch.int64)
        self.backwards = torch.zeros(n, dtype=torch.int64)
        self.retired = torch.zeros(n, dtype=torch.bool, device=x.device)
        self.best_margin = torch.full((n,), float("inf"), device=x.device)
        self.first_query, self.fooled = x.clone(), torch.zeros_like(self.retired)
        self.memory = Memory(x)
        self._identity = torch.arange(n, device=x.device)
        self._last_owner = self._identity
        self._loss = torch.full((n,), float("nan"), device=x.device)
        self._margin = torch.full((n,), float("nan"), device=x.device)
        self._norm = torch.full((n,), float("nan"), device=x.device)
        self.trace: list[tuple[float, float, float, float, float]] = []
        self.eval()

    @property
    def best_query(self) -> Tensor:
        """The in-ball query with the smallest margin of each image, or the image itself: (n, c, h, w)."""
        return self.memory.best_query

    def forward(self, queries: Tensor) -> Tensor:
        rows = queries.detach()
        owner, inside, sure = self._locate(rows)
        skip = self.retired[owner] & sure if self._stop_early else torch.zeros_like(inside)
        same = self.memory.knows(rows, owner) & ~skip if self._replay else torch.zeros_like(skip)
        live = ~(skip | same)
        logits = self._answer(queries, owner, skip, same, live)
        self._observe(rows, logits.detach(), owner, inside, live)
        self._beat()
        return logits

    # --- which image does a row belong to

    def _locate(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The image of each row, whether the row lies in that image's ball and box, and whether the owner is sure."""
        guesses = [self._identity] if len(rows) == len(self._x) else []
        if len(self._last_owner) == len(rows):
            guesses.append(self._last_owner)
        for guess in guesses:
            inside = contains(rows, self._x[guess], self._threat)
            if bool(inside.all()) and (guess is self._identity or bool(self._nearest(rows, guess).all())):
                self._last_owner = guess
                return guess, inside, inside
        owner = torch.cdist(rows.flatten(1).float(), self._x.flatten(1)).argmin(1)
        self._last_owner = owner
        sure = self._nearest(rows, owner)
        return owner, contains(rows, self._x[owner], self._threat) & sure, sure

    def _nearest(self, rows: Tensor, owner: Tensor) -> Tensor:
        """Which rows are provably nearest to their owner: closer than half way to the next image. bool (m,)."""
        return distance(rows, self._x[owner], self._threat.norm) < self._half_way[owner]

    @cached_property
    def _half_way(self) -> Tensor:
        """Half the distance from each image to the nearest other one, in the norm of the ball, less rounding: (n,)."""
        power = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0, "L0": 0.0}[self._threat.norm]
        gaps = torch.cdist(self._x.flatten(1), self._x.flatten(1), p=power).fill_diagonal_(float("inf"))
        return gaps.amin(1) * 0.4999 - 1e-5

    # --- answering

    def _answer(self, queries: Tensor, owner: Tensor, skip: Tensor, same: Tensor, live: Tensor) -> Tensor:
        if bool(live.all()):
            return self._query(queries, owner)
        logits = self.memory.recall(owner)
        # The zero term keeps the result attached to the graph even when nothing is computed.
        logits = logits + 0 * queries.flatten(1)[:, :1].to(logits.dtype)
        for mask, answer in ((live, self._query), (same, self._remembered)):
            index = mask.nonzero().flatten()
            if len(index):
                logits = logits.index_copy(0, index, answer(queries[index], owner[index]))
        return logits

    def _remembered(self, queries: Tensor, owner: Tensor) -> Tensor:
        replayed: Tensor = _Replay.apply(queries, self, owner)
        return replayed

    def _query(self, queries: Tensor, owner: Tensor) -> Tensor:
        watched = torch.is_grad_enabled() and queries.requires_grad
        if watched:
            queries = queries.view_as(queries)  # hooks on a leaf of the attack would stay there
        labels = (self._y[owner],) if getattr(self.model, "takes_labels", False) else ()
        with self._stream:
            logits: Tensor = self.model(queries, *labels)
        self.forwards += self._passes.each * torch.bincount(owner, minlength=len(self._x)).cpu()
        self.forwards += self._passes.shared(len(self._x))
        self.memory.store(queries.detach(), logits.detach(), owner)
        if watched and logits.requires_grad:
            rows = queries.detach().clone()
            logits.register_hook(lambda grad: self.memory.store_upstream(grad.detach(), rows, owner))
            queries.register_hook(lambda grad: self._differentiated(grad.detach(), rows, owner))
        return logits

    def _differentiated(self, gradient: Tensor, rows: Tensor, owner: Tensor) -> None:
        self.backwards += self._passes.each * torch.bincount(owner, minlength=len(self._x)).cpu()
        # A gradient that is no number moves nothing; as NaN it would read as "none asked for yet".
        norm = gradient.flatten(1).norm(dim=1).float().nan_to_num(0.0, posinf=float("inf"))
        self._norm[owner] = self._unless_fooled(norm, owner)
        self.memory.store_gradient(gradient, rows, owner)

    def replayed_gradient(self, queries: Tensor, owner: Tensor, upstream: Tensor) -> Tensor:
        """The gradient of remembered queries (m, c, h, w) for `upstream` (m, k), computed only where it is new."""
        answer, missing = self.memory.gradient(queries, owner, upstream)
        fresh = missing.nonzero().flatten()
        if len(fresh):
            again = queries[fresh].detach().requires_grad_()
            with torch.enable_grad():
                answer[fresh] = torch.autograd.grad(self._query(again, owner[fresh]), again, upstream[fresh])[0]
        still = owner[(upstream == 0).all(1)]
        self._norm[still] = self._unless_fooled(torch.zeros_like(self._norm[still]), still)
        return answer

    def _unless_fooled(self, norm: Tensor, owner: Tensor) -> Tensor:
        """NaN in place of a zero gradient at a query that is misclassified: there are losses that have no more to ask then."""
        return torch.where((norm == 0) & (self._margin[owner] < 0), torch.nan, norm)

    # --- watching

    def _observe(self, rows: Tensor, logits: Tensor, owner: Tensor, inside: Tensor, live: Tensor) -> None:
        rows, logits, owner, inside = rows[live], logits[live], owner[live], inside[live]
        y = self._y[owner]
        margin = -margin_loss(logits, y).float()
        wrong = logits.argmax(1) != y
        # A tie of logits can be misclassified at margin 0; the sign must say "wrong".
        margin = torch.where(wrong, margin.clamp(max=-1e-30), margin)
        self._margin[owner] = margin
        self._loss[owner] = F.cross_entropy(logits, y, reduction="none").float()
        better = inside & (margin < self.best_margin[owner])  # false for NaN
        index = _lowest_per_owner(owner, margin, better.nonzero().flatten())
        who = owner[index]
        self.memory.store_best(rows[index], logits[index], who)
        self._remember_first(rows[index], who, wrong[index])
        self.best_margin[who] = margin[index]
        self._record()
        if self._stop_early:
            self._retire(who[wrong[index] & ~self.retired[who]])

    def _remember_first(self, rows: Tensor, who: Tensor, wrong: Tensor) -> None:
        """Keep each image's first in-ball query that fools the model: the one that a cascade of attacks returns."""
        new = wrong & ~self.fooled[who]
        self.first_query[who[new]] = rows[new].to(self.first_query.dtype)
        self.fooled[who[new]] = True

    def _retire(self, who: Tensor) -> None:
        if len(who):
            self.forwards[who.cpu()] += 1
            self.retired[who] = self._confirm(self.best_query[who], who)
        if bool(self.retired.all()):
            raise AllBroken

    def _record(self) -> None:
        norm = self._norm[~self._norm.isnan()]
        zero = float((norm == 0).float().mean()) if len(norm) else float("nan")
        median = float(norm.median()) if len(norm) else float("nan")
        broken = float((self.best_margin < 0).float().mean())
        self.trace.append((float(self._loss.nanmean()), float(self._margin.nanmean()), broken, zero, median))


def _lowest_per_owner(owner: Tensor, margin: Tensor, index: Tensor) -> Tensor:
    """Of the rows `index`, the one with the lowest margin for each owner."""
    if len(index) < 2:
        return index
    order = index[torch.argsort(margin[index], stable=True)]
    _, first = np.unique(owner[order].cpu().numpy(), return_index=True)
    return order[torch.from_numpy(first).to(order.device)]
