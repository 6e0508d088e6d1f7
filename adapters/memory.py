"""What a deterministic model has answered already: one slot per image for its last question, one for its best."""

from __future__ import annotations

import torch
from torch import Tensor


class Memory:
    """Questions and answers about images x (n, c, h, w): logits, and the gradient for the upstream it was asked with.

    `owner` (m,) tells which image each row of a batch belongs to. An answer is given only to a row that equals the
    remembered question bit for bit; a batch that asks several questions about one image is not remembered.
    """

    def __init__(self, x: Tensor) -> None:
        n = len(x)
        self._query, self._known = x.clone(), torch.zeros(n, dtype=torch.bool, device=x.device)
        self._gradient, self._gradient_known = torch.zeros_like(x), torch.zeros_like(self._known)
        self.best_query, self._best_known = x.clone(), torch.zeros_like(self._known)
        self._logits: Tensor | None = None  # their number and type are known after the first answer
        self._best_logits = self._upstream = torch.zeros(0)

    def recall(self, owner: Tensor) -> Tensor:
        """The last logits (m, k) of each row's image."""
        assert self._logits is not None
        return self._logits[owner]

    def knows(self, rows: Tensor, owner: Tensor) -> Tensor:
        """Which rows ask their image's last question, or its best one, again: bool (m,).

        Random search proposes its best point whenever a patch already has the drawn sign. That answer is moved to the
        slot of the last question, from which `recall` speaks.
        """
        if self._logits is None or _repeats(owner):
            return torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        last = self._known[owner] & self._holds(rows, owner)
        best = self._best_known[owner] & ~last & (rows == self.best_query[owner]).flatten(1).all(1)
        who = owner[best]
        self._logits[who], self._query[who] = self._best_logits[who], self.best_query[who]
        self._known[who], self._gradient_known[who] = True, False
        return last | best

    def _holds(self, rows: Tensor, owner: Tensor) -> Tensor:
        """Where the slot still holds these very rows. A backward pass may come after a later question."""
        return (rows == self._query[owner]).flatten(1).all(1)

    def store(self, rows: Tensor, logits: Tensor, owner: Tensor) -> None:
        """Remember an answer as the last one."""
        if self._logits is None:
            self._logits = logits.new_zeros(len(self._query), logits.shape[1])
            self._upstream, self._best_logits = torch.zeros_like(self._logits), torch.zeros_like(self._logits)
        self._logits[owner] = logits
        self._query[owner] = rows.to(self._query.dtype)
        self._known[owner] = not _repeats(owner)
        self._gradient_known[owner] = False

    def store_best(self, rows: Tensor, logits: Tensor, owner: Tensor) -> None:
        """Remember an answer as the best one; one row per image."""
        self.best_query[owner] = rows.to(self.best_query.dtype)
        self._best_logits[owner], self._best_known[owner] = logits, True

    def store_upstream(self, gradient: Tensor, rows: Tensor, owner: Tensor) -> None:
        """Remember what the logits of `rows` were differentiated with."""
        held = self._holds(rows, owner)
        self._upstream[owner[held]] = gradient[held]

    def store_gradient(self, gradient: Tensor, rows: Tensor, owner: Tensor) -> None:
        """Remember the gradient that reached `rows`."""
        held = self._holds(rows, owner)
        self._gradient[owner[held]] = gradient[held]
        self._gradient_known[owner[held]] = self._known[owner[held]]

    def gradient(self, rows: Tensor, owner: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of remembered rows for `upstream` (m, k), and which rows have none yet: bool (m,).

        Where upstream is zero so is the gradient, whatever the model.
        """
        answer = torch.zeros_like(rows)
        same = (upstream == self._upstream[owner]).all(1)
        known = self._gradient_known[owner] & same & self._holds(rows, owner)
        answer[known] = self._gradient[owner[known]]
        return answer, (upstream != 0).any(1) & ~known


def _repeats(owner: Tensor) -> bool:
    return len(owner) != len(torch.unique(owner))
