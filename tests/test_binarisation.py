"""The binarisation test: problems with an adversarial image by construction, and attacks that find it or do not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from audit import registry
from audit.attacks.common import attack
from audit.binarisation import head, points
from audit.binarisation.model import Ambiguous, Readout, apart
from audit.binarisation.problem import build, harder, suited
from audit.binarisation.result import BinarisationTest, Settings
from audit.binarisation.run import binarisation_test
from audit.errors import BadInput, BadModel, Unsupported
from audit.gates import fingerprint_model
from audit.geometry import contains, distance
from audit.types import AdapterSpec, Step, ThreatModel
from tests.planted import Noisy, Quantise, SignStep, Staged, TinyCNN, UniformNoise, images

EPS = 0.1
THREAT = ThreatModel("Linf", EPS)
PLANTED = {
    "idle": "idle",
    "crashes": "crashes",
    "leaves-ball": "leaves_ball",
    "good": "good",
    "passes-through": "passes_through",
}
BPDA = AdapterSpec("bpda", {"modules": "purifier", "substitute": "identity"})


@attack("strays", library="planted", norms=("Linf",), needs="gradient", reference="none", cost=lambda _: (2, 1))
def strays(model, x, y, threat, *, seed):
    """Asks far outside of the ball, where rows may belong to other images, before it attacks."""
    model(1 - x)
    return registry.attacks.load("good").function(model, x, y, threat, seed=seed)


@pytest.fixture(autouse=True)
def _planted_attacks(monkeypatch):
    for name, attribute in PLANTED.items():
        monkeypatch.setitem(registry.attacks._targets, name, f"tests.planted:{attribute}")
    monkeypatch.setitem(registry.attacks._targets, "strays", "tests.test_binarisation:strays")


def tried(name, model=None, n=8, threat=THREAT, *, scope="survivors", adapters=(), seed=0, params=None, **options):
    model = model or TinyCNN()
    x, y = images(model, n + 2)
    step = Step(name, name, "adaptive", scope, tuple(adapters), params or {})
    return binarisation_test(model, x, y, step, threat, n=n, seed=seed, **options)


# --- what it says of attacks


def test_a_good_attack_finds_what_is_there():
    found = tried("apgd-margin", params={"n_iter": 30})
    assert found.outcomes == ("found",) * 8
    assert found.passed
    assert found.setup_failed == 0
    assert "finds 100.0% of the adversarial examples that exist by construction (n = 8, [63.1%" in found.sentence


@pytest.mark.parametrize("scope", ["all", "survivors"])
def test_an_attack_that_returns_its_input_finds_nothing(scope):
    found = tried("idle", scope=scope)
    assert (found.asr.correct, found.asr.n, found.passed) == (0, 8, False)
    assert found.sentence.endswith("expected at least 95%: the attack is what failed")


@pytest.mark.parametrize(
    ("attack", "params"), [("pgd", {}), ("apgd-dlr", {"n_iter": 30}), ("apgd-t", {"n_iter": 30}), ("fmn", {})]
)
def test_losses_for_many_classes_give_way_with_two(attack, params):
    found = tried(attack, params=params)
    assert found.error is None
    assert found.asr.accuracy >= 0.75


def test_what_an_attack_meets_but_does_not_return_counts_only_on_survivors(monkeypatch):
    """The planted attack asks about the far point itself and returns the clean image, like a "silent success"."""
    bright = {"all": 0, "survivors": 1}
    counts = {scope: tried("passes-through", Bright(), n=1, scope=scope).asr.correct for scope in bright}
    assert counts == bright


class Bright(nn.Module):
    """Its features tell how bright an image is, and 60 things that change little: the brightest corner is far."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        self.eval()

    def forward(self, x):
        flat = x.flatten(1)
        return self.last(torch.cat([flat[:, :63] * 1e-3, 100 * flat.mean(1, keepdim=True)], 1))


def test_a_crash_is_not_a_find_and_is_named():
    found = tried("crashes", n=3)
    assert found.outcomes == ("crashed",) * 3
    assert found.asr.correct == 0
    assert "the attack is what failed (ValueError: planted)" in found.sentence


def test_what_leaves_the_ball_is_brought_back_before_it_is_judged():
    steps = [tried(name, TinyCNN(), n=6, scope="all") for name in ("good", "leaves-ball")]
    assert steps[0].outcomes == steps[1].outcomes  # both end in the same corner once projected


@pytest.mark.slow
def test_random_tries_find_what_is_easy_and_no_more():
    """The registered attack draws corners only, the random attacker every other time: it finds less, and both find some."""
    wide = ThreatModel("Linf", 0.3)
    rates = []
    for closeness in (0.0, 0.5):
        settings = Settings(inner=10, closeness=closeness)
        found = tried("random-search", n=20, threat=wide, params={"n_draws": 100}, scope="all", settings=settings)
        assert found.tries == 100
        assert 0 < found.random_found <= found.asr.correct
        rates.append(found.asr.accuracy)
    assert rates[0] >= 0.7
    assert rates[1] <= 0.4


@pytest.mark.slow
def test_a_random_attacker_who_finds_most_makes_the_models_harder():
    easy = tried("idle", n=20, settings=Settings(inner=10, closeness=0.0))
    assert easy.hardened
    assert easy.inner == 40
    assert not tried("idle", n=20, settings=Settings(inner=10, closeness=0.5)).hardened


# --- saturation: what "adaptive" is for


def test_a_saturated_network_stays_saturated():
    """CE has no gradient on logits of size 1e4, and the margin has; with logits of size 1 both have."""
    loud = TinyCNN(scale=1e4)
    assert tried("bim", loud, scope="all").asr.correct == 0
    assert tried("apgd-margin", loud, params={"n_iter": 30}).passed
    assert tried("bim", loud, scope="all", settings=Settings(spread="fixed")).asr.correct >= 6


# --- whole defenses and adapters


def test_adapters_reach_the_parts_of_the_defense():
    """Through rounding nothing has a gradient; BPDA by the purifier's name gives one, in the two-class model as well."""
    network = TinyCNN()
    defense = Staged(network, Quantise(levels=40))
    assert tried("pgd", defense).asr.correct < 4
    assert tried("pgd", defense, adapters=[BPDA]).passed


@pytest.mark.parametrize(
    "adapter", [AdapterSpec("unroll", {"temperature": 0.1}), AdapterSpec("base"), AdapterSpec("float64"),
                AdapterSpec("rescale", {"temperature": 2.0}), AdapterSpec("eot", {"k": 2})],
)  # fmt: skip
def test_every_adapter_works_on_the_two_class_models(adapter):
    network = TinyCNN()
    found = tried("pgd", Staged(network, SignStep(network, 0.02)), n=4, adapters=[adapter])
    assert found.error is None
    assert found.setup_failed == 0


def test_a_purifier_that_asks_the_network_asks_the_one_it_knows():
    """Its answers steer the purification, so features must be those of the defense and not of a two-class one."""
    network = TinyCNN()
    defense = Staged(network, SignStep(network, 0.05))
    x, _ = images(network, 3)
    readout = Readout(defense, x)
    assert readout.name == "network.head"
    features, logits = readout.features(x)
    torch.testing.assert_close(logits, defense(x))
    torch.testing.assert_close(features, network.body(4 * (defense.purifier(x) - 0.5)))
    binary = readout.binary(torch.ones(3, 54), torch.zeros(3), x, "Linf")
    torch.testing.assert_close(binary(x)[:, 1], features.sum(1), atol=1e-4, rtol=1e-4)


def test_a_random_defense_is_judged_over_fresh_draws():
    noisy = Staged(TinyCNN(), UniformNoise(0.03))
    assert tried("pgd", noisy, n=6, draws=21, adapters=[AdapterSpec("eot", {"k": 5})]).asr.accuracy >= 0.8
    idle = tried("idle", noisy, n=6, draws=21)
    assert idle.asr.correct == 0
    assert idle.settings.closeness < Settings().closeness


def test_the_seed_decides_and_nothing_else():
    noisy = Noisy(TinyCNN(), 0.03)
    torch.manual_seed(1)
    first = tried("pgd", noisy, n=4, draws=5).to_dict()
    torch.manual_seed(2)
    assert tried("pgd", noisy, n=4, draws=5).to_dict() == first
    problems = [
        build(Readout(TinyCNN(), x), x[0], THREAT, Settings(inner=20), tries=5, random=False, seed=seed)
        for x in [images(TinyCNN(), 2)[0]] for seed in (0, 0, 1)
    ]  # fmt: skip
    assert torch.equal(problems[0].far, problems[1].far)
    assert np.array_equal(problems[0].head.weight, problems[1].head.weight)
    assert not torch.equal(problems[0].far, problems[2].far)


def test_nothing_is_left_on_the_model():
    model = Staged(TinyCNN(), UniformNoise(0.02))
    x, y = images(model, 6)
    before, random = fingerprint_model(model), torch.get_rng_state()
    step = Step("pgd", "pgd", "adaptive", adapters=(AdapterSpec("eot", {"k": 2}),))
    binarisation_test(model, x, y, step, THREAT, n=3, draws=3)
    assert fingerprint_model(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


# --- problems


def test_a_problem_has_an_adversarial_image_at_eps_by_construction():
    model = TinyCNN()
    x, _ = images(model, 4)
    readout = Readout(model, x)
    for i, image in enumerate(x):
        made = build(readout, image, THREAT, Settings(inner=40), tries=10, random=False, seed=i)
        assert float(distance(made.far[None], image[None], "Linf")) == pytest.approx(EPS, abs=1e-6)
        assert bool(contains(made.far[None], image[None], THREAT))
        weight, bias = torch.from_numpy(made.head.weight).float()[None], torch.tensor([made.head.bias])
        binary = readout.binary(weight, bias, image[None], "Linf")
        near = points.within(image, 30, THREAT, 0.95)
        assert binary(made.far[None]).argmax(1).tolist() == [1]
        assert binary(image[None]).argmax(1).tolist() == [0]
        spread = binary(torch.cat([image[None], near, made.far[None]])).detach().abs().amax()
        assert 0.2 < float(spread * 2 / (readout.features(x)[1].max() - readout.features(x)[1].min())) < 5


def test_where_no_layer_separates_the_points_the_setup_failed():
    """Rounded to black and white, every point of a small ball has the features of its image."""
    found = tried("good", Staged(TinyCNN(), Quantise(levels=1)), n=4, threat=ThreatModel("Linf", 1e-4))
    assert found.outcomes == ("setup failed",) * 4
    assert found.asr is None
    assert not found.passed


def test_nothing_set_up_is_no_pass():
    empty = BinarisationTest(
        Step("pgd", "pgd", "adaptive"), "Linf", 0.1, 0, ("setup failed",) * 3, (0, 1, 2), 0, 20, 5, 3, True, Settings()
    )
    assert not empty.passed
    assert empty.to_dict()["asr"] is None
    assert "could not be tested" in empty.sentence


def test_failed_setups_are_left_out_of_the_rate():
    outcomes = ("found",) * 19 + ("missed",) + ("setup failed",) * 4
    mixed = BinarisationTest(
        Step("pgd", "pgd", "adaptive"), "Linf", 0.1, 0, outcomes, tuple(range(24)), 20, 20, 5, 3, False, Settings()
    )
    assert (mixed.n, mixed.setup_failed, mixed.asr.accuracy, mixed.passed) == (24, 4, 0.95, True)
    assert "but a random attacker finds 100.0%, so that says little" in mixed.sentence
    keys = {"name", "attack", "n", "setup_failed", "asr", "interval", "random_asr", "passed"}
    assert keys <= json.loads(json.dumps(mixed.to_dict())).keys()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("where", ["surface", "corners"])
def test_points_lie_where_they_should(norm, where):
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # some pixels at the box
    x[0, 0, :4], x[0, 1, :4] = 0.0, 1.0
    threat = ThreatModel(norm, {"Linf": 0.1, "L2": 1.0, "L1": 0.4}[norm])
    torch.manual_seed(0)
    inner = points.within(x, 50, threat, 0.95)
    far = points.at_distance(x, 20, threat, 1.0, where)
    beyond = points.at_distance(x, 20, threat, 1.5, where)
    assert float(distance(inner, x.expand_as(inner), norm).max()) <= 0.95 * threat.eps * (1 + 1e-5)
    torch.testing.assert_close(distance(far, x.expand_as(far), norm), torch.full((20,), threat.eps), rtol=1e-3, atol=0)
    if (norm, where) != ("L1", "corners"):  # one pixel value cannot move so far
        torch.testing.assert_close(
            distance(beyond, x.expand_as(beyond), norm), torch.full((20,), 1.5 * threat.eps), rtol=1e-3, atol=0
        )
    assert bool(contains(far, x.expand_as(far), threat).all())
    assert bool(contains(points.attempts(x, 31, threat), x.expand(31, -1, -1, -1), threat).all())


def test_the_head_is_the_logistic_regression_that_separates():
    dice = np.random.default_rng(0)
    rows, far = dice.normal(size=(30, 40)) * 1e3 + 5e4, np.arange(30) >= 29
    fitted = head.fit(rows, far)
    scores = fitted.scores(rows)
    assert fitted.accuracy == 1
    assert ((scores > 0) == far).all()
    moved = head.closer(fitted, float(scores[far].max()), 0.99)
    assert moved.scores(rows)[far][0] == pytest.approx(0.01 * scores[far][0])
    wide = head.scaled_to(moved, moved.scores(rows), 7.0)
    assert 2 * np.abs(wide.scores(rows)).max() == pytest.approx(7.0)
    assert head.fit(np.zeros((4, 2)), np.array([0, 0, 1, 1], bool)).accuracy < 1


def test_points_are_fewer_where_features_are():
    assert suited(Settings(), 2048, random=False).inner == 999
    assert suited(Settings(), 84, random=False).inner == 82
    assert suited(Settings(extra_far=5), 84, random=False).inner == 77
    assert suited(Settings(), 84, random=True).inner == 41
    assert harder(suited(Settings(), 84, random=False), random=False).inner == 328


@pytest.mark.parametrize(
    "wrong", [{"inner": 0}, {"far": 0}, {"closeness": 1.0}, {"reach": -0.1}, {"where": "middle"}, {"spread": "tight"}]
)
def test_settings_that_make_no_problem_are_refused(wrong):
    with pytest.raises(BadInput, match="expected"):
        tried("idle", n=1, settings=Settings(**wrong))


# --- models


class Shifted(nn.Module):
    """A shared last layer, an auxiliary head that runs after it, and a temperature at the end."""

    def __init__(self):
        super().__init__()
        self.net = TinyCNN()
        self.again = self.net.head
        self.auxiliary = nn.Linear(54, 4)
        self.eval()

    def forward(self, x):
        features = self.net.body(x)
        logits = self.again(features)
        self.auxiliary(features)
        return logits.log_softmax(1) / 2


def test_the_last_layer_is_the_one_that_widens_the_answer():
    model = Shifted()
    x, _ = images(model, 3)
    readout = Readout(model, x)
    assert readout.name == "again"
    torch.testing.assert_close(readout.features(x)[0], model.net.body(x))
    assert tried("apgd-margin", model, n=4, params={"n_iter": 30}).passed


def test_without_a_linear_layer_the_last_module_is_taken():
    class Pooled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    model = Pooled().eval()
    x, _ = images(model, 3)
    readout = Readout(model, x)
    assert readout.name == "2"
    assert readout.features(x)[0].shape == (3, 5)


@pytest.mark.parametrize("kind", ["one module", "ten classes wanted"])
def test_a_model_without_a_layer_to_exchange_is_refused(kind):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TinyCNN()
            self.held = (self.net,)
            del self.net

        def forward(self, x):
            return self.held[0](x)

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TinyCNN()

        def forward(self, x):
            return self.net(x) * torch.ones(4)

    model = (Whole() if kind == "one module" else Fixed()).eval()
    x, _ = images(model, 2)
    with pytest.raises(Unsupported, match="no last layer that can be exchanged"):
        Readout(model, x)


def test_rows_in_any_order_meet_their_own_head():
    model = TinyCNN()
    x, _ = images(model, 5)
    dice = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(5, 54, generator=dice), torch.randn(5, generator=dice)
    readout = Readout(model, x)
    whole = readout.binary(weight, bias, x, "Linf")
    order = torch.tensor([3, 3, 0, 4, 1, 1, 2])
    moved = x[order] + 0.01
    alone = torch.cat([
        readout.binary(weight[i : i + 1], bias[i : i + 1], x[i : i + 1], "Linf")(row[None])
        for i, row in zip(order.tolist(), moved, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(whole(moved), alone)
    with pytest.raises(Ambiguous):
        whole(1 - x[:2])


def test_near_images_are_attacked_apart():
    x = torch.tensor([0.1, 0.15, 0.5, 0.9]).view(4, 1, 1, 1)
    assert apart(x, "Linf", 0.05, 10) == [[0, 2, 3], [1]]
    assert apart(x, "Linf", 0.05, 2) == [[0, 2], [1, 3]]
    assert apart(x, "Linf", 0.5, 10) == [[0], [1], [2], [3]]


def test_twins_and_strays_are_attacked_one_by_one():
    """Copies of an image have problems of their own; queries far outside of the ball belong to nobody for certain."""
    model = TinyCNN()
    x, y = images(model, 3)
    x, y = torch.cat([x, x]), torch.cat([y, y])
    step = Step("apgd-margin", "apgd-margin", "adaptive", params={"n_iter": 30})
    assert binarisation_test(model, x, y, step, THREAT, n=6).outcomes == ("found",) * 6
    together = tried("good", n=6, scope="all")
    assert tried("strays", n=6, scope="all").outcomes == together.outcomes


# --- refusals


def test_what_cannot_be_tested_is_refused_in_a_sentence():
    with pytest.raises(Unsupported, match="supports Linf, L2, L1, got L0"):
        tried("fmn", threat=ThreatModel("L0", 5.0))
    with pytest.raises(Unsupported, match="attack bim supports Linf, not L2"):
        tried("bim", threat=ThreatModel("L2", 0.5))
    with pytest.raises(Unsupported, match="another network"):
        tried("transfer")
    with pytest.raises(BadModel, match="training mode"):
        tried("good", TinyCNN().train())
    model = TinyCNN()
    x, y = images(model, 3)
    with pytest.raises(BadInput, match="no image is classified correctly"):
        binarisation_test(model, x, (y + 1) % 4, Step("good", "good", "adaptive"), THREAT)


# --- the shipped defenses


CASES = [("super_fitting", "bim-20", False), ("super_fitting", "apgd-margin", True), ("pgd_at", "apgd-ce", True)]


@pytest.mark.slow
@pytest.mark.parametrize(("defense", "attack", "passes"), CASES)
def test_it_tells_which_attack_failed_on_the_shipped_defenses(defense, attack, passes):
    from audit.binarisation.prepare import binarise

    found = binarise(defense, attack, n=64)
    assert found.n == 64
    assert found.setup_failed == 0
    assert found.passed == passes
    if not passes:
        assert found.asr.interval[1] < 0.5
