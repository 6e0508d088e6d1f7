"""`audit doctor`: which libraries import here, in which version, and what to type for those that do not."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass

from audit.versions import installed

LIBRARIES = (
    # distribution, module, extra (None: core), what it is for
    ("torch", "torch", None, "models and gradients"),
    ("torchvision", "torchvision", None, "data sets"),
    ("torchattacks", "torchattacks", None, "FGSM, BIM, PGD"),
    ("pyautoattack", "pyautoattack", None, "APGD, FAB, Square"),
    ("safetensors", "safetensors", None, "checkpoints"),
    ("matplotlib", "matplotlib", None, "figures of the report"),
    ("adversarial-robustness-toolbox", "art", "art", "more attacks"),
    ("robustbench", "robustbench", "robustbench", "reference models"),
    ("timm", "timm", "robustbench", "architectures of reference models"),
    ("ray", "ray", "ray", "audits on a cluster"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One library: does it import, and if not, why and what to type."""

    library: str
    version: str
    imports: bool
    purpose: str
    advice: str
    core: bool


def examine() -> list[Finding]:
    """Import every library that an adapter may need, and report."""
    return [_examine(*entry) for entry in LIBRARIES]


def _examine(library: str, module: str, extra: str | None, purpose: str) -> Finding:
    install = f"pip install 'robustness-audit[{extra}]'" if extra else f"pip install {library}"
    found = installed(library)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError as error:
        advice = install if found is None else f"installed but broken ({error}); {install} --force-reinstall"
        return Finding(library, found or "-", False, purpose, advice, extra is None)
    return Finding(library, found or "?", True, purpose, "", extra is None)
