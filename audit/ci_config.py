"""`audit.toml`: the models that `audit ci` guards, read and checked. Torch-free.

    [ci]
    cache = "runs/ci"          # run directories; kept between runs, so that only what changed is run
    out = "audit-ci"           # junit.xml, summary.md, audit.sarif, checks.json, badges/

    [defaults]                 # for every model
    suite = "quick"
    n = 200

    [[models]]
    defense = "undefended"
    baseline = "baselines/undefended.json"

Keys of a model are the flags of `audit run` with underscores, and `name`, `baseline`, `max_drop`, `alpha` and `fail_on`.
Paths are relative to the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.budget import parse_budget
from audit.errors import BadInput
from audit.guard import Rules, check_reasons, slug
from audit.registry import closest

TEXT, WHOLE, NUMBER, SWITCH, LIST, PATH = (
    "a text",
    "a whole number",
    "a number",
    "true or false",
    "a list of texts",
    "a path",
)
RADIUS = "a number or a text"
EXAMPLES = {
    TEXT: '"quick"', WHOLE: "200", NUMBER: "0.01", SWITCH: "true", LIST: '["square.n_queries=1000"]', PATH: '"robust.json"',
    RADIUS: '"8/255"',
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    TEXT: (str,), WHOLE: (int,), NUMBER: (int, float), SWITCH: (bool,), LIST: (list,), PATH: (str,), RADIUS: (str, int, float),
}  # fmt: skip
RUN_KEYS = {
    "suite": TEXT, "dataset": TEXT, "data": PATH, "data_dir": PATH, "download": SWITCH, "weights": PATH, "network": TEXT,
    "width": NUMBER, "n": WHOLE, "seed": WHOLE, "eps": RADIUS, "norm": TEXT, "device": TEXT, "batch_size": WHOLE,
    "model_dir": PATH, "mean": TEXT, "std": TEXT, "resize": TEXT, "value_range": TEXT, "trait": LIST, "inference": LIST,
    "set": LIST, "claim": TEXT, "claim_robust": NUMBER, "claim_attack": TEXT, "claim_clean": NUMBER,
}  # fmt: skip
LISTS = {
    "set": "settings",
    "trait": "traits",
    "inference": "inference",
}  # keys that hold lists, and what `prepare` calls them
RULE_KEYS = {"max_drop": NUMBER, "alpha": NUMBER, "fail_on": LIST, "budget": TEXT, "budget_queries": WHOLE}
OWN_KEYS = {"name": TEXT, "defense": TEXT, "model": TEXT, "baseline": PATH}
CI_KEYS = {"cache": PATH, "out": PATH}


@dataclass(frozen=True)
class Model:
    """One model to guard. defense: what `--defense` or `--model` takes; options: for `audit.preparation.prepare`; time, passes: its budget, see `audit.budget`."""

    name: str
    defense: str
    options: Mapping[str, Any]
    baseline: Path | None = None
    rules: Rules = field(default_factory=Rules)
    time: str | None = None
    passes: int | None = None

    @property
    def slug(self) -> str:
        return slug(self.name)


@dataclass(frozen=True)
class Config:
    """What audit.toml says."""

    path: Path
    models: tuple[Model, ...]
    cache: Path
    out: Path


def read_config(path: Path) -> Config:
    """Raises BadInput, naming the entry and the key, for everything that cannot be used."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"there is no {path}, expected the file that names the models; write one as docs/ci.md shows, or type --config FILE"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}), expected TOML as in docs/ci.md; mend it there") from error
    known = {"ci": dict, "defaults": dict, "models": list}
    for key, value in data.items():
        _known(f"{path}", key, known)
        if not isinstance(value, known[key]):
            raise BadInput(
                f"{path} has {key} as a {type(value).__name__}; type {'[[models]]' if key == 'models' else f'[{key}]'}"
            )
    folder, shared = path.parent, data.get("defaults", {})
    general = _typed(f"{path}, [ci]", data.get("ci", {}), CI_KEYS, folder)
    _typed(f"{path}, [defaults]", shared, RUN_KEYS | RULE_KEYS, folder)
    models = tuple(_model(path, number, shared, entry) for number, entry in enumerate(data.get("models", []), 1))
    if not models:
        raise BadInput(f'{path} names no models; add a table [[models]] with defense = "undefended"')
    slugs = [model.slug for model in models]
    if twice := {slug for slug in slugs if slugs.count(slug) > 1}:
        raise BadInput(f"{path} has several models named {', '.join(sorted(twice))}; give each a name of its own")
    return Config(path, models, general.get("cache", folder / "runs/ci"), general.get("out", folder / "audit-ci"))


def _model(path: Path, number: int, shared: Mapping[str, Any], entry: Any) -> Model:
    where = f"{path}, models[{number}]"
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is {entry!r}, expected a table; type [[models]]")
    found = _typed(where, {**shared, **entry}, OWN_KEYS | RUN_KEYS | RULE_KEYS, path.parent)
    if ("defense" in found) == ("model" in found):
        raise BadInput(
            f'{where} names {"both a defense and a model" if "model" in found else "no defense"}; type defense = "undefended" '
            '(see python -m audit list defenses) or model = "timm:resnet18"'
        )
    fail_on = tuple(found.pop("fail_on", ("drop",)))
    try:
        check_reasons(fail_on)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    rules = Rules(found.pop("max_drop", Rules.max_drop), found.pop("alpha", Rules.alpha), fail_on)
    if "drop" in fail_on and "fail_on" in {**shared, **entry} and "baseline" not in found:
        raise BadInput(f'{where} fails on a drop and has no baseline; type baseline = "robust.json"')
    defense = found.pop("defense", None) or found.pop("model")
    name, baseline = found.pop("name", defense), found.pop("baseline", None)
    budget = (found.pop("budget", None), found.pop("budget_queries", None))
    try:
        parse_budget(*budget)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    found |= {name: tuple(found.pop(key)) for key, name in LISTS.items() if key in found}
    return Model(name, defense, found, baseline, rules, *budget)


def _typed(where: str, table: Mapping[str, Any], known: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The table with its paths resolved. Raises BadInput for an unknown key or a value of the wrong type."""
    found = {}
    for key, value in table.items():
        _known(where, key, known)
        kind = known[key]
        fits = isinstance(value, TYPES[kind]) and (kind == SWITCH or not isinstance(value, bool))
        if not fits or (kind == LIST and not all(isinstance(item, str) for item in value)):
            raise BadInput(f"{where} has {key} = {value!r}, expected {kind}; type {key} = {EXAMPLES[kind]}")
        found[key] = Path(os.path.normpath(folder / Path(value).expanduser())) if kind == PATH else value
    return found


def _known(where: str, key: str, known: Mapping[str, Any]) -> None:
    if key not in known:
        raise BadInput(f"{where} has the key {key!r}: {closest(key, sorted(known))}")
