"""The stochastic sampler: the ODE at zero noise, its marginals at any, and probabilities that can be found again."""

import math

import pytest
import torch

from unigap.models.sde import path_kl, path_likelihoods, sample_path, sigma, step_log_p, step_mean, step_std
from unigap.models.tiny.flow import euler, schedule, velocity

MEANS, STDS, SHARES = torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.5]), torch.tensor([0.4, 0.6])


def velocity_of_mixture(x: torch.Tensor, t: float) -> torch.Tensor:
    """Exact, for x_0 from a mixture of two normals: E[x_0 | x_t] is the posterior's mean of the two best guesses."""
    variance = (1 - t) ** 2 * STDS**2 + t**2
    off = x[..., None] - (1 - t) * MEANS
    posterior = (SHARES.log() - 0.5 * variance.log() - off**2 / (2 * variance)).softmax(dim=-1)
    clean = (posterior * (MEANS + (1 - t) * STDS**2 / variance * off)).sum(dim=-1)
    return velocity(x, clean, t)


def normal(num: int, *shape: int, seed: int) -> torch.Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_step_by_hand():
    # t = 0.5, a = 0.6: sigma = 0.6 sqrt(0.5 / 0.5) = 0.6. x = 2, v = 1: n = 2 + 0.5 * 1 = 2.5
    # drift = 1 + 0.36 / 1 * 2.5 = 1.9;  mean = 2 - 0.25 * 1.9 = 1.525;  std = 0.6 sqrt(0.25) = 0.3
    x, v = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    assert sigma(0.5, 0.25, 0.6) == pytest.approx(0.6)
    assert step_mean(x, v, 0.5, 0.25, 0.6).item() == pytest.approx(1.525)
    assert step_std(0.5, 0.25, 0.6) == pytest.approx(0.3)
    # At t = 1 the following time's: 0.6 sqrt(0.8 / 0.2) = 1.2
    assert sigma(1.0, 0.8, 0.6) == pytest.approx(1.2)


def test_log_probability_and_divergence_are_those_of_normal_densities_a_value():
    mean, other, x = (normal(3, 4, 2, seed=seed).float() for seed in (1, 2, 3))
    p, q = (torch.distributions.Normal(m, 0.7) for m in (mean, other))
    torch.testing.assert_close(step_log_p(x, mean, 0.7), p.log_prob(x).mean(dim=(1, 2)))
    divergence = torch.distributions.kl_divergence(p, q).mean(dim=(1, 2))
    torch.testing.assert_close(path_kl(mean[:, None] / 0.7, other[:, None] / 0.7)[:, 0], divergence)


def test_the_gradient_is_that_of_the_whole_log_probability_over_the_number_of_values():
    # d/dm of -(x - m)^2 / (2 std^2), over 8 values: (x - m) / (8 std^2). Steps of pictures of any size weigh alike.
    mean, x = normal(1, 4, 2, seed=1).float().requires_grad_(), normal(1, 4, 2, seed=2).float()
    step_log_p(x, mean, 0.5).sum().backward()
    torch.testing.assert_close(mean.grad, (x - mean.detach()) / (8 * 0.25))


@pytest.mark.parametrize(("t", "following"), [(0.9, 0.8), (0.5, 0.4), (0.2, 0.1)])
def test_late_steps_move_most_with_the_picture_that_is_predicted(t: float, following: float):
    # sqrt(t - s) (1 + a^2 / 2) / a x sqrt(1 - t) / t^1.5, with a = .7 and t - s = .1: .208 at t = .9, 5.62 at .2.
    clean, states = torch.zeros(1, 1, 1, requires_grad=True), normal(2, 1, seed=0).float()[None]
    said = path_likelihoods(velocity(states[:, :1], clean, t), states, [t, following], 0.7)
    assert said.means is not None
    said.means.sum().backward()
    expected = math.sqrt(t - following) * (1 + 0.7**2 / 2) / 0.7 * math.sqrt(1 - t) / t**1.5
    assert clean.grad is not None and clean.grad.item() == pytest.approx(expected, rel=1e-4)


def test_without_noise_it_is_the_ode_sampler():
    times = schedule(10, 1.0)
    x = normal(50, 3, seed=0)
    path = sample_path(velocity_of_mixture, x, times, 0.0, list(normal(9, 50, 3, seed=1)))
    by_euler = euler(lambda x, t: x - t * velocity_of_mixture(x, t), x, times)
    torch.testing.assert_close(path.states[-1], by_euler)
    assert path.log_p.shape == (50, 0) and len(path.states) == 11


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_the_density_drawn_is_the_same_with_and_without_noise(level: float):
    times = schedule(200, 1.0)
    x = normal(10_000, seed=0)[:, None]
    drawn = sample_path(velocity_of_mixture, x, times, level, list(normal(199, 10_000, 1, seed=1))).states[-1]
    # Mean 0.4 * -2 + 0.6 * 1 = -0.2; second moment 0.4 (4 + 0.09) + 0.6 (1 + 0.25) = 2.386, variance 2.346;
    # third 0.4 (-8 - 3 * 2 * 0.09) + 0.6 (1 + 3 * 0.25) = -2.366. Standard errors: 0.015, 0.024, 0.07.
    assert drawn.mean().item() == pytest.approx(-0.2, abs=0.05)
    assert drawn.square().mean().item() == pytest.approx(2.386, abs=0.08)
    assert drawn.pow(3).mean().item() == pytest.approx(-2.366, abs=0.25)
    assert (drawn < -0.5).double().mean().item() == pytest.approx(0.4, abs=0.02)
    near = drawn[drawn < -0.5]
    assert near.std().item() == pytest.approx(0.3, abs=0.02)


def test_at_half_time_the_density_is_that_of_half_noised_pictures():
    times = schedule(200, 1.0)
    path = sample_path(
        velocity_of_mixture, normal(10_000, seed=0)[:, None], times, 0.7, list(normal(199, 10_000, 1, seed=1))
    )
    halfway = path.states[100]
    # x = 0.5 x_0 + 0.5 n: mean -0.1, variance 0.25 * 2.346 + 0.25 = 0.8365
    assert halfway.mean().item() == pytest.approx(-0.1, abs=0.04)
    assert halfway.var().item() == pytest.approx(0.8365, abs=0.05)


def network(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 3)


def test_the_trainers_log_probabilities_are_the_samplers_and_have_a_gradient():
    times, level = schedule(6, 2.0), 0.7
    policy, reference = network(0), network(1)
    with torch.no_grad():
        noise = list(normal(5, 4, 3, seed=1).float())
        path = sample_path(lambda x, t: policy(x) * t, normal(4, 3, seed=0).float(), times, level, noise)
    states = torch.stack(path.states[:-1], dim=1)
    at = torch.tensor(times[:5])[:, None]
    said = path_likelihoods(policy(states[:, :-1]) * at, states, times[:-1], level)
    torch.testing.assert_close(said.log_p.detach(), path.log_p)
    # Each outcome is mean + std * noise: -noise^2 / 2 - log std - log(2 pi) / 2, the mean over 3 values.
    std = step_std(times[2], times[3], level)
    by_hand = (-0.5 * noise[2].square()).mean(dim=1) - (math.log(std) + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(path.log_p[:, 2], by_hand, rtol=1e-4, atol=1e-4)
    said.log_p.sum().backward()
    assert policy.weight.grad is not None and policy.weight.grad.abs().max() > 0
    other = path_likelihoods(reference(states[:, :-1]) * at, states, times[:-1], level)
    assert said.means is not None and other.means is not None
    assert path_kl(said.means, other.means).min() > 0 and path_kl(said.means, said.means).abs().max() == 0
    # The expected log-ratio is the divergence: over many outcomes of the first step.
    std = step_std(times[0], times[1], level)
    mean, off = said.means[:, 0].detach() * std, other.means[:, 0].detach() * std
    outcomes = mean + std * normal(4000, 4, 3, seed=2).float()
    ratios = torch.stack([step_log_p(x, mean, std) - step_log_p(x, off, std) for x in outcomes])
    expected = path_kl(said.means, other.means)[:, 0].detach()
    error = ratios.std(dim=0) / math.sqrt(4000)
    assert ((ratios.mean(dim=0) - expected).abs() < 4 * error).all()


def test_behind_the_last_draw_of_noise_a_path_follows_the_flow():
    times, x = schedule(6, 1.0), normal(50, 3, seed=0)
    path = sample_path(velocity_of_mixture, x, times, 0.7, list(normal(2, 50, 3, seed=1)))
    assert path.log_p.shape == (50, 2) and len(path.states) == 7
    rest = euler(lambda x, t: x - t * velocity_of_mixture(x, t), path.states[2], times[2:])
    torch.testing.assert_close(path.states[-1], rest)


def test_a_wrong_number_of_draws_is_refused():
    with pytest.raises(ValueError, match="4 steps take at most 3 draws of noise, found 4"):
        sample_path(velocity_of_mixture, normal(2, 1, seed=0), schedule(4, 1.0), 0.7, list(normal(4, 2, 1, seed=1)))
