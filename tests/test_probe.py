"""The probe watches without being noticed."""

import math

import pytest
import torch
from torch import nn

from adapters.bpda import Bpda
from adapters.eot import Eot
from adapters.learned import STEPS
from adapters.probe import AllBroken, Probe
from adapters.smooth import Smooth
from audit import registry
from audit.geometry import contains
from audit.rng import Stream
from audit.types import ThreatModel
from tests.planted import Brightness, Counting, Noisy, TinyCNN, dark, images, passes_through

THREAT = ThreatModel("Linf", 8 / 255)
ATTACKS = {
    "fgsm": {}, "bim": {"steps": 12}, "pgd": {"steps": 12}, "apgd-ce": {"n_iter": 12}, "apgd-dlr": {"n_iter": 12},
    "apgd-margin": {"n_iter": 12}, "apgd-t": {"n_iter": 6}, "fab-t": {"n_iter": 4}, "square": {"n_queries": 200},
}  # fmt: skip
SATURATED = 1000.0


def make(model, x, y, threat=THREAT, *, stop_early=False, replay=False, confirm=None, stream=None):
    confirm = confirm or (lambda found, who: torch.ones(len(who), dtype=torch.bool))
    return Probe(
        model, x, y, threat, stream=stream or Stream(9), confirm=confirm, stop_early=stop_early, replay=replay
    )  # fmt: skip


def attack(name, model, x, y, threat=THREAT):
    return registry.attacks.load(name)(model, x, y, threat, seed=4, **ATTACKS[name])


# --- it does not change what the attack does


def assert_same(name, found, alone, *, replay):
    """Bit for bit; but FAB follows its image out of the ball and back, where a replay answers part of a batch, and a
    pass over part of a batch may differ from one over the whole in the last bits.
    """
    close = torch.allclose(found, alone, rtol=0, atol=1e-4)
    assert torch.equal(found, alone) or (name == "fab-t" and replay and close)


@pytest.mark.filterwarnings("ignore:there are")  # pyautoattack's note on zero gradients
@pytest.mark.parametrize("scale", [1.0, SATURATED])
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_returns_the_same_bits_with_and_without(name, replay, scale):
    model = TinyCNN(scale=scale)
    x, y = images(model)
    alone = attack(name, model, x, y)
    assert_same(name, attack(name, make(model, x, y, replay=replay), x, y), alone, replay=replay)


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-margin", "fab-t"])
def test_the_same_holds_in_other_norms(name, norm):
    model, threat = TinyCNN(), ThreatModel(norm, {"L2": 0.2, "L1": 1.0}[norm])
    x, y = images(model)
    alone = attack(name, model, x, y, threat)
    assert_same(name, attack(name, make(model, x, y, threat, replay=True), x, y, threat), alone, replay=True)


@pytest.mark.filterwarnings("ignore:there are")
@pytest.mark.parametrize("name", ATTACKS)
def test_it_counts_what_a_counter_counts(name):
    model = TinyCNN()
    x, y = images(model)
    counting = Counting(model)
    attack(name, counting, x, y)
    probe = make(model, x, y)
    attack(name, probe, x, y)
    assert int(probe.forwards.sum()) == counting.rows


def test_it_counts_per_image():
    model = TinyCNN()
    x, y = images(model)
    probe = make(model, x, y)
    attack("pgd", probe, x, y)
    assert probe.forwards.tolist() == [12] * len(x)
    assert probe.backwards.tolist() == [12] * len(x)


@pytest.mark.parametrize("name", ["bim", "pgd", "apgd-ce"])
def test_replay_spares_a_saturated_model(name):
    model = TinyCNN(scale=SATURATED)
    x, y = images(model)
    probe = make(model, x, y, replay=True)
    attack(name, probe, x, y)
    counting = Counting(model)
    attack(name, counting, x, y)
    assert counting.rows > 12 * len(x) - 1
    assert int(probe.forwards.sum()) < counting.rows / 2


def test_replay_spares_nothing_where_every_question_is_new():
    model = TinyCNN()
    x, y = images(model)
    probe = make(model, x, y, replay=True)
    attack("fgsm", probe, x, y)
    assert probe.forwards.tolist() == [1] * len(x)


def test_replay_answers_the_gradient_too():
    model = TinyCNN()
    x, y = images(model)
    counting = Counting(model)
    probe = make(counting, x, y, replay=True)
    weights = torch.randn(2, len(x), 4, generator=torch.Generator().manual_seed(0))
    first, again, other = (gradient(probe, x, w) for w in (weights[0], weights[0], weights[1]))
    assert torch.equal(first, again)
    assert counting.rows == 2 * len(x)  # one for the first, one for the gradient of another loss
    assert torch.equal(other, gradient(model, x, weights[1]))


class TakesLabels(nn.Module):
    """Remembers the labels of each call."""

    takes_labels = True

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x, y):
        self.seen.append(y)
        return self.model(x)


def test_the_probe_passes_the_labels_of_the_rows_it_is_asked_about():
    model = TinyCNN()
    x, _ = images(model)
    y = torch.arange(8) % 4
    asked = TakesLabels(model)
    watched = make(asked, x, y)
    for rows in ([0, 1, 2, 3, 4, 5, 6, 7], [3, 1], [7]):
        assert torch.equal(watched(x[rows]), model(x[rows]))
        assert torch.equal(asked.seen[-1], y[rows])


def gradient(model, x, weights):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((model(x) * weights).sum(), x)[0]


def test_a_gradient_asked_for_late_is_that_of_its_own_question():
    model = TinyCNN()
    x, y = images(model)
    probe = make(model, x, y, replay=True)
    early, weights = x.clone().requires_grad_(), torch.ones(len(x), 4)
    early_logits = probe(early)
    with torch.no_grad():
        probe(x + 0.01)
    (got,) = torch.autograd.grad((early_logits * weights).sum(), early)
    assert torch.equal(got, gradient(model, x, weights))
    # what is remembered now must not be the first question's gradient under the second question's name
    assert torch.equal(gradient(probe, x + 0.01, weights), gradient(model, x + 0.01, weights))


def test_a_remembered_answer_gives_its_own_gradient_late():
    model = TinyCNN()
    x, y = images(model)
    probe, weights = make(model, x, y, replay=True), torch.ones(len(x), 4)
    gradient(probe, x, weights)
    replayed = x.clone().requires_grad_()
    logits = probe(replayed)
    gradient(probe, x + 0.01, weights)
    (got,) = torch.autograd.grad((logits * weights).sum(), replayed)
    assert torch.equal(got, gradient(model, x, weights))


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("replay", [False, True])
def test_writing_into_the_logits_does_not_reach_its_memory(replay, stop_early):
    model = TinyCNN()
    x, y = images(model)
    probe = make(model, x, y, replay=replay, stop_early=stop_early)
    with torch.no_grad():
        expected = probe(x).clone()
        for _ in range(3):
            logits = probe(x)
            assert torch.equal(logits, expected)
            logits.fill_(float("-inf"))
        assert torch.isfinite(probe.memory.recall(torch.arange(len(x)))).all()


def test_the_images_it_was_given_may_change_afterwards():
    model, (x, y) = Brightness(), dark()
    probe = make(model, x, y)
    query = x + 0.02
    with torch.no_grad():
        probe(query)
        expected = query.clone()
        query.fill_(0)
    assert torch.equal(probe.best_query, expected)


# --- whose row is it


@pytest.mark.parametrize("rows", [[3, 1, 0, 2, 7, 6, 5, 4], [5, 2], [7], [0, 0, 3, 3, 3], [6, 5, 4]])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_rows_go_to_the_image_around_which_they_lie(rows, norm):
    model = TinyCNN()
    x, y = images(model)
    probe = make(model, x, y, ThreatModel(norm, 0.03))
    with torch.no_grad():
        probe(x[[1, 2]])  # a subset of the same size must not be taken for the next one
        before = probe.forwards.clone()
        probe((x[rows] + 1e-4).clamp(0, 1))
    assert (probe.forwards - before).tolist() == torch.bincount(torch.tensor(rows), minlength=8).tolist()
    seen = torch.zeros(8, dtype=torch.bool)
    seen[[1, 2, *rows]] = True
    assert torch.equal(torch.isfinite(probe.best_margin), seen)
    assert contains(probe.best_query, x, ThreatModel(norm, 0.03)).all()


def test_permuted_rows_get_their_own_answers_from_memory():
    model = TinyCNN()
    x, y = images(model)
    probe, order = make(model, x, y, replay=True), torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    with torch.no_grad():
        expected = probe(x)
        assert torch.equal(probe(x[order]), expected[order])
        assert torch.equal(probe(x[order[:3]]), expected[order[:3]])
    assert probe.forwards.tolist() == [1] * 8


# --- what it harvests


def test_a_query_outside_the_ball_is_never_harvested():
    model, (x, y) = Brightness(), dark()
    probe = make(model, x, y, ThreatModel("Linf", 0.01))
    with torch.no_grad():
        probe(x)
        clean = probe.best_margin.clone()
        probe(x + 0.2)  # misclassified, and far outside
        probe(x * float("nan"))
        probe(-x)
    assert torch.equal(probe.best_query, x)
    assert torch.equal(probe.best_margin, clean)
    assert (clean > 0).all()


def test_the_margin_is_negative_where_a_query_in_the_ball_was_misclassified():
    model, (x, y) = Brightness(), dark()  # brightness 0.4 to 0.48 in steps of 0.016
    probe = make(model, x, y, ThreatModel("Linf", 0.05))
    with torch.no_grad():
        probe(x)
        assert (probe.best_margin > 0).all()
        for step in (0.03, 0.05, 0.01):
            probe(x + step)
    expected = x.flatten(1).mean(1) + 0.05 > 0.5
    assert expected.any()
    assert not expected.all()
    assert torch.equal(probe.best_margin < 0, expected)
    assert torch.allclose(probe.best_query, x + 0.05)  # the smallest margin of what it saw, not the last


def test_a_tie_that_is_misclassified_counts_as_wrong():
    class Tie(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 3)

    x = torch.rand(3, 1, 8, 8)
    probe = make(Tie(), x, torch.tensor([0, 1, 2]))
    with torch.no_grad():
        probe(x)
    assert (probe.best_margin < 0).tolist() == [False, True, True]


def test_nan_logits_do_not_blind_it():
    class Flaky(nn.Module):
        """NaN for class 1 of dim images, else the brightness."""

        def forward(self, x):
            logits = Brightness()(x).clone()
            logits[x.flatten(1).mean(1) < 0.3999, 1] = float("nan")
            return logits

    (x, y), threat = dark(), ThreatModel("Linf", 0.12)
    probe = make(Flaky(), x, y, threat)
    with torch.no_grad():
        probe(x - 0.1)
        assert not (probe.best_margin < 0).any()
        probe(x + 0.11)
    assert (probe.best_margin < 0).all()


def test_a_silent_success_is_harvested():
    model, (x, y) = Brightness(), dark()
    threat = ThreatModel("Linf", 0.11)
    probe = make(model, x, y, threat)
    returned = passes_through(probe, x, y, threat, seed=0)
    assert torch.equal(returned, x)
    assert (probe.best_margin < 0).all()
    assert (model(probe.best_query).argmax(1) == 1).all()


def test_subsets_of_overlapping_balls_prove_nothing():
    model, (x, y) = Brightness(), dark()
    probe = make(model, x, y, ThreatModel("Linf", 1.0))
    with torch.no_grad():
        probe(torch.ones(2, 1, 8, 8))
    assert torch.isinf(probe.best_margin).all()


# --- early stop


def test_it_stops_when_every_image_is_broken():
    model, (x, y) = Brightness(), dark()
    asked = []

    def confirm(found, who):
        asked.append((found.clone(), who.tolist()))
        return torch.ones(len(who), dtype=torch.bool)

    probe = make(model, x, y, ThreatModel("Linf", 0.11), stop_early=True, confirm=confirm)
    with torch.no_grad():
        probe(x)
        assert asked == []
        probe(x + 0.05)
        assert probe.retired.tolist() == (x.flatten(1).mean(1) + 0.05 > 0.5).tolist()
        with pytest.raises(AllBroken):
            probe(x + 0.11)
    assert sorted(who for _, rows in asked for who in rows) == list(range(len(x)))
    assert all((model(found).argmax(1) == 1).all() for found, _ in asked)


def test_retired_images_cost_nothing_and_are_answered_from_memory():
    model, (x, y) = Brightness(), dark()
    probe = make(model, x, y, ThreatModel("Linf", 0.11), stop_early=True)
    with torch.no_grad():
        first = probe(x + 0.05)
        before, retired = probe.forwards.clone(), probe.retired.clone()
        assert torch.equal(probe(x + 0.01)[retired], first[retired])
    assert (probe.forwards - before).tolist() == (~retired).long().tolist()


@pytest.mark.parametrize("name", ["pgd", "apgd-margin", "square"])
def test_no_library_swallows_the_stop(name):
    model, (x, y) = Brightness(), dark()
    threat = ThreatModel("Linf", 0.15)
    probe = make(model, x, y, threat, stop_early=True)
    state = torch.get_rng_state()
    with pytest.raises(AllBroken):
        attack(name, probe, x, y, threat)
    assert probe.retired.all()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_confirm_that_says_no_never_retires():
    model, (x, y) = Brightness(), dark()
    threat = ThreatModel("Linf", 0.15)
    alone = attack("pgd", model, x, y, threat)
    refuse = lambda found, who: torch.zeros(len(who), dtype=torch.bool)  # noqa: E731
    probe = make(model, x, y, threat, stop_early=True, confirm=refuse)
    assert torch.equal(attack("pgd", probe, x, y, threat), alone)
    assert not probe.retired.any()
    assert (probe.best_margin < 0).all()


def test_confirm_is_not_asked_without_early_stop():
    def confirm(found, who):
        raise AssertionError("asked")

    model, (x, y) = Brightness(), dark()
    probe = make(model, x, y, ThreatModel("Linf", 0.11), confirm=confirm)
    with torch.no_grad():
        probe(x + 0.11)
    assert (probe.best_margin < 0).all()


# --- stochastic defenses


def test_the_defense_draws_from_its_own_stream_only():
    model = TinyCNN()
    x, y = images(model)
    noisy = Noisy(model)
    with Stream(5) as defense, torch.no_grad():
        expected = [noisy(x), noisy(x)]
        after_defense = torch.rand(3)
    defense = Stream(5)
    probe = make(noisy, x, y, stream=defense)
    with Stream(6), torch.no_grad():
        got, drawn = [], []
        for _ in range(2):
            drawn.append(torch.rand(3))
            got.append(probe(x))
        drawn.append(torch.rand(3))
    with Stream(6):
        assert torch.equal(torch.cat(drawn), torch.cat([torch.rand(3) for _ in range(3)]))
    with defense:
        assert torch.equal(torch.rand(3), after_defense)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_the_attack_draws_what_it_would_draw_without_noise():
    class Silent(nn.Module):
        """Draws noise and ignores it, so that only the generators could tell."""

        def __init__(self, model):
            super().__init__()
            self.model = model
            self.eval()

        def forward(self, x):
            torch.randn_like(x)
            return self.model(x)

    model = TinyCNN()
    x, y = images(model)
    for name in ("pgd", "apgd-ce"):
        assert torch.equal(attack(name, make(Silent(model), x, y), x, y), attack(name, model, x, y))


# --- traces


def test_each_pass_leaves_a_point_of_the_trace():
    model = TinyCNN(scale=SATURATED)
    x, y = images(model)
    probe = make(model, x, y, replay=True)
    attack("pgd", probe, x, y)
    assert len(probe.trace) == 12
    loss, margin, broken, zero, median = probe.trace[-1]
    assert margin > 0
    assert loss >= 0
    assert 0 <= broken <= 1
    assert zero > 0.5
    assert median == 0


def test_beat_is_called_after_each_pass():
    model = TinyCNN()
    x, y = images(model)
    beats = []
    probe = Probe(
        model, x, y, THREAT, stream=Stream(0), confirm=lambda found, who: found, stop_early=False, replay=False,
        beat=lambda: beats.append(int(probe.forwards.sum())),
    )  # fmt: skip
    attack("pgd", probe, x, y)
    assert beats == [len(x) * (i + 1) for i in range(12)]


# --- passes that adapters make


class Attributed(nn.Module):
    """A defense with an attribute that an adapter has, too."""

    def __init__(self, body):
        super().__init__()
        self.body, self.k = body, 7

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    ("wrap", "each"),
    [
        (lambda m: m, 1),
        (Attributed, 1),
        (lambda m: Eot(m, k=4), 4),
        (lambda m: Smooth(m, k=3), 3),
        (lambda m: Eot(Smooth(Attributed(m), k=3), k=4), 12),
    ],
)
def test_a_query_counts_as_many_passes_as_its_adapters_make(wrap, each):
    model = TinyCNN()
    x, y = images(model, 5)
    probe = make(wrap(model), x, y)
    probe(x)
    assert probe.forwards.tolist() == [each] * 5


def test_what_a_surrogate_asked_to_be_fitted_counts_once():
    model = nn.Sequential(nn.Identity(), TinyCNN())
    x, y = images(model[1], 5)
    probe = make(Bpda(model, modules="0", substitute="learned"), x, y)
    for _ in range(2):
        probe(x.clone().requires_grad_())
    assert int(probe.forwards.sum()) == 2 * 5 + 5 * (STEPS + 1)
    assert int(probe.forwards.max() - probe.forwards.min()) <= 1


@pytest.mark.parametrize(("label", "share"), [(0, 1.0), (1, None)])
def test_zero_gradients_count_only_where_the_query_is_not_misclassified(label, share):
    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]

    x, y = torch.rand(4, 1, 8, 8), torch.full((4,), label)
    probe = make(Flat().eval(), x, y)
    for _ in range(2):
        images = x.clone().requires_grad_()
        torch.autograd.grad(probe(images)[:, 1].sum(), images)
    assert probe.trace[-1][3] == share if share else math.isnan(probe.trace[-1][3])


def test_a_gradient_that_is_no_number_is_a_zero_one_in_the_trace():
    class Undefined(torch.nn.Module):
        def forward(self, x):
            score = x.flatten(1).sum(1) + (x - x).abs().sqrt().flatten(1).sum(1)  # infinite times 0 backward
            return torch.stack([score, -score], 1)

    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    probe = make(Undefined().eval(), x, y)
    for _ in range(2):
        images = x.clone().requires_grad_()
        torch.autograd.grad(probe(images)[:, 1].sum(), images)
    assert probe.trace[-1][3] == 1.0
