"""One file per finished unit of work. What is on disk and matches its digest is done; all else never happened.

A unit file is a numpy archive written to a temporary name, flushed to the disk and renamed, so a killed process
leaves either a whole file or none. `kill -9` therefore loses at most the unit in flight.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import CannotWrite

Arrays = dict[str, NDArray[Any]]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a reader sees the old file or the new one, never a part.

    Raises CannotWrite when the disk is full, read-only or not ours.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # the directory may be a file, or not ours
            partial.unlink()
        raise CannotWrite(
            f"could not write {path} ({error.strerror}), expected a writable place with room: type --out DIRECTORY"
        ) from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and bytes."""
    seen = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        seen.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        seen.update(array.tobytes())
    return seen.hexdigest()


class Ledger:
    """The units of one run directory that belong to one plan.

    fingerprint: the plan's. It is stored in each unit's meta as "plan", and a unit that names another plan, or none,
    counts as absent. None reads and writes units without regard to a plan.
    """

    def __init__(self, run_dir: Path, fingerprint: str | None = None) -> None:
        self.directory, self.fingerprint = run_dir / "units", fingerprint

    def path(self, unit: str) -> Path:
        return self.directory / f"{unit}.npz"

    def write(self, unit: str, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Store a finished unit; `meta` must be JSON."""
        tied = dict(meta) if self.fingerprint is None else {**meta, "plan": self.fingerprint}
        everything = {**arrays, "meta": np.array(json.dumps(tied, sort_keys=True))}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **everything, digest=np.array(digest(everything)))  # type: ignore[arg-type]
        write_atomically(self.path(unit), buffer.getvalue())

    def read(self, unit: str) -> tuple[Arrays, dict[str, Any]] | None:
        """The unit's arrays and meta, or None when it is absent, torn, altered or of another plan."""
        try:
            with self.path(unit).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays: Arrays = {name: archive[name] for name in archive.files}
            expected = str(arrays.pop("digest"))
        except Exception:  # noqa: BLE001 - a damaged archive makes zipfile, zlib and numpy raise nearly anything
            return None
        if digest(arrays) != expected:
            return None
        meta: dict[str, Any] = json.loads(str(arrays.pop("meta")))
        if self.fingerprint is not None and meta.get("plan") != self.fingerprint:
            return None
        return arrays, meta

    def damaged(self, unit: str) -> bool:
        """There is a file in the unit's place, but it does not count: torn, altered or of another plan."""
        return self.path(unit).exists() and self.read(unit) is None

    def remove(self, unit: str) -> None:
        """Forget a unit, so that it runs again. Raises CannotWrite."""
        try:
            self.path(unit).unlink(missing_ok=True)
        except OSError as error:
            raise CannotWrite(
                f"could not remove {self.path(unit)} ({error.strerror}), expected a writable run directory; type --out DIRECTORY"
            ) from error

    def __contains__(self, unit: str) -> bool:
        return self.read(unit) is not None
