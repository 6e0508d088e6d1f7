"""A pytest plug-in: the fixture `assert_robust`, the marker `robust`, the option `--audit-update-baseline`.

    def test_my_model_stays_robust(assert_robust):
        assert_robust("undefended", suite="quick", n=200, eps="4/255", baseline="undefended.json")

pytest loads this module in every session of an environment in which the project is installed, so it imports nothing heavy:
neither torch nor numpy, until a test audits something.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from audit.guard import Rules
    from audit.summary import Audit

MARKER = "robust: audits a model; marked by itself where a test takes the fixture assert_robust"
CACHE = "robustness-audit"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("audit", "robustness audits")
    group.addoption(
        "--audit-update-baseline", action="store_true", default=False,
        help="Freeze what assert_robust measures into its baselines, instead of failing on a drop.",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m robust` and `-m "not robust"` choose the tests that audit, which are the slow ones."""
    for item in items:
        if "assert_robust" in getattr(item, "fixturenames", ()):
            item.add_marker("robust")


@pytest.fixture
def assert_robust(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Audit]:
    """A function that audits a model and fails the test where it is not as robust as it was, or as is claimed.

    Its arguments: `model`, what `audit.run` takes: the name of a defense, "timm:NAME" and its like, "module:factory", or an nn.Module;
    `data`, the name of a data set, the path of an .npz or of a folder of images, or a pair of images and labels; `claim`, a robust accuracy in [0,1] or the id of a printed claim; `suite`; `baseline`, a file
    beside the test that `--audit-update-baseline` writes; `max_drop`, `alpha`: see `audit.regression`; `fail_on`: verdicts
    that fail; and the options of `audit.run`. It returns the `Audit`. Runs are kept in pytest's cache, so
    that a model that did not change is not attacked again.
    """
    cache = getattr(request.config, "cache", None)
    runs = tmp_path_factory.mktemp("audits") if cache is None else Path(cache.mkdir(CACHE))
    updating = bool(request.config.getoption("--audit-update-baseline"))

    def check(
        model: Any, data: Any = None, *, claim: float | str | None = None, suite: str = "quick",
        baseline: str | Path | None = None, max_drop: float = 0.01, alpha: float = 0.05,
        fail_on: tuple[str, ...] = ("refuted",), **options: Any,
    ) -> Audit:  # fmt: skip
        from audit.errors import AuditError
        from audit.guard import Rules

        asked = {**options, "suite": suite, **_claimed(claim), **_images(data)}
        frozen = None if baseline is None else request.path.parent / baseline
        try:
            found, failures = _examined(
                model, asked, frozen, Rules(max_drop, alpha, ("drop", *fail_on)), runs, updating
            )
        except AuditError as error:
            pytest.fail(str(error), pytrace=False)
        if failures:
            pytest.fail(
                "\n".join([f"{found.results.plan.identity['defense']} is not as robust as it should be:", *failures]),
                pytrace=False,
            )
        return found

    return check


def _examined(
    model: Any, options: dict[str, Any], baseline: Path | None, rules: Rules, runs: Path, updating: bool
) -> tuple[Audit, tuple[str, ...]]:
    """The finished run, and why the test fails. Raises the AuditError that keeps it from being judged."""
    from audit import ci, guard, preparation
    from audit.baselines import comparable, read_baseline
    from audit.errors import BadInput
    from audit.regression import refuse_what_differs
    from audit.runner import Silent

    prepared = preparation.prepare(model, **options)
    if baseline is not None and not updating:
        if not baseline.exists():
            raise BadInput(f"there is no baseline {baseline}; type pytest --audit-update-baseline and commit it")
        refuse_what_differs(read_baseline(baseline).comparable, comparable(prepared.plan))
    run_dir = ci.directory(runs, prepared.plan.identity["defense"], prepared.plan)
    found, _, _ = ci.finish(prepared, run_dir, lambda *_: nullcontext(Silent()))
    if baseline is not None and updating:
        guard.update(found, baseline)
    return found, guard.examine(found, baseline, rules).failures


def _claimed(claim: float | str | None) -> dict[str, Any]:
    if claim is None:
        return {}
    return {"claim": claim} if isinstance(claim, str) else {"claim_robust": claim}


def _images(data: Any) -> dict[str, Any]:
    """A data set by its name, else the images themselves or their path."""
    from audit import registry

    if data is None:
        return {}
    known = isinstance(data, str) and data in registry.datasets.names()
    return {"dataset": data} if known else {"data": data}
