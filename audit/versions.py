"""Which libraries are at hand, in which version: for fingerprints, manifests and `audit doctor`. Imports none."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

NUMERIC = ("torch", "numpy", "torchattacks", "pyautoattack")
DISTRIBUTIONS = {"art": "adversarial-robustness-toolbox"}  # where the library's name is another


def installed(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions(libraries: Iterable[str] = ()) -> dict[str, str]:
    """The libraries that can change a number. `libraries`: of the attacks that run; those that are no distribution are left out."""
    found = {name: installed(name) or "missing" for name in NUMERIC}
    used = {name: installed(DISTRIBUTIONS.get(name, name)) for name in sorted(libraries)}
    return found | {name: number for name, number in used.items() if number is not None}
