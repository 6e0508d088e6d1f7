"""The nouns: radii as people type them, and values that cannot be used refused with what to type instead."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import pytest

from audit.errors import AuditError, BadInput, UnknownName
from audit.stats import estimate
from audit.types import NORMS, TRAITS, AdapterSpec, Claim, Step, ThreatModel, parse_eps, show_eps


def claim(**changes) -> Claim:
    fields = {
        "defense": "d", "dataset": "s", "architecture": "a", "threat": ThreatModel(), "attack": "pgd",
        "robust_acc": 0.5, "source": "Table 1",
    }  # fmt: skip
    return Claim(**{**fields, **changes})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        (" 8 / 255 ", 8 / 255),
        ("0.031", 0.031),
        (0.25, 0.25),
        (1, 1.0),
        ("3e-2", 0.03),
        ("1/3", 1 / 3),
        ("1.2/255", float(Fraction("1.2") / 255)),
        ("1/2.5", 0.4),
    ],
)
def test_eps_is_read_to_the_nearest_double(text, value):
    assert parse_eps(text) == value


@pytest.mark.parametrize("norm", ["L2", "L1", "L0"])
def test_only_linf_bounds_eps_by_the_box(norm):
    assert parse_eps("8", norm) == 8.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", r"eps is 8, expected a radius in \(0,1\] for images in \[0,1\]; did you mean 8/255\?"),
        (2, r"eps is 2, .*did you mean 2/255\?"),
        ("256", r"eps is 256, .*did you mean 8/255\?"),
        ("1e300", r"eps is 1e300, .*did you mean 8/255\?"),
        (0, r"eps is 0, expected a positive radius; did you mean 8/255\?"),
        ("1e-400", r"eps is 1e-400, expected a positive radius"),
        (-1, r"eps is -1, expected a positive radius"),
        ("-8/255", r"eps is -8/255, expected a positive radius"),
        ("abc", r"eps is 'abc', expected a number or a fraction; type for example --eps 8/255"),
        ("", r"eps is '', expected a number or a fraction"),
        ("8/0", r"eps is '8/0', expected a number or a fraction"),
        ("8/255/2", r"expected a number or a fraction"),
        ("nan", r"eps is 'nan', expected a number or a fraction"),
        (math.nan, r"eps is nan, expected a number or a fraction"),
        ("inf", r"eps is 'inf', expected a number or a fraction"),
        ("1e400", r"eps is '1e400', expected a number or a fraction"),  # more than a double can hold
    ],
)
def test_bad_eps_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        parse_eps(text)


@pytest.mark.parametrize(
    ("eps", "shown"),
    [
        (8 / 255, "8/255"),
        (1 / 255, "1/255"),
        (0.03, "0.03"),
        (0.5, "0.5"),
        (0.0313, "0.0313"),
        (1e-9, "1e-09"),
        (1.0, "1"),
        (2.0, "2"),
    ],
)
def test_eps_is_shown_as_a_fraction_only_where_it_is_one(eps, shown):
    assert show_eps(eps) == shown


def test_every_pixel_step_is_shown_as_it_is_typed():
    for over in range(1, 255):
        assert show_eps(over / 255) == f"{over}/255"
        assert parse_eps(show_eps(over / 255)) == over / 255


def test_threat_model_defaults_and_text():
    threat = ThreatModel()
    assert (threat.norm, threat.eps, threat.bounds) == ("Linf", 8 / 255, (0.0, 1.0))
    assert str(threat) == "Linf 8/255"
    assert str(ThreatModel("L2", 0.5)) == "L2 0.5"


def test_threat_model_refuses_an_unknown_norm():
    with pytest.raises(BadInput, match=r"norm is 'linf', expected one of Linf, L2, L1, L0; type --norm Linf"):
        ThreatModel("linf", 0.1)


@pytest.mark.parametrize("eps", [8, 0, -1, math.nan, 2])
def test_threat_model_refuses_a_bad_radius(eps):
    with pytest.raises(BadInput, match=r"eps is "):
        ThreatModel("Linf", eps)


@pytest.mark.parametrize("field", ["robust_acc", "clean_acc"])
@pytest.mark.parametrize("value", [-0.1, 1.1, 86.5, math.nan])
def test_a_claim_is_a_fraction(field, value):
    noun = {"robust_acc": "robust accuracy", "clean_acc": "clean accuracy"}[field]
    with pytest.raises(BadInput, match=rf"the claimed {noun} is {value}, expected a fraction in \[0,1\]; type 0.865"):
        claim(**{field: value})


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_claim_may_be_at_either_end(value):
    assert claim(robust_acc=value, clean_acc=value).robust_acc == value
    assert claim(robust_acc=value).clean_acc is None


def test_estimate_is_shown_in_percent():
    assert str(estimate(0, 0)) == "0.0% [0.0%, 100.0%]"
    assert str(estimate(10, 10)) == "100.0% [69.2%, 100.0%]"  # 0.025 ** (1 / 10) = 0.6915


@pytest.mark.parametrize(
    "step",
    [
        Step("a", "pgd", "quick"),
        Step("b", "apgd-ce", "adaptive", "control", (AdapterSpec("rescale", {"temperature": "auto"}),
             AdapterSpec("float64")), {"n_iter": 7, "rel_stepsize": 0.1}, 1.0, 100, "why"),
    ],
)  # fmt: skip
def test_a_step_survives_json(step):
    assert Step.from_dict(json.loads(json.dumps(step.to_dict()))) == step


def test_nouns_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ThreatModel().eps = 1.0


def test_what_a_user_can_mend_ends_with_exit_code_2():
    assert UnknownName("x").exit_code == BadInput("x").exit_code == 2
    assert issubclass(UnknownName, BadInput)
    assert issubclass(BadInput, AuditError)


def test_every_error_of_the_tree_is_raised_somewhere():
    from pathlib import Path

    from audit import errors

    root = Path(errors.__file__).parent.parent
    code = "".join(
        path.read_text()
        for part in ("audit", "defenses", "adapters", "reports")
        for path in (root / part).rglob("*.py")
    )
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and kind is not AuditError]
    assert [name for name in kinds if f"raise {name}(" not in code] == []


def test_known_norms_and_traits():
    assert NORMS == ("Linf", "L2", "L1", "L0")
    assert "stochastic" in TRAITS
