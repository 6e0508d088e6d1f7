"""Where the model and the images of a run come from, and how `audit verify` finds them again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit import registry
from audit.datasets import Dataset, load_path, make_dataset
from audit.errors import BadInput, BadModel
from audit.models.preprocessing import flags
from audit.models.spec import Declared, described, from_object, resolve
from audit.protocols import Checkpoint, Defense
from audit.types import Claim, parse_eps, show_eps

USUAL = "fashion_mnist"
OWN_IMAGES = "own_images"  # the data set of images that nobody has named
ARRAYS = "arrays given in Python"
NOTHING = Declared()
UNLISTED = (OWN_IMAGES, "imagenet")  # these come as files only


@dataclass(frozen=True, slots=True)
class Sources:
    """What the user pointed at: a weights file, the network of a bare one, and a place for the images.

    Each is None where the shipped weights or the usual places were meant. declared: what is said of a model of one's own.
    inference: `KEY=VALUE` of the defense's test-time part, over what the checkpoint says.
    arrays: images and labels of a Python session, as `audit.datasets.make_dataset` takes them.
    """

    weights: Path | None = None
    data: Path | None = None
    data_dir: Path | None = None
    download: bool = False
    network: str | None = None
    width: float | None = None
    declared: Declared = NOTHING
    inference: tuple[str, ...] = ()
    arrays: tuple[Any, Any] | None = None

    @classmethod
    def given(cls, weights: Any, data: Any, data_dir: Any, declared: Declared, **others: Any) -> Sources:
        """From what was typed, or given in Python: paths as text, images as a pair of arrays or tensors."""
        pair = data if isinstance(data, tuple | list) else None
        if pair is not None and len(pair) != 2:
            raise BadInput(f"data has {len(pair)} parts, expected images and labels; give data=(x, y)")
        weights, data, data_dir = (None if p is None else Path(p) for p in (weights, None if pair else data, data_dir))
        arrays = None if pair is None else (pair[0], pair[1])
        return cls(weights, data, data_dir, declared=declared, arrays=arrays, **others)

    @property
    def own_images(self) -> bool:
        """Did the user bring images? Then no printed claim speaks of them."""
        return self.data is not None or self.arrays is not None

    def defense(self, thing: Any, model: Any = None) -> Defense:
        """The defense of a name, a SCHEME:NAME, a Python path or an object; of both, where `thing` describes an object.

        Raises BadInput for neither, or for two models.
        """
        if thing is None and model is None:
            raise BadInput("expected a defense or a model, got neither; type --defense NAME or --model SCHEME:NAME")
        if thing is not None and model is not None:
            return described(thing, model, self.declared)
        asked = model if thing is None else thing
        return resolve(asked, self.declared) if isinstance(asked, str) else from_object(asked, self.declared)

    def dataset(self, typed: str | None, known: Defense, name: str) -> str:
        """The data set of a run: typed, else the one that the model was trained for, else the usual one.

        Images that somebody brings for a model of their own are of none that is known.
        """
        own = self.own_images and name not in registry.defenses.names()
        return typed or getattr(known, "dataset", None) or (OWN_IMAGES if own else USUAL)

    def images(self, dataset: str) -> Dataset:
        """All images to choose from. Raises BadInput or BadData."""
        classes: tuple[str, ...] = () if dataset in UNLISTED else registry.datasets.load(dataset).classes
        if self.arrays is not None:
            x, y = map(_array, self.arrays)
            return make_dataset(dataset, x, y, classes, ARRAYS)
        if self.data is not None:
            return load_path(self.data, dataset, classes)
        if dataset in UNLISTED:
            raise BadInput(f"the images of {dataset} do not come with a library; type --data FILE.npz or a folder")
        known = registry.datasets.load(dataset)
        found: Dataset = known.load("test", data_dir=self.data_dir, download=self.download)
        return found

    def checkpoint(self, known: Defense, dataset: str) -> Checkpoint:
        """The weights to audit. Raises BadWeights, or BadInput where the defense takes no --network, --width or --inference."""
        asked = {k: v for k, v in (("network", self.network), ("width", self.width)) if v is not None}
        if asked and not set(asked) <= set(inspect.signature(known.checkpoint).parameters):
            raise BadInput(
                f"defense {known.name!r} brings its own network, got --{' and --'.join(asked)}; leave them out"
            )
        found: Checkpoint = known.checkpoint(dataset, self.weights, **asked)
        if not self.inference:
            return found
        varied = getattr(known, "varied", None)
        if varied is None:
            raise BadInput(f"defense {known.name!r} takes no --inference; leave it out")
        changed: Checkpoint = varied(found, self.inference)
        return changed

    def deployed(self, known: Defense, checkpoint: Checkpoint) -> Defense:
        """The defense as the checkpoint sets its test-time part, which may be switched off."""
        as_set = getattr(known, "as_set", None)
        found: Defense = known if as_set is None else as_set(checkpoint, frozenset(self.declared.traits))
        return found

    def record(self, images: Dataset) -> dict[str, Any]:
        """As JSON that holds from any directory: absolute paths, and where the images were in the end."""
        place = None if self.data else images.place or self.data_dir
        paths, said = {"weights": self.weights, "data": self.data, "data_dir": place}, self.declared.record()
        return {
            **{name: str(path.resolve()) if path else "" for name, path in paths.items()},
            "network": self.network, "width": self.width, **({"declared": said} if said else {}),
            **({"data": ARRAYS} if self.arrays is not None else {}),
            **({"inference": list(self.inference)} if self.inference else {}),
        }  # fmt: skip

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], *, weights: Path | None, data: Path | None, data_dir: Path | None
    ) -> Sources:
        """The sources of a plan; a path that is given replaces the recorded one."""
        old = {name: Path(record[name]) if record[name] else None for name in ("weights", "data", "data_dir")}
        if data or data_dir:  # a folder given now may stand for the file recorded then
            old |= {"data": data, "data_dir": data_dir}
        declared = Declared.recorded(record.get("declared", {}))
        return cls(
            weights or old["weights"], old["data"], old["data_dir"], False, record["network"], record["width"], declared,
            tuple(record.get("inference", ())),
        )  # fmt: skip


def _array(given: Any) -> np.ndarray[Any, Any]:
    """A tensor, a list or an array as an array."""
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)


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
        ("network", record["network"]), ("width", record["width"]), *(("inference", setting) for setting in record.get("inference", ())),
        *_said(record.get("declared", {})), ("n", identity["n"]),
        ("eps", eps if parse_eps(eps, identity["norm"]) == identity["eps"] else repr(identity["eps"])),
        ("norm", identity["norm"]), ("seed", identity["seed"]), ("batch-size", identity["batch_size"]),
        *(("set", setting) for setting in settings), ("claim-clean", claim_clean), ("claim", line),
    ]  # fmt: skip
    if claim is not None and claim.basis == "typed":
        flags += [("claim-robust", claim.robust_acc), ("claim-attack", claim.attack)]
    typed = [word for name, value in flags if value not in (None, "") for word in (f"--{name}", str(value))]
    return "python -m audit run " + shlex.join(typed)


def _said(declared: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = Declared.recorded(declared)
    traits = [("trait", trait) for trait in found.traits]
    return [*flags(found.preprocessing), *traits, ("model-dir", declared.get("model_dir", ""))]
