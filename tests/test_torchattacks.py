"""The attacks of torchattacks are those of their papers, where we say so."""

from __future__ import annotations

import pytest
import torch
import torchattacks

from audit import registry
from audit.attacks.torchattacks_shapes import depthwise
from audit.rng import Stream
from audit.types import ThreatModel
from tests.planted import Brightness, TinyCNN, images

EPS = 0.05


def run(name, model, x, y, **options):
    return registry.attacks.load(name)(model, x, y, ThreatModel("Linf", EPS), seed=3, **options)


def sign_of_gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y), x)[0].sign()


def test_r_fgsm_is_the_papers():
    model = TinyCNN()
    x, y = images(model)
    with Stream(3):
        start = (x + EPS / 2 * torch.randn_like(x).sign()).clamp(0, 1)
    expected = (start + (EPS - EPS / 2) * sign_of_gradient(model, start, y)).clamp(0, 1)
    assert torch.allclose(run("r-fgsm", model, x, y), expected, atol=1e-6)


def test_one_step_of_mi_fgsm_is_fgsm():
    model = TinyCNN()
    x, y = images(model)
    found = run("mi-fgsm", model, x, y, steps=1, rel_stepsize=1.0)
    assert torch.allclose(found, run("fgsm", model, x, y), atol=1e-6)


@pytest.mark.parametrize(("name", "options"), [("mi-fgsm", {}), ("ti-dim", {"diversity_prob": 0.0})])
def test_momentum_without_a_gradient_stays_where_it_is_in_that_row_alone(name, options):
    model = Brightness(gain=1000.0)
    x = torch.stack([torch.full((1, 8, 8), 0.9), torch.full((1, 8, 8), 0.5005)])
    found = run(name, model, x, torch.ones(2, dtype=torch.int64), **options)
    assert torch.equal(found[0], x[0])
    assert model(found[1:]).argmax(1).tolist() == [0]


def test_ti_dim_is_the_librarys_where_that_works():
    model = TinyCNN(channels=3)
    x, y = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    with Stream(3):
        theirs = torchattacks.TIFGSM(model, eps=EPS, alpha=EPS / 10, steps=10, decay=1.0, diversity_prob=0.7)(x, y)
    assert torch.equal(run("ti-dim", model, x, y), theirs)


def test_ti_dim_with_a_kernel_of_one_pixel_is_dim():
    """As TPAP's public code runs it."""
    model = TinyCNN(channels=3)
    x, y = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 4
    with Stream(3):
        engine = torchattacks.DIFGSM(
            model, eps=EPS, alpha=EPS / 10, steps=10, decay=1.0, resize_rate=0.9, diversity_prob=0.5
        )
        theirs = engine(x, y)
    assert torch.allclose(run("ti-dim", model, x, y, diversity_prob=0.5, len_kernel=1), theirs, atol=1e-6)


class Grey(torch.nn.Module):
    """The mean of the channels before a network for one: every channel has the same gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x):
        return self.model(x.mean(1, keepdim=True))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_ti_dim_treats_each_channel_alike_however_many_there_are(channels):
    model = TinyCNN()
    x, y = images(model)
    many = run("ti-dim", Grey(model), x.expand(-1, channels, -1, -1), y)
    assert torch.allclose(many, many[:, :1].expand_as(many))
    assert torch.allclose(many[:, :1], run("ti-dim", model, x, y), atol=EPS / 5)
    assert (many != x).any()


def test_smoothing_mixes_no_channels():
    kernel = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(1))
    got = torch.nn.functional.conv2d(x, depthwise(kernel, 6), padding="same", groups=3)
    each = [torch.nn.functional.conv2d(x[:, i : i + 1], kernel[None, None], padding="same") for i in range(6)]
    assert torch.allclose(got, torch.cat(each, 1), atol=1e-6)


class OneShape(torch.nn.Module):
    """Left half against right half, for images of one shape alone; it keeps what it sees."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.seen = shape, []
        self.ramp = torch.linspace(-1, 1, shape[2])
        self.eval()

    def forward(self, x):
        assert x.shape[1:] == self.shape
        self.seen.append(x.detach().clone())
        score = (x * self.ramp).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("shape", [(1, 20, 24), (1, 24, 20), (1, 3, 9)])
def test_ti_dim_takes_images_that_are_not_square(shape):
    model, x = OneShape(shape), torch.rand(16, *shape, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    model.seen.clear()
    found = run("ti-dim", model, x, y)
    assert float((found - x).abs().max()) <= EPS + 1e-6
    best = run("fgsm", OneShape(shape), x, y)  # of a linear network there is no better
    lost, most = (float((model(x) - model(z)).gather(1, y[:, None]).mean()) for z in (found, best))
    assert lost > 0.6 * most > 0
    far = [float((images - x).abs().max()) > 2 * EPS for images in model.seen[:10]]
    assert any(far)  # shrunk and padded
    assert not all(far)  # diversity_prob 0.7


def test_eot_pgd_on_a_network_without_randomness_is_pgd():
    model = TinyCNN()
    x, y = images(model)
    assert torch.allclose(run("eot-pgd", model, x, y, eot_iter=3), run("pgd", model, x, y), atol=1e-6)


def test_spsa_asks_for_no_gradient():
    class Scores(TinyCNN):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            return super().forward(x)

    x, y = images(TinyCNN(), 2)
    assert run("spsa", Scores(), x, y, steps=2, samples=8).shape == x.shape
