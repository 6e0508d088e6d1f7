"""A random defense: images fixed first, then judged on fresh draws; the figures match their closed form."""

import numpy as np
import pytest
import torch

import audit
from audit import registry
from audit.engine import Target
from audit.ledger import Ledger
from audit.linear import linear_problem
from audit.oracle import Oracle, draws_for
from audit.results import read_results
from audit.routes import overall, routes
from audit.stats import estimate, total
from audit.types import AdapterSpec, Step
from audit.verify import verify_images
from defenses import staged
from defenses.co_noise.noise import Noise
from tests.planted import Brightness, Staged, UniformNoise
from tests.test_engine import make_plan, run

N, EPS, WIDTH, DRAWS = 80, 0.05, 0.2, 40
EOT = AdapterSpec("eot", {"k": 8, "estimator": "logits"})
BARE = AdapterSpec("base", {})


@pytest.fixture(autouse=True)
def _planted_attacks(monkeypatch):
    for name in ("good", "idle"):
        monkeypatch.setitem(registry.attacks._targets, name, f"tests.planted:{name}")


def single_pixels():
    """Images of one pixel, 0.3 to 0.45: `Brightness` says 0 up to 0.5, and noise on the pixel is noise on the mean."""
    x = torch.linspace(0.3, 0.45, N).view(-1, 1, 1, 1)
    model = Staged(Brightness(), UniformNoise(WIDTH)).eval()
    return Target(model, x, torch.zeros(N, dtype=torch.int64), frozenset({"stochastic"}))


def closed_form(x):
    """P(x + u <= 0.5) for u uniform on [-WIDTH, WIDTH]."""
    return np.clip((0.5 - x + WIDTH) / (2 * WIDTH), 0, 1)


def audited(folder, *steps):
    plan = make_plan(steps, n=N, batch_size=32, eps=EPS, drift=1.0)
    plan = type(plan)(
        {**plan.identity, "draws": DRAWS, "staged": True, "traits": ["stochastic"]}, plan.steps, plan.profile
    )
    target = single_pixels()
    return plan, target, run(plan, target, folder)[1]


def recorded(plan, folder, column):
    """A column of the ledger, of the clean images and of each step: float32 (1 + steps, N), NaN where it was not asked."""
    found = np.full((1 + len(plan.steps), N), np.nan, np.float32)
    for unit in plan.units():
        arrays = Ledger(folder, plan.fingerprint).read(unit.name)[0]
        found[0 if unit.step is None else unit.step + 1, arrays["ids"]] = arrays[column]
    return found


def test_clean_and_robust_accuracy_match_their_closed_form(tmp_path):
    steps = (Step("grey", "good", "claimed", "all", (BARE,)), Step("e2e", "good", "adaptive", "all", (EOT,)))
    _, target, results = audited(tmp_path, *steps)
    x = target.x.flatten().numpy()
    for measured, exact in ((results.p_clean, closed_form(x)), (results.p_worst, closed_form(x + EPS))):
        low, high = estimate(total(measured), N).interval
        assert low <= exact.mean() <= high
        assert abs(measured.mean() - exact.mean()) < 5 * 0.5 / (N * DRAWS) ** 0.5  # five sigmas of the draws alone
    assert closed_form(x).mean() - closed_form(x + EPS).mean() > 0.1  # the two are far apart


@pytest.mark.slow
def test_a_whole_audit_of_noise_before_a_linear_model_matches_the_closed_form(tmp_path):
    """P(correct) is Phi of the distance to the plane over the noise's deviation along its normal; eps moves it nearer."""
    model, x, y = linear_problem(0, n=40, classes=2)
    eps, sigma = 0.004, 0.03  # pixels lie in [0.4, 0.6], so the noise is hardly ever clipped
    with torch.no_grad():
        gap, normal = (model(x).diff() * (1 - 2 * y[:, None]) * -1).flatten(), model.weight.diff(dim=0).flatten()
    found = audit.run(
        model=staged.Staged(model, Noise(sigma, "gaussian")).eval(), data=(x, y), suite="quick", eps=eps,
        traits=("stochastic",), out=tmp_path,
    )  # fmt: skip
    spread = torch.distributions.Normal(0, sigma * float(normal.norm()))
    for measured, exact in (
        (found.clean, spread.cdf(gap).mean()), (found.adaptive, spread.cdf(gap - eps * normal.abs().sum()).mean()),
    ):  # fmt: skip
        low, high = measured.interval
        assert low <= exact <= high
        assert abs(measured.accuracy - exact) < 5 * 0.5 / (len(x) * found.results.plan.draws) ** 0.5
    assert found.adaptive.accuracy < found.clean.accuracy - 0.15


def test_each_image_has_its_own_share(tmp_path):
    _, target, results = audited(tmp_path, Step("e2e", "good", "adaptive", "all", (EOT,)))
    exact = closed_form(target.x.flatten().numpy() + EPS)
    assert np.abs(results.p_worst - exact).max() < 5 * 0.5 / DRAWS**0.5
    assert np.corrcoef(results.p_worst, exact)[0, 1] > 0


def test_choosing_the_worst_of_many_images_does_not_lower_the_figure(tmp_path):
    """Eight attacks that do nothing: a minimum over the shares that choose falls far below the clean accuracy."""
    steps = tuple(Step(f"idle-{i}", "idle", "adaptive", "all", (EOT,)) for i in range(8))
    plan, target, results = audited(tmp_path, *steps)
    exact = closed_form(target.x.flatten().numpy()).mean()
    assert abs(results.p_worst.mean() - exact) < 5 * 0.5 / (N * DRAWS) ** 0.5
    assert recorded(plan, tmp_path, "p_select").min(0).mean() < exact - 0.05


def test_the_worst_image_is_chosen_on_other_draws_than_it_is_judged_on(tmp_path, monkeypatch):
    """Two attacks of almost one strength: the lower by the choosing draws counts, with its figure by the judging ones."""
    monkeypatch.setattr("tests.test_stochastic.EPS", 0.003)
    steps = (Step("good", "good", "adaptive", "all", (EOT,)), Step("idle", "idle", "adaptive", "all", (EOT,)))
    plan, _, results = audited(tmp_path, *steps)
    chosen, judged = (recorded(plan, tmp_path, name) for name in ("p_select", "p"))
    lowest = np.argmin(chosen, 0)  # of equals the first, as a later one has to be lower
    assert np.array_equal(results.p_worst, judged[lowest, np.arange(N)])
    assert results.p_worst.mean() > judged.min(0).mean()  # what a minimum over the judging draws would give


def test_clean_and_attacked_images_are_scored_on_the_same_draws(tmp_path):
    """An attack that does nothing leaves the clean figure to the last draw, of every image or of those few it was asked."""
    idle = Step("idle", "idle", "adaptive", "all", (EOT,))
    few = Step("few", "idle", "adaptive", "all", (EOT,), limit=7)
    plan, _, results = audited(tmp_path, idle, few)
    assert results.named("few")[0].attacked.sum() == 7
    returned = (r.views["returned"] for r in results.steps)
    for found in (results.p_worst, *returned, *(r.p_own for r in results.steps)):
        assert np.array_equal(found, results.p_clean)
    assert ((results.p_clean > 0) & (results.p_clean < 1)).any()
    selected = recorded(plan, tmp_path, "p_select")[1]
    assert not np.array_equal(selected, results.p_clean)  # what chooses the image are other draws


def test_no_image_that_noise_alone_keeps_is_lost_on_the_same_draws(tmp_path):
    """One draw after the other: an image that is moved to the line is right on no draw on which its clean one was wrong."""
    _, _, results = audited(tmp_path, Step("e2e", "good", "adaptive", "all", (EOT,)))
    assert (results.p_worst <= results.p_clean).all()
    assert (results.p_worst < results.p_clean).mean() > 0.5


def test_the_rows_of_each_route(tmp_path):
    steps = (Step("good", "good", "claimed", "all", (BARE,)), Step("e2e-good", "good", "adaptive", "all", (EOT,)))
    _, target, results = audited(tmp_path, *steps)
    (family,) = routes(results)
    bare = (target.x.flatten() + EPS <= 0.5).float().mean()
    assert family.bare.accuracy == pytest.approx(float(bare))
    assert family.step == "e2e-good"
    assert family.transfer.accuracy == pytest.approx(family.end_to_end.accuracy, abs=0.1)  # the same step, other draws
    # where the bare network was never fooled, the cascade's image is the clean one
    assert family.first.accuracy > family.transfer.accuracy
    assert set(overall(results)) == {"bare", "transfer", "end_to_end"}


def test_what_is_returned_without_a_query_is_a_first_success_where_it_fools_the_bare_network(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_stochastic.EPS", 0.15)  # two thirds of the images cross the bare network's line
    _, target, results = audited(tmp_path, Step("one-step", "good", "claimed", "all", (BARE,)))
    (family,) = routes(results)
    x = target.x.flatten().numpy()
    seen = np.where(x + EPS > 0.5, closed_form(x + EPS), closed_form(x)).mean()
    assert abs(family.first.accuracy - seen) < 5 * 0.5 / (N * 10) ** 0.5
    assert closed_form(x).mean() - seen > 0.02


@pytest.mark.parametrize(("attack", "returned"), [("good", EPS), ("retreating", 0.0), ("advancing", EPS)])
def test_the_lowest_margin_is_that_of_every_query_and_of_what_is_returned(attack, returned, tmp_path, monkeypatch):
    """The image farthest to the line counts, fooled or not: never asked for, or asked for and dropped."""
    monkeypatch.setitem(registry.attacks._targets, attack, f"tests.planted:{attack}")
    _, target, results = audited(tmp_path, Step("grey", attack, "claimed", "all", (BARE,)))
    (family,) = routes(results)
    x, noise = target.x.flatten().numpy(), 4 * 0.5 / (N * DRAWS) ** 0.5
    assert abs(family.lowest.accuracy - closed_form(x + EPS).mean()) < noise
    assert abs(family.transfer.accuracy - closed_form(x + returned).mean()) < noise
    assert closed_form(x + EPS / 2).mean() - closed_form(x + EPS).mean() > noise


def test_the_stored_images_are_confirmed_on_other_draws(tmp_path):
    plan, target, _ = audited(tmp_path, Step("e2e", "good", "adaptive", "all", (EOT,)))
    found = verify_images(plan, target, Ledger(tmp_path, plan.fingerprint))
    assert found["rejected"] == 0
    assert found["verified"] > N / 2


def test_a_random_run_repeats_bit_for_bit(tmp_path):
    step = Step("e2e", "good", "adaptive", "survivors", (EOT,))
    first, second = (audited(tmp_path / name, step)[2] for name in "ab")
    assert np.array_equal(first.p_worst, second.p_worst)
    assert np.array_equal(first.p_clean, second.p_clean)


def test_the_number_of_draws_follows_from_the_width_of_the_interval():
    assert draws_for(100) == 97
    assert draws_for(10_000) == 20
    assert draws_for(1) == 200
    for n in (60, 250, 1000):
        assert 1.96 * (0.25 / (n * draws_for(n))) ** 0.5 <= 0.0101


def test_a_candidate_with_nan_logits_is_no_answer():
    class Flaky(Brightness):
        def forward(self, x):
            return super().forward(x).masked_fill((x.flatten(1).mean(1) > 0.44)[:, None], float("nan"))

    target = single_pixels()
    judged = Oracle(Flaky(), batch_size=8, seed=0).judge(target.x, target.y, strict=False)
    assert (~judged.valid).any()
    assert judged.p_correct.isnan().tolist() == (~judged.valid).tolist()
    assert judged.correct.all()  # unknown is not adversarial


def test_results_are_read_back_alike(tmp_path):
    plan, _, results = audited(tmp_path, Step("e2e", "good", "adaptive", "all", (EOT,)))
    again = read_results(tmp_path)
    assert again.plan.fingerprint == plan.fingerprint
    assert np.array_equal(again.p_worst, results.p_worst)


@pytest.mark.parametrize("insists", [True, False])
def test_a_control_attacks_again_what_was_wrong_by_chance_when_it_began(insists, tmp_path, monkeypatch):
    """Near the edge the mean of a few draws is wrong on the clean image now and then, and APGD lets that image alone."""
    if not insists:
        monkeypatch.setattr("audit.attempt.TRIES", 1)
    few = AdapterSpec("eot", {"k": 2, "estimator": "logits"})
    params = {"n_iter": 10, "n_restarts": 1}
    control = Step("unbounded", "apgd-margin", "control", "control", (few,), params, eps=1.0, limit=N)
    (found,) = audited(tmp_path, control)[2].steps
    assert int(found.attacked.sum()) == N
    assert bool((found.attacked & ~found.broken).any()) != insists
