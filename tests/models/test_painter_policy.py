"""The embedded model's flow and query heads as policies: paths that start as drawings do, and are found again."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.tiny.test_heads import HEADS, small_model

from unigap.errors import TrainingError
from unigap.models.policy import PathSampling
from unigap.models.protocol import Request
from unigap.models.tiny.flow import start_noise
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter_policy import PainterPolicy, path_noise

SAMPLING = PathSampling(num_steps=4)
REQUESTS = [Request(content=(text,), purpose="draw") for text in ("2 cups", "1 pen and 3 apples", "Draw 4 lamps.")]
SEEDS = [5, 6, 7]


@pytest.fixture(scope="module", params=HEADS)
def model(request: pytest.FixtureRequest) -> TinyModel:
    return small_model(request.param)


@pytest.fixture
def policy(model: TinyModel) -> PainterPolicy:
    found = model.policy()
    assert isinstance(found, PainterPolicy)
    return found


@pytest.mark.parametrize("guided", [False, True])
def test_the_trainers_log_probabilities_are_the_samplers(policy: PainterPolicy, guided: bool):
    sampling = replace(SAMPLING, guided=guided)
    drawn = policy.sample(REQUESTS, sampling=sampling, seeds=SEEDS)
    said = policy.module(sampling)(policy.collate(drawn))
    sampled_NS = np.stack([one.log_p for one in drawn])
    # 4 steps, of which the last has no chance; of a value about -1/2 - log(std) - .92, with z^2 of 1,728 values near 1.
    assert sampled_NS.shape == (3, 3) and said.log_p.requires_grad
    np.testing.assert_allclose(said.log_p.detach().numpy(), sampled_NS, atol=1e-5)
    # Other rollouts than these were guided otherwise: the trainer notices.
    other = policy.module(replace(sampling, guided=not guided))(policy.collate(drawn))
    assert (other.log_p.detach() - said.log_p.detach()).abs().max() > 1e-3


def test_a_paths_first_state_is_the_noise_that_the_same_seed_draws_from(policy: PainterPolicy):
    drawn = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    assert torch.equal(torch.stack([one.states[0] for one in drawn]), start_noise(SEEDS))
    first, *rest = path_noise(SEEDS, 30)
    assert torch.equal(first, start_noise(SEEDS))
    draws = torch.stack(rest)  # 29 x 3 x 1,728 values: standard errors .0026 and .0037
    assert abs(draws.mean()) < 0.012 and abs(draws.var() - 1) < 0.015
    assert abs((draws[0] * draws[1]).mean()) < 0.06  # steps are apart: standard error of 5,184 products .014


def test_without_noise_a_path_ends_at_the_models_own_drawing(policy: PainterPolicy):
    own = replace(policy.model.sampling, num_steps=4, cfg_text_scale=1.0)  # type: ignore[call-arg]
    images = [output.image for output in policy.model.draw(REQUESTS, sampling=own, seeds=SEEDS)]
    # So little chance that no pixel changes its color; none at all is no path that has a probability.
    faint = policy.sample(REQUESTS, sampling=replace(SAMPLING, noise_level=1e-6), seeds=SEEDS)
    assert all(a is not None and a.tobytes() == b.image.tobytes() for a, b in zip(images, faint, strict=True))
    with pytest.raises(ValueError, match="noise_level 0.0 above 0 and"):
        replace(SAMPLING, noise_level=0.0)


def test_chance_ends_at_the_time_that_is_stated():
    # Shift 1: the steps of 4 end at .75, .5, .25 and 0; the last never has chance.
    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [replace(SAMPLING, noise_until=t).num_with_chance(times) for t in (0.0, 0.25, 0.3, 0.75)] == [3, 3, 2, 1]
    with pytest.raises(ValueError, match="the first of 4 ends at time 0.75, below noise_until 0.8"):
        replace(SAMPLING, noise_until=0.8).num_with_chance(times)


def test_a_drawing_depends_on_its_own_seed_and_not_on_its_company(policy: PainterPolicy):
    together = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    (alone,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=SEEDS[1:2])
    torch.testing.assert_close(alone.states, together[1].states, atol=1e-4, rtol=1e-4)
    assert alone.image.tobytes() == together[1].image.tobytes()
    (other,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=[8])
    assert other.image.tobytes() != alone.image.tobytes()


def test_a_step_along_the_gradient_makes_paths_likelier_and_reaches_trunk_and_painter(policy: PainterPolicy):
    policy = PainterPolicy(small_model(policy.model.painter.config.kind))  # type: ignore[union-attr]
    drawn = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    module, batch = policy.module(SAMPLING), policy.collate(drawn)
    before = module(batch).log_p.sum()
    before.backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert "network.embed.weight" in moved and "painter.cells_in.weight" in moved and "network.head.weight" not in moved
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter += 1e-4 * parameter.grad
        assert module(batch).log_p.sum() > before


def test_the_likeliest_outcome_of_a_step_is_its_mean(policy: PainterPolicy):
    drawn = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    module = policy.module(SAMPLING)
    with torch.no_grad():
        said = module(policy.collate(drawn))
        assert said.means is not None
        t, following = module.times[:2]
        # sigma of the first step is that of the following time: a sqrt(t / (1 - t)).
        std = 0.7 * math.sqrt(following / (1 - following)) * math.sqrt(t - following)
        likeliest = [
            replace(one, states=torch.cat((one.states[:1], std * mean[None, 0], one.states[2:])))
            for one, mean in zip(drawn, said.means, strict=True)
        ]
        # What is left of the log density is -log std - log(2 pi) / 2.
        top = module(policy.collate(likeliest)).log_p[:, 0]
    torch.testing.assert_close(top, torch.full((3,), -math.log(std) - 0.5 * math.log(2 * math.pi)))
    assert (top > said.log_p[:, 0]).all()


def test_latents_that_are_not_finite_are_said_and_a_long_request_is_refused(policy: PainterPolicy):
    broken = PainterPolicy(small_model(policy.model.painter.config.kind))  # type: ignore[union-attr]
    with torch.no_grad():
        broken.model.painter.cells_out.bias.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match="not finite; nothing was updated"):
        broken.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    long = Request(content=("2 cups and " * 200,), purpose="draw")
    with pytest.raises(ValueError, match="too long to draw"):
        policy.sample([long], sampling=SAMPLING, seeds=[0])
