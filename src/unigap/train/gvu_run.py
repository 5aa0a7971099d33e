"""`unigap train gvu`: which model draws, which grades, on which prompts; and `--check` before any training."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch

from unigap.errors import CannotAskError, CannotJudgeError, UnknownNameError
from unigap.items import Item
from unigap.judges import JUDGES, REMOTE, find_judge
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Judge
from unigap.judging import check_judge
from unigap.models import find_model
from unigap.models.policy import Policy
from unigap.models.protocol import Request
from unigap.scenes import Split, find_family, make_units
from unigap.train.clip_reward import ClipReward
from unigap.train.gvu import GvuConfig, train_gvu
from unigap.train.monitor import Monitor
from unigap.train.reward_check import RewardCheck, check_reward
from unigap.train.rewards import JudgeReward, LikelihoodReward, RandomReward, Reward, Variant, Wording, models_where

REWARDS = (*get_args(Variant), "random", "clip:FOLDER", *JUDGES, *(f"{name}:MODEL@URL" for name in REMOTE))
"""The last are judges; one of the user's, "their.module:Class", is too."""


@dataclass(frozen=True, kw_only=True)
class GvuRun(GvuConfig):
    """Improve a model's drawings by how well a grader could have guessed the prompt from them (GvU)."""

    model: str = "tiny"
    """Who draws and is trained: tiny, tiny:flow, tiny:query, tiny:FOLDER, hf:FOLDER of a Janus or Emu3 (docs/hf.md), or
    bagel:FOLDER."""
    device: str = "cpu"
    """Where the policy and a grader of likelihoods are."""
    grader: str = "frozen"
    """Whose understanding grades: frozen (the model as it was at the start), moving (as it is now), or another model by
    name. Used by the rewards of likelihoods alone."""
    reward: str = "geometric_mean"
    """Of likelihoods: geometric_mean (the paper's), pmi_text, pmi_blank, content_words. For ablation: random,
    clip:FOLDER (a CLIP model of transformers), or any judge by name, e.g. exact or vlm:MODEL@URL: 1 for a right
    drawing, 0 for a wrong one."""
    held_out_judge: str | None = None
    """A second reader of the watched prompts beside the exact one, never trained on, e.g. vlm:MODEL@URL."""
    families: tuple[str, ...] = ("plain",)
    """Whose prompts are drawn."""
    variants: tuple[str, ...] = ("one", "two")
    """Kinds within the families; none takes all."""
    num_prompts: int = 2000
    """Prompts of the training split to draw from."""
    num_watched: int = 150
    """Prompts of the test split that are read every `monitor_every` steps."""
    out: Path = Path("runs/gvu")
    """Folder for checkpoints, logs and the finished model. A folder with a checkpoint is resumed."""
    check: bool = False
    """Train nothing: say how well the reward tells right drawings of the model from wrong ones of the same prompt, by
    kind of mistake (AUC, docs/gvu.md)."""
    check_prompts: int = 150
    """With --check: prompts, each drawn `group_size` times."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward not in REWARDS and ":" not in self.reward:
            raise UnknownNameError("reward", self.reward, REWARDS)
        if self.held_out_judge is not None and self.held_out_judge in (self.reward, "exact"):
            raise ValueError(f"held_out_judge {self.held_out_judge!r} is not held out: it is there already")
        if min(self.num_prompts, self.num_watched, self.check_prompts) < 1:
            raise ValueError("num_prompts, num_watched and check_prompts must be at least 1")
        if self.prompts_per_step > self.num_prompts:
            raise ValueError(f"prompts_per_step is {self.prompts_per_step}, and there are {self.num_prompts} prompts")

    def for_loop(self) -> GvuConfig:
        """The settings of the loop alone."""
        return GvuConfig(**{field.name: getattr(self, field.name) for field in fields(GvuConfig)})


def run(config: GvuRun) -> Path:
    """Train to the end, resuming if `config.out` holds a checkpoint, and return the model's folder.

    Raises:
        CannotAskError: The model cannot be trained on its drawings, or the grader gives no likelihoods.
        CannotJudgeError: No reader can read them.
        UnknownNameError, ValueError, TrainingError: See `unigap.train.gvu.train_gvu`.
    """
    policy = load_policy(config)
    items = choose_prompts(config, "train", config.num_prompts)
    reward = find_reward(config, policy, items)
    watched = choose_prompts(config, "test", config.num_watched)
    monitor = Monitor(items=watched, judges=find_readers(config, policy, watched))
    # Some families split by more than the caption, and the same words may fall on both sides.
    held_out = {item.caption for item in watched}
    kept = [item for item in items if item.caption not in held_out]
    return train_gvu(policy, reward, kept, monitor, config.for_loop(), config.out, card={"command": "unigap train gvu"})


def check(config: GvuRun) -> RewardCheck:
    """How well the reward grades drawings of the model on its training prompts; see `unigap.train.reward_check`."""
    policy = load_policy(config)
    items = choose_prompts(config, "train", config.check_prompts)
    sampling = config.sampling_of(policy)
    requests = [Request(content=(item.prompt,), purpose="draw") for item in items for _ in range(config.group_size)]
    drawn = policy.sample(requests, sampling=sampling, seeds=list(range(len(requests))))
    images = [one.image for one in drawn]
    groups = [images[start : start + config.group_size] for start in range(0, len(images), config.group_size)]
    (reader, *_) = find_readers(config, policy, items)
    return check_reward(find_reward(config, policy, items), reader, items, groups, seed=config.seed)


def load_policy(config: GvuRun) -> Policy[Any]:
    """The model as a policy.

    Raises:
        CannotAskError: It does not say how likely its drawings are.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = find_model(config.model, device=config.device, dtype="float32")
    if not hasattr(model, "policy"):
        raise CannotAskError(
            f"model {config.model!r} does not say how likely its drawings are, which GRPO needs; models that do (with "
            f"`policy`, unigap.models.policy): {', '.join(models_where(lambda kind: hasattr(kind, 'policy')))}"
        )
    policy = model.policy()  # type: ignore[attr-defined]
    if config.likelihood == "matching" and policy.likelihood == "path":
        if not hasattr(policy, "matching"):
            raise CannotAskError(f"model {config.model!r} draws by a flow, and does not match finished pictures")
        return policy.matching()
    return policy


def find_reward(config: GvuRun, policy: Policy[Any], items: Sequence[Item]) -> Reward:
    """The reward that a run's settings name, for drawings of these items.

    Raises:
        CannotAskError, CannotJudgeError, UnknownNameError, WeightsError, ValueError: There is no such reward, or it
            cannot grade these drawings.
    """
    if config.reward == "random":
        return RandomReward(config.seed)
    if config.reward.startswith("clip:"):
        return ClipReward(Path(config.reward.removeprefix("clip:")))
    if config.reward not in get_args(Variant):
        judge = find_judge(config.reward)
        check_judge(judge, policy.model, items, ("generation",))
        return JudgeReward(judge)
    if config.grader == "moving":
        grader, of = policy.model, "moving"
    else:
        name = config.model if config.grader == "frozen" else config.grader
        grader, of = find_model(name, device=config.device, dtype="float32"), "frozen"
    # The end counts: without it "2 cups" suits a picture of 2 cups and a pen as well.
    return LikelihoodReward(grader, variant=config.reward, wording=Wording(end_token=True), of=of)  # type: ignore[arg-type]


def find_readers(config: GvuRun, policy: Policy[Any], items: Sequence[Item]) -> list[Judge]:
    """Who reads the watched prompts: the exact reader, if it can read this model's pictures, and the held-out judge.

    Raises:
        CannotJudgeError: Neither can.
        UnknownNameError, ValueError: There is no such judge.
    """
    named = [] if config.held_out_judge is None else [find_judge(config.held_out_judge)]
    readers: list[Judge] = [ExactJudge(), *named] if policy.model.pictures == "sandbox" else named
    if not readers:
        raise CannotJudgeError(
            f"the exact reader cannot read {policy.model.pictures} pictures, which {policy.model.name} draws; name a "
            "judge with --held-out-judge, e.g. vlm:MODEL@URL"
        )
    for reader in readers:
        check_judge(reader, policy.model, items, ("generation",))
    return readers


def choose_prompts(config: GvuRun, split: Split, num: int) -> list[Item]:
    """Items of the families and variants, family after family, `num` together.

    Raises:
        ValueError: There are fewer.
    """
    share = -(-num // len(config.families))
    found: list[Item] = []
    for name in config.families:
        found += _of_family(name, config.variants, split, min(share, num - len(found)))
    return found


def _of_family(name: str, variants: Sequence[str], split: Split, num: int) -> list[Item]:
    found: list[Item] = []
    for unit in make_units(find_family(name).name, seed=PROMPT_SEED, split=split):
        found += [item for item in unit if not variants or item.variant in variants]
        if len(found) >= num:
            return found[:num]
    raise ValueError(f"family {name} has only {len(found)} such prompts in its {split} split; asked for {num}")


PROMPT_SEED = 7
"""Of the prompts to draw: not among the seeds that runs are usually measured with."""
