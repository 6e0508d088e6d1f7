"""Tells whether a claimed adversarial defense is real.

    import audit
    result = audit.run("super_fitting", suite="quick", n=200)
    print(result.verdict.outcome, result.adaptive)
    result = audit.run(model=my_module, data=(x, y), eps=4 / 255)
    result = audit.run(model=my_module, defense=audit.Defense("mine", clean=0.91), data=(x, y), eps=4 / 255)

Importing this package imports neither torch nor any attack library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.errors import AuditError
from audit.types import AdapterSpec, Claim, Diagnosis, Estimate, Step, Suite, ThreatModel, Verdict
from audit.versions import installed

if TYPE_CHECKING:
    from audit.models.own import Found, ModelDefense
    from audit.models.own import ModelDefense as Defense
    from audit.models.preprocessing import Preprocessing
    from audit.runner import run
    from audit.summary import Audit, load_run

__all__ = [
    "AdapterSpec",
    "Audit",
    "AuditError",
    "Claim",
    "Defense",
    "Diagnosis",
    "Estimate",
    "Found",
    "ModelDefense",
    "Preprocessing",
    "Step",
    "Suite",
    "ThreatModel",
    "Verdict",
    "load_run",
    "run",
]

__version__ = installed("robustness-audit") or "unknown"

_LAZY = {
    "Defense": "audit.models.own:ModelDefense",
    "Found": "audit.models.own", "ModelDefense": "audit.models.own", "Preprocessing": "audit.models.preprocessing",
    "run": "audit.runner", "load_run": "audit.summary", "Audit": "audit.summary",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        module, _, attribute = _LAZY[name].partition(":")
        return getattr(import_module(module), attribute or name)
    raise AttributeError(f"module 'audit' has no attribute {name!r}")
