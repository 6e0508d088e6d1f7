"""Which libraries are at hand, in which version: for fingerprints, manifests and `audit doctor`. Imports none."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NUMERIC = ("torch", "numpy", "torchattacks", "pyautoattack")


def installed(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """The libraries that can change a number."""
    return {name: installed(name) or "missing" for name in NUMERIC}
