"""Features of clean and adversarial images: a map of them in two dimensions, and what moves in which channel."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
FEWEST = 8  # points below which a map says nothing


def flat(points: Floats, seed: int) -> tuple[Floats, str]:
    """Points (k, d) in two dimensions (k, 2), and the method: "t-SNE", or "PCA" where scikit-learn is not installed.

    t-SNE: van der Maaten and Hinton 2008, on the first 50 principal components, from the first two.
    """
    main = principal(points, 50)
    if find_spec("sklearn") is None:
        return main[:, :2], "PCA"
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    size = float(main[:, 0].std()) or 1.0  # a start of deviation 1e-4 is what the method expects
    tsne = TSNE(
        perplexity=min(30.0, (len(points) - 1) / 3), init=(main[:, :2] / size * 1e-4).astype(np.float32),
        learning_rate="auto", max_iter=500, random_state=seed,
    )  # fmt: skip
    with threadpool_limits(1):  # so few points only wait for one another on a busy machine
        return np.asarray(tsne.fit_transform(main.astype(np.float32)), np.float64), "t-SNE"


def principal(points: Floats, most: int) -> Floats:
    """The coordinates of points (k, d) along their first components: (k, at least 2, at most `most`)."""
    centred = points - points.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    found: Floats = (left * sizes)[:, :most]
    return found if found.shape[1] > 1 else np.pad(found, ((0, 0), (0, 1)))


def strangers(
    clean: Floats, labels: NDArray[np.int64], adversarial: Floats, own: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which adversarial points (a, d) of classes `own` (a,) lie nearest to a clean point of another class: bool (a,).

    clean: (k, d) with labels (k,). Distances are Euclidean, in the features and not in their map.
    """
    squares = (adversarial**2).sum(1)[:, None] + (clean**2).sum(1)[None] - 2 * adversarial @ clean.T
    found: NDArray[np.bool_] = labels[squares.argmin(1)] != own
    return found


def moved(before: Tensor, after: Tensor) -> NDArray[np.float64]:
    """Mean |difference| of each channel of maps (n, N, h, w), over images and positions: float64 (N,).

    The paper's Fig. 3 has the tanh of a sum of squares (`defenses.co_noise.activations.t_act`), which grows with the
    number of images; a plain mean is comparable between runs.
    """
    found: NDArray[np.float64] = (after.double() - before.double()).abs().mean((0, 2, 3)).cpu().numpy()
    return found


def as_noisy(clean: Tensor, x_adv: Tensor) -> Tensor:
    """Clean images (n, c, h, w) under random signs of the adversarial image's largest change, in [0,1]: as large, but blind."""
    size = (x_adv - clean).flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return (clean + size * torch.empty_like(clean).bernoulli_(0.5).mul_(2).sub_(1)).clamp(0, 1)


def mapped(points: dict[str, Floats], labels: dict[str, NDArray[np.int64]], seed: int) -> dict[str, Any]:
    """The map of "clean" and "adversarial" points: arrays points float32 (k, 2), label int64 (k,), is_adversarial bool (k,),
    strangers bool (adversarial ones,); method.
    """
    both = np.concatenate([points["clean"], points["adversarial"]])
    place, method = flat(both, seed)
    return {
        "points": place.astype(np.float32), "point_label": np.concatenate([labels["clean"], labels["adversarial"]]),
        "is_adversarial": np.arange(len(both)) >= len(points["clean"]),
        "strangers": strangers(points["clean"], labels["clean"], points["adversarial"], labels["adversarial"]),
        "method": method,
    }  # fmt: skip
