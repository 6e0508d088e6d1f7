"""Our own attacks: what the contract on a linear model does not show."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from adapters.probe import AllBroken, Probe
from audit import registry
from audit.attacks.own.a3 import USUAL, _directions, _observed
from audit.attacks.own.common import steepest
from audit.attacks.own.fwa import _Transport
from audit.attacks.own.random_search import DRAWS
from audit.attacks.own.st_adv import flowed, roughness
from audit.attacks.rounds import Best
from audit.errors import BadInput
from audit.geometry import contains, distance, project
from audit.rng import Stream
from audit.types import ThreatModel
from tests.planted import Brightness, TinyCNN, dark, images

pytestmark = pytest.mark.usefixtures("undrawn")

LINF = ThreatModel("Linf", 0.1)
SHORTEST = {"steps": 1, "init_steps": 1}
SHORT = {
    "a3": {"restarts": 2, "init_steps": 2, "steps": 4},
    "an-pgd": {"steps": 4},
    "fwa": {"steps": 6},
    "nes": {"steps": 3, "pairs": 5},
    "pgd-margin": {"steps": 4},
    "random-search": {"n_draws": 20},
    "rays": {"n_queries": 60},
    "st-adv": {"steps": 6},
}
WITH_GRADIENT = [name for name in SHORT if registry.attacks.load(name).needs == "gradient"]


def run(name, model, x, y, threat=LINF, **options):
    return registry.attacks.load(name)(model, x, y, threat, seed=0, **{**SHORT[name], **options})


@pytest.fixture(scope="module")
def undefended():
    """The shipped plain network, and the first images that it classifies correctly and that can be broken at 8/255."""
    known, data = registry.defenses.load("undefended"), registry.datasets.load("fashion_mnist").load()
    model = known.load(known.checkpoint("fashion_mnist", None))
    x, y = torch.from_numpy(data.x[:60]), torch.from_numpy(data.y[:60])
    threat = ThreatModel()
    broken = registry.attacks.load("apgd-margin")(model, x, y, threat, seed=0, n_iter=20)
    with torch.no_grad():
        rows = ((model(x).argmax(1) == y) & (model(broken).argmax(1) != y)).nonzero().flatten()[:8]
    return model, x[rows], y[rows], threat


@pytest.mark.parametrize(("name", "share"), [("a3", 1.0), ("an-pgd", 0.7), ("fwa", 0.5), ("st-adv", 0.4)])
def test_it_breaks_a_trained_network(undefended, name, share):
    model, x, y, threat = undefended
    found = run(name, model, x, y, threat, **{"an-pgd": {"steps": 20}}.get(name, {"steps": 20}))
    assert float(((model(found).argmax(1) != y) & contains(found, x, threat)).float().mean()) >= share


class Torn(nn.Module):
    """Logits of no use: their gradient is 0, NaN or infinite."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.eval()

    def forward(self, x):
        total = x.flatten(1).sum(1)
        score = {"zero": 0 * total, "nan": (0 * total).abs().sqrt(), "infinite": 1e38 * 1e38 * (total + 1)}[self.kind]
        return torch.stack([1 + 0 * score.nan_to_num(0, 0), score], 1)


@pytest.mark.parametrize("kind", ["zero", "nan", "infinite"])
@pytest.mark.parametrize("name", list(SHORT))
def test_a_useless_gradient_makes_no_nan(name, kind):
    x, y = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(3, dtype=torch.int64)
    found = run(name, Torn(kind), x, y)
    assert torch.isfinite(found).all()
    assert registry.attacks.load(name).kind == "minimal" or contains(found, x, LINF).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 7), (2, 5, 3)], ids=str)
@pytest.mark.parametrize("name", list(SHORT))
def test_odd_shapes_and_black_images(name, shape):
    x, y = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.int64)
    for images_ in (x, torch.zeros_like(x)):
        found = run(name, Brightness(0.9), images_, y)
        assert found.shape == x.shape
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", list(SHORT))
def test_what_the_model_raises_ends_it(name):
    class Ends(BaseException):
        pass

    class Last(TinyCNN):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 3:
                raise Ends
            return super().forward(x)

    model = Last()
    x, y = images(TinyCNN())
    with pytest.raises(Ends):
        run(name, model, x, y, ThreatModel("Linf", 1e-6))


@pytest.mark.parametrize("name", list(SHORT))
def test_seen_through_a_probe_it_ends_early_and_asks_no_more_than_it_says(name):
    model, wide = TinyCNN(), ThreatModel("Linf", 0.5)
    x, y = images(model)
    probe = Probe(
        model, x, y, wide, stream=Stream(0), stop_early=True, replay=True,
        confirm=lambda candidates, who: model(candidates).argmax(1) != y[who],
    )  # fmt: skip
    with suppress(AllBroken):
        run(name, probe, x, y, wide)
    forwards, backwards = registry.attacks.load(name).cost(SHORT[name])
    assert probe.retired.sum() >= 3
    assert (probe.forwards <= forwards + 2).all()  # a retired image is judged once by the defense itself
    assert (probe.backwards <= backwards).all()


@pytest.mark.parametrize("name", ["a3", "an-pgd", "fwa"])
def test_an_unknown_loss_is_answered_with_the_nearest(name):
    model = TinyCNN()
    with pytest.raises(BadInput, match=f"'{name}' has no loss 'margn': did you mean 'margin'"):
        run(name, model, *images(model), loss="margn")


def test_tiny_gradients_have_a_direction():
    gradient = torch.full((2, 1, 2, 2), 1e-30)
    gradient[1] = 0.0
    length = steepest(gradient, "L2").flatten(1).norm(dim=1)
    assert length.tolist() == pytest.approx([1.0, 0.0])


# --- a3


def test_a3_by_cross_entropy_is_blind_where_the_softmax_saturates_and_by_margin_is_not():
    """What the super-fitting paper reports: the loss decides, not the schedule. The start alone breaks a few."""
    model = TinyCNN(scale=1e5)
    x, y = images(model, 16)
    threat = ThreatModel("Linf", 0.06)
    options = {"restarts": 1, "init_steps": 1, "steps": 20}
    broken = {
        loss: (model(run("a3", model, x, y, threat, loss=loss, **options)).argmax(1) != y) for loss in ("ce", "margin")
    }
    assert int(broken["margin"].sum()) > int(broken["ce"].sum())


def test_a3_gains_by_its_later_restarts():
    model = TinyCNN()
    x, y = images(model, 32)
    counts = [
        int((model(run("a3", model, x, y, ThreatModel("Linf", 0.02), restarts=n, **SHORTEST)).argmax(1) != y).sum())
        for n in (1, 4)
    ]
    assert 0 < counts[0] < counts[1]  # 7 and 10: by the same start four times it would be 7 and 7


@pytest.mark.parametrize("signs", [(-1.0, 1.0), (1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])
@pytest.mark.parametrize("classes", [10, 100])
def test_the_adaptive_weights_of_a3_have_the_size_and_the_signs_asked_for(signs, classes):
    torch.manual_seed(0)
    y, order = torch.zeros(200, dtype=torch.int64), torch.arange(1, classes).repeat(200, 1)
    weights, many = _directions(y, order, 2, signs), classes / 10
    assert weights[:, 3].tolist() == pytest.approx([0.8 * many * signs[1]] * 200)
    own = signs[0] * weights[:, 0] / many
    assert -0.1 <= float(own.min()) < -0.05
    assert 0.45 < float(own.max()) <= 0.5
    assert float(weights[:, 4:].abs().max()) <= 1


def test_a3_takes_its_signs_from_the_directions_that_led_to_success():
    model = TinyCNN()
    x, y = images(model, 8)
    broken = registry.attacks.load("pgd")(model, x, y, ThreatModel("Linf", 0.2), seed=0)
    found = model(broken).argmax(1)
    assert (found != y).any()
    best, standing = Best(x, y), Best(x, y)
    best.keep(broken, model(broken))
    standing.keep(x, model(x))
    weights = torch.zeros(8, 4).scatter(1, y[:, None], 0.5).scatter(1, found[:, None], -0.5)
    weights = torch.where((found != y)[:, None], weights, -9.0)  # what failed has no say
    assert _observed(model, y, weights, best) == (1.0, -1.0)
    assert _observed(model, y, -weights, best) == (-1.0, 1.0)
    assert _observed(model, y, weights, standing) == USUAL
    for signs in ("fixed", "statistics"):
        found = run("a3", model, x, y, restarts=3, signs=signs)
        assert int((model(found).argmax(1) != y).sum()) >= 4
    with pytest.raises(BadInput, match="'a3' has no signs 'statistic': did you mean 'statistics'"):
        registry.attacks.load("a3").check({"signs": "statistic"})


# --- an-pgd and rays


@pytest.mark.parametrize("eps", [0.01, 0.3], ids=["beyond the ball", "inside it"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_an_pgd_finds_the_boundary_on_either_side_of_eps(norm, eps):
    x, y = dark()
    size = 8.0 if norm == "L2" else 1.0
    found = run("an-pgd", Brightness(), x, y, ThreatModel(norm, eps * size), steps=30, widest=12.0, bisections=14)
    assert (Brightness()(found).argmax(1) != y).all()
    torch.testing.assert_close(distance(found, x, norm), size * (0.5 - x[:, 0, 0, 0]), rtol=0.03, atol=1e-3)


def test_an_pgd_returns_the_clean_image_where_the_ray_never_fools():
    x, y = dark()
    assert torch.equal(run("an-pgd", Brightness(), x, y, ThreatModel("Linf", 0.001)), x)


def test_rays_finds_the_boundary_of_brightness_exactly():
    x, y = dark()
    found = run("rays", Brightness(), x, y, n_queries=40, tolerance=0.001)
    assert (Brightness()(found).argmax(1) != y).all()
    torch.testing.assert_close(distance(found, x, "Linf"), 0.5 - x[:, 0, 0, 0], rtol=0.01, atol=1e-4)


def test_rays_comes_nearer_with_more_queries():
    model = TinyCNN()
    x, y = images(model)
    near = [distance(run("rays", model, x, y, n_queries=n), x, "Linf") for n in (50, 500)]
    fooled = distance(run("rays", model, x, y, n_queries=50), x, "Linf") > 0
    assert (near[1] <= near[0])[fooled].all()
    assert float(near[1][fooled].mean()) < 0.8 * float(near[0][fooled].mean())


# --- random-search


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("where", list(DRAWS))
def test_draws_lie_in_the_unit_ball(where, norm):
    torch.manual_seed(0)
    z = DRAWS[where][norm](torch.zeros(4000, 3))
    radius = distance(z, torch.zeros_like(z), norm)
    assert float(radius.max()) <= 1 + 1e-5
    if where == "corners":
        torch.testing.assert_close(radius, torch.ones_like(radius))
    else:  # of a uniform draw in d dimensions, the radius to the power d is uniform
        assert (radius**3).sort().values.tolist() == pytest.approx(np.linspace(0, 1, 4000), abs=0.04)
    assert z.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.06)


@pytest.mark.parametrize("where", list(DRAWS))
def test_random_search_stops_asking_once_fooled(where):
    class Asked(Brightness):
        rows = 0

        def forward(self, x):
            self.rows += len(x)
            return super().forward(x)

    model, (x, y) = Asked(), dark()
    found = run("random-search", model, x, y, ThreatModel("Linf", 0.5), where=where, n_draws=200)
    assert (model(found).argmax(1) != y).all()
    assert model.rows < 6 * 50


# --- st-adv


def test_no_flow_moves_nothing_and_a_flow_of_one_pixel_moves_one_column():
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(2, 2, 5, 4)
    torch.testing.assert_close(flowed(x, flow), x)
    flow[:, 0] = 1.0
    torch.testing.assert_close(flowed(x, flow)[..., :-1], x[..., 1:])
    flow[:, 0], flow[:, 1] = 0.0, -0.5
    torch.testing.assert_close(flowed(x, flow)[:, :, 1:], (x[:, :, 1:] + x[:, :, :-1]) / 2)


def test_only_a_flow_that_varies_is_rough():
    flow = torch.ones(1, 2, 4, 4)
    assert float(roughness(flow)) == pytest.approx(0, abs=0.01)
    flow[:, 0, :, 2:] += 3.0  # an edge of four pixels
    assert float(roughness(flow)) == pytest.approx(24, abs=0.01)  # each pair of neighbours from both sides


def test_the_flow_loss_is_that_of_the_paper():
    flow = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for i, j in np.ndindex(3, 4):
        for k, m in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= k < 3 and 0 <= m < 4:
                total += float((flow[0, :, i, j] - flow[0, :, k, m]).norm())
    assert float(roughness(flow)) == pytest.approx(total, rel=1e-5)


# --- fwa


def optimum(image, gradient, radius, budget):
    """The best gain by a linear program over all plans between near pixels."""
    height, width = image.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    near = [
        (a, b) for a, (i, j) in enumerate(places) for b, (k, m) in enumerate(places)
        if abs(i - k) <= radius and abs(j - m) <= radius
    ]  # fmt: skip
    price = [np.hypot(*np.subtract(places[a], places[b])) for a, b in near]
    leaving = np.array([[a == p for a, _ in near] for p in range(len(places))], float)
    flat = gradient.flatten()
    solved = linprog(
        [-flat[b] for _, b in near], A_ub=[price], b_ub=[budget * image.sum()], A_eq=leaving, b_eq=image.flatten()
    )
    return -solved.fun


@pytest.mark.parametrize("budget", [0.05, 0.4, 5.0])
@pytest.mark.parametrize("radius", [1, 2])
def test_the_plan_gains_what_a_linear_program_gains(radius, budget):
    dice = torch.Generator().manual_seed(0)
    x, gradient = torch.rand(2, 1, 4, 3, generator=dice), torch.randn(2, 1, 4, 3, generator=dice)
    transport = _Transport(x, radius, budget)
    plan = transport.best(gradient, 0.001)
    moved = transport.image(plan)
    cost = (plan * transport.price).flatten(1).sum(1)
    assert (plan >= 0).all()
    assert (cost <= transport.allowed * (1 + 1e-4)).all()
    torch.testing.assert_close(plan.sum(2), x.flatten(2))
    torch.testing.assert_close(moved.flatten(1).sum(1), x.flatten(1).sum(1))
    for i in range(2):
        best = optimum(x[i, 0].numpy(), gradient[i, 0].numpy(), radius, budget)
        assert float((moved[i] * gradient[i]).sum()) == pytest.approx(best, rel=0.02, abs=0.02)


def test_the_plan_that_stays_is_the_image():
    x = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    transport = _Transport(x, 2, 0.5)
    torch.testing.assert_close(transport.image(transport.stay()), x)


def test_a_small_budget_moves_less():
    model = TinyCNN()
    x, y = images(model)
    wide = ThreatModel("Linf", 1.0)
    moved = [float(distance(run("fwa", model, x, y, wide, budget=b), x, "L1").mean()) for b in (0.01, 0.5)]
    assert 0 < moved[0] < moved[1]
    bound = 2 * 0.01 * x.flatten(1).sum(1)  # a unit moved by a pixel changes two pixels
    assert (distance(run("fwa", model, x, y, wide, budget=0.01), x, "L1") <= bound * 1.01).all()


def test_projection_is_the_last_word():
    model = TinyCNN()
    x, y = images(model)
    for name in ("a3", "fwa", "st-adv", "nes", "random-search"):
        found = run(name, model, x, y)
        torch.testing.assert_close(project(found, x, LINF), found, rtol=0, atol=1e-6)
