"""`audit test-attack`: is an attack good enough for a defense? The binarisation test, alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from audit import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from audit.binarisation.result import BinarisationTest


def attack_test(
    defense: o.Defense,
    attack: Annotated[str, typer.Option(help="A step of a suite, as bim-20 or rescaled-ce, or any attack.")],
    dataset: o.Dataset = "fashion_mnist",
    data: o.Data = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    weights: o.Weights = None,
    network: o.Network = None,
    width: o.Width = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Test on the first n correctly classified images.")] = 64,
    seed: o.Seed = 0,
    eps: Annotated[
        str | None, typer.Option(help="Radius, as 8/255 or 0.031; the checkpoint's own, else 8/255.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Linf, L2 or L1.")] = "Linf",
    device: o.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images attacked together.")] = 250,
    set_: o.Settings = None,
    quiet: o.Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Does an attack find adversarial images that exist by construction? Exit code 1 when it finds too few.

    The binarisation test of Zimmermann et al. 2022: each image's two-class problem sits on the defense's own features.
    An attack that fails says nothing about the defense; to pass is necessary and not sufficient.
    """
    from audit.binarisation.prepare import binarise

    console = Console(stderr=True, quiet=quiet or as_json)
    with console.status("loading") as status:
        found = binarise(
            defense, attack, dataset=dataset, data=data, data_dir=data_dir, download=download, weights=weights,
            network=network, width=width, n=n, seed=seed, eps=eps, norm=norm, device=device, batch_size=batch_size,
            settings=set_ or (), beat=status.update,
        )  # fmt: skip
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        Console(quiet=quiet).print(_table(defense, found))
        Console(quiet=quiet).print(found.sentence, soft_wrap=True, highlight=False, markup=False)
    if not found.passed:
        raise typer.Exit(1)


def _table(defense: str, found: BinarisationTest) -> Table:
    from audit.display import table
    from audit.types import ThreatModel

    def share(part: float | None) -> str:
        return "none tested" if part is None else f"{part:.1%}"

    wide = [adapter.name for adapter in found.step.adapters]
    rows = [
        ("attack", " behind ".join([found.step.attack, *reversed(wide)])),
        ("options", ", ".join(f"{k}={v}" for k, v in found.step.params.items()) or "none"),
        ("images", f"{found.n}, setup failed for {found.setup_failed}"),
        ("found by the attack", share(found.asr.accuracy if found.asr else None)),
        (f"found by {found.tries:,} random tries", share(found.random_asr)),
        ("points inside, features", f"{found.inner}, {found.features}" + (", made harder" if found.hardened else "")),
    ]
    threat = ThreatModel(found.norm, found.eps)  # type: ignore[arg-type]
    return table(f"{found.step.name} on {defense}, {threat}", ("what", "value"), rows)
