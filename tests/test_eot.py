"""EOT: means over draws, in closed form where there is one, and nothing at all where nothing is random."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adapters import draws
from adapters.bpda import Bpda
from adapters.eot import ESTIMATORS, Eot
from adapters.float64 import Float64
from adapters.probe import Probe
from adapters.rescale import Rescale
from audit import registry
from audit.errors import BadInput
from audit.gates import fingerprint_model
from audit.geometry import contains
from audit.linear import linear_problem
from audit.rng import Stream
from audit.types import ThreatModel
from tests.planted import Counting, Noisy, Quantise, SignStep, Staged, TinyCNN, UniformNoise, images
from tests.test_bpda import finite_differences, gradient, upstream


class Private(nn.Module):
    """Noise from a generator of its own, which no global state shows."""

    def __init__(self, model):
        super().__init__()
        self.model, self.dice = model, torch.Generator().manual_seed(1)

    def forward(self, x):
        return self.model(x + 0.1 * torch.randn(x.shape, generator=self.dice))


def noisy(width=0.1, network=None):
    return Staged(network or TinyCNN(), UniformNoise(width))


def layer(adapted):
    return adapted.model.purifier


def every_draw(model, x, k, seed=0):
    """Logits (n, k, c) of the draws that Eot must have used, one pass per draw, and the noise (n, k, c, h, w)."""
    logits, noise = [], []
    for draw in range(k):
        model.purifier.generators = draws.row_generators(x, seed, [draw])
        logits.append(model(x))
        noise.append(model.purifier.last)
    model.purifier.generators = None
    return torch.stack(logits, 1), torch.stack(noise, 1)


def loss_gradient(model, x, loss, *more):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(model(x, *more)).sum(), x)[0]


# --- nothing random: nothing changes


@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("k", [1, 3, 8])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_deterministic_model_keeps_every_bit(estimator, k, n):
    model = TinyCNN()
    x, y = images(model, n)
    adapted = Eot(model, k=k, estimator=estimator)
    labels = (y,) if adapted.takes_labels else ()
    assert torch.equal(adapted(x), model(x))
    weights = upstream(n)
    got = loss_gradient(adapted, x, lambda z: z * weights, *labels)
    assert torch.equal(got, gradient(model, x, weights))


def test_a_noise_layer_of_width_zero_is_averaged():
    """It draws numbers, so its mean over draws is taken: right to rounding."""
    model, (x, _) = noisy(0.0), images(TinyCNN())
    assert torch.allclose(Eot(model, k=3)(x), model(x), atol=1e-5)


def test_a_deterministic_model_costs_two_passes():
    model = Counting(TinyCNN())
    x, _ = images(TinyCNN())
    adapted = Eot(model, k=20)
    adapted(x)
    assert adapted.model.rows == 2 * len(x)


# --- where the draws come from


def test_draws_repeat_under_a_seed_whatever_happened_before():
    model, (x, _) = noisy(), images(TinyCNN())
    adapted = Eot(model, k=5, seed=3)
    first, noise = adapted(x), layer(adapted).last
    adapted(x.flip(0))
    torch.manual_seed(99)
    assert torch.equal(adapted(x), first)
    assert torch.equal(layer(adapted).last, noise)
    assert torch.equal(Eot(model, k=5, seed=3)(x), first)


def test_another_seed_or_image_draws_anew():
    model, (x, _) = noisy(), images(TinyCNN())
    assert (Eot(model, k=5, seed=3)(x) != Eot(model, k=5, seed=4)(x)).all()
    adapted = Eot(model, k=2)
    adapted(x)
    before = layer(adapted).last
    adapted(x + 1e-3)
    assert (layer(adapted).last != before).flatten(1).any(1).all()
    assert len(before.flatten(1).unique(dim=0)) == len(x)


def test_draws_do_not_depend_on_the_batch():
    model, (x, _) = noisy(), images(TinyCNN())
    adapted = Eot(model, k=4)
    logits, noise = adapted(x), layer(adapted).last.view(8, 3, 1, 8, 8)
    for rows in ([5], [6, 2], [7, 6, 5, 4, 3, 2, 1, 0], [1, 1]):
        assert torch.allclose(adapted(x[rows]), logits[rows], atol=1e-5)
        assert torch.equal(layer(adapted).last.view(len(rows), 3, 1, 8, 8), noise[rows])


@pytest.mark.parametrize("max_batch", [1, 5, 1000])
def test_chunks_change_nothing_but_rounding(max_batch):
    model, (x, _) = noisy(), images(TinyCNN())
    expected, _ = every_draw(model, x, 6)
    assert torch.allclose(Eot(model, k=6, max_batch=max_batch)(x), expected.mean(1), atol=1e-5)


def test_all_further_draws_go_in_one_pass():
    sizes, model = [], noisy()
    model.network.register_forward_hook(lambda part, given, logits: sizes.append(len(logits)))
    Eot(model, k=6)(images(TinyCNN())[0])
    assert sizes == [8, 40]


def test_a_module_without_generators_draws_from_the_global_one():
    model, (x, _) = Noisy(TinyCNN()), images(TinyCNN())
    adapted = Eot(model, k=16)
    with Stream(1):
        first = adapted(x)
    with Stream(1):
        assert torch.equal(adapted(x), first)
    with Stream(2):
        assert not torch.equal(adapted(x), first)
    with Stream(1):
        single = model(x)
    plain = TinyCNN()(x)
    assert (first - plain).norm() < 0.6 * (single - plain).norm()  # 16 draws: a quarter of the noise


def test_noise_from_a_private_generator_is_seen():
    torch.manual_seed(0)
    adapted, (x, _) = Eot(Private(TinyCNN()), k=2), images(TinyCNN())
    assert not torch.equal(adapted(x), adapted(x))
    counting = Eot(Counting(Private(TinyCNN())), k=20)
    counting(x)
    assert counting.model.rows == 21 * len(x)  # the plain batch once more, to see it


def test_a_layer_in_a_tuple_gets_generators_too():
    network = nn.Sequential(UniformNoise(), TinyCNN())
    model = nn.Sequential(SignStep(network), TinyCNN()).eval()
    x, _ = images(TinyCNN())
    adapted = Eot(model, k=4)
    first = adapted(x)
    torch.manual_seed(7)
    assert torch.equal(adapted(x), first)


def test_the_model_is_left_alone():
    model, (x, y) = noisy(), images(TinyCNN())
    before = fingerprint_model(model)
    loss_gradient(Eot(model, k=3, estimator="losses").eval(), x, lambda z: F.cross_entropy(z, y), y)
    assert fingerprint_model(model) == before
    assert model.purifier.generators is None
    assert model.purifier.last is None
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_generators_are_taken_back_when_the_model_raises():
    adapted = Eot(nn.Sequential(UniformNoise(), TinyCNN()), k=3)
    with pytest.raises(RuntimeError):
        adapted(torch.rand(2, 2, 8, 8))
    assert adapted.model[0].generators is None


# --- the estimators


def linear():
    """The analytic linear model under uniform noise, in float64."""
    model, x, y = linear_problem(0)
    return noisy(0.02, model.double()), x.double(), y


def test_the_mean_of_logits_of_a_linear_model_in_closed_form():
    """W (x + mean noise) + b, with gradient W whatever the noise."""
    model, x, y = linear()
    _, noise = every_draw(model, x, 20)
    adapted = Eot(model, k=20)
    assert torch.allclose(adapted(x), model.network(x + noise.mean(1)), atol=1e-9)
    got = loss_gradient(adapted, x, lambda z: z.gather(1, y[:, None]))
    assert torch.allclose(got.flatten(1), model.network.weight[y], atol=1e-9)


def test_the_mean_of_probabilities_against_a_direct_computation():
    model, x, y = linear()
    logits, _ = every_draw(model, x, 20)
    probabilities = logits.softmax(2)
    assert torch.allclose(Eot(model, k=20, estimator="probs")(x), probabilities.mean(1).log(), atol=1e-9)
    # d log mean_j p_j[y] / dx = sum_j p_j[y] (W_y - sum_c p_j[c] W_c) / sum_j p_j[y]
    weight, own = model.network.weight, probabilities.gather(2, y[:, None, None].expand(-1, 20, 1))
    slopes = own * (weight[y][:, None] - probabilities @ weight)
    got = loss_gradient(
        Eot(model, k=20, estimator="probs"), x, lambda z: F.cross_entropy(z, y, reduction="sum")
    ).flatten(1)
    assert torch.allclose(got, -slopes.sum(1) / own.sum(1), atol=1e-9)


def test_the_cross_entropy_of_probs_is_that_of_the_mean_probability():
    model, x, y = linear()
    logits, _ = every_draw(model, x, 8)
    expected = -logits.softmax(2).mean(1).gather(1, y[:, None])[:, 0].log()
    got = F.cross_entropy(Eot(model, k=8, estimator="probs")(x), y, reduction="none")
    assert torch.allclose(got, expected, atol=1e-9)


def mean_loss_gradient(model, x, y, k, loss):
    x = x.clone().requires_grad_()
    logits, _ = every_draw(model, x, k)
    return torch.autograd.grad(loss(logits.flatten(0, 1), y.repeat_interleave(k)), x)[0] / k


def ce(z, y):
    return F.cross_entropy(z, y, reduction="sum")


def margin(z, y):
    return (z.scatter(1, y[:, None], float("-inf")).amax(1) - z.gather(1, y[:, None])[:, 0]).sum()


def dlr(z, y):
    ordered = z.sort(1, descending=True).values
    other = torch.where(z.argmax(1) == y, ordered[:, 1], ordered[:, 0])
    return ((other - z.gather(1, y[:, None])[:, 0]) / (ordered[:, 0] - ordered[:, 2] + 1e-12)).sum()


LOSSES = {"ce": ce, "margin": margin, "dlr": dlr}


def direction(gradient):
    return gradient / gradient.abs().amax((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("own", [ce, margin], ids=["ce", "margin"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("named", LOSSES)
def test_the_mean_of_losses_has_the_named_losses_direction_whatever_the_attack_uses(named, sign, own):
    model, x, y = noisy(0.3, TinyCNN(scale=3).double()), *images(TinyCNN(scale=3))
    x = x.double()
    adapted = Eot(model, k=7, estimator="losses", loss=named)
    got = loss_gradient(adapted, x, lambda z: sign * own(z, y), y)
    expected = mean_loss_gradient(model, x, y, 7, LOSSES[named])
    assert torch.allclose(direction(got), sign * direction(expected), atol=1e-9)


def test_the_mean_of_losses_is_not_the_loss_of_the_mean():
    model, x, y = noisy(0.3, TinyCNN(scale=3).double()), *images(TinyCNN(scale=3))
    x = x.double()
    of_losses = loss_gradient(Eot(model, k=7, estimator="losses"), x, lambda z: ce(z, y), y)
    of_logits = loss_gradient(Eot(model, k=7), x, lambda z: ce(z, y))
    assert (direction(of_losses) - direction(of_logits)).abs().amax((1, 2, 3)).median() > 0.01
    assert torch.equal(Eot(model, k=7, estimator="losses")(x, y), Eot(model, k=7)(x))


def test_the_size_is_that_of_the_attacks_gradient():
    """Scaled losses give scaled gradients, per image; no gradient stays none."""
    model, (x, y) = noisy(0.3), images(TinyCNN())
    adapted = Eot(model, k=3, estimator="losses")
    factors = torch.tensor([1.0, 2.0, 0.5, 0.0, 4.0, 1e-30, -1.0, 1.0])

    def scaled(z):
        return F.cross_entropy(z, y, reduction="none") * factors

    plain = loss_gradient(adapted, x, lambda z: ce(z, y), y)
    got = loss_gradient(adapted, x, scaled, y)
    assert torch.allclose(
        direction(got)[factors != 0], (direction(plain) * factors.sign().view(-1, 1, 1, 1))[factors != 0]
    )
    assert torch.allclose(got.abs().amax((1, 2, 3)), plain.abs().amax((1, 2, 3)) * factors.abs(), rtol=1e-4)


@pytest.mark.parametrize(("scale", "gap"), [(20, 17), (20, 57), (100, 289)])
def test_saturated_draws_keep_their_gradient(scale, gap):
    """p_y rounds to 1 in float32 from a gap of 17, in float64 from 37; from 104 on exp(-gap) is no float32."""

    def exact(z, labels):
        own = z.double().gather(1, labels[:, None])[:, 0]
        others = z.double().scatter(1, labels[:, None], float("-inf")).logsumexp(1)
        return math.exp(gap) * F.softplus(others - own, threshold=1000).sum()

    model, (x, y) = noisy(0.01, TinyCNN(scale=scale)), images(TinyCNN(scale=scale))
    chosen = [i for i, found in enumerate(gaps(model.network, x)) if int(found) == gap]
    assert chosen
    x, y = x[chosen], y[chosen]
    adapted = Eot(model, k=4, estimator="losses")
    got = loss_gradient(adapted, x, lambda z: margin(z, y), y)
    assert torch.isfinite(got).all()
    expected = mean_loss_gradient(model, x, y, 4, exact)
    assert torch.allclose(direction(got), direction(expected), atol=1e-3)


def gaps(network, x):
    top = network(x).detach().topk(2).values
    return (top[:, 0] - top[:, 1]).tolist()


# --- with other adapters and the probe


def test_bpda_inside_eot_sees_every_draw():
    model = Staged(TinyCNN().double(), nn.Sequential(UniformNoise(), Quantise(64)))
    x, weights = images(TinyCNN(), 2)[0].double(), upstream(2, torch.float64)
    got = gradient(Eot(Bpda(model, "purifier.1"), k=3), x, weights)
    expected = torch.zeros_like(x)
    for draw in range(3):
        model.purifier[0].generators = draws.row_generators(x, 0, [draw])
        noise = model.purifier(x).detach()
        model.purifier[0].generators = None
        expected += gradient(model.network, noise, weights) / 3
    assert torch.allclose(got, expected, atol=1e-9)


def test_a_random_substitute_sees_the_rows_own_draws():
    """Noise then a square, all replaced by a copy of itself: the gradient is the exact one at the same noise."""

    class Square(nn.Module):
        def forward(self, x):
            return x * x

    purifier = nn.Sequential(UniformNoise(), Square())
    model = Staged(TinyCNN(), purifier)
    twin = nn.Sequential(UniformNoise(), Square())
    (x, _), weights = images(TinyCNN()), upstream(8)
    got = gradient(Eot(Bpda(model, substitute=twin), k=3), x, weights)
    assert torch.allclose(got, gradient(Eot(model, k=3), x, weights), atol=1e-5)


def test_its_gradient_is_that_of_its_own_value():
    """With the draws held (the key is the image in float32), finite differences of the value give the gradient."""
    model = noisy(0.1, TinyCNN().double())
    x, weights = images(TinyCNN(), 1)[0].double(), upstream(1, torch.float64)
    adapted = Eot(model, k=4)
    with torch.no_grad():
        difference = finite_differences(lambda z: (adapted(z) * weights).sum(), x, step=1e-11)
    assert torch.allclose(gradient(adapted, x, weights), difference, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("wrap", [Float64, lambda model: Rescale(model, 2.0)])
def test_it_works_around_other_adapters(wrap):
    model, (x, y) = noisy(), images(TinyCNN())
    logits = Eot(wrap(model), k=4)(x)
    assert torch.isfinite(loss_gradient(Eot(wrap(model), k=4), x, lambda z: ce(z, y))).all()
    assert torch.equal(logits, Eot(wrap(model), k=4)(x))


def probe(model, x, y, threat):
    return Probe(
        model, x, y, threat, stream=Stream(9), stop_early=False, replay=False,
        confirm=lambda found, who: torch.ones(len(who), dtype=torch.bool),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-margin"])
def test_an_attack_through_it_stays_in_the_ball_and_repeats(name):
    threat, options = ThreatModel("Linf", 0.05), {"steps": 4} if name == "pgd" else {"n_iter": 4}
    model, (x, y) = noisy(), images(TinyCNN())
    found = [
        registry.attacks.load(name)(
            probe(Eot(model, k=3, estimator="losses"), x, y, threat), x, y, threat, seed=1, **options
        )
        for _ in range(2)
    ]
    assert torch.equal(*found)
    assert contains(found[0], x, threat).all()
    assert (found[0] != x).any()


# --- errors


def test_losses_without_labels():
    model, (x, _) = noisy(), images(TinyCNN())
    adapted = Eot(model, k=3, estimator="losses")
    assert torch.equal(adapted(x), Eot(model, k=3)(x))  # no gradient is wanted
    with pytest.raises(BadInput, match=r"got no labels, .* outermost adapter"):
        adapted(x.requires_grad_())


@pytest.mark.parametrize("k", [0, -1, 2.5, math.nan])
def test_a_number_of_draws_that_is_none(k):
    with pytest.raises(BadInput, match=r"k is .*, expected a positive whole number"):
        Eot(TinyCNN(), k=k)
    with pytest.raises(BadInput, match=r"max_batch is"):
        Eot(TinyCNN(), max_batch=k)


@pytest.mark.parametrize("wrong", [{"estimator": "logit"}, {"loss": "cee"}])
def test_an_unknown_name(wrong):
    with pytest.raises(
        BadInput, match=r"unknown (estimator 'logit': did you mean 'logits'|loss 'cee': did you mean 'ce')\?"
    ):
        Eot(TinyCNN(), **wrong)


def test_a_plan_may_write_whole_numbers_as_floats():
    model, (x, _) = noisy(), images(TinyCNN())
    assert torch.equal(Eot(model, k=4.0, seed=2.0, max_batch=64.0)(x), Eot(model, k=4, seed=2, max_batch=64)(x))


class OncePerBatch(torch.nn.Module):
    """Adds one number to the whole batch, another in each pass; counts its passes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        shift = torch.randn(())
        self.seen.append((len(x), float(shift)))
        return x.flatten(1)[:, :3] + shift


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("max_batch", [3, 1024])
def test_a_draw_that_serves_the_whole_batch_is_taken_k_times(n, max_batch):
    model = Eot(OncePerBatch(), k=6, max_batch=max_batch)
    x = torch.rand(n, 1, 2, 2)
    model(x)  # finds out
    model.model.seen.clear()
    answer = model(x)
    assert [rows for rows, _ in model.model.seen] == [n] * 6
    mean = sum(shift for _, shift in model.model.seen) / 6
    assert torch.allclose(answer, x.flatten(1)[:, :3] + mean, atol=1e-6)


def test_even_the_first_answer_is_a_mean_over_draws():
    torch.manual_seed(0)
    answers = torch.stack([Eot(OncePerBatch(), k=50)(torch.zeros(2, 1, 2, 2))[0, 0] for _ in range(40)])
    assert float(answers.std()) < 0.3  # one draw has 1, a mean of 50 has 0.14
