"""Stick-breaking against samples and by hand, and a mixture against torch's distributions."""

import pytest
import torch
from torch.distributions import Beta, Categorical, Independent, MixtureSameFamily, Normal

from vqdoctor.reference.chain.hdp import HDP, DirichletMixture, StickBreaking


@pytest.fixture
def sticks():
    torch.manual_seed(0)
    made = StickBreaking(6).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def test_the_weights_sum_to_one_and_are_the_mean_of_samples(sticks):
    weights = sticks.log_weights().exp().detach()
    assert float(weights.sum()) == pytest.approx(1.0)
    shares = torch.cat([sticks.beta.sample((200_000,)), torch.ones(200_000, 1)], 1)
    rest = torch.cat([torch.ones(200_000, 1), (1 - shares[:, :-1]).cumprod(1)], 1)
    torch.testing.assert_close((shares * rest).mean(0), weights, atol=3e-3, rtol=0)


def test_a_fresh_stick_is_broken_evenly():
    torch.testing.assert_close(StickBreaking(8).log_weights().exp(), torch.full((8,), 1 / 8))


def test_the_divergence_is_none_from_the_prior_itself_and_grows(sticks):
    a, b = torch.tensor(1.0).expm1().log(), torch.tensor(2.0).expm1().log()
    torch.nn.init.constant_(sticks.beta_a, float(a))
    torch.nn.init.constant_(sticks.beta_b, float(b))
    torch.nn.init.constant_(sticks.log_alpha, float(torch.tensor(2.0).log()))
    assert float(sticks.divergence().detach()) == pytest.approx(0.0, abs=1e-9)
    torch.nn.init.zeros_(sticks.log_alpha)
    samples = Beta(1.0, 2.0).sample((200_000,))
    by_samples = (Beta(1.0, 2.0).log_prob(samples) - Beta(1.0, 1.0).log_prob(samples)).mean()
    assert float(sticks.divergence().detach()) == pytest.approx(5 * float(by_samples), rel=0.02)


def test_a_mixture_agrees_with_torchs():
    torch.manual_seed(1)
    level = DirichletMixture(5, 3, 1.0).double()
    for parameter in level.parameters():
        torch.nn.init.normal_(parameter)
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    gaussians = Normal(level.cluster_centers, (level.cluster_log_vars / 2).exp())
    weights = Categorical(logits=level.stick_breaking.log_weights())
    expected = MixtureSameFamily(weights, Independent(gaussians, 1))
    torch.testing.assert_close(torch.logsumexp(level.log_joint(z), -1), expected.log_prob(z))
    assignments, loss = level(z)
    torch.testing.assert_close(assignments.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    likelihood = expected.log_prob(z).sum()
    torch.testing.assert_close(loss, (level.stick_breaking.divergence() - likelihood) / 24)


def test_gradients_of_a_level():
    torch.manual_seed(2)
    level = DirichletMixture(3, 2, 2.0).double()
    z = torch.randn(1, 4, 2, dtype=torch.float64)
    names = [name for name, _ in level.named_parameters()]

    def run(*values):
        return torch.func.functional_call(level, dict(zip(names, values, strict=True)), z)

    assert torch.autograd.gradcheck(run, tuple(level.parameters()))


def test_the_loss_leaves_the_codes_alone():
    z = torch.randn(2, 5, 4, requires_grad=True)
    groups, loss = HDP(3, 4, base_clusters=6)(z)
    assert groups.shape == (2, 5, 3)
    (base_part,) = torch.autograd.grad(loss, z, allow_unused=True, retain_graph=True)
    assert base_part is None or not base_part.any()
    (gradient,) = torch.autograd.grad(groups.square().sum(), z)
    assert gradient.any()
