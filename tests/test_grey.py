"""Grey-box numbers: attacks see the bare network, the deployed defense sees their images; and what a manifest keeps of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from audit import registry
from audit.datasets import FASHION_MNIST
from audit.grey import grey_box
from audit.preparation import prepare
from audit.training import adjusted, summary, train
from defenses.base import architecture_for
from defenses.networks import build
from defenses.staged import Staged
from defenses.weights import load_network, store

CPU = torch.device("cpu")


class Forward(nn.Module):
    """A purifier that counts what passes and, if told to, forgets the image."""

    def __init__(self, *, blank: bool = False) -> None:
        super().__init__()
        self.blank, self.seen = blank, 0

    def forward(self, x):
        self.seen += len(x)
        return torch.zeros_like(x) if self.blank else x


def test_attacks_do_not_look_beyond_the_bare_network():
    undefended = registry.defenses.load("undefended")
    network = undefended.load(undefended.checkpoint("fashion_mnist"))
    data = FASHION_MNIST.load().first(40)
    purifier = Forward()
    same = grey_box(network, Staged(network, purifier).eval(), data, eps=16 / 255, device=CPU)
    assert purifier.seen == 3 * 40  # judged clean, under FGSM and under PGD, and never attacked
    assert same["n"] == 40
    assert all(same[f"network_{kind}"] == same[f"deployed_{kind}"] for kind in ("clean", "fgsm", "pgd_20"))
    assert same["network_clean"] > 0.8 > 0.5 > same["network_fgsm"] >= same["network_pgd_20"]
    blank = grey_box(network, Staged(network, Forward(blank=True)).eval(), data, eps=16 / 255, device=CPU)
    assert len({blank[f"deployed_{kind}"] for kind in ("clean", "fgsm", "pgd_20")}) == 1
    assert blank["network_pgd_20"] == same["network_pgd_20"]


def test_noise_does_not_repeat_the_attacks_random_start(monkeypatch):
    """The seed that judges is none of the attacks', else the noise undoes or doubles the start of PGD."""
    starts, noises = [], []

    def keep(network, x, y, threat, *, seed, **_):
        starts.append(torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)))
        return x

    class Draw(nn.Module):
        def forward(self, x):
            noises.append(torch.rand(x.shape))
            return x

    monkeypatch.setattr(registry.attacks, "load", lambda _: keep)
    network = build(architecture_for("middle_cnn", 0.0625, "fashion_mnist")).eval()
    grey_box(network, Staged(network, Draw()).eval(), FASHION_MNIST.load().first(300), eps=0.1, device=CPU)
    assert len(starts) == 4
    assert len(noises) == 6
    assert not any(torch.equal(a, b) for a in starts for b in noises)


@pytest.fixture(scope="module", params=["tpap", "co_noise"])
def trained(request, tmp_path_factory):
    defense = registry.defenses.load(request.param)
    recipe = replace(adjusted(defense.recipes["small"], epochs=1, images=256), width=0.0625)
    data = FASHION_MNIST.load()
    out = tmp_path_factory.mktemp(request.param)
    return defense, train(
        defense, recipe, data, data.first(60), seed=0, out=out, command="test", device=CPU
    ), out  # fmt: skip


def test_the_manifest_holds_the_test_time_part_and_what_it_measures(trained):
    defense, stored, out = trained
    small = defense.recipes["small"]
    assert stored.inference == {**defense.inference, **small.inference}
    measured = stored.measured
    assert measured["trained_for_eps"] == small.eps
    assert [row["eps"] for row in measured["grey"]] == sorted(
        {8 / 255, small.eps / 2, small.eps, small.inference.get("xi", small.eps)}
    )
    assert ("robust_overfitting" in measured) == (defense.name == "tpap")
    if defense.name == "tpap":  # Sec. 3.2 speaks of training images, too
        told = measured["robust_overfitting"]
        assert (told["n_train"], told["n_test"], told["eps"]) == (256, 60, small.eps)
        assert {"train_known", "train_bim_10", "train_pgd_20", "holds"} <= set(told)
    assert measured["clean_accuracy"] == measured["grey"][0]["deployed_clean"]
    assert "without the test-time part" in summary(stored)
    table = (out / stored.path.with_suffix(".csv").name).read_text().splitlines()[0]
    assert table.endswith("probe_clean,probe_fgsm,probe_pgd")


def test_the_file_holds_the_bare_network_and_loads_as_the_deployed_module(trained):
    defense, stored, _ = trained
    checkpoint = defense.checkpoint("fashion_mnist", stored.path)
    bare, model = load_network(checkpoint), defense.load(checkpoint)
    assert isinstance(model, Staged)
    assert set(model.network.state_dict()) == set(bare.state_dict())
    assert not any(part.training for part in model.modules())


def test_another_test_time_part_is_another_run(trained, tmp_path):
    defense, stored, _ = trained
    other = {**stored.inference, **({"xi": 0.5} if defense.name == "tpap" else {"amplitude": 0.5})}
    changed = store(tmp_path / "changed.safetensors", load_network(stored), {**stored.manifest, "inference": other})
    plans = [prepare(defense.name, suite="quick", weights=found.path, n=8).plan for found in (stored, changed)]
    assert [plan.identity["inference"] for plan in plans] == [dict(stored.inference), other]
    assert plans[0].fingerprint != plans[1].fingerprint
    model = defense.load(changed)
    assert getattr(model.purifier, "xi", None) == 0.5 or getattr(model.purifier, "amplitude", None) == 0.5


def test_a_file_without_a_manifest_gets_the_papers_parameters(trained, tmp_path):
    defense, stored, _ = trained
    torch.save(load_network(stored).state_dict(), tmp_path / "net.pt")
    assert defense.checkpoint("fashion_mnist", tmp_path / "net.pt").inference == defense.inference
