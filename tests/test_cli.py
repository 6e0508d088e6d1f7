"""The command line: exit codes, one sentence for every mistake, files that a run leaves."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audit import registry
from audit.cli import main
from audit.errors import BadInput
from audit.ledger import Ledger
from audit.summary import load_run
from defenses.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = ["--n", "12", "--batch-size", "8", "--quiet"]


def call(*arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "quick"
    assert call("run", "--defense", "super_fitting", "--suite", "quick", "--out", out, *SMALL) == 0
    return out


def test_a_run_leaves_its_files(finished):
    for name in ("plan.json", "checks.json", "run.log", "report.html", "report.json", "report.md"):
        assert (finished / name).stat().st_size > 0, name
    assert len(list((finished / "units").glob("*.npz"))) == 2 + 6 * 2  # clean, five steps and a control on two shards


def test_json_is_the_report_and_nothing_else(finished, capsys):
    call("run", "--defense", "super_fitting", "--suite", "quick", "--out", finished, *SMALL[:-1], "--json")
    assert json.loads(capsys.readouterr().out) == json.loads((finished / "report.json").read_text())


def test_a_finished_run_is_not_run_again(finished):
    before = {path: path.stat().st_mtime_ns for path in (finished / "units").iterdir()}
    assert call("run", "--defense", "super_fitting", "--suite", "quick", "--out", finished, *SMALL) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (finished / "units").iterdir()}


def test_another_plan_is_refused_and_each_field_named(finished, capsys):
    code = call(
        "run",
        "--defense",
        "super_fitting",
        "--suite",
        "quick",
        "--out",
        finished,
        *SMALL,
        "--seed",
        "7",
        "--eps",
        "4/255",
    )
    message = capsys.readouterr().err
    assert code == 2
    assert re.search(r"eps: .* -> ", message)
    assert "seed: 0 -> 7" in message


def test_report_and_verify_read_a_finished_run(finished, capsys):
    assert call("report", finished) == 0
    assert call("verify", finished) == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "0 rejected" in printed


def test_verify_rejects_a_forged_image(finished, tmp_path, capsys):
    import shutil

    forged = tmp_path / "forged"
    shutil.copytree(finished, forged)
    ledger = Ledger(forged)
    unit = next(
        u for u in load_run(forged).results.plan.units() if u.step is not None and len(ledger.read(u.name)[0]["x_adv"])
    )
    arrays, meta = ledger.read(unit.name)
    arrays["x_adv"] = np.clip(arrays["x_adv"] + 0.5, 0, 1)
    ledger.write(unit.name, arrays, meta)
    assert call("verify", forged) == 1
    assert "outside the ball" in capsys.readouterr().out


@pytest.mark.slow
def test_fail_on_turns_a_verdict_into_exit_code_1(finished):
    outcome = load_run(finished).verdict.outcome
    arguments = ["run", "--defense", "super_fitting", "--suite", "quick", "--out", finished, *SMALL]
    assert call(*arguments, "--fail-on", outcome) == 1
    assert call(*arguments, "--fail-on", "inconclusive" if outcome == "refuted" else "refuted") == 0


def test_dry_run_attacks_nothing(tmp_path, capsys):
    assert call("run", "--defense", "super_fitting", "-n", "12", "--out", tmp_path / "dry", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "square" in printed
    assert "passes" in printed
    assert not (tmp_path / "dry").exists()


def test_dry_run_as_json_is_the_plan(tmp_path, capsys):
    arguments = ["--defense", "super_fitting", "--n", "12", "--norm", "L2", "--eps", "0.5", "--dry-run", "--json"]
    assert call("run", *arguments) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {"fingerprint", "identity", "steps", "profile", "runtime", "cost"} <= set(plan)
    assert [s["step"] for s in plan["cost"]["steps"]] == [s["name"] for s in plan["steps"]]
    assert plan["cost"]["passes"] > 0
    assert plan["cost"]["seconds"] == pytest.approx(plan["cost"]["passes"] / plan["cost"]["rate"])
    assert len(plan["runtime"]["unsupported"]) == 4  # FGSM, BIM and twice PGD


@pytest.mark.slow
def test_steps_that_are_left_out_are_said(tmp_path, capsys):
    arguments = ["--defense", "undefended", "--suite", "quick", "--norm", "L2", "--eps", "0.5", "--n", "4"]
    assert call("run", *arguments, "--dry-run") == 0
    assert "step bim-20 is left out: attack bim supports Linf, not L2" in " ".join(capsys.readouterr().out.split())
    assert call("run", *arguments, "--out", tmp_path / "[red]run") == 0
    printed = capsys.readouterr().out
    assert "step bim-20 is left out: attack bim supports Linf, not L2" in printed
    assert f"steps -> {tmp_path / '[red]run'}" in printed


def test_another_plan_is_refused_before_the_table_is_drawn(finished, capsys):
    arguments = ["run", "--defense", "super_fitting", "--suite", "quick", "--out", finished, "--n", "12"]
    assert call(*arguments) == 2  # another batch size
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "batch_size: 8 -> 250" in printed.err


@pytest.mark.slow
def test_retry_errors_and_the_typed_claim_reach_the_run(tmp_path, monkeypatch):
    from audit import runner

    asked = {}

    def enter(prepared, out, *, retry_errors):
        asked.update(prepared.plan.identity, retry_errors=retry_errors)
        raise BadInput("seen")

    monkeypatch.setattr(runner, "enter", enter)
    arguments = ["--defense", "undefended", "--claim-clean", "0.5", "--retry-errors", "--out", tmp_path / "run", *SMALL]
    assert call("run", *arguments) == 2
    assert asked["retry_errors"] is True
    assert asked["expected_clean_acc"] == 0.5


def test_network_and_width_reach_the_weights(tmp_path, capsys):
    torch.save({"a": torch.ones(1)}, tmp_path / "net.pt")
    arguments = [
        "--defense",
        "undefended",
        "--weights",
        tmp_path / "net.pt",
        "--network",
        "resnet18",
        "--width",
        "0.25",
    ]
    assert call("run", *arguments, *SMALL) == 2
    assert "does not fit architecture {'name': 'resnet18', 'width': 0.25" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["defenses", "suites", "attacks", "datasets"])
def test_list(kind, capsys):
    assert call("list", kind) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_doctor(capsys):
    assert call("doctor") == 0
    assert "torchattacks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--defense", "super_fiting"], "did you mean 'super_fitting'"),
        (["--defense", "super_fitting", "--suite", "adaptiv"], "did you mean 'adaptive'"),
        (["--defense", "super_fitting", "--dataset", "fashion_mnst"], "did you mean 'fashion_mnist'"),
        (["--defense", "super_fitting", "--eps", "8"], "did you mean 8/255"),
        (["--defense", "super_fitting", "--eps", "0"], "positive radius"),
        (["--defense", "super_fitting", "--norm", "L7"], "expected one of Linf"),
        (["--defense", "super_fitting", "--n", "0"], "expected 1 to 1000"),
        (["--defense", "super_fitting", "--n", "1001"], "expected 1 to 1000"),
        (["--defense", "super_fitting", "--batch-size", "0"], "at least 1"),
        (["--defense", "super_fitting", "--device", "quantum"], "type --device cpu"),
        (["--defense", "super_fitting", "--weights", "/nowhere.safetensors"], "cannot be read"),
        (["--defense", "super_fitting", "--data", "/nowhere.npz"], "does not exist"),
        (["--defense", "super_fitting", "--dataset", "cifar10"], "not found"),
        (["--defense", "super_fitting", "--claim-robust", "86.5"], "type 0.865"),
        (["--defense", "super_fitting", "--claim-attack", "pgb"], "names attack 'pgb'"),
        (
            ["--defense", "super_fitting", "--claim", "super-t3-r1-pgd100"],
            "type --weights FILE, or --dataset fashion_mnist",
        ),
        (["--defense", "super_fitting", "--claim", "super-t9"], "unknown claim 'super-t9': did you mean"),
        (["--defense", "super_fitting", "--set", "square.queries=5"], "did you mean 'n_queries'"),
        (["--defense", "super_fitting", "--set", "sqare.n_queries=5"], "did you mean 'square'"),
        (["--defense", "super_fitting", "--set", "square.n_queries=five"], "expected int"),
        (["--defense", "undefended", "--suite", "full", "--n", "4", "--set", "a3.loss=hinge"], "has no loss 'hinge'"),
        (["--defense", "undefended", "--n", "4", "--claim-attack", "transfer"], "surrogate=MODEL or run=PATH"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    assert call("run", *arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed
    assert len(printed.splitlines()) == 1
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("list suits", "error: invalid value for 'kind': 'suits' is not one of .*; did you mean 'suites'\\?"),
        ("list", "error: missing argument 'kind'.*defenses, suites.*; see `python -m audit list --help`"),
        ("rnu", "error: unknown command 'rnu': did you mean 'run'\\?"),
        ("run", "error: expected a defense or a model, got neither; type --defense NAME or --model SCHEME:NAME"),
        ("train", "error: missing option '--defense'; see `python -m audit train --help`"),
        (
            "run --defense x --n abc",
            "error: invalid value for '--n'.*valid integer.*; see `python -m audit run --help`",
        ),
        ("run --defense x --fail-on refuse", "error: .*'refuse' is not one of .*; did you mean 'refuted'\\?"),
        ("run --defens x", "error: no such option: --defens; did you mean '--defense'\\?"),
        ("run --zzz", "error: no such option: --zzz; see `python -m audit run --help`"),
        ("--zzz", "error: no such option: --zzz; see `python -m audit --help`"),
    ],
)
def test_what_the_parser_refuses_is_one_sentence_and_exit_code_2(arguments, expected, capsys):
    assert call(*arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(expected + "\n", printed.err)


def test_nothing_typed_shows_the_help(capsys):
    assert call() == 2
    assert "Commands" in capsys.readouterr().err
    assert call("--help") == call("--version") == 0


def test_help_tells_how_many_images_and_which_networks(capsys):
    call("run", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "500 for sim_adv, 200 with a test-time purifier or suite full, 100 for a random defense" in printed
    assert all(name in printed for name in NETWORKS)


def test_a_norm_is_offered_only_when_an_attack_supports_it(capsys):
    supported = {norm for name in registry.attacks for norm in registry.attacks.load(name).norms}
    assert call("run", "--defense", "undefended", "--norm", "L7") == 2
    assert set(re.findall(r"L(?:inf|\d)", capsys.readouterr().err)) == {"L7", *supported}


def test_a_model_in_training_mode_or_with_nan_is_refused(monkeypatch, capsys):
    from defenses.base import NetworkDefense

    load = NetworkDefense.load
    monkeypatch.setattr(NetworkDefense, "load", lambda self, checkpoint: load(self, checkpoint).train())
    assert call("run", "--defense", "undefended", "--n", "4", "--quiet") == 2
    assert "training mode" in capsys.readouterr().err

    def with_nan(self, checkpoint):
        network = load(self, checkpoint)
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        return network

    monkeypatch.setattr(NetworkDefense, "load", with_nan)
    assert call("run", "--defense", "undefended", "--n", "4", "--quiet") == 2
    assert "NaN" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert call("run", "--defense", "super_fitting", "--out", blocked / "run", *SMALL) == 2
    assert "could not write" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_says_how_to_resume(tmp_path, monkeypatch, capsys):
    from audit.engine import LocalEngine

    def interrupt(self, unit, watcher):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "_attack", interrupt)
    assert call("run", "--defense", "super_fitting", "--suite", "quick", "--out", tmp_path / "run", *SMALL) == 130
    assert "run the same command again to resume" in capsys.readouterr().err


def interrupted(code: str, *arguments: object) -> tuple[int, str]:
    """Send SIGINT to a process once it prints READY; its exit code and what it wrote to stderr.

    The handler is set anew, since a shell's background jobs ignore the signal.
    """
    start = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}\n"
    start += f"from audit.cli import main\nmain({[str(a) for a in arguments]!r})"
    process = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "READY" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    return process.returncode, err


PAUSE = "import time\ndef pause(*a, **k):\n    print('READY', flush=True)\n    time.sleep(600)\n"


def test_ctrl_c_before_the_first_attack_ends_with_130_and_one_line(tmp_path):
    code = PAUSE + "import audit.preparation\naudit.preparation.profile = pause"
    found, err = interrupted(code, "run", "--defense", "undefended", "--n", "4", "--out", tmp_path / "run")
    assert found == 130
    assert err == "interrupted; run the same command again\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ctrl_c_in_training_ends_with_130_and_says_how_to_resume(tmp_path):
    _write_idx(tmp_path / "data")
    code = PAUSE + (
        "import defenses.training as t\nbatch = t.Trainer._step\n"
        "def second(self, rows, epoch, step, replay):\n"
        "    return pause() if epoch == 1 else batch(self, rows, epoch, step, replay)\n"
        "t.Trainer._step = second"
    )
    flags = ["--images", "256", "--epochs", "2", "--data-dir", tmp_path / "data", "--out", tmp_path / "net", "--quiet"]
    found, err = interrupted(code, "train", "--defense", "undefended", *flags)
    assert found == 130
    assert err == f"interrupted; finished epochs are kept in {tmp_path / 'net'}, run the same command again to resume\n"
    assert len(list((tmp_path / "net").glob("*.training.pt"))) == 1
    assert call("train", "--defense", "undefended", *flags) == 0


@pytest.mark.slow
def test_train_prints_its_numbers_and_the_checkpoint_can_be_audited(tmp_path, capsys):
    _write_idx(tmp_path / "data")
    flags = [
        "--recipe",
        "small",
        "--images",
        "256",
        "--epochs",
        "1",
        "--data-dir",
        tmp_path / "data",
        "--out",
        tmp_path,
    ]
    assert call("train", "--defense", "super_fitting", *flags) == 0
    printed = capsys.readouterr().out
    assert "clean" in printed
    assert "PGD-20" in printed
    assert "exactly zero" in printed
    (weights,) = tmp_path.glob("*.safetensors")
    manifest = json.loads(weights.with_suffix(".json").read_text())
    assert {"recipe", "command", "seed", "versions", "sha256", "measured"} <= set(manifest)
    assert (
        call(
            "run",
            "--defense",
            "super_fitting",
            "--suite",
            "quick",
            "--weights",
            weights,
            "--out",
            tmp_path / "run",
            *SMALL,
        )
        == 0
    )


def _write_idx(folder: Path) -> None:
    """The embedded images in the four-file layout, as a small training and test set."""
    from audit.datasets import FASHION_MNIST

    data = FASHION_MNIST.load()
    folder.mkdir()
    for stem, part in (("train", slice(0, 300)), ("t10k", slice(300, 350))):
        pixels = (data.x[part] * 255).round().astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(bytes(16) + pixels.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(bytes(8) + data.y[part].astype(np.uint8).tobytes())


def test_list_attacks_says_where_each_comes_from(capsys):
    assert call("list", "attacks") == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in registry.attacks:
        assert f"{name} ({registry.attacks.load(name).reference})" in printed


@pytest.mark.parametrize("command", ["run", "train", "list", "report", "verify", "test-attack", "doctor"])
def test_help_tells_the_exit_codes(command, capsys):
    assert call(command, "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "130 interrupted" in printed
    assert "1 --fail-on matched, an accuracy fell below its baseline, `verify` found a bad, missing or" in printed
    assert "or `test-attack` an attack that is too weak" in printed


def test_a_printed_claim_is_audited_by_its_id(capsys):
    line = ["run", "--defense", "sim_adv", "--claim", "sim-t3-r7-sim", "--n", "4", "--dry-run", "--json"]
    assert call(*line) == 0
    identity = json.loads(capsys.readouterr().out)["identity"]
    assert identity["eps"] == 0.2
    assert (identity["claim"]["robust_acc"], identity["claim"]["basis"]) == (0.6593, "paper")
    assert [s["name"] for s in identity["steps"] if s["suite"] == "claimed"] == ["bim-40"]


@pytest.mark.slow
def test_a_typed_claims_attack_is_run(capsys):
    line = ["run", "--defense", "super_fitting", "--suite", "claimed", "--n", "4", "--dry-run", "--json"]
    assert call(*line, "--claim-robust", "0.865", "--claim-attack", "pgd-100") == 0
    usual = json.loads(capsys.readouterr().out)["identity"]
    assert call(*line, "--claim-robust", "0.865", "--claim-attack", "pgd-30") == 0
    more = json.loads(capsys.readouterr().out)["identity"]
    names = [[s["name"] for s in identity["steps"]] for identity in (usual, more)]
    assert names[1] == [*names[0], "pgd-30"]
    assert (more["claim"]["robust_acc"], more["claim"]["attack"]) == (0.865, "pgd-30")


def test_claims_are_listed(capsys):
    assert call("list", "claims") == 0
    assert "super-t3" in capsys.readouterr().out
    assert call("list", "claims", "--defense", "tpap") == 0
    printed = capsys.readouterr().out
    assert printed.count("tpap-t") >= 57
    assert call("list", "claims", "--defense", "tpab") == 2
    assert "did you mean 'tpap'" in capsys.readouterr().err
    assert call("list", "suites", "--defense", "tpap") == 2
    assert "type `python -m audit list claims`" in capsys.readouterr().err
