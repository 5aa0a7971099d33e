"""GvU on models that draw by a flow: the same loop, on the paths of the embedded model's painters and of BAGEL."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.models.tiny.test_heads import HEADS, small_model
from tests.train.small_bagel import small_bagel
from tests.train.test_gvu import FRESH, TRAIN, command, lines

from unigap.errors import TrainingError, UnknownNameError
from unigap.judges.exact import ExactJudge
from unigap.models.bagel.model import BagelModel
from unigap.models.policy import Likelihoods, PathSampling, Policy
from unigap.models.protocol import Request, Sampling
from unigap.models.sde import path_kl
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter import Kind
from unigap.models.tiny.painter_policy import PainterPolicy
from unigap.records import Ruling
from unigap.train.grpo import k3
from unigap.train.gvu import GvuConfig, choose_items, train_gvu
from unigap.train.learner import CLIP, FIRST_UPDATES, Learner, divergence
from unigap.train.monitor import Monitor
from unigap.train.rewards import LikelihoodReward, RandomReward, Wording

CONFIG = GvuConfig(
    steps=4, prompts_per_step=2, group_size=4, monitor_every=2, checkpoint_every=2, lr=1e-3, path_steps=4,
    noise_until=0.4, alarm="warn",
)  # fmt: skip


class Dark:
    """How dark a drawing is: a rule that can be learned in a few steps."""

    name = "dark"

    def grade(self, items: Any, images: Any) -> np.ndarray:
        return np.array([1 - np.asarray(image).mean() / 255 for image in images])


class Looker(ExactJudge):
    """Keeps what it is shown, and finds all of it right."""

    name = "looker"

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Any] = []

    def judge(self, submissions):
        self.shown.append([submission.image for submission in submissions])
        return [Ruling.correct()] * len(submissions)


def run(policy: Any, out: Path, config: GvuConfig = CONFIG, reward: Any = None, judge: Any = None) -> Path:
    monitor = Monitor(items=FRESH, judges=[judge or Looker()])
    return train_gvu(policy, reward or RandomReward(), TRAIN, monitor, config, out)


def painter(head: Kind = "flow") -> PainterPolicy:
    return PainterPolicy(small_model(head))


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["path", "matching"])
@pytest.mark.parametrize("head", HEADS)
def test_rewarded_drawings_become_likelier_with_chance_and_without(head: Kind, likelihood: Any, tmp_path: Path):
    policy: Any = painter(head)
    config = replace(
        CONFIG, steps=10, prompts_per_step=4, group_size=8, monitor_every=50, warmup_steps=1, kl_coef=0.0, lr=1e-2
    )
    if likelihood == "matching":
        policy, config = policy.matching(), replace(config, likelihood="matching", noise_until=0.7)
    requests = [Request(content=(item.prompt,), purpose="draw") for item in FRESH * 2]
    seeds = range(len(requests))

    def darkness() -> tuple[float, float]:
        drawn = policy.sample(requests, sampling=config.sampling_of(policy), seeds=seeds)
        own = policy.model.draw(requests, sampling=policy.model.sampling, seeds=seeds)
        return tuple(float(Dark().grade(None, [one.image for one in some]).mean()) for some in (drawn, own))

    before = darkness()
    run(policy, tmp_path, config, Dark())
    after, log = darkness(), lines(tmp_path / "log.jsonl")
    # Drawings of one prompt differ by about .01 at first.
    assert log[0]["reward_spread"] < 0.015 and min(after[0] - before[0], after[1] - before[1]) > 0.015
    assert max(line["sampler_apart"] for line in log) < 1e-5 and log[0]["kl"] == 0 < log[-1]["kl"]
    assert log[0]["largest_ratio"] == 1 and "entropy" not in log[0]


def test_the_divergence_keeps_the_policy_near_its_start(tmp_path: Path):
    config = replace(CONFIG, steps=8, monitor_every=50, lr=3e-3)
    for name, kl_coef in (("free", 0.0), ("held", 1e4)):
        run(painter(), tmp_path / name, replace(config, kl_coef=kl_coef), Dark())
    free, held = (lines(tmp_path / name / "log.jsonl")[-1]["kl"] for name in ("free", "held"))
    assert 0 < held < free / 3


def test_paths_use_the_closed_form_and_tokens_the_estimate_they_had():
    one, other = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(divergence(Likelihoods(one, one), Likelihoods(other, other)), k3(one, other))
    means, others = torch.randn(2, 3, 9, 4), torch.randn(2, 3, 9, 4)
    found = divergence(Likelihoods(one, means=means), Likelihoods(other, means=others))
    assert torch.equal(found, path_kl(means, others)) and found.shape == (2, 3)


def test_a_second_update_on_the_same_paths_is_clipped_where_a_mean_over_values_moves(tmp_path: Path):
    config = replace(CONFIG, updates_per_rollout=3, warmup_steps=1, lr=1e-2, monitor_every=50, kl_coef=0.0)
    run(painter(), tmp_path, config, Dark())
    log = lines(tmp_path / "log.jsonl")
    # Of tokens' range of .2 nothing would be outside: the ratio of a mean over 1,728 values stays near 1.
    assert CLIP[True] == (1e-4, 1e-4) and max(line["clipped"] for line in log) > 0.2
    assert 1 + 1e-4 < max(line["largest_ratio"] for line in log) < 1.2


@pytest.mark.parametrize("make", [painter, lambda: small_bagel().policy()], ids=["flow", "bagel"])
def test_drawings_in_several_passes_give_the_gradient_of_one(make: Any, tmp_path: Path):
    config = replace(CONFIG, steps=2, updates_per_rollout=2, warmup_steps=1, monitor_every=50, lr=1e-3, kl_coef=0.1)
    last = {}
    for size in (0, 3):  # of 2 x 4 drawings: passes of 3, 3 and 2
        torch.manual_seed(0)
        folder = run(make(), tmp_path / str(size), replace(config, drawings_per_pass=size), Dark())
        last[size] = lines(tmp_path / str(size) / "log.jsonl")
        last[size].append(load_file(folder / "model.safetensors"))
    for whole, parts in zip(last[0][:-1], last[3][:-1], strict=True):
        for name in ("kl", "clipped", "largest_ratio", "grad_norm"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-6), name
    assert last[0][0]["grad_norm"] > 0
    # AdamW's first steps have the rate's length wherever the gradient is not rounding alone.
    apart = [(last[0][-1][name] - weight).abs().max().item() for name, weight in last[3][-1].items()]
    assert np.median(apart) < 1e-5


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path):
    whole = run(painter(), tmp_path / "whole")

    class Killed(RandomReward):
        def grade(self, items, images):
            if items[0] == choose_items(TRAIN, CONFIG, 3)[0]:
                raise RuntimeError("killed")
            return super().grade(items, images)

    with pytest.raises(RuntimeError, match="killed"):
        run(painter(), tmp_path / "parts", reward=Killed())
    again = run(painter(), tmp_path / "parts")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one) and "painter.cells_in.weight" in one
    steps = [[line["kl"] for line in lines(tmp_path / name / "log.jsonl")] for name in ("whole", "parts")]
    assert steps[0] == steps[1] and len(steps[0]) == 4


def test_a_killed_run_of_finished_pictures_goes_on_to_the_same_weights(tmp_path: Path):
    config = replace(CONFIG, likelihood="matching", noise_until=0.7)

    class Killed(RandomReward):
        def grade(self, items, images):
            if items[0] == choose_items(TRAIN, CONFIG, 3)[0]:
                raise RuntimeError("killed")
            return super().grade(items, images)

    whole = run(painter().matching(), tmp_path / "whole", config)
    with pytest.raises(RuntimeError, match="killed"):
        run(painter().matching(), tmp_path / "parts", config, Killed())
    with pytest.raises(TrainingError, match="other settings|likelihood"):
        run(painter(), tmp_path / "parts", replace(CONFIG, noise_until=0.7))
    again = run(painter().matching(), tmp_path / "parts", config)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_watched_prompts_are_drawn_as_the_model_draws_afterwards(tmp_path: Path):
    policy, looker = painter(), Looker()
    policy.model.sampling = replace(policy.model.sampling, num_steps=6)  # type: ignore[call-arg]
    start = copy.deepcopy(policy.model)
    run(policy, tmp_path, replace(CONFIG, steps=2), judge=looker)
    requests = [Request(content=(item.prompt,), purpose="draw") for item in FRESH]
    from unigap.arms import item_seed
    from unigap.records import Key

    seeds = [item_seed(0, Key(item.id, "generation", "normal", 0)) for item in FRESH]
    for model, shown in ((start, looker.shown[0]), (policy.model, looker.shown[-1])):
        own = model.draw(requests, sampling=model.sampling, seeds=seeds)
        assert [image.tobytes() for image in shown] == [output.image.tobytes() for output in own]


@pytest.mark.parametrize("likelihood", ["path", "matching"])
def test_the_command_trains_a_flow_and_writes_its_page(
    likelihood: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_model("flow").save_pretrained(tmp_path / "start", {"trained_on": {"plain": "direct"}})
    settings = ("--steps", "1", "--prompts-per-step", "2", "--group-size", "2", "--num-prompts", "30")
    settings = (*settings, "--num-watched", "8", "--path-steps", "4", "--guided")
    settings = (*settings, *(("--noise-until", "0.2") if likelihood == "path" else ("--likelihood", likelihood)))
    model = ("--model", f"tiny:{tmp_path / 'start'}", "--grader", "tiny")
    code, _, error = command(capsys, *model, *settings, "--out", str(tmp_path / "run"))
    assert code == 0, error
    page = (tmp_path / "run" / "page.html").read_text()
    assert "divergence from the start, nats a value" in page and "entropy" not in page and "right by exact" in page
    card = json.loads((tmp_path / "run" / "model" / "card.json").read_text())
    assert card["config"]["guided"] is True and card["reward"].startswith("geometric_mean by frozen tiny")
    assert TinyModel.from_pretrained(tmp_path / "run" / "model").name == "tiny:flow"


def test_a_reward_can_be_checked_on_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small_model("query").save_pretrained(tmp_path / "start", {"trained_on": {"plain": "direct"}})
    arguments = ("--model", f"tiny:{tmp_path / 'start'}", "--check", "--check-prompts", "2", "--group-size", "2")
    code, text, error = command(capsys, *arguments, "--out", str(tmp_path))
    assert code == 0 and "4 drawings" in text, error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 0.7}, "is rewarded along paths; temperature would change nothing"),
        ({"views": 9}, "is rewarded along paths; views would change nothing"),
        ({"likelihood": "matching"}, "likelihood is 'matching', and the policy's is 'path'"),
        ({"noise_level": 0.0}, "noise_level 0.0 above 0"),
        ({"noise_until": 0.95}, "the first of 4 ends at time 0.923, below noise_until 0.95"),
    ],
)
def test_settings_that_leave_nothing_to_chance_or_mean_nothing_are_refused(changes: dict, words: str, tmp_path: Path):
    with pytest.raises(ValueError, match=words):
        run(painter(), tmp_path, replace(CONFIG, **changes))


def test_a_likelihood_that_is_not_known_is_refused():
    with pytest.raises(UnknownNameError, match="likelihood 'exact'"):
        replace(CONFIG, likelihood="exact")


def test_settings_of_a_flow_mean_nothing_to_a_model_that_draws_tokens(tmp_path: Path):
    with pytest.raises(ValueError, match="tiny draws tokens; path_steps, noise_until would change nothing"):
        run(TinyModel.from_pretrained().policy(), tmp_path)


# ---- what stops a run ------------------------------------------------------------------------------------------------


def test_a_trainer_with_another_noise_level_is_stopped_at_the_first_rollout(tmp_path: Path):
    class Louder(PainterPolicy):
        def module(self, sampling: PathSampling):
            return super().module(replace(sampling, noise_level=0.75))

        def _sample(self, prompts, sampling, seeds):
            return PainterPolicy(self.model)._sample(prompts, sampling, seeds)

    policy = Louder(small_model("flow"))
    before = copy.deepcopy(policy.model.loss_module().state_dict())
    with pytest.raises(TrainingError, match=r"step 0: the sampler's and the trainer's .* Nothing was updated"):
        run(policy, tmp_path)
    after = policy.model.loss_module().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_sampler_that_never_sees_the_new_weights_is_noticed_after_the_first_updates(tmp_path: Path):
    class Stale(PainterPolicy):
        """Trains a copy of what it draws with."""

        def module(self, sampling: PathSampling):
            return copy.deepcopy(super().module(sampling))

    config = replace(CONFIG, steps=9, tolerance=0.9, monitor_every=50)
    with pytest.raises(TrainingError, match=rf"step {FIRST_UPDATES}: .* the sampler still draws with the weights of"):
        run(Stale(small_model("flow")), tmp_path, config)


# ---- BAGEL -----------------------------------------------------------------------------------------------------------


def test_a_random_bagel_learns_through_the_same_loop_and_is_saved_as_it_draws(tmp_path: Path):
    model = small_bagel()
    policy: Policy[Any] = model.policy()
    config = replace(CONFIG, steps=FIRST_UPDATES + 1, group_size=3, kl_coef=0.01, lr=1e-3, trains=("gen", "flow"))
    und = copy.deepcopy(model.bagel.language_model.model.layers[0].self_attn.get_submodule("q_proj").state_dict())
    reward = LikelihoodReward(small_bagel(), wording=Wording(end_token=True))
    folder = run(policy, tmp_path, config, reward)
    log = lines(tmp_path / "log.jsonl")
    assert len(log) == FIRST_UPDATES + 1 and max(line["sampler_apart"] for line in log) < 1e-4
    assert log[0]["kl"] == 0 < log[-1]["kl"] and all(line["ungraded"] == 0 for line in log)
    after = model.bagel.language_model.model.layers[0].self_attn.get_submodule("q_proj").state_dict()
    assert all(torch.equal(und[name], after[name]) for name in und)  # not of the parts that train
    saved = BagelModel.from_pretrained(folder)
    requests = [Request(content=(item.prompt,), purpose="draw") for item in FRESH[:2]]
    images = [
        [np.asarray(output.image).astype(int) for output in one.draw(requests, sampling=Sampling(), seeds=[0, 1])]
        for one in (model, saved)
    ]
    assert np.abs(np.array(images[0]) - np.array(images[1])).max() <= 1


def test_a_bagel_becomes_darker_when_that_is_rewarded():
    model = small_bagel()
    policy = model.policy()
    config = replace(CONFIG, steps=6, warmup_steps=1, kl_coef=0.0, lr=3e-3)
    sampling = config.sampling_of(policy)
    learner = Learner(policy, sampling, config)
    requests = [Request(content=("a cup",), purpose="draw")] * 12
    rewards = []
    for step in range(config.steps):
        drawn = policy.sample(requests, sampling=sampling, seeds=range(12 * step, 12 * step + 12))
        rewards.append(torch.from_numpy(Dark().grade(None, [one.image for one in drawn])).float())
        learner.learn(drawn, rewards[-1] - rewards[-1].mean(), FRESH[:1], step)
    assert rewards[-1].mean() > rewards[0].mean() + 2 * rewards[0].std() / 12**0.5
