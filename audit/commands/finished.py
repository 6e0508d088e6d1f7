"""`audit report` and `audit verify`: what can be done with a finished run."""

from __future__ import annotations

import typer

from audit import options as o


def report(run_dir: o.RunDir) -> None:
    """Render report.html, report.md and report.json again from a run directory."""
    from reports import write_reports

    print(write_reports(run_dir))


def verify(
    run_dir: o.RunDir,
    weights: o.Weights = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    device: o.Device = "auto",
) -> None:
    """Judge every stored adversarial image again: in the ball, in [0,1], misclassified.

    Weights and images are looked for where the run found them; --weights, --data and --data-dir say where they lie now.
    """
    from audit.verify import reverify, sound

    found = reverify(run_dir, device, weights=weights, data=data, data_dir=data_dir)
    print(
        f"{found['verified']} adversarial images judged again, {found['rejected']} rejected; "
        f"{found['missing']} units missing, {found['damaged']} damaged"
    )
    for failure in found["failures"]:
        print(f"  {failure}")
    if not sound(found):
        raise typer.Exit(1)
