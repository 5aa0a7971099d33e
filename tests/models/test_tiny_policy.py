"""The embedded model as a policy."""

import numpy as np
import pytest
import torch

from unigap.models.protocol import Request, Sampling
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.policy import TinyPolicy

PROMPTS = ("2 cups", "1 pen and 3 apples", "Draw a portrait of an old woman.", "Draw 4 lamps.")


@pytest.fixture(scope="module")
def policy() -> TinyPolicy:
    return TinyPolicy(TinyModel.from_pretrained())


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return [Request(content=(text,), purpose="draw") for text in PROMPTS]


def test_the_policy_draws_what_the_model_draws(policy: TinyPolicy, requests: list[Request]):
    sampling, seeds = Sampling(image_temperature=1.3), [5, 6, 7, 8]
    drawn = policy.sample(requests, sampling=sampling, seeds=seeds)
    for one, output in zip(drawn, policy.model.draw(requests, sampling=sampling, seeds=seeds), strict=True):
        assert output.image is not None and one.image.tobytes() == output.image.tobytes()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_the_samplers_log_probabilities_are_those_of_one_forward_pass(
    policy: TinyPolicy, requests: list[Request], temperature: float
):
    sampling = Sampling(image_temperature=temperature)
    drawn = policy.sample(requests, sampling=sampling, seeds=[1, 2, 3, 4])
    log_p_NT, entropy_NT = policy.module(sampling)(policy.collate(drawn))
    sampled_NT = np.stack([one.log_p for one in drawn])
    assert sampled_NT.min() < -0.5  # something was left to chance
    np.testing.assert_allclose(log_p_NT.detach().numpy(), sampled_NT, atol=2e-4)
    assert (entropy_NT >= 0).all() and log_p_NT.requires_grad


def test_probabilities_of_all_first_codes_add_up_to_one(policy: TinyPolicy, requests: list[Request]):
    from dataclasses import replace

    (one,) = policy.sample(requests[:1], sampling=Sampling(), seeds=[1])
    first, last = policy.model.tokenizer.first_code, policy.model.tokenizer.vocab_size
    every = [replace(one, codes=[code, *one.codes[1:]]) for code in range(first, last)]
    with torch.no_grad():
        log_p_NT, _ = policy.module(Sampling())(policy.collate(every))
    assert log_p_NT[:, 0].exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_step_along_the_gradient_makes_a_drawing_likelier(requests: list[Request]):
    policy = TinyPolicy(TinyModel.from_pretrained())
    drawn = policy.sample(requests, sampling=Sampling(), seeds=[1, 2, 3, 4])
    module, batch = policy.module(Sampling()), policy.collate(drawn)
    before = module(batch)[0]
    before.sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= -1e-4 * parameter.grad / parameter.grad.norm().clamp(min=1)
        after = module(batch)[0]
    assert after.sum() > before.sum()
