"""The doctor lists every dependency, attack and adapter, and survives whatever a broken library raises."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from audit import doctor, registry
from audit.cli import main

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = ("art", "foolbox", "onnx", "robustbench", "ray", "tsne")


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in requirements}


def test_every_dependency_and_extra_of_the_project_is_listed():
    assert {name for name, _, extra, _ in doctor.LIBRARIES if extra is None} == named(PROJECT["dependencies"])
    for extra in EXTRAS:
        listed = {name for name, _, of, _ in doctor.LIBRARIES if of == extra}
        assert listed == named(PROJECT["optional-dependencies"][extra])
    assert set(PROJECT["optional-dependencies"]) == {*EXTRAS, "all", "dev"}


def test_every_registered_attack_and_adapter_is_listed_with_its_library():
    found = doctor.examine()
    listed = {word for f in found for word in re.findall(r"[\w-]+", f.purpose)}
    assert {*registry.attacks, *registry.adapters} <= listed
    versions = {f.library: f.version for f in found}
    assert re.fullmatch(r"pyautoattack \d.*", versions["audit.attacks.autoattack"])
    assert re.fullmatch(r"torchattacks \d.*", versions["audit.attacks.torchattacks"])
    assert all(f.imports for f in found if f.core)


@pytest.mark.parametrize("raised", ["ImportError('no')", "RuntimeError('no [gpu]')", "AttributeError", "SystemExit(3)"])
def test_a_broken_library_is_reported_and_not_raised(tmp_path, monkeypatch, raised, capsys):
    (tmp_path / "planted_broken.py").write_text(f"raise {raised}\n")
    monkeypatch.syspath_prepend(tmp_path)
    broken = (("numpy", "planted_broken", None, "planted"), ("ray", "planted_broken", "ray", "planted"))
    monkeypatch.setattr(doctor, "LIBRARIES", broken)
    monkeypatch.setattr(doctor, "installed", lambda library: {"numpy": "2.0"}.get(library))
    first, second = doctor.examine()[:2]
    assert (first.imports, first.version, first.core) == (False, "2.0", True)
    kind = re.match(r"\w+", raised)[0]
    assert re.fullmatch(rf"installed but broken \({kind}.*\); pip install numpy --force-reinstall", first.advice)
    assert second.advice == "pip install -e '.[ray]'"
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "pip install -e '.[ray]'" in shown
    assert ("[gpu]" in shown) == ("[gpu]" in raised)
    assert shown.endswith("Core, and does not import: numpy.")


def test_an_attack_or_adapter_that_does_not_load_is_reported(monkeypatch):
    monkeypatch.setitem(registry.attacks._targets, "fgsm", "audit.attacks.torchattacks:fgms")
    monkeypatch.setitem(registry.adapters._targets, "mine", "no_such_package.module:Adapter")
    found = {f.library: f for f in doctor.examine()}
    ours, theirs = found["audit.attacks.torchattacks"], found["no_such_package.module"]
    assert (ours.imports, ours.core) == (False, True)
    assert "fgsm: AttributeError" in ours.advice
    assert (theirs.imports, theirs.core) == (False, False)
    assert "No module named 'no_such_package'" in theirs.advice
    assert "no_such_package" not in sys.modules


def test_advice_outside_a_clone_and_for_setuptools(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "installed", lambda library: None)
    planted = tuple((library, "no_such_module", "robustbench", "") for library in ("timm", "setuptools"))
    monkeypatch.setattr(doctor, "LIBRARIES", planted)
    advice = [found.advice for found in doctor.examine()[:2]]
    assert advice == ["pip install 'robustness-audit[robustbench]'", "pip install 'setuptools<81'"]


def test_without_the_extras_of_our_own_wrappers_the_core_is_sound(monkeypatch, capsys):
    for name, module in (("cw-l2", "audit.attacks.art"), ("ddn", "audit.attacks.foolbox")):
        monkeypatch.setitem(registry.attacks._targets, name, f"{module}:not_there")
    present = doctor.installed
    gone = ("adversarial-robustness-toolbox", "foolbox")
    monkeypatch.setattr(doctor, "installed", lambda library: None if library in gone else present(library))
    found = {f.library: f for f in doctor.examine()}
    for module, extra in (("audit.attacks.art", "art"), ("audit.attacks.foolbox", "foolbox")):
        assert (found[module].imports, found[module].core) == (False, False)
        assert found[module].advice == f"pip install -e '.[{extra}]'"
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert not ended.value.code
    assert capsys.readouterr().out.rstrip().endswith("All of the core imports; the rest is optional.")


def test_a_wrapper_that_fails_beside_its_installed_library_is_core(monkeypatch):
    monkeypatch.setitem(registry.attacks._targets, "ddn", "audit.attacks.foolbox:dnn")
    found = {f.library: f for f in doctor.examine()}["audit.attacks.foolbox"]
    assert (found.imports, found.core) == (False, True)
    assert "ddn: AttributeError" in found.advice


def test_a_file_gets_whole_lines(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit):
        main(["doctor"])
    rows = capsys.readouterr().out.splitlines()
    assert any(row.split()[0] == "audit.attacks.torchattacks" and "ti-dim" in row for row in rows)


def test_robustbench_is_loaded_as_audits_load_it():
    found = {f.library: f for f in doctor.examine()}["robustbench"]
    assert found.imports == (doctor.installed("robustbench") is not None)
