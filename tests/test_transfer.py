"""Images made elsewhere: in an earlier run, or against another defense."""

import dataclasses

import numpy as np
import pytest
import torch

from audit import registry
from audit.attacks.own.transfer import stored_images, transfer
from audit.errors import BadInput, UnknownName
from audit.geometry import contains, distance
from audit.ledger import Ledger
from audit.testing import STRETCH, check_attack, linear_problem
from audit.types import ThreatModel
from tests.planted import Brightness, Counting, TinyCNN, dark


def store(run_dir, *steps):
    """A run directory whose steps hold the given images, on one shard each."""
    ledger = Ledger(run_dir, "some plan")
    ledger.write("00-clean-0000", {"ids": np.arange(3)}, {})
    for number, (name, images) in enumerate(steps, 1):
        ledger.write(f"{number:02d}-{name}-0000", {"x_adv": images.numpy()}, {})
    return str(run_dir)


def fewest_pixels(model, x, y):
    """The L0 solution of a linear problem: the best pixels to their ends, until the label falls."""
    x = x.clone()
    for i, row in enumerate(x):
        toward = (model.weight - model.weight[y[i]]).detach()
        flat = row.flatten()
        gains = torch.where(toward > 0, toward * (1 - flat), -toward * flat)
        closed = gains.sort(dim=1, descending=True).values.cumsum(1)
        logits = model(row[None])[0].detach()
        needed = (closed < (logits[y[i]] - logits)[:, None]).sum(1) + 1
        needed[y[i]] = 10**6
        target = int(needed.argmin())
        pixels = gains[target].topk(int(needed[target])).indices
        flat[pixels] = (toward[target][pixels] > 0).float()
    return x


@pytest.mark.parametrize(("classes", "channels"), [(4, 1), (2, 1), (3, 3)])
def test_it_keeps_the_contract_with_a_run_that_holds_the_answers(tmp_path, classes, channels):
    model, x, y = linear_problem(1, classes=classes, channels=channels)
    steps = []
    for norm in ("Linf", "L2", "L1"):
        threat = ThreatModel(norm, 1.2 * float(model.distance(x, y, norm).max()))
        steps.append((norm, registry.attacks.load("apgd-margin")(model, x, y, threat, seed=0, n_iter=20)))
    steps.append(("L0", fewest_pixels(model, 0.5 + STRETCH * (x - 0.5), y)))
    run = store(tmp_path, *steps)
    check_attack(transfer, classes=classes, channels=channels, seed=1, run=run)


def twin():
    """The linear model of the contract, as a factory that a surrogate's name can be."""
    return linear_problem(0)[0]


@pytest.mark.slow
def test_it_keeps_the_contract_with_a_surrogate_that_is_the_models_twin():
    """By fmn, which knows every norm and returns images beyond eps. Its reach under L0 is 2."""
    check_attack(transfer, above=2.0, surrogate="tests.test_transfer:twin", by="fmn")


@pytest.mark.slow
def test_it_keeps_the_contract_with_a_surrogate_by_an_attack_that_fills_the_ball():
    known = dataclasses.replace(transfer, norms=("Linf", "L2", "L1"))
    check_attack(known, surrogate="tests.test_transfer:twin")


def test_only_images_of_the_ball_are_tried_and_the_first_that_fools_is_kept(tmp_path):
    x, y = dark(3)  # brightness 0.4, 0.44 and 0.48; the boundary is at 0.5
    sign = torch.ones(3, 64)
    for i, row in enumerate(sign):
        row[torch.randperm(64, generator=torch.Generator().manual_seed(i))[:32]] = -1.0
    x = x + 0.3 * sign.view_as(x)  # unlike one another, as bright as before
    run = store(tmp_path, ("far", x[:1] + 0.3), ("short", x + 0.01), ("good", x[1:] + 0.09), ("more", x + 0.095))
    model = Counting(Brightness())
    found = transfer(model, x, y, ThreatModel("Linf", 0.1), seed=0, run=run)
    assert stored_images(tmp_path, (1, 8, 8)).shape == (9, 1, 8, 8)
    assert distance(found, x, "Linf").tolist() == pytest.approx([0.095, 0.09, 0.09], abs=1e-6)
    assert model.rows <= 3 * transfer.cost({"run": run})[0]


def test_an_image_for_which_nothing_is_stored_stays(tmp_path):
    x, y = dark(3)
    run = store(tmp_path, ("other", x + 0.4))
    assert torch.equal(transfer(Brightness(), x, y, ThreatModel("Linf", 0.1), seed=0, run=run), x)


def test_a_torn_unit_is_no_source(tmp_path):
    x, y = dark(1)
    run = store(tmp_path, ("torn", x + 0.11), ("good", x + 0.12))
    unit = tmp_path / "units" / "01-torn-0000.npz"
    unit.write_bytes(unit.read_bytes()[:-40])
    found = transfer(Brightness(), x, y, ThreatModel("Linf", 0.2), seed=0, run=run)
    assert distance(found, x, "Linf").tolist() == pytest.approx([0.12], abs=1e-6)


def test_a_run_without_fitting_images_is_refused(tmp_path):
    x, y = dark(3)
    threat = ThreatModel("Linf", 0.1)
    with pytest.raises(BadInput, match=r"nowhere', which holds no run; type"):
        transfer(Brightness(), x, y, threat, seed=0, run=str(tmp_path / "nowhere"))
    run = store(tmp_path / "idle", ("none", torch.zeros(0, 1, 8, 8)))
    with pytest.raises(BadInput, match=r"stores no adversarial images of shape \(1, 8, 8\); type"):
        transfer(Brightness(), x, y, threat, seed=0, run=run)
    run = store(tmp_path, ("colour", torch.rand(2, 3, 8, 8)))
    with pytest.raises(BadInput, match=r"only of shape \(3, 8, 8\)"):
        transfer(Brightness(), x, y, threat, seed=0, run=run)


@pytest.mark.parametrize(("options", "got"), [({}, "neither"), ({"run": "a", "surrogate": "b"}, "surrogate='b' and")])
def test_exactly_one_source_is_asked_for(options, got):
    with pytest.raises(BadInput, match=f"needs either surrogate=MODEL or run=PATH, got {got}"):
        transfer(Brightness(), *dark(3), ThreatModel(), seed=0, **options)


def fashion(n):
    data = registry.datasets.load("fashion_mnist").load()
    return torch.from_numpy(data.x[:n]), torch.from_numpy(data.y[:n])


def test_a_surrogate_makes_the_images_and_the_model_is_not_asked():
    known = registry.defenses.load("undefended")
    twin, (x, y) = known.load(known.checkpoint("fashion_mnist", None)), fashion(16)
    model = Counting(twin)
    threat = ThreatModel("Linf", 16 / 255)
    found = transfer(model, x, y, threat, seed=0, surrogate="undefended", by="fgsm")
    assert model.rows == 0 == transfer.cost({"surrogate": "undefended"})[0]
    assert torch.equal(found, registry.attacks.load("fgsm")(twin, x, y, threat, seed=0))
    assert contains(found, x, threat).all()
    assert int((twin(found).argmax(1) != y).sum()) > int((twin(x).argmax(1) != y).sum())


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"surrogate": "undefnded"}, UnknownName, "did you mean 'undefended'"),
        ({"surrogate": "undefended", "by": "pdg"}, UnknownName, "did you mean 'pgd'"),
        ({"surrogate": "undefended", "by": "transfer"}, BadInput, "cannot make its images by itself"),
        ({"surrogate": "undefended"}, BadInput, "takes images of 1 x 28 x 28, got 1 x 8 x 8"),
    ],
)
def test_a_wrong_surrogate_is_named(options, error, sentence):
    model = TinyCNN()
    with pytest.raises(error, match=sentence):
        transfer(model, *dark(3), ThreatModel(), seed=0, **options)
