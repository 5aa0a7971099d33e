"""Pretraining of the embedded model, from random weights to the shipped ones (`unigap train pretrain`).

One plain loop: every step draws fresh samples from the mixture (`unigap.train.mixture`), sorts them by length into a
few batches, and takes one optimizer step: Muon on the blocks' matrices, AdamW on the rest. The samples are a function
of (seed, step), so a run that was killed goes on exactly where its last checkpoint was. There is no packing, no
dropout, no averaging of weights, and no schedule beyond warm-up, plateau and linear decay: none was needed.
"""

import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigap.environment import describe_environment
from unigap.errors import TrainingError
from unigap.items import DIRECTIONS
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.learning import Sample, collate, weighted_losses
from unigap.models.tiny.model import CARD_FILE, TinyModel
from unigap.models.tiny.network import Network, NetworkConfig
from unigap.progress import show_progress
from unigap.train.mixture import MIXTURE, TRAINED_ON, Kit, draw_sample

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretrain the embedded model from scratch; the defaults are the shipped weights' own."""

    out: Path = Path("runs/pretrain")
    """Folder for checkpoints, log and the finished model. A folder with a checkpoint is resumed."""
    steps: int = 4500
    """Optimizer steps."""
    samples_per_step: int = 160
    """Fresh samples a step; the mixture decides what they are."""
    seed: int = 0
    """Drives initialisation and data."""
    width: int = 128
    num_layers: int = 6
    num_heads: int = 4
    muon_lr: float = 0.02
    """Peak rate of the blocks' matrices."""
    adamw_lr: float = 3e-3
    """Peak rate of embeddings, head, norms and convolutions."""
    warmup_steps: int = 40
    decay_from: float = 0.5
    """Share of the run after which the rates fall linearly to zero."""
    max_grad_norm: float = 1.0
    tokens_per_batch: int = 3072
    """Padded tokens of one forward pass; a step takes as many passes as it needs."""
    checkpoint_every: int = 100
    threads: int = 2
    """CPU threads."""
    score_units: int = 300
    """Units a family that the finished model is measured on, for its card; 0 leaves the card without scores."""
    score_seed: int = 1
    """Seed of these units, all of the test split."""

    def __post_init__(self) -> None:
        if not 0 < self.decay_from <= 1:
            raise ValueError(f"decay_from must be in (0, 1], found {self.decay_from}")
        if min(self.steps, self.samples_per_step, self.tokens_per_batch, self.checkpoint_every) < 1:
            raise ValueError("steps, samples_per_step, tokens_per_batch and checkpoint_every must be at least 1")


def learning_rate_factor(config: PretrainConfig, step: int) -> float:
    """Share of the peak rate at a step: linear warm-up, plateau, linear decay to zero at the end."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = (config.steps - step) / (config.steps * (1 - config.decay_from) + 1e-9)
    return warm * min(1.0, left)


def samples_of_step(kit: Kit, config: PretrainConfig, step: int) -> list[Sample]:
    """The samples of one step: a function of (seed, step) alone."""
    rng = random.Random(f"pretrain/{config.seed}/{step}")
    return [draw_sample(kit, rng) for _ in range(config.samples_per_step)]


def batches(samples: Sequence[Sample], tokens_per_batch: int, pad: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Samples of like length together.

    Yields:
        Ids (B, T), and of the K alternatives of each token their ids (B, T, K) and loss weights (B, T, K).
    """
    ordered = sorted(samples, key=lambda sample: len(sample.ids))
    start = 0
    while start < len(ordered):
        end = start + 1
        while end < len(ordered) and (end + 1 - start) * len(ordered[end].ids) <= tokens_per_batch:
            end += 1
        yield collate(ordered[start:end], pad)
        start = end


def weighted_loss(network: Network, ids_BT: Tensor, alternatives_BTK: Tensor, weights_BTK: Tensor) -> Tensor:
    """Sum over tokens and their alternatives of weight x -log probability, in nats."""
    with torch.autocast(ids_BT.device.type, dtype=torch.bfloat16):
        losses_NK, _ = weighted_losses(network, ids_BT, alternatives_BTK, weights_BTK)
    return losses_NK.sum()


class Optimizers:
    """Muon on the matrices of the blocks, AdamW on everything else, one schedule."""

    def __init__(self, network: Network, config: PretrainConfig) -> None:
        matrices = [p for name, p in network.blocks.named_parameters() if p.ndim == 2 and not name.endswith("conv")]
        chosen = {id(p) for p in matrices}
        rest = [p for p in network.parameters() if id(p) not in chosen]
        self.peaks = (config.muon_lr, config.adamw_lr)
        self.both: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.0, momentum=0.95),
            torch.optim.AdamW(rest, lr=config.adamw_lr, weight_decay=0.0, betas=(0.9, 0.95)),
        )

    def step(self, factor: float) -> None:
        for optimizer, peak in zip(self.both, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every state tensor under a flat name, for safetensors."""
        return {
            f"optimizer.{i}.{index}.{name}": torch.as_tensor(value)
            for i, optimizer in enumerate(self.both)
            for index, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        for i, optimizer in enumerate(self.both):
            whole = optimizer.state_dict()
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                _, which, index, name = key.split(".")
                if int(which) == i:
                    state.setdefault(int(index), {})[name] = value
            optimizer.load_state_dict(whole | {"state": state})


def save_checkpoint(folder: Path, network: Network, optimizers: Optimizers, step: int, config: PretrainConfig) -> None:
    """Write everything that a resumed run needs, to a temporary file first: a kill leaves the old one whole."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()} | optimizers.tensors()
    partial = folder / (CHECKPOINT + ".partial")
    metadata = {"step": str(step), "config": json.dumps(_comparable(config))}
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / CHECKPOINT)


def load_checkpoint(folder: Path, network: Network, optimizers: Optimizers, config: PretrainConfig) -> int:
    """Restore a checkpoint and return how many steps it has behind it; 0 if there is none.

    Raises:
        TrainingError: The checkpoint belongs to a run with other settings.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    theirs, ours = json.loads(metadata["config"]), _comparable(config)
    if theirs != ours:
        differs = ", ".join(f"{k} {theirs.get(k)} there, {ours[k]} here" for k in ours if theirs.get(k) != ours[k])
        raise TrainingError(f"{path} is from a run with other settings ({differs}); name another --out")
    tensors = load_file(path)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    optimizers.load({k: v for k, v in tensors.items() if k.startswith("optimizer.")})
    return int(metadata["step"])


def _comparable(config: PretrainConfig) -> dict[str, object]:
    """The settings that decide the result: not where it is written, nor how often, nor on how many threads."""
    skip = ("out", "checkpoint_every", "threads", "score_units", "score_seed")
    return {name: value for name, value in asdict(config).items() if name not in skip}


def train_step(network: Network, optimizers: Optimizers, samples: Sequence[Sample], config: PretrainConfig, step: int):
    """One optimizer step; returns the mean loss per target token (nats, weighted) and the gradient norm."""
    total_weight = sum(weight for sample in samples for target in sample.targets for _, weight in target)
    total_loss = 0.0
    for batch in batches(samples, config.tokens_per_batch, pad=0):
        loss = weighted_loss(network, *batch) / total_weight
        loss.backward()
        total_loss += loss.item()
    grad_norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm).item()
    if not (total_loss == total_loss and grad_norm < float("inf")):
        raise TrainingError(f"step {step}: loss {total_loss}, gradient norm {grad_norm}; nothing was updated")
    optimizers.step(learning_rate_factor(config, step))
    return total_loss, grad_norm


def _truncate_log(path: Path, start: int) -> None:
    """Drop the log lines of steps that will be taken again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:start]), encoding="utf-8")


def _minutes(log: Path) -> float:
    """Time that the logged steps took, over all sessions of the run."""
    return sum(json.loads(line)["seconds"] for line in log.read_text(encoding="utf-8").splitlines()) / 60


def run(config: PretrainConfig) -> TinyModel:
    """Train to the end, resuming if `config.out` holds a checkpoint, and write the model folder `out/model`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    kit = Kit.build()
    size = NetworkConfig(
        vocab_size=kit.tokenizer.vocab_size,
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
    )
    network = Network(size)
    optimizers = Optimizers(network, config)
    config.out.mkdir(parents=True, exist_ok=True)
    start = load_checkpoint(config.out, network, optimizers, config)
    assert kit.tokenizer[tok.PAD] == 0
    _truncate_log(config.out / LOG, start)
    with (
        show_progress("pretraining", config.steps - start, unit="steps") as advance,
        (config.out / LOG).open("a", encoding="utf-8", buffering=1) as log,
    ):
        for step in range(start, config.steps):
            began = time.monotonic()
            samples = samples_of_step(kit, config, step)
            loss, grad_norm = train_step(network, optimizers, samples, config, step)
            seconds = round(time.monotonic() - began, 3)
            log.write(json.dumps({"step": step, "loss": loss, "grad_norm": grad_norm, "seconds": seconds}) + "\n")
            advance(1)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(config.out, network, optimizers, step + 1, config)
    model = TinyModel(network, kit.tokenizer, kit.codebook, sha256="", card={})
    card = {
        "name": "tiny",
        "command": "unigap train pretrain",
        "config": _comparable(config),
        "parameters": sum(p.numel() for p in network.parameters()),
        "samples": config.steps * config.samples_per_step,
        "mixture": {name: source.share for name, source in MIXTURE.items()},
        "trained_on": TRAINED_ON,
        "minutes": round(_minutes(config.out / LOG), 1),
        **describe_environment(),
    }
    model.save_pretrained(config.out / "model", card)
    return model


def add_scores(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the rates of a run's summary.json into a model's card: [rate, low, high] by family, direction and arm."""
    card_path = folder / CARD_FILE
    card = json.loads(card_path.read_text(encoding="utf-8"))
    card["scores"] = {
        "units a family": summary["run"]["num_units"],
        "seed": summary["run"]["seed"],
        "families": {name: _rates(family) for name, family in summary["families"].items()},
    }
    card_path.write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _rates(family: Mapping[str, Any]) -> dict[str, Any]:
    rates = {
        f"{direction} {arm}": [round(cell[name], 4) for name in ("rate", "low", "high")]
        for direction in DIRECTIONS
        for arm, cell in family[direction].items()
    }
    rates["drawing unreadable"] = round(family["generation"]["normal"]["unreadable"], 4)
    return rates | {name: _rates(variant) for name, variant in family.get("variants", {}).items()}
