"""BAGEL as a policy: sampled step by step over contexts that were read, found again in one packed pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.train.small_bagel import picture, small_bagel

from unigap.models.bagel.drawing import schedule
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.policy import BagelPolicy
from unigap.models.bagel.settings import Guidance
from unigap.models.policy import PathSampling
from unigap.models.protocol import Request

SAMPLING = PathSampling(num_steps=5)
REQUESTS = [
    Request(content=("a cup",), purpose="draw"),
    Request(content=("two", "red books"), purpose="draw"),
    Request(content=("three pens",), think_prompt="Think.", thought="I see three", purpose="draw"),
]
SEEDS = [3, 4, 5]


@pytest.fixture(scope="module")
def model() -> BagelModel:
    return small_bagel()


GUIDED = {
    "no guidance": (False, Guidance()),
    "by the text, while there is much noise": (True, Guidance(cfg_text_scale=4.0, cfg_interval=(0.6, 1.0))),
    "by text and thought": (True, Guidance(cfg_text_scale=2.0, cfg_img_scale=1.5, cfg_renorm_type="text_channel")),
}


@pytest.mark.parametrize("name", GUIDED)
def test_the_trainers_log_probabilities_are_the_samplers(model: BagelModel, name: str):
    guided, guidance = GUIDED[name]
    model.sampling = replace(model.sampling, guidance=guidance)
    policy, sampling = BagelPolicy(model), replace(SAMPLING, guided=guided)
    drawn = policy.sample(REQUESTS, sampling=sampling, seeds=SEEDS)
    said = policy.module(sampling)(policy.collate(drawn))
    sampled_NS = np.stack([one.log_p for one in drawn])
    assert sampled_NS.shape == (3, 4) and said.log_p.requires_grad
    np.testing.assert_allclose(said.log_p.detach().numpy(), sampled_NS, atol=1e-4)
    assert said.means is not None and said.means.shape[:2] == (3, 4)
    model.sampling = replace(model.sampling, guidance=Guidance())


def test_every_steps_mean_is_that_of_a_drawing_without_noise_from_its_state(model: BagelModel):
    # So little chance that the path is the model's own drawing of 5 steps, without guidance.
    faint = replace(SAMPLING, noise_level=1e-6)
    (one,) = BagelPolicy(model).sample(REQUESTS[:1], sampling=faint, seeds=SEEDS[:1])
    own = replace(model.sampling, num_timesteps=6, guidance=Guidance(cfg_text_scale=1.0))
    (output,) = model.draw(REQUESTS[:1], sampling=own, seeds=SEEDS[:1])
    assert output.image is not None
    difference = np.asarray(output.image).astype(int) - np.asarray(one.image).astype(int)
    assert np.abs(difference).max() <= 1
    assert len(schedule(6, model.sampling.timestep_shift)) == 6 and len(one.states) == 5


def test_a_drawing_depends_on_its_own_seed_and_not_on_its_company(model: BagelModel):
    policy = BagelPolicy(model)
    together = policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)
    (alone,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=SEEDS[1:2])
    torch.testing.assert_close(alone.states, together[1].states, atol=1e-4, rtol=1e-4)
    (other,) = policy.sample(REQUESTS[1:2], sampling=SAMPLING, seeds=[9])
    assert (other.states - alone.states).abs().max() > 0.1


def test_the_gradient_reaches_both_experts_and_what_leads_in_and_out_of_the_latents(model: BagelModel):
    policy = BagelPolicy(model)
    module = policy.module(SAMPLING)
    said = module(policy.collate(policy.sample(REQUESTS, sampling=SAMPLING, seeds=SEEDS)))
    module.zero_grad(set_to_none=True)
    said.log_p.sum().backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    first = "bagel.language_model.model.layers.0.self_attn"
    assert {f"{first}.k_proj.weight", f"{first}.q_proj_moe_gen.weight", "bagel.vae2llm.weight"} <= moved
    assert "bagel.llm2vae.weight" in moved and "bagel.language_model.lm_head.weight" not in moved
    module.zero_grad(set_to_none=True)


def test_a_request_with_a_picture_is_refused(model: BagelModel):
    edit = Request(content=(picture("cup", 1), "bluer"), purpose="draw")
    with pytest.raises(ValueError, match="shows a picture"):
        BagelPolicy(model).sample([edit], sampling=SAMPLING, seeds=[0])
