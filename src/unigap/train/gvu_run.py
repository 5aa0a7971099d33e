"""`unigap train gvu`: which model draws, which grades, on which prompts; and `--check` before any training."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from unigap.errors import CannotAskError, UnknownNameError
from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.models import find_model
from unigap.models.policy import Policy
from unigap.models.protocol import Request, Sampling
from unigap.scenes import Split, find_family, make_units
from unigap.train.gvu import GvuConfig, Monitor, train_gvu
from unigap.train.reward_check import RewardCheck, check_reward
from unigap.train.rewards import JudgeReward, LikelihoodReward, RandomReward, Reward, Wording

LIKELIHOODS = ("geometric_mean", "pmi_text", "pmi_blank", "content_words")
REWARDS = (*LIKELIHOODS, "exact", "random")


@dataclass(frozen=True, kw_only=True)
class GvuRun(GvuConfig):
    """Improve a model's drawings by how well a grader could have guessed the prompt from them (GvU)."""

    model: str = "tiny"
    """Who draws and is trained: tiny or tiny:FOLDER."""
    grader: str = "frozen"
    """Whose understanding grades: frozen (the model as it was at the start), moving (as it is now), or another model by
    name. Unused with the rewards exact and random."""
    reward: str = "geometric_mean"
    """geometric_mean (the paper's), pmi_text, pmi_blank, content_words; for ablation exact (the exact reader) and
    random."""
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
        if self.reward not in REWARDS:
            raise UnknownNameError("reward", self.reward, REWARDS)
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
        UnknownNameError, ValueError, TrainingError: See `unigap.train.gvu.train_gvu`.
    """
    policy = load_policy(config)
    reward = find_reward(config, policy)
    items = choose_prompts(config, "train", config.num_prompts)
    watched = choose_prompts(config, "test", config.num_watched)
    # Some families split by more than the caption, and the same words may fall on both sides.
    held_out = {item.caption for item in watched}
    kept = [item for item in items if item.caption not in held_out]
    monitor = Monitor(items=watched, judges=[ExactJudge()])
    return train_gvu(policy, reward, kept, monitor, config.for_loop(), config.out, card={"command": "unigap train gvu"})


def check(config: GvuRun) -> RewardCheck:
    """How well the reward grades drawings of the model on its training prompts; see `unigap.train.reward_check`."""
    policy = load_policy(config)
    items = choose_prompts(config, "train", config.check_prompts)
    sampling = Sampling(image_temperature=config.temperature)
    requests = [Request(content=(item.prompt,), purpose="draw") for item in items for _ in range(config.group_size)]
    drawn = policy.sample(requests, sampling=sampling, seeds=list(range(len(requests))))
    images = [one.image for one in drawn]
    groups = [images[start : start + config.group_size] for start in range(0, len(images), config.group_size)]
    return check_reward(find_reward(config, policy), ExactJudge(), items, groups, seed=config.seed)


def load_policy(config: GvuRun) -> Policy[Any]:
    """The model as a policy.

    Raises:
        CannotAskError: It does not say how likely its drawings are.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = find_model(config.model, device="cpu", dtype="float32")
    if not hasattr(model, "policy"):
        raise CannotAskError(
            f"model {config.model!r} does not say how likely its drawings are, which GRPO needs; tiny and models with "
            "`policy` (unigap.models.policy) do"
        )
    return model.policy()  # type: ignore[attr-defined]


def find_reward(config: GvuRun, policy: Policy[Any]) -> Reward:
    """The reward that a run's settings name."""
    if config.reward == "random":
        return RandomReward(config.seed)
    if config.reward == "exact":
        return JudgeReward(ExactJudge())
    if config.grader == "moving":
        grader, of = policy.model, "moving"
    else:
        name = config.model if config.grader == "frozen" else config.grader
        grader, of = find_model(name, device="cpu", dtype="float32"), "frozen"
    # The end counts: without it "2 cups" suits a picture of 2 cups and a pen as well.
    return LikelihoodReward(grader, variant=config.reward, wording=Wording(end_token=True), of=of)  # type: ignore[arg-type]


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
