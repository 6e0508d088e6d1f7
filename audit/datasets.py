"""Data sets by name, as arrays in [0,1] in a fixed order with a recorded digest. Free of torch until torchvision reads."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audit.errors import BadData, BadInput

Split = Literal["train", "test"]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
DEFAULT_PLACES = (Path("data"), Path.home() / ".cache/robustness-audit", Path("/usr/share/datasets"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images: x float32 (n, c, h, w) in [0,1], y int64 (n,), ids int64 (n,), in a fixed order.

    guessed: `classes` are numbers up to the largest label that is there, for nobody said how many classes there are.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    place: Path | None = None  # the folder or file that was read; None for the embedded sample
    guessed: bool = False

    @property
    def digest(self) -> str:
        """sha256 over the images and labels as they will be attacked."""
        seen = hashlib.sha256(np.ascontiguousarray(self.x).tobytes())
        seen.update(np.ascontiguousarray(self.y).tobytes())
        return seen.hexdigest()

    def first(self, n: int | None) -> Dataset:
        """The first n images. Raises BadInput when n is not in [1, size]."""
        if n is None:
            return self
        if not 1 <= n <= len(self.x):
            raise BadInput(f"--n is {n}, expected 1 to {len(self.x)} for {self.source}")
        return replace(self, x=self.x[:n], y=self.y[:n], ids=self.ids[:n])


@dataclass(frozen=True, slots=True)
class Known:
    """A data set that can be named: where torchvision keeps it, its classes, and whether it comes as idx files."""

    name: str
    torchvision: str
    classes: tuple[str, ...]
    folder: str
    embedded: str | None = None
    idx: bool = False

    def load(self, split: Split = "test", *, data_dir: Path | None = None, download: bool = False) -> Dataset:
        """Read the whole split from `data_dir` (or the usual places), else the embedded sample for "test".

        Raises BadInput when it is not there, naming what to type next.
        """
        if data_dir is None and not download and split == "test" and self.embedded:
            return self._from_embedded()
        places = [data_dir] if data_dir else [root / part for root in DEFAULT_PLACES for part in ("", self.folder)]
        for place in places if self.idx else ():
            idx = _read_idx(place, split)
            if idx is not None:
                found = make_dataset(self.name, *idx, self.classes, f"{place} ({split})")
                return replace(found, place=place)
        return self._from_torchvision(split, places[0], download)

    def _from_embedded(self) -> Dataset:
        with (
            resources.files("audit.data").joinpath(str(self.embedded)).open("rb") as file,
            np.load(file) as archive,
        ):
            x, y = archive["x"], archive["y"]
        return make_dataset(self.name, x, y, self.classes, f"embedded, first {len(x):,} test images")

    def _from_torchvision(self, split: Split, place: Path, download: bool) -> Dataset:
        from torchvision import datasets

        maker: Any = getattr(datasets, self.torchvision)
        choice = {"split": split} if self.name == "svhn" else {"train": split == "train"}
        try:
            found = maker(root=str(place), download=download, **choice)
        except (RuntimeError, OSError) as error:
            raise BadInput(
                f"the {split} images of {self.name} were not found in {place} ({error}); "
                f"type --data-dir DIRECTORY, or --download to fetch them"
            ) from error
        labels = getattr(found, "targets", None)
        images = make_dataset(
            self.name, np.asarray(found.data), np.asarray(found.labels if labels is None else labels),
            self.classes, f"torchvision {self.torchvision} in {place} ({split})",
        )  # fmt: skip
        return replace(images, place=place)


def _read_idx(place: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """The four-file layout of MNIST and its kin, gzipped or not; None when it is not there."""
    stem = "train" if split == "train" else "t10k"
    arrays = []
    for kind, offset in (("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8)):
        paths = [place / f"{stem}-{kind}{suffix}" for suffix in (".gz", "")]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            return None
        try:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise BadData(f"{path} cannot be read ({error}), expected an idx file; fetch it again") from error
        arrays.append(np.frombuffer(raw[offset:], np.uint8))
    images, labels = arrays
    if images.size != labels.size * 28 * 28:
        raise BadData(
            f"{place} holds {images.size:,} pixels for {labels.size:,} labels of {stem}, expected 784 each; fetch the files again"
        )
    return images.reshape(-1, 28, 28), labels


def make_dataset(name: str, x: NDArray[Any], y: NDArray[Any], classes: tuple[str, ...], source: str) -> Dataset:
    """Check and normalise arrays into a Dataset.

    x: uint8, or floats in [0,1]; (n, h, w), (n, c, h, w) or (n, h, w, c). y: integers (n,). Raises BadData for
    anything else, NaN, values outside [0,1], or labels out of range.
    """
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.size == 0 or x.dtype.kind not in "buif":
        raise BadData(
            f"x of {source} has shape {x.shape} and type {x.dtype}, expected images (n, channels, height, width)"
        )
    if x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    pixels = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(pixels).all():
        raise BadData(f"x of {source} holds NaN or infinite pixels, expected numbers in [0,1]")
    low, high = float(pixels.min()), float(pixels.max())
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255" if high > 2 else "undo the normalisation; it belongs inside the model"
        raise BadData(f"x of {source} spans [{low:.4g}, {high:.4g}], expected [0, 1]; {hint}")
    if y.shape != (len(x),) or y.dtype.kind not in "uif" or not np.isfinite(y).all() or (y != np.floor(y)).any():
        raise BadData(f"y of {source} has shape {y.shape} and type {y.dtype}, expected {len(x)} whole numbers")
    labels = y.astype(np.int64)
    if labels.min() < 0 or (classes and labels.max() >= len(classes)):
        bound = len(classes) - 1 if classes else "classes - 1"
        raise BadData(f"labels of {source} span {labels.min()} to {labels.max()}, expected 0 to {bound}")
    names = classes or tuple(str(i) for i in range(int(labels.max()) + 1))
    found = np.ascontiguousarray(pixels.clip(0, 1))
    return Dataset(name, found, labels, np.arange(len(x)), names, source, guessed=not classes)


def load_path(path: Path, name: str | None, classes: tuple[str, ...] = ()) -> Dataset:
    """Read `--data PATH`: an .npz with x and y, or a folder with one sub-folder of images per class.

    Raises BadData with what was found instead.
    """
    label = name or path.stem
    if path.is_dir():
        return _from_folder(path, label, classes)
    if not path.is_file():
        raise BadData(f"--data {path} does not exist, expected an .npz file with x and y, or a folder of class folders")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            x, y = archive["x"], archive["y"]
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise nearly anything
        raise BadData(f"--data {path} is not an .npz with arrays x and y ({error})") from error
    return make_dataset(label, x, y, classes, str(path))


def _from_folder(path: Path, name: str, known: tuple[str, ...]) -> Dataset:
    """One label per sub-folder: its place among the `known` classes where all are known, else in the sorted names."""
    from PIL import Image

    found = tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")))
    classes = known if set(found) <= set(known) else found
    images, labels = [], []
    for folder in found:
        for file in sorted(p for p in (path / folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
            try:
                with Image.open(file) as picture:
                    images.append(_pixels(picture))
            except (OSError, ValueError, SyntaxError) as error:
                raise BadData(f"{file} is not a readable image ({error}); remove it or fetch it again") from error
            labels.append(classes.index(folder))
    if not images:
        raise BadData(
            f"--data {path} holds no images, expected one folder per class with {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise BadData(
            f"images of {path} have {len(shapes)} sizes such as {sorted(shapes)[:2]}, expected one; resize them first"
        )
    return make_dataset(name, np.stack(images), np.asarray(labels), classes, str(path))


def _pixels(picture: Any) -> NDArray[np.uint8]:
    """A picture as uint8, grey (h, w) or RGB (h, w, 3)."""
    if picture.mode.startswith("I"):  # 16 bits: convert() would clip at 255
        return (np.asarray(picture) // 257).astype(np.uint8)
    return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


_FASHION = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DIGITS = tuple(str(i) for i in range(10))

FASHION_MNIST = Known(
    "fashion_mnist", "FashionMNIST", _FASHION, "fashion-mnist", "fashion_mnist_test1000.npz", idx=True
)
MNIST = Known("mnist", "MNIST", _DIGITS, "mnist", idx=True)
CIFAR10 = Known("cifar10", "CIFAR10", _CIFAR10, "cifar10")
CIFAR100 = Known("cifar100", "CIFAR100", tuple(str(i) for i in range(100)), "cifar100")
SVHN = Known("svhn", "SVHN", _DIGITS, "svhn")
