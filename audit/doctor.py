"""`audit doctor`: which libraries, attacks and adapters load here, in which version, and what to type for the others."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from audit import registry
from audit.registry import Registry
from audit.versions import DISTRIBUTIONS, installed

ROOT = Path(__file__).parent.parent  # of a clone; elsewhere the folder that packages are installed in
LIBRARIES = (
    # distribution, module, extra (None: core), what it is for
    ("torch", "torch", None, "models and gradients"),
    ("torchvision", "torchvision", None, "data sets"),
    ("numpy", "numpy", None, "records"),
    ("scipy", "scipy", None, "exact intervals"),
    ("torchattacks", "torchattacks", None, "FGSM, PGD and their kin"),
    ("pyautoattack", "pyautoattack", None, "APGD, FAB, Square"),
    ("safetensors", "safetensors", None, "checkpoints"),
    ("jinja2", "jinja2", None, "the report's page"),
    ("rich", "rich", None, "tables and progress"),
    ("typer", "typer", None, "the command line"),
    ("matplotlib", "matplotlib", None, "figures of the report"),
    ("adversarial-robustness-toolbox", "art", "art", "C&W, boundary and other attacks"),
    ("foolbox", "foolbox", "foolbox", "attacks of least norm"),
    ("robustbench", "robustbench", "robustbench", "reference models"),
    ("timm", "timm", "robustbench", "architectures of reference models"),
    ("setuptools", "pkg_resources", "robustbench", "pkg_resources, which robustbench imports"),
    ("onnx2torch", "onnx2torch", "onnx", "ONNX graphs with their gradient"),
    ("onnxruntime", "onnxruntime", "onnx", "ONNX graphs that cannot be translated, and a check of those that can"),
    ("ray", "ray", "ray", "audits on a cluster"),
    ("scikit-learn", "sklearn", "tsne", "t-SNE in the report; principal components without it"),
)
EXTRAS = {"audit.attacks.art": "art", "audit.attacks.foolbox": "foolbox"}  # of our own wrappers


@dataclass(frozen=True, slots=True)
class Finding:
    """One library, attack or adapter: does it load, and if not, why and what to type. core: audits need it."""

    library: str
    version: str
    imports: bool
    purpose: str
    advice: str
    core: bool


def examine() -> list[Finding]:
    """Load every library, registered attack and registered adapter, and report."""
    return [*(_library(*entry) for entry in LIBRARIES), *_registered(registry.attacks), *_registered(registry.adapters)]


def _load(load: Callable[[], Any]) -> tuple[Any, str]:
    """What `load` returns, or why it cannot: a broken library may raise anything, or try to end the process."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(), ""
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, not swallowed
        detail = (str(error).splitlines() or [""])[0]
        return None, f"{type(error).__name__}: {detail}" if detail else type(error).__name__


def _install(library: str, extra: str | None) -> str:
    """What to type. A clone offers its extras; setuptools is there everywhere, only too new."""
    if library == "setuptools":
        return "pip install 'setuptools<81'"
    if extra is None:
        return f"pip install {library}"
    return (
        f"pip install -e '.[{extra}]'"
        if (ROOT / "pyproject.toml").is_file()
        else f"pip install 'robustness-audit[{extra}]'"
    )


def _robustbench(module: str) -> Any:
    """Imported as audits import it: by itself it does not find what its own dependency brings under another name."""
    from audit.models import robustbench

    return robustbench.library(module)


def _library(library: str, module: str, extra: str | None, purpose: str) -> Finding:
    install = _install(library, extra)
    found = installed(library)
    _, problem = _load(lambda: _robustbench(module) if module == "robustbench" else importlib.import_module(module))
    if not problem:
        return Finding(library, found or "?", True, purpose, "", extra is None)
    clear = found is None or library == "setuptools"  # of which only the part that robustbench needs is gone
    advice = install if clear else f"installed but broken ({problem}); {install} --force-reinstall"
    return Finding(library, found or "-", False, purpose, advice, extra is None)


def _registered(names: Registry[Any]) -> Iterator[Finding]:
    """One finding for each module that a registry names; those shipped here are core, unless their extra is not installed."""
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(names.target(name).partition(":")[0], []).append(name)
    for module, members in modules.items():
        found = {name: _load(partial(names.load, name)) for name in members}
        problems = [f"{name}: {problem}" for name, (_, problem) in found.items() if problem]
        library = str(getattr(found[members[0]][0], "library", module.partition(".")[0]))
        version = f"{library} {installed(library) or ''}".strip()
        advice = f"mend {module}, or install what it needs ({'; '.join(problems)})" if problems else ""
        core = module.startswith(("audit.", "adapters."))
        extra = EXTRAS.get(module, "")
        if problems and extra and installed(DISTRIBUTIONS.get(extra, extra)) is None:
            advice, core = _install(extra, extra), False
        yield Finding(module, version, not problems, f"{names.kind}s {', '.join(members)}", advice, core)
