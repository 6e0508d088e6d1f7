"""The catastrophic-overfitting paper: noise, activation differences on toy features, its two trainings and two terms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from audit.claims import own_claims
from audit.errors import BadInput, BadWeights
from audit.linear import linear_problem
from audit.rng import Stream
from defenses.co_noise import CO_NOISE, RECIPES
from defenses.co_noise.activations import (
    channel_difference,
    excitation,
    excitations,
    features_and_logits,
    masked_logits,
    node_difference,
    nodes,
    positions,
    salient,
    t_act,
    tapped,
    top_channels,
    without,
)
from defenses.co_noise.noise import Noise, noised_by
from defenses.co_noise.objectives import (
    FGSMMEP,
    FGSMRS,
    Induce,
    OnAdversarial,
    Stable,
    feature_term,
    mep_buffers,
    smoothed_cross_entropy,
)
from defenses.networks import MiddleCNN, ResNet18
from defenses.recipes import Batch
from defenses.training import Trainer
from tests.planted import TinyCNN, images


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


def grey(n: int = 4, size: int = 64) -> torch.Tensor:
    return torch.full((n, 1, size, size), 0.5)


def test_uniform_noise_fills_its_interval():
    with Stream(0):
        found = Noise(0.2)(grey(16)) - 0.5
    assert found.abs().max() <= 0.2
    assert found.abs().max() > 0.199
    assert abs(float(found.mean())) < 4 * 0.2 / math.sqrt(3 * found.numel())
    assert float(found.std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.01)


def test_gaussian_noise_has_its_deviation():
    with Stream(0):
        found = Noise(0.05, "gaussian")(grey(16)) - 0.5
    assert abs(float(found.mean())) < 4 * 0.05 / math.sqrt(found.numel())
    assert float(found.std()) == pytest.approx(0.05, rel=0.01)
    inside = float((found.abs() < 0.05).float().mean())
    assert inside == pytest.approx(0.6827, abs=0.01)


def test_noise_is_clipped_to_the_box():
    with Stream(0):
        found = Noise(0.3)(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 32, 32))
    assert found.min() == 0
    assert found.max() == 1
    assert float((found[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_noise_comes_from_the_global_generator_unless_rows_have_their_own():
    noise = Noise(0.1)
    with Stream(1):
        first, second = noise(grey()), noise(grey())
    with Stream(1):
        again = noise(grey())
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    noise.generators = generators(4)
    with Stream(1):
        before = torch.get_rng_state()
        own = noise(grey())
        assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(own, first)
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_a_rows_draws_do_not_depend_on_its_batch(kind):
    noise, x = Noise(0.1, kind), torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    dice = generators(5)
    noise.generators = dice
    whole = [noise(x), noise(x)]
    dice = generators(5)
    for draw in whole:
        for part in (slice(3, 5), slice(0, 1), slice(1, 3)):
            noise.generators = dice[part]
            assert torch.equal(noise(x[part]), draw[part])
    assert not torch.equal(*whole)


def test_draws_are_the_same_in_float64():
    noise = Noise(0.1)
    noise.generators = generators(4)
    single = noise(grey())
    noise.generators = generators(4)
    double = noise.double()(grey().double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_the_gradient_passes_through_the_noise():
    noise, x = Noise(0.1), grey(2, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(noise(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


def test_noise_refuses_what_it_cannot_do():
    with pytest.raises(BadInput, match="noise is 'salt', expected one of uniform, gaussian"):
        Noise(0.1, "salt")
    noise = Noise(0.1)
    noise.generators = generators(3)
    with pytest.raises(BadInput, match="3 generators for 4 images"):
        noise(grey())
    with pytest.raises(BadWeights, match="noise 'salt'"):
        noised_by(TinyCNN(), {"noise": "salt"})


def test_the_manifest_chooses_the_noise():
    network = TinyCNN()
    found = noised_by(network, {"noise": "gaussian", "amplitude": 0.03}).purifier
    assert (found.kind, found.amplitude) == ("gaussian", 0.03)
    x, _ = images(network)
    assert torch.equal(noised_by(network, {"noise": "none"})(x), network(x))


# Two images, three channels of two positions. Channel 0 does not move, channel 1 by (1, 2) and (2, 0), channel 2 by (0, 2)
# and (0, 0).
CLEAN = torch.zeros(2, 3, 1, 2)
ADVERSARIAL = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [0.0, 2.0]], [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]]).view(
    2, 3, 1, 2
)


def test_differences_by_hand():
    assert float(node_difference(CLEAN, ADVERSARIAL)) == pytest.approx((3 + 2) / 2)  # sqrt(1+4+4) and sqrt(4)
    difference = channel_difference(CLEAN, ADVERSARIAL)
    assert difference.tolist() == [[0, 5, 4], [0, 4, 0]]
    assert positions(CLEAN) == 2
    t = t_act(difference, 2, alpha=0.1)
    expected = [0.0, math.tanh(0.1 * 9 / 6), math.tanh(0.1 * 4 / 6)]
    torch.testing.assert_close(t, torch.tensor(expected))
    assert t_act(difference, 2).tolist() == pytest.approx([0, 1, 1])  # the paper's alpha = 100 saturates here


def test_the_top_channels_are_told_apart_where_t_act_is_rounded_to_one():
    difference = torch.tensor([[5.0, 4.0, 6.0, 0.1]]).repeat(100, 1)
    assert t_act(difference, 2).tolist() == [1, 1, 1, 1]
    assert top_channels(difference.mean(0), 50).tolist() == [True, False, True, False]


def test_features_of_linear_layers_are_channels_of_one_position():
    clean, adversarial = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 2.0]])
    assert channel_difference(clean, adversarial).tolist() == [[1, 0, 4]]
    assert positions(clean) == 1
    assert without(adversarial, torch.tensor([True, False, False])).tolist() == [[0, 0, 2]]


def test_channels_are_chosen_and_masked():
    t = torch.tensor([0.2, 0.995, 0.5, 0.51])
    assert salient(t, 0.5).tolist() == [False, True, False, True]
    assert not salient(t, 1.0).any()
    assert top_channels(t, 50).tolist() == [False, True, False, True]
    assert top_channels(t, 1).tolist() == [False, True, False, False]  # never none
    assert top_channels(t, 51).sum() == 3  # rounded up
    masked = without(ADVERSARIAL, torch.tensor([False, True, False]))
    assert masked[:, 1].abs().max() == 0
    assert torch.equal(masked[:, 2], ADVERSARIAL[:, 2])


def test_the_stable_term_by_hand():
    assert float(feature_term(ADVERSARIAL, CLEAN, 200.0)) == pytest.approx(200 / 6 * (9 + 4) / 2)
    only = torch.tensor([False, True, False])
    assert float(feature_term(ADVERSARIAL, CLEAN, 200.0, only)) == pytest.approx(200 / 6 * 9 / 2)
    assert float(feature_term(ADVERSARIAL, CLEAN, 200.0)) == pytest.approx(200 * float(F.mse_loss(ADVERSARIAL, CLEAN)))


def test_nodes_lie_where_the_network_activates():
    network = ResNet18(1, 16, 3, 0.0625).eval()
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert list(nodes(network)) == list("ABCDE")
    first = F.relu(network.bn1(network.conv1(x)))
    torch.testing.assert_close(features_and_logits(network, "A", x)[0], first)
    torch.testing.assert_close(features_and_logits(network, "B", x)[0], network.layer1(first))
    sizes = [features_and_logits(network, node, x)[0].shape[1:] for node in "CDE"]
    assert sizes == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    assert features_and_logits(network, "B", x)[0].min() == 0  # after a ReLU
    plain = MiddleCNN(1, 8, 3, 0.1).eval()
    assert list(nodes(plain)) == list("ABCD")
    small = x[..., :8, :8]
    torch.testing.assert_close(features_and_logits(plain, "B", small)[0], nn.Sequential(*list(plain)[:7])(small))
    with pytest.raises(BadInput, match="node 'F' does not exist, expected one of A, B, C, D, E"):
        features_and_logits(network, "F", x)
    with pytest.raises(BadInput, match="TinyCNN has no known activation nodes"):
        nodes(TinyCNN())


@pytest.mark.parametrize("node", ["A", "B"])
def test_masking_silences_channels_and_leaves_nothing_behind(node):
    network = ResNet18(1, 16, 3, 0.0625).eval()
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    none, every = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    assert torch.equal(masked_logits(network, node, none, x), logits)
    rest = network.layer1(torch.zeros(2, 4, 16, 16)) if node == "A" else torch.zeros(2, 4, 16, 16)
    for stage in (network.layer2, network.layer3, network.layer4):
        rest = stage(rest)
    torch.testing.assert_close(masked_logits(network, node, every, x), network.linear(rest.mean((2, 3))))
    with pytest.raises(ZeroDivisionError), tapped(network, node, lambda _: 1 / 0):
        network(x)
    assert torch.equal(network(x), logits)  # the hook is gone, even after an error


def test_excitation_finds_the_channel_that_an_attack_moves():
    class Two(nn.Sequential):
        """Channel 0 copies the image, channel 1 its excess over 0.9, which only a bright pixel has."""

        def __init__(self):
            conv = nn.Conv2d(1, 2, 1)
            super().__init__(conv, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 2))
            conv.weight.data, conv.bias.data = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0.3, -0.9])

    clean = torch.full((3, 1, 4, 4), 0.8)
    found = excitation(Two().eval(), "A", clean, torch.full_like(clean, 1.0), alpha=1.0)
    expected = math.tanh(3 * 16 * 0.1**2 / (2 * 16))
    torch.testing.assert_close(found, torch.tensor([0.0, expected]))
    with pytest.raises(BadInput, match="node 'Z' does not exist, expected one of A"):
        excitation(Two().eval(), "Z", clean, clean)
    (node,) = excitations(
        Two().eval(), clean.repeat(100, 1, 1, 1), torch.full((300, 1, 4, 4), 1.0), alpha=1.0
    )  # two parts
    assert node.node == "A"
    torch.testing.assert_close(node.v_act, torch.tensor([0.0, 16 * 0.1**2]))  # a mean, whatever the number of images
    torch.testing.assert_close(node.v_node, torch.tensor(0.4))  # one channel moves, by 0.1 at 16 places
    torch.testing.assert_close(node.t_act, torch.tensor([0.0, math.tanh(300 * 16 * 0.1**2 / 32)]))


def test_every_node_is_measured_from_one_pass_as_by_itself():
    network = ResNet18(1, 16, 3, 0.0625).eval()
    dice = torch.Generator().manual_seed(0)
    clean, moved = torch.rand(3, 1, 16, 16, generator=dice), torch.rand(3, 1, 16, 16, generator=dice)
    calls = []
    with tapped(network, "E", lambda found: calls.append(len(found))):
        found = excitations(network, clean, moved)
    assert calls == [3, 3]
    assert [each.node for each in found] == list("ABCDE")
    for each in found:
        first, second = (features_and_logits(network, each.node, x)[0] for x in (clean, moved))
        torch.testing.assert_close(each.v_act, channel_difference(first, second).mean(0).detach())
        torch.testing.assert_close(each.v_node, node_difference(first, second).detach())
        torch.testing.assert_close(each.t_act, excitation(network, each.node, clean, moved))


def batch_of(network: nn.Module, x, y, **changes) -> Batch:
    return Batch(
        network, x, y, torch.arange(len(x)), **{"epoch": 0, "step": 0, "seed": 3, "memory": {}, "adv": x, **changes}
    )


def test_smoothing_keeps_its_share_on_the_label():
    logits, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log_p = logits.log_softmax(1)[0]
    expected = -(0.6 * log_p[0] + 0.2 * log_p[1] + 0.2 * log_p[2])
    torch.testing.assert_close(smoothed_cross_entropy(logits, y), expected)
    torch.testing.assert_close(smoothed_cross_entropy(logits, y, 1.0), F.cross_entropy(logits, y))


def test_fgsm_rs_starts_anywhere_and_stays_in_the_ball():
    model, x, y = linear_problem(0)
    batch = batch_of(model, x, y)
    found = FGSMRS(0.05)(batch)
    start = batch.memory["start"]
    assert (start - x).abs().max() <= 0.05 + 1e-6
    assert not torch.equal(start, x)
    assert (found - x).abs().max() <= 0.05 + 1e-6
    probability = model(start).softmax(1) - F.one_hot(y, 4)
    sign = (probability @ model.weight).view_as(x).sign().detach()
    torch.testing.assert_close(found, torch.clamp(start - x + 0.0625 * sign, -0.05, 0.05) + x, atol=1e-6, rtol=0)


def test_fgsm_mep_by_hand():
    """One image, two epochs, logits (0, w . x): the gradient's sign is that of w while the label is 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, -1.0, 2.0, 3.0]]))
    x, y, sign = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]), torch.tensor([1.0, -1, 1, 1]).view(1, 1, 2, 2)
    memory = mep_buffers(x)
    adversary = FGSMMEP(0.1, keep=1.0)
    found = adversary(batch_of(network, x, y, memory=memory))
    first = memory["start"] - x
    torch.testing.assert_close(first.abs(), torch.full_like(x, 0.1))
    torch.testing.assert_close(found - x, (first + 0.1 * sign).clamp(-0.1, 0.1))
    torch.testing.assert_close(memory["delta"], (first + 0.1 * sign).clamp(-0.1, 0.1))
    assert float(memory["momentum"].abs().sum()) == pytest.approx(1.0)
    memory["momentum"] = -10 * memory["momentum"]  # outweighs the next gradient: kept and trained-on steps part
    held = memory["delta"].clone()
    found = adversary(batch_of(network, x, y, memory=memory, epoch=1))
    torch.testing.assert_close(memory["start"] - x, held)
    torch.testing.assert_close(found - x, (held + 0.1 * sign).clamp(-0.1, 0.1))
    torch.testing.assert_close(memory["delta"], (held - 0.1 * sign).clamp(-0.1, 0.1))
    adversary(batch_of(network, x, y, memory=memory, epoch=40, seed=9))
    assert float(memory["momentum"].abs().sum()) == pytest.approx(1.0)  # started anew
    black, memory["delta"] = torch.zeros_like(x), torch.full_like(x, -0.1)  # as after a restart: not yet in the box
    memory["momentum"] = torch.zeros_like(x)
    found = adversary(batch_of(network, black, y, memory=memory, epoch=1))
    torch.testing.assert_close(memory["start"], torch.full_like(x, -0.1))
    torch.testing.assert_close(found, torch.zeros_like(x))  # -0.1 + 0.1, and -0.2 clipped
    torch.testing.assert_close(memory["delta"], torch.zeros_like(x))  # what is kept lies in the box


def toy(loss, **memory):
    torch.manual_seed(0)
    network = MiddleCNN(1, 8, 3, 0.1).train()
    dice = torch.Generator().manual_seed(0)
    x, y = torch.rand(6, 1, 8, 8, generator=dice), torch.tensor([0, 1, 2, 0, 1, 2])
    batch = batch_of(network, x, y, adv=(x + 0.1).clamp(0, 1), memory={"start": (x + 0.03).clamp(0, 1), **memory})
    return (*loss(batch), batch)


def test_the_terms_add_up():
    plain, logits, batch = toy(OnAdversarial())
    torch.testing.assert_close(plain, smoothed_cross_entropy(logits, batch.y))
    regular, _, _ = toy(OnAdversarial(10.0))
    torch.testing.assert_close(regular, plain + 10 * F.mse_loss(logits, batch.network(batch.memory["start"])))
    zero, _, _ = toy(Stable(0.0, gamma=0.0))
    torch.testing.assert_close(zero, plain)
    stable, _, _ = toy(Stable(200.0, gamma=0.0))
    gap = F.mse_loss(*(features_and_logits(batch.network, "B", z)[0] for z in (batch.adv, batch.memory["start"])))
    torch.testing.assert_close(stable, plain + 200 * gap)


def test_the_inducing_term_rewards_differences_in_the_top_channels():
    """Channels are ranked from the clean image (Eq. 6), differences counted from x + delta_0 (Eq. 8)."""
    loss, logits, batch = toy(Induce(percent=10.0, alpha_3=5.0))
    features = [features_and_logits(batch.network, "B", z)[0] for z in (batch.adv, batch.x, batch.memory["start"])]
    difference = channel_difference(*features[:2]).mean(0)
    chosen = top_channels(difference, 10.0)
    assert chosen.sum() == 2  # of 13 channels
    torch.testing.assert_close(batch.memory["v_act"], difference.detach())
    expected = (
        smoothed_cross_entropy(logits, batch.y)
        + smoothed_cross_entropy(masked_logits(batch.network, "B", chosen, batch.adv), batch.y)
        - 5 * channel_difference(features[0], features[2]).mean(0)[chosen].sum() / features[0][0].numel()
    )
    torch.testing.assert_close(loss, expected)
    _, _, later = toy(Induce(), v_act=torch.zeros_like(difference))
    torch.testing.assert_close(later.memory["v_act"], 0.01 * difference.detach())


def fit(recipe, checkpoint=None, stop=None):
    dice = torch.Generator().manual_seed(1)
    x, y = torch.rand(32, 1, 8, 8, generator=dice), torch.randint(0, 3, (32,), generator=dice)
    torch.manual_seed(0)
    recipe = replace(
        recipe, network="middle_cnn", width=0.1, epochs=2, images=32, batch_size=16, augment="none", probe=None
    )
    trainer = Trainer(MiddleCNN(1, 8, 3, 0.1), recipe, x, y, seed=5, checkpoint=checkpoint)
    rows = trainer.epochs()
    next(rows)
    if stop is None:
        list(rows)
    return trainer


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_resumes_to_the_same_weights(name, tmp_path):
    whole = fit(RECIPES[name])
    assert all(math.isfinite(row.loss) for row in whole.table)
    fit(RECIPES[name], tmp_path / "c.pt", stop=1)
    resumed = fit(RECIPES[name], tmp_path / "c.pt")
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_the_papers_radii():
    assert {name: round(recipe.eps * 255) for name, recipe in RECIPES.items() if name.startswith("paper")} == {
        "paper-co": 16, "paper-co-12": 12, "paper-mep": 12, "paper-fd": 12, "paper-fd-16": 16, "paper-induce": 8,
        "paper-rs": 16,
    }  # fmt: skip
    assert all(
        recipe.inference == {"noise": "uniform", "amplitude": 16 / 255}
        for name, recipe in RECIPES.items()
        if name.startswith("paper")
    )
    assert CO_NOISE.traits == {"stochastic"}
    assert min(claim.robust_acc for claim in own_claims(CO_NOISE)) == 0.4353
