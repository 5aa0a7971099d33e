"""Janus and Emu3 as policies: what the sampler says is what the trainer computes, and GvU's GRPO runs on them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from unigap.errors import CannotJudgeError, UnknownNameError
from unigap.models import find_model
from unigap.models.hf.policy import ImageTokenPolicy
from unigap.models.hf.unified import JanusSampling, UnifiedModel
from unigap.models.protocol import Request, Sampling
from unigap.scenes import make_items
from unigap.train.grpo import policy_loss
from unigap.train.gvu import GvuConfig, train_gvu
from unigap.train.gvu_run import GvuRun, find_readers, load_policy
from unigap.train.monitor import Monitor
from unigap.train.rewards import LikelihoodReward, Wording
from unigap.train.trained import choose_trained

TRAIN = [item for item in make_items(["plain"], num_units=12, seed=7, split="train") if item.variant == "one"]
FRESH = [item for item in make_items(["plain"], num_units=12, seed=8) if item.variant == "one"][:2]
PROMPTS = [Request(content=(text,), purpose="draw") for text in ("a cup", "two red books and a pen", "a box")]


def load(folder: Path, settings: str = "") -> UnifiedModel:
    model = find_model(f"hf:{folder}{settings}", device="cpu")
    assert isinstance(model, UnifiedModel)
    return model


@pytest.mark.parametrize("settings", ["", "?cfg_scale=1"])
@pytest.mark.parametrize("kind", ["janus_folder", "emu3_folder"])
def test_the_trainers_log_probabilities_are_the_samplers(kind: str, settings: str, request: pytest.FixtureRequest):
    size = "" if kind == "janus_folder" else f"{'&' if settings else '?'}height_px=24&width_px=32"
    model = load(request.getfixturevalue(kind), settings + size)
    policy, sampling = model.policy(), Sampling(image_temperature=0.7)
    drawn = policy.sample(PROMPTS, sampling=sampling, seeds=[1, 2, 3])
    log_p_NT, entropy_NT = policy.module(sampling)(policy.collate(drawn))
    assert log_p_NT.shape == (3, 16 if kind == "janus_folder" else 12)
    sampled_NT = np.stack([one.log_p for one in drawn])
    assert log_p_NT.detach().numpy() == pytest.approx(sampled_NT, abs=1e-4)
    # Its mean over what is drawn is minus the entropy's: within a few standard errors of 36 and more tokens.
    assert log_p_NT.mean().item() == pytest.approx(-entropy_NT.mean().item(), abs=1.0)
    # What is drawn alone, or asked for as a picture, is the same.
    images = [output.image for output in model.draw(PROMPTS, sampling=sampling, seeds=[1, 2, 3])]
    assert images == [one.image for one in drawn]
    assert policy.sample(PROMPTS[1:2], sampling=sampling, seeds=[2])[0].codes == drawn[1].codes


def test_the_sampler_draws_with_the_probabilities_it_states(janus_folder: Path):
    model = load(janus_folder)
    model.batch_size = 400
    drawn = model.policy().sample(PROMPTS[:1] * 400, sampling=Sampling(), seeds=list(range(400)))
    first = np.array([one.codes[0] for one in drawn])
    stated = {one.codes[0]: math.exp(one.log_p[0]) for one in drawn}
    common = {code: p for code, p in stated.items() if p > 0.02}
    for code, p in common.items():  # 400 draws: 4 standard errors of sqrt(p (1 - p) / 400)
        assert abs((first == code).mean() - p) < 4 * math.sqrt(p * (1 - p) / 400)
    assert len(common) > 2 and 0.9 < sum(common.values()) <= 1 + 1e-5


def test_one_step_of_grpo_by_hand(janus_folder: Path):
    """Loss = - mean over drawings of advantage x mean over tokens of ratio; ratios are 1, so it is minus their mean."""
    model = load(janus_folder)
    policy, sampling = model.policy(), Sampling()
    drawn = policy.sample(PROMPTS[:1] * 2, sampling=sampling, seeds=[0, 1])
    module = policy.module(sampling)
    log_p_NT, _ = module(policy.collate(drawn))
    advantages_N = torch.tensor([1.0, -0.5])
    found = policy_loss(log_p_NT, log_p_NT.detach(), advantages_N)
    assert found.loss.item() == pytest.approx(-0.25)  # - (1 - 0.5) / 2
    found.loss.backward()
    trained = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "writer.model.generation_head.vision_head.weight" in trained
    assert any("language_model.layers.0.self_attn" in name for name in trained)
    before = log_p_NT.detach().sum(dim=1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.02 * parameter.grad
    after = module(policy.collate(drawn))[0].detach().sum(dim=1)
    assert after[0] > before[0] and after[1] < before[1]


@pytest.mark.parametrize(("kind", "lora_rank"), [("janus_folder", 0), ("emu3_folder", 2)])
def test_gvu_runs_and_the_trained_folder_draws_what_the_policy_draws(
    kind: str, lora_rank: int, janus_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    settings = "?cfg_scale=2" + ("&height_px=24&width_px=32" if kind == "emu3_folder" else "")
    model = load(request.getfixturevalue(kind), settings)
    policy = model.policy()
    start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    config = GvuConfig(
        steps=7,  # past the five after which it is checked that the sampler has the new weights
        prompts_per_step=2,
        group_size=3,
        lr=3e-3,
        lora_rank=lora_rank,
        monitor_every=4,
        checkpoint_every=4,
        trains=("attention", "head") if lora_rank else ("all",),
        tolerance=1e-3,
    )
    reward = LikelihoodReward(load(janus_folder), wording=Wording(end_token=True))
    out = train_gvu(policy, reward, TRAIN, Monitor(items=FRESH, judges=[]), config, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(log) == 7 and all(math.isfinite(line["grad_norm"]) and line["sampler_apart"] < 1e-3 for line in log)
    assert log[-1]["kl"] > 0
    trained = load(out, settings)
    assert trained.sha256 == json.loads((out / "card.json").read_text())["sha256"]
    weights = trained.network.state_dict()
    assert set(weights) == set(start)
    moved = {name for name, tensor in weights.items() if not torch.equal(tensor, start[name])}
    head = "lm_head.weight" if kind == "emu3_folder" else "model.generation_head.vision_head.weight"
    assert head in moved and any(".self_attn." in name for name in moved)
    assert not any(name.startswith(("model.vision_model", "model.vqmodel")) for name in moved)
    assert not any(".mlp." in name for name in moved) or not lora_rank
    # The folder draws as the policy does now.
    one, other = (m.draw(PROMPTS, sampling=m.sampling, seeds=[1, 2, 3]) for m in (model, trained))
    assert [output.image for output in one] == [output.image for output in other]
    assert trained.sampling == model.sampling


def test_the_command_wants_a_judge_that_can_read_photos(janus_folder: Path, tmp_path: Path):
    run = GvuRun(model=f"hf:{janus_folder}?cfg_scale=1", reward="random", out=tmp_path, num_prompts=12, num_watched=2)
    policy = load_policy(run)
    assert isinstance(policy, ImageTokenPolicy) and policy.model.sampling == JanusSampling(cfg_scale=1.0)
    with pytest.raises(CannotJudgeError, match="photo pictures, which hf:janus draws; name a judge"):
        find_readers(run, policy, FRESH)
    with pytest.raises(UnknownNameError, match=r"unknown part 'tail'; known: all, language_model"):
        choose_trained(policy.module(Sampling()), policy.model.parts, ("tail",), None)
