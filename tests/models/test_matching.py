"""Finished pictures in place of paths: views are kept, sampler and trainer agree, what is matched is the picture."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny.test_heads import small_model
from tests.train.small_bagel import small_bagel

from unigap.errors import TrainingError
from unigap.models.bagel.policy import BagelMatching
from unigap.models.matching import MatchingPolicy, matching_likelihoods, noised_views, stack_views
from unigap.models.policy import MatchingSampling
from unigap.models.protocol import Request
from unigap.models.sde import path_kl
from unigap.models.tiny.flow import to_pixels
from unigap.models.tiny.painter_policy import PainterMatching

SAMPLING = MatchingSampling(num_steps=4, num_views=3)
REQUESTS = [Request(content=(text,), purpose="draw") for text in ("2 cups", "1 pen and 3 apples", "Draw 4 lamps.")]
SEEDS = [5, 6, 7]
MAKE = {"flow": lambda: small_model("flow"), "query": lambda: small_model("query"), "bagel": small_bagel}


@pytest.fixture(scope="module", params=MAKE)
def policy(request: pytest.FixtureRequest) -> MatchingPolicy:
    return MAKE[request.param]().policy().matching()


def test_by_hand():
    # Errors 0 are -0; errors of 1 everywhere -1/2; of 1 and 3, -(1 + 9) / 2 / 2 = -2.5.
    errors = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[1.0, 3.0], [2.0, 0.0]]])
    said = matching_likelihoods(errors)
    assert said.log_p.tolist() == [[0.0, -0.5], [-2.5, -1.0]] and said.entropy is None
    # Half the mean square between two: of (0, 0) and (1, 3) again 2.5.
    assert said.means is not None and path_kl(said.means[:1, :1], said.means[1:, :1]).tolist() == [[2.5]]
    batch = {
        "clean": torch.tensor([[2.0]]),
        "times": torch.tensor([[0.0, 0.25, 1.0]]),
        "noise": torch.tensor([[[4.0], [-2.0], [6.0]]]),
    }
    x, v = noised_views(batch)  # (1 - t) 2 + t n: 2, 1.5 - .5 = 1, 6; n - 2
    assert x.flatten().tolist() == [2.0, 1.0, 6.0] and v.flatten().tolist() == [2.0, -4.0, 4.0]


def test_the_trainers_likelihoods_are_the_samplers_and_views_are_a_seeds_own(policy: MatchingPolicy):
    drawn = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    batch = policy.collate(drawn)
    said = policy.module(SAMPLING)(batch)
    sampled_NS = np.stack([one.log_p for one in drawn])
    assert sampled_NS.shape == (3, 3) and said.log_p.requires_grad and (sampled_NS < 0).all()
    np.testing.assert_allclose(said.log_p.detach().numpy(), sampled_NS, atol=1e-5)
    assert ((batch["times"] > 0) & (batch["times"] < 1)).all() and len(batch["times"].unique()) == 9
    (alone,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=SEEDS[1:2])
    assert torch.equal(alone.noise, drawn[1].noise) and torch.equal(alone.times, drawn[1].times)
    np.testing.assert_allclose(alone.log_p, drawn[1].log_p, atol=1e-4)
    (other,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=[8])
    assert not torch.equal(other.noise, alone.noise)


def test_what_is_matched_is_the_picture_that_the_model_draws_in_so_many_steps(policy: MatchingPolicy):
    own = policy.model.sampling
    if isinstance(policy, BagelMatching):
        unguided = replace(own.guidance, cfg_text_scale=1.0, cfg_img_scale=1.0)
        own = replace(own, num_timesteps=SAMPLING.num_steps + own.steps_between_points, guidance=unguided)
    else:
        own = replace(own, num_steps=SAMPLING.num_steps, cfg_text_scale=1.0)
    outputs = policy.model.draw(REQUESTS, sampling=own, seeds=SEEDS)
    drawn = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    for one, output in zip(drawn, outputs, strict=True):
        assert np.abs(np.asarray(one.image).astype(int) - np.asarray(output.image).astype(int)).max() <= 1
    if isinstance(policy, PainterMatching):
        # The pixels that a reward sees: of these latents, the drawing itself.
        pixels = to_pixels(policy.model.codebook, stack_views(drawn)["clean"].numpy())
        assert all(np.array_equal(one, np.asarray(d.image)) for one, d in zip(pixels, drawn, strict=True))


def test_a_step_along_the_gradient_makes_a_picture_likelier_in_views_never_seen(policy: MatchingPolicy):
    drawn = policy.sample(REQUESTS[:1], sampling=replace(SAMPLING, num_views=32), seeds=SEEDS[:1])
    (one,) = drawn
    views: list[Any] = [
        replace(one, times=one.times[half], noise=one.noise[half]) for half in (slice(16), slice(16, 32))
    ]
    module = policy.module(SAMPLING)
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    module.zero_grad(set_to_none=True)
    module(policy.collate(views[:1])).log_p.mean().backward()
    moved = [parameter for parameter in module.parameters() if parameter.grad is not None and parameter.grad.any()]
    with torch.no_grad():
        before = module(policy.collate(views[1:])).log_p.mean()
        length = torch.stack([parameter.grad.norm() for parameter in moved]).norm()  # type: ignore[union-attr]
        for parameter in moved:
            parameter += 0.02 * parameter.grad / length
        assert module(policy.collate(views[1:])).log_p.mean() > before
    module.load_state_dict(kept)
    module.zero_grad(set_to_none=True)


def test_settings_that_draw_nothing_are_refused():
    with pytest.raises(ValueError, match="num_views 0 must be at least 1"):
        MatchingSampling(num_views=0)


def test_a_request_that_cannot_be_drawn_stops_before_any_update():
    policy = small_model("flow").policy().matching()  # type: ignore[union-attr]
    long = Request(content=("2 cups " * 400,), purpose="draw")
    with pytest.raises(TrainingError, match="tiny:flow drew nothing: the request does not fit"):
        policy.sample([long], sampling=SAMPLING, seeds=[0])
