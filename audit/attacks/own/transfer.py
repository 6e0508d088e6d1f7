"""Images made elsewhere: on any other model, or in an earlier run (Papernot et al. 2016, arXiv 1605.07277).

Where the gradient of a defense misleads, the images of a plain model are a fair attack that asks it nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit import registry
from audit.attacks.common import attack
from audit.attacks.own.common import LIBRARY
from audit.errors import BadInput
from audit.geometry import contains, project
from audit.ledger import Ledger
from audit.types import NORMS, ThreatModel


def _cost(params: Mapping[str, Any]) -> tuple[int, int]:
    """Passes of the attacked model alone: none for a surrogate's images, one for each step of a run that broke it."""
    units = _units(Path(params["run"])) if params["run"] else []
    return len({name.rpartition("-")[0] for name in units}), 0


def _units(run_dir: Path) -> list[str]:
    """Names of the stored units, in the order of the run's plan; the clean pass holds no images."""
    return sorted(path.stem for path in (run_dir / "units").glob("*.npz") if not path.stem.startswith("00-"))


def stored_images(run_dir: Path, shape: tuple[int, ...]) -> Tensor:
    """Every adversarial image (m, *shape) that the whole units of a run hold, in the order of its plan.

    Raises BadInput when there is none of that shape.
    """
    ledger = Ledger(run_dir)
    read = (ledger.read(name) for name in _units(run_dir))
    found = [torch.from_numpy(unit[0]["x_adv"]) for unit in read if unit is not None and len(unit[0].get("x_adv", ()))]
    fitting = [images.float() for images in found if images.shape[1:] == shape]
    if not fitting:
        other = f", only of shape {tuple(found[0].shape[1:])}" if found else ""
        raise BadInput(
            f"run {run_dir} stores no adversarial images of shape {tuple(shape)}{other}; "
            "type --set transfer.run=DIRECTORY of a run on the same data set that broke some"
        )
    return torch.cat(fitting)


def _rounds(stored: Tensor, x: Tensor, threat: ThreatModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and a stored image of each one's ball, every row at most once a round."""
    inside = [contains(stored, row.expand_as(stored), threat).nonzero().flatten() for row in x]
    for turn in range(max(map(len, inside), default=0)):
        rows = [i for i, found in enumerate(inside) if len(found) > turn]
        picked = torch.stack([inside[i][turn] for i in rows])
        yield torch.tensor(rows, device=x.device), stored[picked]


@torch.no_grad()
def _from_run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, run_dir: Path) -> Tensor:
    result, fooled = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for rows, images in _rounds(stored_images(run_dir, tuple(x.shape[1:])).to(x.device), x, threat):
        still = ~fooled[rows]
        rows, images = rows[still], images[still]
        if len(rows):
            result[rows] = images
            fooled[rows] = model(images).argmax(1) != y[rows]
    return result


def _check(params: Mapping[str, Any]) -> None:
    """Raise BadInput unless there is exactly one source of images, and it has a name that is known or holds a run."""
    surrogate, by, run = params["surrogate"], params["by"], params["run"]
    if bool(surrogate) == bool(run):
        got = f"surrogate={surrogate!r} and run={run!r}" if surrogate else "neither"
        raise BadInput(
            f"attack 'transfer' needs either surrogate=MODEL or run=PATH, got {got}; "
            "type for example --set transfer.surrogate=undefended, or anything that --model takes"
        )
    if run:
        if not _units(Path(run)):
            raise BadInput(f"transfer.run is {run!r}, which holds no run; type the directory of one, as runs/NAME")
        return
    if ":" not in surrogate:  # other names are tried out before the run (audit.filled)
        registry.defenses.target(surrogate)
    registry.attacks.target(by)
    if by == "transfer":
        raise BadInput("attack 'transfer' cannot make its images by itself; type --set transfer.by=apgd-margin")


@attack(
    "transfer", library=LIBRARY, norms=NORMS, needs="decision", cost=_cost, check=_check,
    reference="Papernot et al. 2016, arXiv 1605.07277",
)  # fmt: skip
def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    surrogate: str = "",
    dataset: str = "fashion_mnist",
    weights: str = "",
    by: str = "apgd-margin",
    run: str = "",
) -> Tensor:
    """Images made on another model; exactly one of `surrogate` and `run` says where. Raises BadInput otherwise.

    surrogate: any other model, named as --defense and --model name it: a defense of the registry with its shipped weights
    for `dataset`, SCHEME:NAME (timm, torchvision, torchscript, export, onnx, robustbench) or module:factory; with the file
    `weights`, where it needs one. The attack `by`, with its defaults, makes the images there, and the attacked model is not
    asked; what a least-norm attack leaves beyond eps is projected. What a surrogate does to an image in [0,1] it must do itself: --mean and --std are the attacked model's.
    run: the directory of an earlier run; every adversarial image stored there that lies in the ball around an image is
    tried on the attacked model, until one fools it. An image for which none is stored stays as it is. The run may be of
    any defense; what counts is the distance.
    """
    _check({"surrogate": surrogate, "by": by, "run": run})
    if run:
        return _from_run(model, x, y, threat, Path(run))
    maker = registry.attacks.load(by)
    build = registry.tools.load("surrogate")
    other = build(surrogate, shape=x.shape[1:], dataset=dataset, weights=weights, by=by, device=x.device)
    images: Tensor = maker(other, x, y, threat, seed=seed)
    return project(images, x, threat) if maker.kind == "minimal" else images
