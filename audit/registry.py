"""Names to things, loaded when first used.

A registry holds `name -> "module:attribute"`; nothing is imported until `load`. Third parties add names through
entry points of the same group (`audit.defenses`, `audit.attacks`, ...). A name is never overwritten in silence.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from audit.errors import BadInput, MissingDependency, UnknownName

T = TypeVar("T")


def closest(name: str, known: list[str]) -> str:
    """The hint that follows an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."


class Registry(Generic[T]):
    """Lazy names of one kind.

    kind: the noun used in messages ("defense"); group: the entry-point group; builtin: the names shipped here.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = f"audit.{kind}s"
        self._targets = dict(builtin)
        self._discovered = False

    def register(self, name: str, target: str) -> None:
        """Add `name`; raises BadInput when it is taken by something else."""
        taken = self._targets.get(name)
        if taken is not None and taken != target:
            raise BadInput(f"{self.kind} {name!r} is already {taken}, {target} must take another name")
        self._targets[name] = target

    def names(self) -> list[str]:
        self._discover()
        return sorted(self._targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def target(self, name: str) -> str:
        self._discover()
        if name not in self._targets:
            raise UnknownName(f"unknown {self.kind} {name!r}: {closest(name, self.names())}")
        return self._targets[name]

    def load(self, name: str) -> T:
        """The thing behind `name`. Raises UnknownName, or MissingDependency when its library does not import."""
        target = self.target(name)
        module, _, attribute = target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise MissingDependency(
                f"{self.kind} {name!r} needs a library that does not import ({error}); run `python -m audit doctor`"
            ) from error
        return cast(T, found)

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            for point in entry_points(group=self.group):
                self.register(point.name, point.value)


_TORCHATTACKS = "audit.attacks.torchattacks"
_AUTOATTACK = "audit.attacks.autoattack"
_OWN = "audit.attacks.own"
_FOOLBOX = "audit.attacks.foolbox"
_ART = "audit.attacks.art"

defenses: Registry[Any] = Registry(
    "defense",
    {
        "super_fitting": "defenses.super_fitting:SUPER_FITTING",
        "undefended": "defenses.undefended:UNDEFENDED",
        "pgd_at": "defenses.pgd_at:PGD_AT",
        "sim_adv": "defenses.sim_adv:SIM_ADV",
        "tpap": "defenses.tpap:TPAP",
        "co_noise": "defenses.co_noise:CO_NOISE",
        "trades": "defenses.trades:TRADES",
        "mart": "defenses.mart:MART",
        "distillation": "defenses.distillation:DISTILLATION",
    },
)
attacks: Registry[Any] = Registry(
    "attack",
    {
        "fgsm": f"{_TORCHATTACKS}:fgsm",
        "bim": f"{_TORCHATTACKS}:bim",
        "pgd": f"{_TORCHATTACKS}:pgd",
        "pgd-l2": f"{_TORCHATTACKS}:pgd_l2",
        "r-fgsm": f"{_TORCHATTACKS}:r_fgsm",
        "mi-fgsm": f"{_TORCHATTACKS}:mi_fgsm",
        "ti-dim": f"{_TORCHATTACKS}:ti_dim",
        "eot-pgd": f"{_TORCHATTACKS}:eot_pgd",
        "spsa": f"{_TORCHATTACKS}:spsa",
        "apgd-ce": f"{_AUTOATTACK}:apgd_ce",
        "apgd-dlr": f"{_AUTOATTACK}:apgd_dlr",
        "apgd-margin": f"{_AUTOATTACK}:apgd_margin",
        "apgd-t": f"{_AUTOATTACK}:apgd_t",
        "fab": f"{_AUTOATTACK}:fab",
        "fab-t": f"{_AUTOATTACK}:fab_t",
        "square": f"{_AUTOATTACK}:square",
        "a3": f"{_OWN}.a3:a3",
        "an-pgd": f"{_OWN}.an_pgd:an_pgd",
        "fwa": f"{_OWN}.fwa:fwa",
        "nes": f"{_OWN}.nes:nes",
        "pgd-margin": f"{_OWN}.pgd_margin:pgd_margin",
        "random-search": f"{_OWN}.random_search:random_search",
        "rays": f"{_OWN}.rays:rays",
        "st-adv": f"{_OWN}.st_adv:st_adv",
        "transfer": f"{_OWN}.transfer:transfer",
        "ddn": f"{_FOOLBOX}:ddn",
        "fmn": f"{_FOOLBOX}:fmn",
        "deepfool": f"{_FOOLBOX}:deepfool",
        "cw-l0": f"{_ART}:cw_l0",
        "cw-l2": f"{_ART}:cw_l2",
        "cw-linf": f"{_ART}:cw_linf",
        "hopskipjump": f"{_ART}:hopskipjump",
        "boundary": f"{_ART}:boundary",
        "zoo": f"{_ART}:zoo",
    },
)
adapters: Registry[Any] = Registry(
    "adapter",
    {
        "rescale": "adapters.rescale:Rescale",
        "float64": "adapters.float64:Float64",
        "base": "adapters.base:Base",
        "bpda": "adapters.bpda:Bpda",
        "unroll": "adapters.unroll:Unroll",
        "eot": "adapters.eot:Eot",
        "inner": "adapters.inner:Inner",
        "front": "adapters.front:Front",
        "smooth": "adapters.smooth:Smooth",
    },
)
datasets: Registry[Any] = Registry(
    "dataset",
    {name: f"audit.datasets:{name.upper()}" for name in ("fashion_mnist", "mnist", "cifar10", "cifar100", "svhn")},
)
references: Registry[Any] = Registry(
    "reference",
    {name: f"audit.references:{name.upper()}" for name in ("standard", "pgd_at")},
)
# What attacks and the torch-free core may call and not import.
tools: Registry[Any] = Registry("tool", {"surrogate": "audit.surrogates:surrogate"})
