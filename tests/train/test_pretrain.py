"""The pretraining loop: samples by step, exact resume after a real kill, no update from a broken step."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unigap.errors import TrainingError
from unigap.models.tiny.network import Network, NetworkConfig
from unigap.train.mixture import Kit
from unigap.train.pretrain import (
    CHECKPOINT,
    Optimizers,
    PretrainConfig,
    batches,
    learning_rate_factor,
    load_checkpoint,
    run,
    samples_of_step,
    save_checkpoint,
    train_step,
    weighted_loss,
)

SETTINGS = {
    "steps": 8, "samples_per_step": 8, "width": 32, "num_layers": 2, "num_heads": 2, "checkpoint_every": 2,
    "threads": 1, "tokens_per_batch": 256,
}  # fmt: skip
SMALL = PretrainConfig(**SETTINGS)


def small_network() -> Network:
    torch.manual_seed(0)
    return Network(NetworkConfig(vocab_size=Kit.build().tokenizer.vocab_size, width=32, num_layers=2, num_heads=2))


def test_the_rate_warms_up_stays_and_falls_to_zero():
    config = replace(SMALL, steps=100, warmup_steps=10, decay_from=0.5)
    # warm-up: (0 + 1) / 10; plateau until step 50; at step 75 half of the decay is left: (100 - 75) / 50
    assert [learning_rate_factor(config, step) for step in (0, 20, 50, 75)] == pytest.approx([0.1, 1, 1, 0.5])
    assert learning_rate_factor(config, 99) == pytest.approx(0.02)


def test_samples_are_a_function_of_seed_and_step():
    kit = Kit.build()
    assert samples_of_step(kit, SMALL, 3) == samples_of_step(kit, SMALL, 3)
    assert samples_of_step(kit, SMALL, 3) != samples_of_step(kit, SMALL, 4)
    assert samples_of_step(kit, SMALL, 3) != samples_of_step(kit, replace(SMALL, seed=1), 3)


def test_batches_hold_every_sample_once_within_the_token_budget():
    samples = samples_of_step(Kit.build(), replace(SMALL, samples_per_step=60), 0)
    rows = []
    for ids_BT, alternatives_BTK, weights_BTK in batches(samples, 512, pad=0):
        assert ids_BT.shape == alternatives_BTK.shape[:2] == weights_BTK.shape[:2]
        assert ids_BT.numel() <= 512 or len(ids_BT) == 1
        rows += [[index for index in row if index] for row in ids_BT.tolist()]
    assert sorted(rows) == sorted(sample.ids for sample in samples)


def test_the_loss_weighs_every_alternative_of_a_token():
    network = small_network()
    with torch.no_grad():
        network.head.weight.normal_()
    ids_BT = torch.tensor([[1, 5, 6]])
    logprobs_V = network(ids_BT)[0, 0].log_softmax(dim=-1)
    alternatives_BTK, weights_BTK = torch.zeros(1, 3, 3, dtype=torch.long), torch.zeros(1, 3, 3)
    # Token 1 may be id 5 (a quarter) or id 9 (three quarters); token 2 is given.
    alternatives_BTK[0, 1, :2], weights_BTK[0, 1, :2] = torch.tensor([5, 9]), torch.tensor([0.25, 0.75])
    loss = weighted_loss(network, ids_BT, alternatives_BTK, weights_BTK)
    assert loss.item() == pytest.approx(-(0.25 * logprobs_V[5] + 0.75 * logprobs_V[9]).item(), rel=0.02)  # bfloat16


def test_one_large_batch_and_many_small_ones_give_the_same_update():
    samples = samples_of_step(Kit.build(), replace(SMALL, samples_per_step=16), 0)
    updated = []
    for tokens in (128, 100_000):
        config = replace(SMALL, tokens_per_batch=tokens, muon_lr=0.0, adamw_lr=1e-3)
        network = small_network()
        loss, _ = train_step(network, Optimizers(network, config), samples, config, 0)
        updated.append((loss, network.head.weight.detach().clone()))
    assert updated[0][0] == pytest.approx(updated[1][0], rel=1e-3)
    # The first AdamW step is nearly the sign of the gradient: entries agree but where bfloat16 flips a tiny gradient.
    assert ((updated[0][1] - updated[1][1]).abs() > 1e-5).float().mean() < 0.01


def test_a_checkpoint_restores_network_and_both_optimizers(tmp_path: Path):
    network, kit = small_network(), Kit.build()
    optimizers = Optimizers(network, SMALL)
    for step in range(2):
        train_step(network, optimizers, samples_of_step(kit, SMALL, step), SMALL, step)
    save_checkpoint(tmp_path, network, optimizers, 2, SMALL)
    again = small_network()
    others = Optimizers(again, SMALL)
    assert load_checkpoint(tmp_path, again, others, SMALL) == 2
    left, right = optimizers.tensors(), others.tensors()
    assert left.keys() == right.keys() and len(left) > 10
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_checkpoint_of_other_settings_is_refused_with_what_differs(tmp_path: Path):
    network = small_network()
    save_checkpoint(tmp_path, network, Optimizers(network, SMALL), 2, SMALL)
    with pytest.raises(TrainingError, match="muon_lr 0.02 there, 0.5 here"):
        load_checkpoint(tmp_path, network, Optimizers(network, SMALL), replace(SMALL, muon_lr=0.5))


def test_a_non_finite_loss_stops_before_the_update():
    network = small_network()
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    before = network.embed.weight.detach().clone()
    with pytest.raises(TrainingError, match="nothing was updated"):
        train_step(network, Optimizers(network, SMALL), samples_of_step(Kit.build(), SMALL, 0), SMALL, 0)
    assert torch.equal(network.embed.weight, before)


def test_a_run_killed_twice_ends_with_the_weights_of_one_that_was_not(tmp_path: Path):
    whole = run(replace(SMALL, out=tmp_path / "whole"))
    script = (
        "from pathlib import Path\n"
        "from unigap.train.pretrain import PretrainConfig, run\n"
        f"run(PretrainConfig(out=Path({str(tmp_path / 'cut')!r}), **{SETTINGS!r}))\n"
    )
    checkpoint = tmp_path / "cut" / CHECKPOINT
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    again = load_file(tmp_path / "cut" / "model" / "model.safetensors")
    for name, value in load_file(tmp_path / "whole" / "model" / "model.safetensors").items():
        assert torch.equal(value, again[name]), name
    card = json.loads((tmp_path / "cut" / "model" / "card.json").read_text())
    assert card["sha256"] == whole.sha256
