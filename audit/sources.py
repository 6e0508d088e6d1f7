"""Where the model and the images of a run come from, and how `audit verify` finds them again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit import registry
from audit.datasets import Dataset, load_path
from audit.errors import BadInput, BadModel
from audit.protocols import Checkpoint, Defense
from audit.types import Claim, parse_eps, show_eps


@dataclass(frozen=True, slots=True)
class Sources:
    """What the user pointed at: a weights file, the network of a bare one, and a place for the images.

    Each is None where the shipped weights or the usual places were meant.
    """

    weights: Path | None = None
    data: Path | None = None
    data_dir: Path | None = None
    download: bool = False
    network: str | None = None
    width: float | None = None

    def images(self, dataset: str) -> Dataset:
        """All images to choose from. Raises BadInput or BadData."""
        known = registry.datasets.load(dataset)
        if self.data is not None:
            return load_path(self.data, dataset, known.classes)
        found: Dataset = known.load("test", data_dir=self.data_dir, download=self.download)
        return found

    def checkpoint(self, known: Defense, dataset: str) -> Checkpoint:
        """The weights to audit. Raises BadWeights, or BadInput where the defense takes no --network or --width."""
        asked = {k: v for k, v in (("network", self.network), ("width", self.width)) if v is not None}
        if asked and not set(asked) <= set(inspect.signature(known.checkpoint).parameters):
            raise BadInput(
                f"defense {known.name!r} brings its own network, got --{' and --'.join(asked)}; leave them out"
            )
        return known.checkpoint(dataset, self.weights, **asked)

    def record(self, images: Dataset) -> dict[str, Any]:
        """As JSON that holds from any directory: absolute paths, and where the images were in the end."""
        place = None if self.data else images.place or self.data_dir
        paths = {"weights": self.weights, "data": self.data, "data_dir": place}
        return {
            **{name: str(path.resolve()) if path else "" for name, path in paths.items()},
            "network": self.network, "width": self.width,
        }  # fmt: skip

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], *, weights: Path | None, data: Path | None, data_dir: Path | None
    ) -> Sources:
        """The sources of a plan; a path that is given replaces the recorded one."""
        old = {name: Path(record[name]) if record[name] else None for name in ("weights", "data", "data_dir")}
        if data or data_dir:  # a folder given now may stand for the file recorded then
            old |= {"data": data, "data_dir": data_dir}
        return cls(weights or old["weights"], old["data"], old["data_dir"], False, record["network"], record["width"])


def check_shape(checkpoint: Checkpoint, images: Dataset) -> None:
    """Raise BadModel when the network was built for other channels or another height and width."""
    channels, size = checkpoint.architecture.get("channels"), checkpoint.architecture.get("size")
    got = images.x.shape[1:]
    if channels is not None and size is not None and got != (channels, size, size):
        raise BadModel(
            f"the model expects images of {channels} x {size} x {size} (channels, height, width), {images.source} has "
            f"{' x '.join(map(str, got))}; choose the --dataset it was trained on, or resize the images"
        )


def command_line(
    identity: Mapping[str, Any], record: Mapping[str, Any], settings: Sequence[str], claim: Claim | None,
    claim_clean: float | None, line: str | None = None,
) -> str:  # fmt: skip
    """The command that repeats a run which was started from Python; line: the id of the paper's line under audit."""
    eps = show_eps(identity["eps"])
    flags: list[tuple[str, Any]] = [
        ("defense", identity["defense"]), ("suite", identity["suite"]), ("dataset", identity["dataset"]),
        ("data", record["data"]), ("data-dir", record["data_dir"]), ("weights", record["weights"]),
        ("network", record["network"]), ("width", record["width"]), ("n", identity["n"]),
        ("eps", eps if parse_eps(eps, identity["norm"]) == identity["eps"] else repr(identity["eps"])),
        ("norm", identity["norm"]), ("seed", identity["seed"]), ("batch-size", identity["batch_size"]),
        *(("set", setting) for setting in settings), ("claim-clean", claim_clean), ("claim", line),
    ]  # fmt: skip
    if claim is not None and claim.basis == "typed":
        flags += [("claim-robust", claim.robust_acc), ("claim-attack", claim.attack)]
    typed = [word for name, value in flags if value not in (None, "") for word in (f"--{name}", str(value))]
    return "python -m audit run " + shlex.join(typed)
