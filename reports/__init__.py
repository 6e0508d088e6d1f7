"""Reports, rendered from a run directory alone. Nothing here loads torch."""

from __future__ import annotations

import json
from pathlib import Path

from audit.ledger import write_atomically
from audit.summary import load_run
from reports.html import render_html
from reports.markdown import render_markdown

__all__ = ["write_reports"]


def write_reports(run_dir: Path) -> Path:
    """Write report.json, report.md and report.html into the run directory and return the last.

    Raises PlanMismatch when the directory holds no run, CannotWrite when it cannot be written.
    """
    audit = load_run(run_dir)
    data = audit.to_dict()
    write_atomically(run_dir / "report.json", (json.dumps(data, indent=1) + "\n").encode())
    write_atomically(run_dir / "report.md", render_markdown(data).encode())
    page = run_dir / "report.html"
    write_atomically(page, render_html(data, audit).encode())
    return page
