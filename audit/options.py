"""The flags of the command line, with their help: what more than one command takes, or what needs words."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FailOn(StrEnum):
    """What `--fail-on` turns into exit code 1: a verdict, or a drop against the baseline of `--check`."""

    refuted = "refuted"
    inconclusive = "inconclusive"
    drop = "drop"


class Kind(StrEnum):
    """What `list` can list."""

    defenses = "defenses"
    suites = "suites"
    attacks = "attacks"
    datasets = "datasets"
    references = "references"
    diagnoses = "diagnoses"
    claims = "claims"


Defense = Annotated[str, typer.Option(help="Name of the defense: see `list defenses`.")]
AnyDefense = Annotated[
    str | None, typer.Option("--defense", help="Name of the defense (see `list defenses`), or module:factory.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Instead of --defense: timm:NAME, torchvision:NAME, torchscript:FILE, export:FILE, onnx:FILE, robustbench:DATASET/NORM/NAME."
    ),
]
AnyDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="fashion_mnist (the default), mnist, cifar10, cifar100 or svhn; for --data any of them."
    ),
]
ModelDir = Annotated[Path | None, typer.Option(help="Where RobustBench's checkpoints lie, in its layout.")]
Mean = Annotated[str | None, typer.Option(help="The model subtracts this, as 0.49,0.48,0.45 for images in [0,1].")]
Std = Annotated[str | None, typer.Option(help="The model divides by this, as 0.25,0.24,0.26.")]
Resize = Annotated[str | None, typer.Option(help="The model sees images of this size, as 224 or 224x288.")]
ValueRange = Annotated[str | None, typer.Option(help="What 0 and 1 become before mean and std, as 0,255.")]
Traits = Annotated[
    list[str] | None,
    typer.Option("--trait", help="stochastic, nondifferentiable, test_time_optimisation, rejects or stateful."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Dataset = Annotated[str, typer.Option(help="fashion_mnist, mnist, cifar10, cifar100 or svhn.")]
Data = Annotated[Path | None, typer.Option(help="An .npz with x and y, or a folder of class folders.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the data set lies (torchvision's layout or idx files).")]
Download = Annotated[bool, typer.Option("--download", help="Let libraries fetch the data set or the weights.")]
Weights = Annotated[Path | None, typer.Option(help="A .safetensors or state-dict .pt file.")]
Network = Annotated[str | None, typer.Option(help="Network of bare --weights: middle_cnn, resnet18 or lenet.")]
Width = Annotated[float | None, typer.Option(help="Its width factor (default: 1 with --network).")]
Inference = Annotated[
    list[str] | None,
    typer.Option(
        "--inference", help="KEY=VALUE of the test-time part, as purify=pgd, xi=0.1, noise=gaussian, amplitude=16/255."
    ),
]
Eps = Annotated[str | None, typer.Option(help="Radius, as 8/255 or 0.031; the checkpoint's own, else 8/255.")]
Norm = Annotated[str, typer.Option(help="Linf, L2, L1 or L0.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="step.option=value, as square.n_queries=1000.")]
ClaimRobust = Annotated[float | None, typer.Option(help="A claimed robust accuracy, as 0.865.")]
ClaimAttack = Annotated[str, typer.Option(help="The attack of that claim, as pgd-100; it joins the claimed attacks.")]
Listed = Annotated[Kind, typer.Argument(help="defenses, suites, attacks, datasets, references, diagnoses or claims.")]
Whose = Annotated[str | None, typer.Option("--defense", help="With claims: those that speak of this defense.")]
ClaimLine = Annotated[str | None, typer.Option("--claim", help="Audit one printed claim: see `list claims`.")]
ClaimClean = Annotated[float | None, typer.Option(help="The clean accuracy that goes with the claim, as 0.911.")]
Verdicts = Annotated[
    list[FailOn] | None, typer.Option(help="Verdicts that end in exit code 1; drop goes with --check.")
]
Reasons = Annotated[list[FailOn] | None, typer.Option("--fail-on", help="What ends in exit code 1 (default: drop).")]
Check = Annotated[Path | None, typer.Option("--check", help="A baseline; exit code 1 on a drop: see `check`.")]
MaxDrop = Annotated[float, typer.Option(help="The drop of an accuracy that is allowed, as 0.01 for one point.")]
Alpha = Annotated[float, typer.Option(help="How often an unchanged model may fail, over all figures together.")]
OutDir = Annotated[
    Path | None, typer.Option("--out", help="Write checks.json, junit.xml, audit.sarif and a badge there.")
]
Time = Annotated[str | None, typer.Option("--budget", help="Stop before the next unit once so long was worked, as 5m.")]
Passes = Annotated[int | None, typer.Option("--budget-queries", help="Likewise, once so many passes were made.")]
References = Annotated[
    str,
    typer.Option("--reference", help="Run the suite on these too and compare image by image, as standard,pgd_at."),
]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Run again what crashed in an earlier run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan with its cost, attack nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print report.json, or the plan of --dry-run, and nothing else.")]
JsonRows = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.")]
