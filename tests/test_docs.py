"""The pages of docs/: their code runs, their commands parse, the reference is up to date, and the site builds."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from rich.console import Console
from torchvision import models

from audit import registry
from audit.catalogue import listing
from audit.cli import app
from audit.rules import TOO_DEAR_WITH_EOT, TOO_DEAR_WITH_PURIFIER, Nature
from docs.site.reference import PAGE, page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(str(found.relative_to(ROOT)) for found in DOCS.rglob("*.md"))
SITE = DOCS / "site/mkdocs.yml"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?: {4})?(python -m audit [^#\n]*)", re.MULTILINE)
NAMED = re.compile(r"# (\w+\.py)\n")  # the first line of a block that the page tells to save under that name
GENERATED = "docs/reference.md"  # its blocks are signatures


@dataclass(frozen=True)
class Blocks:
    """The Python of a page: files to be saved, by name, and code to be run in order."""

    files: dict[str, str]
    code: list[str]


def blocks(name):
    found = PYTHON.findall((ROOT / name).read_text())
    saved = {named[1]: text for text in found if (named := NAMED.match(text))}
    return Blocks(saved, [text for text in found if not NAMED.match(text)])


def commands(name):
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in COMMAND.findall(text)]


COMMANDS = sorted({(name, line) for name in [*PAGES, "README.md"] for line in commands(name)})
WITH_CODE = [name for name in PAGES if name != GENERATED and blocks(name).code]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to work in, from which modules are imported; none of them stays imported."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with torch.random.fork_rng():
        yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def save(desk, name):
    for file, text in blocks(name).files.items():
        (desk / file).write_text(text)


# --- what the pages say is so


def test_pages_and_code_were_found():
    assert {"docs/index.md", "docs/your_own_model.md", "docs/adapters.md", "docs/reading_a_report.md"} <= set(PAGES)
    assert {"docs/your_own_model.md", "docs/adapters.md", "docs/reading_a_report.md", "docs/robustbench.md"} <= set(
        WITH_CODE
    )
    assert set(blocks("docs/your_own_model.md").files) == {"my_defense.py", "jpeg_resnet.py", "images.py"}
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("name", "line"), COMMANDS)
def test_every_command_parses(name, line):
    words = shlex.split(line)[3:]
    known = typer.main.get_command(app).commands[words[0]]
    known.make_context(words[0], words[1:])  # raises for an unknown flag or a value that does not fit


def row(page, first):
    """The cells of the table row whose first cell names it."""
    found = [line for line in page.splitlines() if line.startswith("| `") and f"`{first}`" in line.split(" | ")[0]]
    assert found, first
    return found[-1]


def test_every_attack_that_declares_an_exception_stands_in_the_table():
    page = (ROOT / "docs" / "attacks.md").read_text().split("## The contract")[1].split("\n## ")[0]
    for name in registry.attacks:
        reach = registry.attacks.load(name).reach
        for factor in reach.values() if isinstance(reach, dict) else [reach]:
            if factor != 1.25:
                assert f"| {factor:g}" in row(page, name), name
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(
        registry.attacks.load(name).reach != 1.25
        for line in rows
        for name in re.findall("`([^`]+)`", line.split(" | ")[0])
    )


def test_the_steps_that_random_defenses_and_purifiers_leave_out_are_named():
    page = (ROOT / "docs" / "attacks.md").read_text()
    for kind, names in (("random", TOO_DEAR_WITH_EOT), ("purifier", TOO_DEAR_WITH_PURIFIER)):
        (line,) = (line for line in page.splitlines() if line.startswith(f"| {kind}"))
        assert set(re.findall("`([^`]+)`", line)) - {"eot-pgd"} == set(names)
        images = Nature(stochastic=kind == "random", blind=kind != "random").images
        assert f"| {images} |" in line


def test_an_attacks_docstring_ends_with_its_reference():
    for name in registry.attacks:
        attack = registry.attacks.load(name)
        assert attack.__doc__.endswith(f"\n\nReference: {attack.reference}."), name
        assert len(attack.__doc__) > len(attack.reference) + 60, name


def test_the_list_of_attacks_says_what_is_none(capsys):
    Console().print(listing("attacks"))
    said = " ".join(capsys.readouterr().out.split())
    assert "AutoAttack standard, plus and rand are suites" in said
    assert "cross-entropy on rescaled logits is apgd-ce through the adapter" in said


def test_the_reference_is_up_to_date():
    assert page() == PAGE.read_text(), "type python -m docs.site.reference"


def test_the_reference_has_every_flag_and_every_name():
    import audit

    text = PAGE.read_text()
    for name, command in typer.main.get_command(app).commands.items():
        section = text.split(f"### audit {name}\n")[1].split("\n### ")[0]
        flags = {option for param in command.params for option in param.opts if option.startswith("--")}
        assert {flag for flag in flags - {"--help"} if f"`{flag}" not in section} == set()
    assert [name for name in audit.__all__ if f"\n### {name}\n" not in text] == []
    assert [name for name in ("check_attack", "check_defense") if f"\n### {name}\n" not in text] == []
    assert [name for name in registry.adapters.names() if f"\n### {name}\n" not in text] == []


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", SITE.read_text(), re.MULTILINE))
    assert listed == {name.removeprefix("docs/") for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_no_link_leads_nowhere(name):
    here = (ROOT / name).parent
    links = re.findall(r"\]\(([^)#\s:]+\.\w+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert [link for link in links if not (here / link).is_file()] == []


# --- their code runs


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs(desk, name):
    save(desk, name)
    space = {"__name__": "__main__"}
    for number, text in enumerate(blocks(name).code):
        exec(compile(text, f"{name}, block {number}", "exec"), space)


def test_the_jpeg_defense_of_the_page_answers(desk):
    save(desk, "docs/your_own_model.md")
    model = importlib.import_module("my_defense").build().eval()
    images = registry.datasets.load("fashion_mnist").load().first(50)
    x, y = torch.from_numpy(images.x).requires_grad_(), torch.from_numpy(images.y)
    logits = model(x)
    assert (logits.argmax(1) == y).float().mean() > 0.7
    assert not torch.equal(model.purifier(x), x)
    assert not logits.grad_fn or torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] is None


def test_the_torchvision_variant_takes_local_weights(desk):
    save(desk, "docs/your_own_model.md")
    torch.save(models.resnet18().state_dict(), desk / "resnet18.pt")
    model = importlib.import_module("jpeg_resnet").build(weights=desk / "resnet18.pt").eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1000)


def test_the_images_of_the_page_are_what_data_takes(desk):
    from audit.datasets import load_path

    save(desk, "docs/your_own_model.md")
    for number, folder in enumerate(("n01440764", "n01443537")):
        (desk / "val" / folder).mkdir(parents=True)
        for i in range(2):
            pixels = np.full((300, 280, 3), 90 * number + i, np.uint8)
            Image.fromarray(pixels).save(desk / "val" / folder / f"{i}.png")
    runpy.run_path(str(desk / "images.py"))
    found = load_path(desk / "images.npz", "imagenet")
    assert found.x.shape == (4, 3, 224, 224)
    assert sorted(found.y) == [0, 0, 1, 1]
    assert np.allclose(found.x[:, 0, 0, 0], 90 * found.y / 255, atol=2 / 255)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """Links and navigation, under a theme that mkdocs brings along: make docs dresses them in an environment of its own."""
    pytest.importorskip("mkdocs", reason="pip install -e '.[dev]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-t", "mkdocs", "-f", str(SITE), "-d", str(tmp_path / "site")],
        capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr + built.stdout
    assert (tmp_path / "site/your_own_model.html").is_file()
